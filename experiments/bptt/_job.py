r"""The work whose memory and time are measured: one layer, one loss, three ways."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from experiments import lab
from seqref import GRU, LSTM, RNN
from seqref.recurrence import detach_state, scan

KINDS = {"rnn": RNN, "gru": GRU, "lstm": LSTM}


class Counted(nn.Module):
    """A layer that counts the steps it takes."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer, self.steps = layer, 0
        self.initial_state = layer.initial_state

    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The layer's own, counted."""
        self.steps += 1
        return self.layer.step(x_t, state)


class Job:
    """A layer, an input and targets; the loss of each chunk is computed in it.

    Args:
        size: A config with `batch_size`, `hidden_size` and `seeds`.
        kind: One of `KINDS`.
        time: Steps of the input.
        loop: Whether the layer runs step by step or in one call for each chunk.
    """

    def __init__(self, size: Any, kind: str, time: int, *, loop: bool = True) -> None:
        seed, width = size.seeds[0], size.hidden_size
        self.loop = loop
        with lab.seeded(seed):
            self.layer = Counted(KINDS[kind](width, width))
        shape = (size.batch_size, time, width)
        self.x = torch.randn(shape, generator=lab.generator(seed + 1000))
        self.target = torch.randn(shape, generator=lab.generator(seed + 2000))

    def outside(self) -> list[Tensor]:
        """What is in memory before the forward pass."""
        return [self.x, self.target, *self.layer.parameters()]

    def chunk(self, x: Tensor, target: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Sum of squared errors of one chunk, and the state after it."""
        if self.loop:
            y, state = scan(self.layer, x, state)
        else:
            y, state = self.layer.layer(x, state)
        return (y - target).square().sum(), state

    def pieces(self, size: int) -> list[tuple[Tensor, Tensor]]:
        """Inputs and targets of each chunk."""
        parts = self.x.split(size, 1), self.target.split(size, 1)
        return list(zip(*parts, strict=True))

    def gradients(self, loss: Tensor) -> list[Tensor]:
        """Of all parameters."""
        return list(torch.autograd.grad(loss, list(self.layer.parameters())))

    def full(self, _: int) -> list[Tensor]:
        """One forward, one backward pass over everything."""
        state = self.layer.initial_state(len(self.x))
        return self.gradients(self.chunk(self.x, self.target, state)[0])

    def truncated(self, size: int) -> list[Tensor]:
        """A backward pass after each chunk; the state goes on, its graph does not."""
        state = self.layer.initial_state(len(self.x))
        totals = [torch.zeros_like(p) for p in self.layer.parameters()]
        for x, target in self.pieces(size):
            loss, state = self.chunk(x, target, detach_state(state))
            for total, gradient in zip(totals, self.gradients(loss), strict=True):
                total += gradient
            del loss
        return totals

    def checkpointed(self, size: int) -> list[Tensor]:
        """One graph over all chunks; what a chunk computes inside is dropped."""
        state = self.layer.initial_state(len(self.x))
        losses = []
        for x, target in self.pieces(size):
            arguments: Any = checkpoint(
                self.chunk, x, target, state, use_reentrant=False
            )
            loss, state = arguments
            losses.append(loss)
        return self.gradients(torch.stack(losses).sum())
