r"""Models that predict tokens from both sides, and tokens that allow no guess."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from experiments import lab
from seqref import LSTM, Bidirectional, Stacked
from seqref.recurrence import output_width

Tokens = Int[Tensor, "batch time"]
Losses = Float[Tensor, "rows positions"]
Random = torch.Generator
# A step of the chain adds one of these to the token, modulo the size of the vocabulary.
OFFSETS = (1, 3)
MASKED_SHARE = 0.15


def random_tokens(config: Any, rows: int, source: Random) -> Tokens:
    """Independent tokens, uniform over the vocabulary."""
    return torch.randint(config.vocab, (rows, config.time), generator=source)


def chain_tokens(config: Any, rows: int, source: Random) -> Tokens:
    """A chain: each token is the one before plus one of two offsets, equally likely."""
    chosen = torch.randint(len(OFFSETS), (rows, config.time), generator=source)
    moves = torch.tensor(OFFSETS)[chosen]
    moves[:, 0] = torch.randint(config.vocab, (rows,), generator=source)
    return moves.cumsum(1) % config.vocab


def chain_bounds() -> dict[str, float]:
    r"""Entropy of a token of the chain, given the one before, and given both sides.

    The sum of two steps is known from both sides. If the two differ (probability one
    half) their order is not.
    """
    return {"past": math.log(2), "both": math.log(2) / 2}


def one_way(width: int) -> LSTM:
    """An LSTM."""
    return LSTM(width, width)


def two_ways(width: int, inputs: int | None = None) -> Bidirectional:
    """A bidirectional LSTM."""
    return Bidirectional(*(LSTM(inputs or width, width) for _ in range(2)))


def mixed(width: int) -> Stacked:
    """Two bidirectional LSTMs: each direction of the upper reads both of the lower."""
    return Stacked([two_ways(width), two_ways(width, 2 * width)])


def separate(width: int) -> Bidirectional:
    """Two layers in each direction, which meet in the head alone."""
    sides = (Stacked([one_way(width), one_way(width)]) for _ in range(2))
    return Bidirectional(*sides)


class Model(nn.Module):
    """Embedding, layer, linear head; one more token, the last, stands for a mask."""

    def __init__(self, layer: nn.Module, vocab: int, width: int) -> None:
        super().__init__()
        self.layer = layer
        self.embedding = nn.Embedding(vocab + 1, width)
        self.head = nn.Linear(output_width(layer) or width, vocab)

    def features(self, tokens: Tokens) -> Float[Tensor, "batch time features"]:
        """The layer's outputs."""
        return self.layer(self.embedding(tokens))[0]

    def hiding(self, tokens: Tokens, hidden: Tensor) -> Float[Tensor, "batch time"]:
        """The loss of every token, predicted with some of the inputs masked."""
        shown = tokens.masked_fill(hidden, self.embedding.num_embeddings - 1)
        return cross_entropy(self.head(self.features(shown)), tokens)


def cross_entropy(logits: Tensor, targets: Tensor) -> Losses:
    """In nats, of every target."""
    return nn.functional.cross_entropy(
        logits.transpose(1, 2), targets, reduction="none"
    )


def next_token(model: Model, tokens: Tokens, source: Random) -> Losses:
    """The usual training of a language model: the targets are the inputs, one ahead.

    The last target is none of the inputs.
    """
    return cross_entropy(model.head(model.features(tokens[:, :-1])), tokens[:, 1:])


def from_neighbours(model: Model, tokens: Tokens, source: Random) -> Losses:
    r"""Token t from the forward half at t - 1 and the backward half at t + 1.

    For one layer that leaves token t out.
    """
    ahead, behind = model.features(tokens).chunk(2, dim=-1)
    around = torch.cat([ahead[:, :-2], behind[:, 2:]], dim=-1)
    return cross_entropy(model.head(around), tokens[:, 1:-1])


def masked(model: Model, tokens: Tokens, source: Random) -> Losses:
    """Hide some inputs; the mean loss of the hidden ones, as one row."""
    hidden = torch.rand(tokens.shape, generator=source) < MASKED_SHARE
    return model.hiding(tokens, hidden)[hidden].mean().view(1, 1)


def one_masked(model: Model, tokens: Tokens, source: Random) -> Losses:
    """Hide one input of each row, not at an end, and predict it: for testing."""
    rows, time = tokens.shape
    place = torch.randint(1, time - 1, (rows, 1), generator=source)
    hidden = torch.zeros_like(tokens, dtype=torch.bool).scatter(1, place, True)
    return model.hiding(tokens, hidden).gather(1, place)


def train(
    config: Any,
    seed: int,
    make: Callable[[int], nn.Module],
    draw: Callable[[Any, int, Random], Tokens],
    losses: tuple[Callable[[Model, Tokens, Random], Losses], ...],
) -> dict[str, list[float]]:
    r"""Train on fresh tokens by the first of `losses`; the second on unseen ones.

    `curve` is on a few rows, every so many updates; `by_position` on many, at the end.
    """
    loss, test_loss = losses
    with lab.seeded(seed):
        model = Model(make(config.width), config.vocab, config.width)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    source = lab.generator(seed + 1000)
    few = draw(config, config.curve_rows, lab.generator(seed + 2000))
    many = draw(config, config.test_rows, lab.generator(seed + 4000))

    @torch.no_grad()
    def test(unseen: Tokens) -> Tensor:
        return test_loss(model, unseen, lab.generator(seed + 3000)).mean(0)

    curve = [test(few).mean().item()]
    for update in range(1, config.updates + 1):
        tokens = draw(config, config.batch_size, source)
        lab.descend(optimizer, loss(model, tokens, source).mean())
        if update % config.every == 0:
            curve.append(test(few).mean().item())
    return {"curve": curve, "by_position": test(many).tolist()}
