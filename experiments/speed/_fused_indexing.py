"""The loop that indexes its input, `x[:, t]`, beside the loop that unbinds it once."""

import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from experiments.lab.seeding import generator
from experiments.speed._fused_timing import seconds
from seqref.ops.fused_recurrence.reference import rnn_step

BATCH, WIDTH, HIDDEN = 8, 256, 8


def indexed(x: Tensor) -> list[Tensor]:
    """The steps of `x`, each by an index of its own."""
    return [x[:, t] for t in range(x.shape[1])]


def unbound(x: Tensor) -> list[Tensor]:
    """The steps of `x`, all by one operation."""
    return list(x.unbind(1))


def training_step(cut: Callable[[Tensor], list[Tensor]], steps: int) -> None:
    """Forward and backward of a plain RNN in a Python loop over the steps of `x`."""
    random = generator(0)
    x = torch.randn(BATCH, steps, WIDTH, generator=random).requires_grad_()
    weight_ih = torch.randn(HIDDEN, WIDTH, generator=random) / WIDTH**0.5
    weight_hh = torch.randn(HIDDEN, HIDDEN, generator=random) / HIDDEN**0.5
    h_t = torch.zeros(BATCH, HIDDEN)
    for x_t in cut(x):
        h_t = rnn_step(x_t, h_t, (weight_ih, weight_hh, None, None))
    h_t.sum().backward()


def growth(steps: tuple[int, ...], rounds: int) -> list[dict[str, float]]:
    """Time by length over that of `unbound` at the shortest: median of the rounds."""
    took: dict[tuple[str, int], list[float]] = {}
    for repetition in range(rounds + 1):
        for length in steps:
            for cut in (indexed, unbound):
                spent = seconds(partial(training_step, cut, length), "cpu")
                if repetition:
                    took.setdefault((cut.__name__, length), []).append(spent)
    middle = {key: statistics.median(values) for key, values in took.items()}
    unit = middle["unbound", steps[0]]
    return [
        {
            "steps": length,
            "indexed": middle["indexed", length] / unit,
            "unbound": middle["unbound", length] / unit,
        }
        for length in steps
    ]
