r"""Language models of equal size: how one is built, counted, trained and measured.

All kinds read the same embedding width, have the same number of layers, and see the
same windows in the same order. The parameters that are made equal are those of the
layers, without embedding and head.
"""

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor, nn

from experiments import lab
from seqref import GRU, LSTM, RNN, MultiHeadAttention, Rotary, Stacked
from seqref.models import FeedForward, LanguageModel, PreNormBlock, Transformer
from seqref.tasks import Chunk, Vocabulary, python_source
from seqref.training import chunk_loss, fit

RECURRENT = {"rnn": RNN, "gru": GRU, "lstm": LSTM}
KINDS = (*RECURRENT, "transformer")
# How far a kind's parameters may lie from the transformer's.
TOLERANCE = 0.02
ROWS = 64


@dataclass(frozen=True)
class Training:
    """Size of the models and of their text, and how they learn."""

    d_model: int = 64
    n_heads: int = 2
    n_layers: int = 2
    context: int = 256
    batch_size: int = 8
    updates: int = 1500
    warmup: float = 0.05
    max_norm: float = 1.0
    min_count: int = 20
    windows: int = 300
    # The contexts of one measurement are emptied every so many characters.
    cut: int = 64


class Text(NamedTuple):
    """The three parts of the corpus as indices, and the size of the vocabulary."""

    train: Int[Tensor, " train"]
    tune: Int[Tensor, " tune"]
    heldout: Int[Tensor, " heldout"]
    vocab_size: int
    about: dict[str, Any]


def read_text(training: Training) -> Text:
    """The source of the standard library; characters that are rare become one."""
    corpus = python_source()
    vocabulary = Vocabulary.from_text(corpus.train, training.min_count)
    train, tune, heldout = (
        vocabulary.encode(part) for part in (corpus.train, corpus.tune, corpus.heldout)
    )
    return Text(train, tune, heldout, len(vocabulary), corpus.describe())


