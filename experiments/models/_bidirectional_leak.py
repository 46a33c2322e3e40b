r"""Models that predict tokens from both sides, and tokens that allow no guess."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from experiments.lab.seeding import generator, seeded
from seqref import LSTM, Bidirectional, Stacked

Tokens = Int[Tensor, "batch time"]
Draw = Callable[[int, torch.Generator], Tokens]
# A step of the chain adds one of these to the token, modulo the size of the vocabulary.
OFFSETS = (1, 3)
MASKED_SHARE = 0.15


@dataclass(frozen=True)
class Sizes:
    """Sizes of the data, of the models and of their training."""

    vocab: int
    time: int
    width: int
    batch_size: int
    updates: int
    every: int
    learning_rate: float
    curve_rows: int
    test_rows: int


def random_tokens(sizes: Sizes) -> Draw:
    """Independent tokens, uniform over the vocabulary."""

    def draw(rows: int, source: torch.Generator) -> Tokens:
        return torch.randint(sizes.vocab, (rows, sizes.time), generator=source)

    return draw


def chain_tokens(sizes: Sizes) -> Draw:
    """A chain: each token is the one before plus one of two offsets, equally likely."""

    def draw(rows: int, source: torch.Generator) -> Tokens:
        steps = torch.tensor(OFFSETS)
        chosen = torch.randint(len(steps), (rows, sizes.time), generator=source)
        moves = steps[chosen]
        moves[:, 0] = torch.randint(sizes.vocab, (rows,), generator=source)
        return moves.cumsum(1) % sizes.vocab

    return draw


def chain_bounds() -> dict[str, float]:
    r"""Entropy of a token of the chain, given the one before, and given both sides.

    The sum of two steps is known from both sides. If the two differ (probability one
    half) their order is not.
    """
    return {"past": math.log(2), "both": math.log(2) / 2}


class Model(nn.Module):
    """Embedding, layer, linear head; one more token, the last, stands for a mask."""

    def __init__(self, sizes: Sizes, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(sizes.vocab + 1, sizes.width)
        self.layer = layer
        self.head = nn.Linear(width, sizes.vocab)

    def features(self, tokens: Tokens) -> Float[Tensor, "batch time features"]:
        """The layer's outputs."""
        return self.layer(self.embedding(tokens))[0]


def one_way(sizes: Sizes) -> Model:
    """An LSTM."""
    return Model(sizes, LSTM(sizes.width, sizes.width), sizes.width)


def two_ways(sizes: Sizes) -> Model:
    """A bidirectional LSTM."""
    layer = Bidirectional(*(LSTM(sizes.width, sizes.width) for _ in range(2)))
    return Model(sizes, layer, 2 * sizes.width)


def mixed(sizes: Sizes) -> Model:
    """Two bidirectional LSTMs: each direction of the upper reads both of the lower."""
    layers = [
        Bidirectional(*(LSTM(size, sizes.width) for _ in range(2)))
        for size in (sizes.width, 2 * sizes.width)
    ]
    return Model(sizes, Stacked(layers), 2 * sizes.width)


def separate(sizes: Sizes) -> Model:
    """Two layers in each direction, which meet in the head alone."""
    sides = [
        Stacked([LSTM(sizes.width, sizes.width) for _ in range(2)]) for _ in range(2)
    ]
    return Model(sizes, Bidirectional(*sides), 2 * sizes.width)


# By row and position, or one mean.
Loss = Callable[[Model, Tokens, torch.Generator], Float[Tensor, "rows positions"]]


def _cross_entropy(logits: Tensor, targets: Tensor) -> Float[Tensor, "batch positions"]:
    return nn.functional.cross_entropy(
        logits.transpose(1, 2), targets, reduction="none"
    )


def next_token(
    model: Model, tokens: Tokens, source: torch.Generator
) -> Float[Tensor, "batch positions"]:
    """The usual training of a language model: the targets are the inputs, one ahead.

    The last target is none of the inputs.
    """
    return _cross_entropy(model.head(model.features(tokens[:, :-1])), tokens[:, 1:])


def from_neighbours(
    model: Model, tokens: Tokens, source: torch.Generator
) -> Float[Tensor, "batch positions"]:
    r"""Token t from the forward half at t - 1 and the backward half at t + 1.

    For one layer that leaves token t out.
    """
    ahead, behind = model.features(tokens).chunk(2, dim=-1)
    around = torch.cat([ahead[:, :-2], behind[:, 2:]], dim=-1)
    return _cross_entropy(model.head(around), tokens[:, 1:-1])


def masked(
    model: Model, tokens: Tokens, source: torch.Generator
) -> Float[Tensor, "1 1"]:
    """Hide some inputs; the mean loss of the hidden ones."""
    hidden = torch.rand(tokens.shape, generator=source) < MASKED_SHARE
    logits = model.head(model.features(_hide(model, tokens, hidden)))
    return _cross_entropy(logits, tokens)[hidden].mean().view(1, 1)


def one_masked(
    model: Model, tokens: Tokens, source: torch.Generator
) -> Float[Tensor, "batch positions"]:
    """Hide one input of each row, not at an end, and predict it: for testing."""
    rows, time = tokens.shape
    place = torch.randint(1, time - 1, (rows, 1), generator=source)
    hidden = torch.zeros_like(tokens, dtype=torch.bool).scatter(1, place, True)
    logits = model.head(model.features(_hide(model, tokens, hidden)))
    return _cross_entropy(logits, tokens).gather(1, place)


def _hide(model: Model, tokens: Tokens, hidden: Tensor) -> Tokens:
    return tokens.masked_fill(hidden, model.embedding.num_embeddings - 1)


def train(
    build: Callable[[Sizes], Model],
    draw: Draw,
    loss: Loss,
    test_loss: Loss,
    sizes: Sizes,
    seed: int,
) -> dict[str, list[float]]:
    r"""Train on fresh tokens; the loss on unseen ones.

    `curve` is on a few rows, every so many updates; `by_position` on many, at the end.
    """
    with seeded(seed):
        model = build(sizes)
    optimiser = torch.optim.Adam(model.parameters(), lr=sizes.learning_rate)
    source = generator(seed + 1000)
    few = draw(sizes.curve_rows, generator(seed + 2000))
    many = draw(sizes.test_rows, generator(seed + 4000))

    def test(unseen: Tokens) -> Tensor:
        with torch.no_grad():
            return test_loss(model, unseen, generator(seed + 3000)).mean(0)

    curve = [test(few).mean().item()]
    for update in range(1, sizes.updates + 1):
        value = loss(model, draw(sizes.batch_size, source), source).mean()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        if update % sizes.every == 0:
            curve.append(test(few).mean().item())
    return {"curve": curve, "by_position": test(many).tolist()}
