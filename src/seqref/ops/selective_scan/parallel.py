r"""Chunks of the sequence in memory that all of them use, with a backward by hand.

States are made where they are needed and never kept: the forward pass keeps those that
chunks start from, and the backward pass makes the others again from these.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqref.ops._by_hand import takes_operations, without_autocast
from seqref.ops.selective_scan import reference

# Numbers of one chunk: few enough to stay in the caches of a processor.
ELEMENTS = 2**18
# Numbers of one step from which on what calling an operation costs is hidden.
STEP = 2**13
# Of fewer steps than these there would be too many states that chunks start from.
SHORTEST = 16


class Sizes(NamedTuple):
    r"""Rows and steps of a chunk."""

    rows: int
    steps: int


class Chunk(NamedTuple):
    r"""Some rows of the batch, and some steps, and how many come before it."""

    before: int
    rows: slice
    steps: slice

    def of(self, v: Tensor) -> Tensor:
        r"""(batch, time, n) to (steps, rows, n)."""
        return v[self.rows, self.steps].transpose(0, 1)


def run(
    x: Float[Tensor, "batch time channels"],
    dt: Float[Tensor, "batch time channels"],
    A: Float[Tensor, "channels state"],
    B: Float[Tensor, "batch time state"],
    C: Float[Tensor, "batch time state"],
    h_0: Float[Tensor, "batch channels state"],
) -> tuple[Float[Tensor, "batch time channels"], Float[Tensor, "batch channels state"]]:
    r"""The scan without $D$, with its backward pass by hand.

    Shapes:
        - as `selective_scan`; nothing empty
    """
    return _Scan.apply(x, dt, A, B, C, h_0)  # pyright: ignore[reportReturnType]


def selective_scan_forward(
    x: Float[Tensor, "batch time channels"],
    dt: Float[Tensor, "batch time channels"],
    A: Float[Tensor, "channels state"],
    B: Float[Tensor, "batch time state"],
    C: Float[Tensor, "batch time state"],
    h_0: Float[Tensor, "batch channels state"],
) -> tuple[
    Float[Tensor, "batch time channels"],
    Float[Tensor, "batch channels state"],
    Float[Tensor, "chunks batch state channels"],
]:
    r"""Outputs, the last state, and the state that each chunk of steps starts from.

    Shapes:
        - as `selective_scan`; nothing empty
        - returns: `y`, `h_n` and the states at the starts of chunks, channels last
    """
    work = _Work(x, dt, A, B, C)
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    starts = work.new_states(-(-x.shape[1] // work.sizes.steps))
    h_n = work.new_states(1)[0]
    # Channels are the last axis in here: the longest, along which what does not depend
    # on the state is contiguous.
    h_n.copy_(h_0.mT)
    for chunk in work.chunks():
        starts[chunk.before, chunk.rows] = h_n[chunk.rows]
        _, h = work.states(chunk, h_n[chunk.rows])
        chunk.of(y).copy_(_weighted(chunk.of(C), h))
        h_n[chunk.rows] = h[-1]
    return y, h_n.mT.contiguous(), starts


def selective_scan_backward(
    x: Float[Tensor, "batch time channels"],
    dt: Float[Tensor, "batch time channels"],
    A: Float[Tensor, "channels state"],
    B: Float[Tensor, "batch time state"],
    C: Float[Tensor, "batch time state"],
    starts: Float[Tensor, "chunks batch state channels"],
    grad_y: Float[Tensor, "batch time channels"],
    grad_h_n: Float[Tensor, "batch channels state"],
) -> tuple[Tensor, ...]:
    r"""Gradients with respect to `x`, `dt`, `A`, `B`, `C` and `h_0`.

    $$ r_t = \bar y_t C_t^\top + \bar A_{t+1} \odot r_{t+1} \qquad
       s_t = r_t \odot \bar A_t \odot h_{t-1} $$

    with $\bar A_t = e^{\Delta_t A}$; every gradient is a sum of $r$ or of $s$.

    Shapes:
        - as `selective_scan_forward` takes and returns them
        - returns: the gradients, shaped as the inputs
    """
    work = _Work(x, dt, A, B, C)
    grads = [torch.empty_like(v) for v in (x, dt, B, C)]
    grad_A = torch.zeros_like(work.A)
    r_n = work.new_states(1)[0]
    r_n.copy_(grad_h_n.mT)
    for chunk in reversed(list(work.chunks())):
        start = starts[chunk.before, chunk.rows]
        a, h = work.states(chunk, start)
        y = chunk.of(grad_y)
        r = work.adjoint(chunk, a, y, r_n[chunk.rows])
        r_n[chunk.rows] = a[0] * r[0]
        x_t, dt_t = chunk.of(x), chunk.of(dt)
        grad_x, grad_dt, grad_B, grad_C = (chunk.of(grad) for grad in grads)
        grad_C.copy_(_read(h, y))
        grad_B.copy_(_read(r, dt_t * x_t))
        from_product = _weighted(chunk.of(B), r)
        torch.mul(from_product, dt_t, out=grad_x)
        # From here on `a` is s, and then s with the factors of a sum.
        a[1:] *= h[:-1]
        a[0] *= start
        a *= r
        torch.mul(a, work.A, out=r)
        torch.addcmul(r.sum(dim=2), from_product, x_t, out=grad_dt)
        a *= dt_t[:, :, None]
        grad_A += a.sum(dim=(0, 1))
    grad_x, grad_dt, grad_B, grad_C = grads
    return grad_x, grad_dt, grad_A.mT, grad_B, grad_C, r_n.mT


def sizes_of(batch: int, time: int, channels: int, state: int) -> Sizes:
    r"""How many rows and steps a chunk has."""
    row = channels * state
    rows = min(batch, max(1, STEP // row))
    return Sizes(rows, min(time, max(SHORTEST, ELEMENTS // (rows * row))))


class _Work:
    r"""The inputs, and the memory that all chunks use."""

    def __init__(self, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> None:
        self.x, self.dt, self.B, self.C = x, dt, B, C
        self.A = A.mT.contiguous()
        self.batch, self.time, channels = x.shape
        self.sizes = sizes_of(self.batch, self.time, channels, A.shape[1])
        self.numbers = self.sizes.rows * self.sizes.steps * A.numel()
        self.memory: dict[str, Tensor] = {}

    def new_states(self, count: int) -> Tensor:
        return self.A.new_empty(count, self.batch, *self.A.shape)

    def chunks(self) -> Iterator[Chunk]:
        rows, steps = self.sizes
        for row in range(0, self.batch, rows):
            for before, step in enumerate(range(0, self.time, steps)):
                last = min(row + rows, self.batch), min(step + steps, self.time)
                yield Chunk(before, slice(row, last[0]), slice(step, last[1]))

    def buffer(self, name: str, chunk: Chunk) -> Tensor:
        r"""Memory for (steps, rows, state, channels)."""
        if name not in self.memory:
            self.memory[name] = self.A.new_empty(self.numbers)
        steps, rows = chunk.of(self.x).shape[:2]
        shape = steps, rows, *self.A.shape
        return self.memory[name][: steps * rows * self.A.numel()].view(shape)

    def states(self, chunk: Chunk, h: Tensor) -> tuple[Tensor, Tensor]:
        r"""Decays and states of a chunk that starts from `h`."""
        decays, states = self.buffer("a", chunk), self.buffer("h", chunk)
        dt = chunk.of(self.dt)
        torch.mul(dt[:, :, None], self.A, out=decays).exp_()
        inputs = (dt * chunk.of(self.x))[:, :, None]
        torch.mul(chunk.of(self.B)[..., None], inputs, out=states)
        for a_t, h_t in zip(decays.unbind(0), states.unbind(0), strict=True):
            h = h_t.addcmul_(a_t, h)
        return decays, states

    def adjoint(self, chunk: Chunk, a: Tensor, grad_y: Tensor, r: Tensor) -> Tensor:
        r"""The gradients of a chunk's states; `r` reaches the last from later ones."""
        out = self.buffer("r", chunk)
        torch.mul(chunk.of(self.C)[..., None], grad_y[:, :, None], out=out)
        steps, decays = out.unbind(0), a.unbind(0)
        r = steps[-1].add_(r)
        for r_t, a_next in zip(steps[-2::-1], decays[:0:-1], strict=True):
            r = r_t.addcmul_(a_next, r)
        return out


