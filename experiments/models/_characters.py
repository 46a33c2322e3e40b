r"""Character models of Python's standard library, built and trained alike."""

from collections.abc import Callable
from typing import Any

import torch

from experiments import lab
from seqref import LSTM
from seqref.models import LanguageModel
from seqref.tasks import Corpus, Streams, Vocabulary, python_source
from seqref.training import train


def corpus_of(config: Any) -> tuple[Corpus, str, Vocabulary]:
    """The corpus, the text that is learnt from, and its frequent characters."""
    corpus = python_source()
    text = corpus.train[: config.train_characters]
    return corpus, text, Vocabulary.from_text(text, config.min_count)


def build(
    config: Any, vocabulary: Vocabulary, seed: int, wrap: Callable | None = None
) -> LanguageModel:
    """A language model as it is initialised; `wrap` may change its layer."""
    with lab.seeded(seed):
        layer = LSTM(config.embedding_size, config.hidden_size)
        return LanguageModel(len(vocabulary), wrap(layer) if wrap else layer)


def fit(
    config: Any,
    model: LanguageModel,
    streams: Streams,
    steps: int,
    max_norm: float = 1.0,
    on_step: Callable | None = None,
) -> None:
    """Truncated BPTT with Adam, its rate falling along a cosine to a tenth."""
    rate = config.learning_rate
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=steps, eta_min=rate / 10
    )
    train(
        model,
        streams,
        optimizer,
        steps,
        max_norm=max_norm,
        scheduler=scheduler,
        on_step=on_step,
    )
