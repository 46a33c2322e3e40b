r"""The work whose memory and time are measured: one layer, one loss, three ways."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from experiments.lab.seeding import generator, seeded
from seqref import GRU, LSTM, RNN
from seqref.recurrence import detach_state, scan
from seqref.recurrent.bptt import truncated_chunks

KINDS = {"rnn": RNN, "gru": GRU, "lstm": LSTM}


@runtime_checkable
class Size(Protocol):
    """The part of a config that a job needs."""

    @property
    def batch_size(self) -> int: ...

    @property
    def hidden_size(self) -> int: ...

    @property
    def seeds(self) -> tuple[int, ...]: ...


class Counted(nn.Module):
    """A layer that counts the steps it takes."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.steps = layer, 0

    def initial_state(self, batch_size: int) -> Any:
        """The layer's own."""
        initial: Any = self.layer.initial_state
        return initial(batch_size)

    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The layer's own, counted."""
        self.steps += 1
        step: Any = self.layer.step
        return step(x_t, state)


class Job:
    """A layer, an input and targets; the loss of each chunk is computed in it.

    With `loop` the layer runs step by step, without it in one call for each chunk.
    """

    def __init__(self, size: Size, kind: str, time: int, *, loop: bool = True) -> None:
        seed, width = size.seeds[0], size.hidden_size
        self.loop = loop
        with seeded(seed):
            self.layer = Counted(KINDS[kind](width, width))
        shape = (size.batch_size, time, width)
        self.x = torch.randn(shape, generator=generator(seed + 1000))
        self.target = torch.randn(shape, generator=generator(seed + 2000))

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
        pairs = zip(
            truncated_chunks(self.x, size),
            truncated_chunks(self.target, size),
            strict=True,
        )
        return [(x.x, target.x) for x, target in pairs]

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
