r"""What `seqref train-lm` says in the end: the model beside n-grams, and a sample."""

import math
import sys

import torch

from seqref.models import LanguageModel
from seqref.tasks import Corpus, NGram, Streams, Vocabulary
from seqref.training.truncated import evaluate

SAMPLE_LENGTH = 300
# Long enough that a row's start from an empty state hardly counts.
HELDOUT_ROW = 4096


def report(
    model: LanguageModel,
    vocabulary: Vocabulary,
    corpus: Corpus,
    rows: int,
    seed: int,
    characters: int,
) -> None:
    r"""Print bits per character of model and n-grams on the same text, and a sample."""
    heldout = vocabulary.encode(corpus.heldout)
    rows = min(rows, 1 + len(heldout) // HELDOUT_ROW)
    streams = Streams(heldout, rows, HELDOUT_ROW)
    bits = evaluate(model, streams) / math.log(2)
    print(f"bits per character on {streams.predicted:,} held-out characters:")
    for order in orders(len(vocabulary)):
        train, tune = vocabulary.encode(corpus.train), vocabulary.encode(corpus.tune)
        ngram = NGram(train, tune, order, len(vocabulary))
        # The same characters: those that the streams predict.
        value = ngram.bits_per_character(heldout[: streams.predicted + 1])
        print(f"  {_name(order):<8} {value:.3f}")
    print(f"  {'LSTM':<8} {bits:.3f}   after {characters:,} characters")
    generator = torch.Generator().manual_seed(seed)
    sample = model.sample(
        heldout[None, :32], SAMPLE_LENGTH, temperature=0.8, generator=generator
    )
    print("a sample at temperature 0.8:")
    say(vocabulary.decode(sample[0]))


def say(text: str) -> None:
    r"""Print what the terminal's encoding has; `?` for every other character."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))


def orders(vocab_size: int) -> list[int]:
    r"""1, 2 and 5, or the longest that fits where the vocabulary is huge."""
    longest = max(n for n in range(1, 6) if vocab_size**n < 2**63)
    return sorted({1, 2, longest})


def _name(order: int) -> str:
    return {1: "unigram", 2: "bigram"}.get(order, f"{order}-gram")