def transformer(training: Training) -> Transformer:
    """Pre-norm blocks with rotary positions, networks four times as wide."""
    width, heads = training.d_model, training.n_heads
    blocks = [
        PreNormBlock(
            MultiHeadAttention(width, heads, positions=Rotary(width // heads)),
            FeedForward(width, 4 * width),
        )
        for _ in range(training.n_layers)
    ]
    return Transformer(blocks, last_norm=nn.LayerNorm(width))


def recurrent(training: Training, kind: str, width: int) -> Stacked:
    """Layers of this width on top of each other, over the embedding."""
    cls, below = RECURRENT[kind], training.d_model
    layers = []
    for _ in range(training.n_layers):
        layers.append(cls(below, width))
        below = width
    return Stacked(layers)


def layers_of(training: Training, kind: str) -> nn.Module:
    r"""What stands between embedding and head, with as many parameters in each kind.

    The width of a recurrent kind is that whose number is nearest to the transformer's.

    Raises:
        ValueError: No width comes near enough.
    """
    if kind == "transformer":
        return transformer(training)
    return recurrent(training, kind, width_of(training, kind))


@cache
def width_of(training: Training, kind: str) -> int:
    r"""The width of a recurrent kind that has nearly as many parameters.

    Raises:
        ValueError: No width comes near enough.
    """

    def count(width: int) -> int:
        return lab.parameter_count(recurrent(training, kind, width))

    with torch.device("meta"):
        wanted = lab.parameter_count(transformer(training))
        # The number grows with the width.
        above = bisect_left(range(8 * training.d_model), wanted, lo=1, key=count)
        sizes = {width: count(width) for width in (above - 1, above) if width}
    width = min(sizes, key=lambda width: abs(sizes[width] - wanted))
    check_equal(wanted, sizes[width], kind)
    return width


def check_equal(wanted: int, count: int, kind: str) -> None:
    r"""Raise unless two numbers of parameters are equal to `TOLERANCE`.

    Raises:
        ValueError: They are not.
    """
    if abs(count / wanted - 1) > TOLERANCE:
        raise ValueError(
            f"layers_of: the layers of `{kind}` must have {wanted} parameters to "
            f"{TOLERANCE:.0%}, got {count}"
        )


def build(training: Training, kind: str, vocab_size: int, seed: int) -> LanguageModel:
    """A model as it is initialised."""
    with lab.seeded(seed):
        return LanguageModel(vocab_size, layers_of(training, kind))


class Size(NamedTuple):
    """Parameters of a model, and its multiply-adds for a character of a window."""

    width: int
    layers: int
    embedding: int
    head: int
    multiply_adds: float


def size_of(training: Training, kind: str, vocab_size: int) -> Size:
    r"""Parameters, and the multiply-adds of a forward pass for each character.

    A matrix of weights takes one for each entry, the head's too; attention takes two
    for each number of a key that the mask leaves, on average over the window. Biases,
    norms, softmax and gates are not counted, nor is the backward pass, which takes
    twice as many for each kind.
    """
    with torch.device("meta"):
        model = LanguageModel(vocab_size, layers_of(training, kind))
    matrices = sum(p.numel() for p in model.layer.parameters() if p.dim() == 2)
    pairs = 0.0
    if kind == "transformer":
        pairs = training.n_layers * training.d_model * (training.context + 1)
    return Size(
        width=model.head.in_features,
        layers=lab.parameter_count(model.layer),
        embedding=lab.parameter_count(model.embedding),
        head=lab.parameter_count(model.head),
        multiply_adds=matrices + model.head.weight.numel() + pairs,
    )


def rate_at(update: int, *, highest: float, updates: int, warmup: float) -> float:
    """A straight line to the highest rate, then a cosine to a tenth of it."""
    rising = max(1, round(warmup * updates))
    if update < rising:
        return highest * (update + 1) / rising
    done = (update - rising) / max(1, updates - rising)
    return highest * (0.55 + 0.45 * math.cos(math.pi * done))


def window_loss(
    model: LanguageModel, window: Chunk, state: None
) -> tuple[Tensor, None]:
    """Cross-entropy of windows that start from nothing."""
    loss, _ = chunk_loss(model, window.inputs, window.targets)
    return loss, None


def drawn_windows(training: Training, updates: int, seed: int, text: Text) -> list:
    """Batches of windows from anywhere in the training part, the same for all kinds."""
    size = updates, training.batch_size, 1
    last, random = len(text.train) - training.context - 1, lab.generator(seed + 1000)
    starts = torch.randint(last + 1, size, generator=random)
    places = starts + torch.arange(training.context + 1)
    return [Chunk(text.train[at[:, :-1]], text.train[at[:, 1:]]) for at in places]


def trained(
    training: Training, kind: str, rate: float, share: float, seed: int, text: Text
) -> LanguageModel:
    r"""A model after its training.

    Args:
        training: The sizes.
        kind: One of `KINDS`.
        rate: The highest learning rate.
        share: Of `training.updates`, how many are made.
        seed: Of the weights, and of the windows.
        text: The corpus.
    """
    updates = round(share * training.updates)
    model = build(training, kind, text.vocab_size, seed)
    fit(
        *(model, drawn_windows(training, updates, seed, text)),
        torch.optim.Adam(model.parameters(), lr=rate),
        *(updates, window_loss),
        max_norm=training.max_norm,
        scheduler=partial(
            rate_at, highest=rate, updates=updates, warmup=training.warmup
        ),
    )
    return model.eval()


def cut_out(text: Tensor, training: Training) -> Tensor:
    """Windows from the whole of a text, each with the window before it and a target."""
    length = 2 * training.context + 1
    last = len(text) - length
    starts = torch.linspace(0, last, training.windows).long()
    return text[starts[:, None] + torch.arange(length)]


Read = Callable[[LanguageModel, Tensor], Tensor]


def from_nothing(model: LanguageModel, tokens: Tensor, every: int) -> Tensor:
    """Scores over the second halves, which are read afresh every so many characters."""
    second = tokens[:, tokens.shape[1] // 2 :]
    parts = [model(part)[0] for part in second.split(every, dim=1)]
    return torch.cat(parts, dim=1)


def from_before(model: LanguageModel, tokens: Tensor) -> Tensor:
    """Scores over the second halves, after the first."""
    return model(tokens)[0][:, tokens.shape[1] // 2 :]


def bands(context: int) -> list[int]:
    """The first place of each band of places: 0, 1, 2, 4, and so on to the context."""
    return [0, *(2**i for i in range((context - 1).bit_length()))]


@torch.no_grad()
def bits(model: LanguageModel, windows: Tensor, read: Read) -> Tensor:
    """Bits of each character of each window, (windows, places)."""
    rows = []
    for part in windows.split(ROWS):
        logits = read(model, part[:, :-1])
        targets = part[:, -logits.shape[1] :]
        nats = nn.functional.cross_entropy(logits.mT, targets, reduction="none")
        rows.append(nats / math.log(2))
    return torch.cat(rows)


def by_band(found: Tensor) -> list[list[float]]:
    """The mean of each window over each band of its places."""
    edges = [*bands(found.shape[1]), found.shape[1]]
    spans = [after - before for before, after in pairwise(edges)]
    means = [band.mean(dim=1) for band in found.split(spans, dim=1)]
    return torch.stack(means, dim=1).tolist()


def far_places(training: Training) -> Tensor:
    """Places behind the first cut that have half of a cut context or more."""
    places = torch.arange(training.context)
    settled = places % training.cut >= training.cut // 2
    return settled & (places >= training.cut)


def tuned(
    training: Training, kind: str, rate: float, share: float, seed: int, text: Text
) -> dict[str, Any]:
    """Bits on the part for tuning, of each window."""
    model = trained(training, kind, rate, share, seed, text)
    read = partial(from_nothing, every=training.context)
    return {"bits": bits(model, cut_out(text.tune, training), read).mean(1).tolist()}


def measured(
    training: Training, kind: str, rate: float, share: float, seed: int, text: Text
) -> dict[str, Any]:
    r"""What a trained model needs on windows of the held-out part, for each window.

    `bits` by bands of places, read from nothing; `far`, what the characters beyond the
    cut are worth, over the same places with and without them; `carried`, the bits
    after the window before, for what has a state of one size.
    """
    model = trained(training, kind, rate, share, seed, text)
    windows = cut_out(text.heldout, training)
    whole, cut = (
        bits(model, windows, partial(from_nothing, every=every))
        for every in (training.context, training.cut)
    )
    result = {
        "bits": by_band(whole),
        "far": (cut - whole)[:, far_places(training)].mean(dim=1).tolist(),
    }
    if kind != "transformer":
        result["carried"] = bits(model, windows, from_before).mean(dim=1).tolist()
    return result
