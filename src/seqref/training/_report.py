r"""What `seqref train-lm` says in the end: the model beside n-grams, and a sample."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seqref.models import LanguageModel
from seqref.tasks import Corpus, NGram, Streams, Vocabulary
from seqref.training._bar import Bar
from seqref.training._output import say, shown
from seqref.training.truncated import evaluate

SAMPLE_LENGTH = 300
# Long enough that a row's start from an empty state hardly counts.
HELDOUT_ROW = 4096
# Where each part is: attention over so many steps.
FRESH_ROW = 1024
# Scores that are held at once: 32 MiB in float32, whatever the vocabulary.
SCORES = 2**23
# Parts of the text: one held out, one to tune the n-grams, eight to count.
COUNTED = 8
FORMAT = "report/1"


@dataclass(frozen=True)
class Report:
    r"""What was measured, on how much of the text."""

    measured: int
    heldout: int
    counted: int
    train: int
    ngrams: dict[str, float]
    bits: float
    sample: str


def report(
    model: LanguageModel,
    vocabulary: Vocabulary,
    corpus: Corpus,
    rows: int,
    seed: int,
    limit: int,
    carry: bool = True,
) -> Report:
    r"""Bits per character of model and n-grams on the same text, and a sample.

    At most `limit` characters are measured, with as many to tune the n-grams and eight
    times as many before those to count: a text of ten times `limit` is used whole.
    Without `carry` each part of the text is read from a fresh state.
    """
    heldout = vocabulary.encode(corpus.heldout[:limit])
    counted = corpus.train[-COUNTED * limit :]
    rows = min(rows, 1 + len(heldout) // HELDOUT_ROW)
    length = chunk_length(rows, len(vocabulary))
    streams = Streams(heldout, rows, length if carry else min(length, FRESH_ROW))
    order = orders(len(vocabulary))
    with Bar(len(streams) + len(order), 0, "part") as bar:
        watched = _watched(streams, bar, type(model.layer).__name__)
        bits = evaluate(model, watched, carry=carry) / math.log(2)
        ngrams = NGram.of_orders(
            vocabulary.encode(counted),
            vocabulary.encode(corpus.tune[:limit]),
            order,
            len(vocabulary),
        )
        # The same characters: those that the streams predict.
        same, values = heldout[: streams.predicted + 1], {}
        for ngram in ngrams:
            name = _name(ngram.order)
            values[name] = ngram.bits_per_character(same)
            bar.update(1, lambda name=name: name)
    sample = _sampled(model, heldout, seed)
    return Report(
        streams.predicted,
        len(corpus.heldout) - 1,
        len(counted),
        len(corpus.train),
        values,
        bits,
        vocabulary.decode(sample[0]),
    )


def _sampled(model: LanguageModel, heldout: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    prompt, options = heldout[None, :32], {"temperature": 0.8, "generator": generator}
    return model.sample(prompt, SAMPLE_LENGTH, **options)


def show(result: Report, layer: str, characters: int) -> None:
    r"""Print a report on a model that was trained on so many characters."""
    if result.counted < result.train:
        say(
            f"bits per character on the first {result.measured:,} of "
            f"{result.heldout:,} held-out characters (--report-characters); the "
            f"n-grams count the last {result.counted:,} of {result.train:,}:"
        )
    else:
        say(f"bits per character on {result.measured:,} held-out characters:")
    for name, value in result.ngrams.items():
        say(f"  {name:<8} {value:.3f}")
    say(f"  {layer:<8} {result.bits:.3f}   after {characters:,} characters")
    say("a sample at temperature 0.8:")
    say(shown(result.sample))


def chunk_length(rows: int, vocab_size: int) -> int:
    r"""Steps that are read at once: `SCORES` bounds the memory of their scores."""
    return max(1, min(HELDOUT_ROW, SCORES // (rows * vocab_size)))


def orders(vocab_size: int) -> list[int]:
    r"""1, 2 and 5, or the longest that fits where the vocabulary is huge."""
    longest = max(n for n in range(1, 6) if vocab_size**n < 2**63)
    return sorted({1, 2, longest})


def _watched(streams: Streams, bar: Bar, layer: str) -> Iterator[Any]:
    for chunk in streams:
        yield chunk
        bar.update(1, lambda: layer)


def _name(order: int) -> str:
    return {1: "unigram", 2: "bigram"}.get(order, f"{order}-gram")
