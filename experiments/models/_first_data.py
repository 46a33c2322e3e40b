r"""The text of the comparison, as every model sees it, and the control's network."""

import math
from dataclasses import dataclass
from typing import Any

from jaxtyping import Int
from torch import Tensor, nn

from experiments.models._characters import corpus_of
from seqref import LSTM, LSTMState
from seqref.models import LanguageModel
from seqref.tasks import Corpus, NGram, Streams, Vocabulary
from seqref.training import evaluate


@dataclass(frozen=True)
class Data:
    """The corpus as indices, and the streams that the LSTM reads."""

    corpus: Corpus
    vocabulary: Vocabulary
    train: Int[Tensor, " train"]
    tune: Int[Tensor, " tune"]
    heldout: Int[Tensor, " heldout"]
    streams: Streams

    def read_by(self, steps: int) -> Int[Tensor, " time"]:
        """The training text that the LSTM has read after `steps` chunks."""
        columns = min(steps * self.streams.horizon, self.streams.row_length)
        # Joining the rows makes a few n-grams that the text does not have: fewer than
        # n a row.
        return self.streams.inputs[:, :columns].flatten()

    def evaluation(self, horizon: int = 512) -> Streams:
        """Held-out text in 64 rows, which start from an empty state."""
        return Streams(self.heldout, 64, horizon)

    def bits(self, model: LanguageModel) -> float:
        """Bits per character over all targets of the held-out text."""
        return evaluate(model, self.evaluation()) / math.log(2)

    def bits_reset(self, model: LanguageModel, every: int) -> float:
        """The same where the state is emptied every so many characters."""
        return evaluate(model, self.evaluation(every), carry=False) / math.log(2)

    def ngram_bits(self, text: Int[Tensor, " time"], order: int) -> float:
        """Bits of an n-gram counted on `text`, over what `evaluation` predicts."""
        model = NGram(text, self.tune, order, len(self.vocabulary))
        predicted = self.evaluation().predicted
        return model.bits_per_character(self.heldout[: predicted + 1])


def prepare(config: Any) -> Data:
    """Read the standard library, choose the vocabulary, encode the three parts."""
    corpus, text, vocabulary = corpus_of(config)
    tokens = vocabulary.encode(text)
    return Data(
        corpus,
        vocabulary,
        tokens,
        vocabulary.encode(corpus.tune[: config.heldout_characters]),
        vocabulary.encode(corpus.heldout[: config.heldout_characters]),
        Streams(tokens, config.batch_size, config.horizon),
    )


class Forgetful(nn.Module):
    r"""An LSTM whose state is emptied before every step: the control without memory."""

    def __init__(self, layer: LSTM):
        super().__init__()
        self.layer = layer
        self.input_size, self.hidden_size = layer.input_size, layer.hidden_size

    def initial_state(self, batch_size: int) -> LSTMState:
        return self.layer.initial_state(batch_size)

    def step(self, x_t: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        y_t, _ = self.layer.step(x_t, self.initial_state(len(x_t)))
        return y_t, state

    def forward(
        self, x: Tensor, state: LSTMState | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, LSTMState]:
        if lengths is not None:
            raise ValueError("Forgetful.forward: `lengths` must be None")
        batch, time, _ = x.shape
        y, _ = self.layer(x.reshape(batch * time, 1, -1))
        y = y.reshape(batch, time, -1)
        return y, self.initial_state(batch) if state is None else state
