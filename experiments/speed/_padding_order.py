r"""In which order a packed batch gives its rows back, and what comes of a mistake."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from experiments import lab

INPUT, CLASSES = 6, 4
Packer = Callable[[Tensor, Tensor], PackedSequence]


def told(x: Tensor, lengths: Tensor) -> PackedSequence:
    """Rows in any order; torch is told so."""
    return pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)


def by_default(x: Tensor, lengths: Tensor) -> PackedSequence:
    """Rows in any order, with torch's default, which asks for sorted ones."""
    return pack_padded_sequence(x, lengths, batch_first=True)


def by_hand(x: Tensor, lengths: Tensor) -> PackedSequence:
    """Rows sorted by hand; nothing is put back."""
    order = lengths.argsort(descending=True, stable=True)
    return pack_padded_sequence(x[order], lengths[order], batch_first=True)


PACKERS: dict[str, Packer] = {
    "unsorted_told": told,
    "unsorted_default": by_default,
    "sorted_by_hand": by_hand,
}


def batch_of(
    rows: int, time: int, seed: int
) -> tuple[Float[Tensor, "rows time input"], Int[Tensor, " rows"]]:
    """Random rows in float64, padded with random numbers, no two alike."""
    random = lab.generator(seed)
    x = torch.randn(rows, time, INPUT, generator=random, dtype=torch.float64)
    lengths = torch.randint(1, time + 1, (rows,), generator=random)
    return x, lengths


@torch.no_grad()
def places(packer: Packer, seed: int, rows: int = 64, time: int = 12) -> dict[str, Any]:
    """Whether torch refuses, and the share of rows that come back at their place."""
    with lab.seeded(seed):
        layer = nn.LSTM(INPUT, 8, batch_first=True, dtype=torch.float64)
    x, lengths = batch_of(rows, time, seed)
    alone = [layer(x[i : i + 1, : lengths[i]])[1][0][0, 0] for i in range(rows)]
    try:
        packed = packer(x, lengths)
    except RuntimeError:
        return {"refused": 1, "at_their_place": 0.0}
    _, (h_n, _) = layer(packed)
    error = (h_n[0] - torch.stack(alone)).abs().amax(1)
    return {"refused": 0, "at_their_place": (error < 1e-10).double().mean().item()}


def draw(
    rows: int, random: torch.Generator
) -> tuple[Float[Tensor, "rows time classes"], Int[Tensor, " rows"], Tensor]:
    """Rows of 1 to 8 random letters; the label is the letter at the first step."""
    letters = torch.randint(CLASSES, (rows, 8), generator=random)
    lengths = torch.randint(1, 9, (rows,), generator=random)
    return nn.functional.one_hot(letters, CLASSES).float(), lengths, letters[:, 0]


def accuracy(packer: Packer, updates: int, seed: int) -> float:
    """Trained with rows in this packer's order, tested with rows in their own.

    The classifier is an LSTM with a head on its final hidden state.
    """
    random = lab.generator(seed)
    with lab.seeded(seed):
        lstm, head = nn.LSTM(CLASSES, 16, batch_first=True), nn.Linear(16, CLASSES)
    optimiser = torch.optim.Adam([*lstm.parameters(), *head.parameters()], lr=0.02)
    for _ in range(updates):
        x, lengths, labels = draw(32, random)
        scores = head(lstm(packer(x, lengths))[1][0][0])
        lab.descend(optimiser, cross_entropy(scores, labels))
    x, lengths, labels = draw(1000, random)
    with torch.no_grad():
        answers = head(lstm(told(x, lengths))[1][0][0]).argmax(1)
    return (answers == labels).double().mean().item()


@torch.no_grad()
def readings(
    layers: int, seed: int, rows: int = 32, time: int = 12
) -> dict[str, float]:
    r"""A bidirectional LSTM's summary of a row, beside that of the row alone.

    The largest error of an element, by what was read: the two last entries of `h_n` of
    a packed batch, the same of a batch that was not packed, the two first entries.
    """
    with lab.seeded(seed):
        layer = nn.LSTM(
            INPUT,
            8,
            layers,
            batch_first=True,
            bidirectional=True,
            dtype=torch.float64,
        )
    x, lengths = batch_of(rows, time, seed)

    def summary(h_n: Tensor, first: int) -> Tensor:
        return torch.cat([h_n[first], h_n[first + 1]], dim=-1)

    alone = torch.cat(
        [summary(layer(x[i : i + 1, : lengths[i]])[1][0], -2) for i in range(rows)]
    )
    packed, padded = layer(told(x, lengths))[1][0], layer(x)[1][0]
    states = {
        "packed": summary(packed, -2),
        "not_packed": summary(padded, -2),
        "first_entries": summary(packed, 0),
    }
    return {way: (h - alone).abs().max().item() for way, h in states.items()}