def _weighted(weights: Tensor, h: Tensor) -> Tensor:
    r"""Sums over the state: (steps, rows, state) and `h` to (steps, rows, channels)."""
    with without_autocast(h):
        return (weights[:, :, None] @ h)[:, :, 0]


def _read(h: Tensor, weights: Tensor) -> Tensor:
    r"""Sums over channels: `h` and (steps, rows, channels) to (steps, rows, state)."""
    with without_autocast(h):
        return (h @ weights[..., None])[..., 0]


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        y, h_n, starts = selective_scan_forward(*inputs)
        ctx.save_for_backward(*inputs, starts)
        return y, h_n

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor | None, ...]:
        *inputs, starts = ctx.saved_tensors
        if takes_operations(upstream):
            return _by_autograd(inputs, upstream, ctx.needs_input_grad)
        x, dt, A, B, C, _ = inputs
        grads = selective_scan_backward(x, dt, A, B, C, starts, *upstream)
        return tuple(
            g if need else None
            for g, need in zip(grads, ctx.needs_input_grad, strict=True)
        )


def _by_autograd(
    inputs: list[Tensor], upstream: tuple[Any, ...], needed: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    r"""The gradients by autograd through the loop, so that they have gradients too."""
    with torch.enable_grad():
        # Aliases: an input that was computed from another one must not pass its
        # gradient on to that one in here.
        aliases = [x.view_as(x) for x in inputs]
        out = reference.run(*aliases)
        wanted = [alias for alias, need in zip(aliases, needed, strict=True) if need]
        grads = torch.autograd.grad(
            out, wanted, upstream, create_graph=True, materialize_grads=True
        )
    following = iter(grads)
    return tuple(next(following) if need else None for need in needed)
