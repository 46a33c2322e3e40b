r"""One kernel for each direction: tiles of time one after another, a tree inside each.

A program takes a block of features of one row. It reads a tile of decays and inputs,
composes its steps by an associative scan, and goes on from the last state; so each
number is read once and written once. Products of decays are taken in double precision,
as in `parallel`: in single precision they lose digits just below a decay of 1.
"""

# pyright: reportInvalidTypeForm=false
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Inexact
from torch import Tensor

from seqref.ops._by_hand import takes_operations
from seqref.ops.linear_scan.parallel import differentiable_backward

if TYPE_CHECKING:
    # It is not everywhere, and a name without a module would be this file's own.
    triton: Any = None
    tl: Any = None
else:
    import triton
    import triton.language as tl

# Steps and features of a tile.
STEPS = 64
FEATURES = 32


def why_not(tensors: list[Tensor]) -> str:
    r"""Why the kernel cannot run on these; empty if it can.

    Shapes:
        - any
    """
    if tensors[0].is_cuda or triton.knobs.runtime.interpret:
        return ""
    return (
        f"it is for CUDA, and the tensors are on {tensors[0].device} (a CPU needs the "
        "environment variable TRITON_INTERPRET=1 before Triton is imported, for tests)"
    )


def run(
    a: Inexact[Tensor, "batch time features"],
    b: Inexact[Tensor, "batch time features"],
    h_0: Inexact[Tensor, "batch features"],
) -> tuple[Inexact[Tensor, "batch time features"], Inexact[Tensor, "batch features"]]:
    r"""The scan, with its backward pass by hand.

    Shapes:
        - as `linear_scan`, with the features as one axis; time at least 1
    """
    return _Scan.apply(a, b, h_0)  # pyright: ignore[reportReturnType]


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, h_0: Tensor) -> tuple[Tensor, Tensor]:
        a, b, h_0 = (_plain(x) for x in (a, b, h_0))
        h = torch.empty_like(b)
        _launch(_forward, b, [a, b, h_0, h])
        ctx.save_for_backward(a, h_0, h)
        return h, h[:, -1].clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor | None, ...]:
        a, h_0, h = ctx.saved_tensors
        if takes_operations(upstream):
            return differentiable_backward(a, h_0, h, *upstream, scan=run)
        grad_h, grad_h_n = (_plain(x) for x in upstream)
        grad_a, grad_b = torch.empty_like(h), torch.empty_like(h)
        _launch(_backward, h, [a, h_0, h, grad_h, grad_h_n, grad_a, grad_b])
        return grad_a, grad_b, a[:, 0].conj() * grad_b[:, 0]


def _plain(x: Tensor) -> Tensor:
    return x.resolve_conj().resolve_neg().contiguous()


def _launch(kernel: Any, like: Tensor, tensors: list[Tensor]) -> None:
    batch, time, features = like.shape
    block = min(FEATURES, triton.next_power_of_2(features))
    parts = [torch.view_as_real(x) if x.is_complex() else x for x in tensors]
    kernel[batch, triton.cdiv(features, block)](
        *parts,
        time,
        features,
        STEPS=STEPS,
        FEATURES=block,
        COMPLEX=like.is_complex(),
    )


@triton.jit
def _compose(p_1, e_1, p_2, e_2):
    r"""Two maps of real numbers, the first one first: $h \mapsto p h + e$."""
    return p_1 * p_2, p_2.to(e_1.dtype) * e_1 + e_2


@triton.jit
def _compose_complex(p_1, q_1, e_1, f_1, p_2, q_2, e_2, f_2):
    r"""The same of $(p + iq) h + (e + if)$."""
    low_p, low_q = p_2.to(e_1.dtype), q_2.to(e_1.dtype)
    return (
        p_1 * p_2 - q_1 * q_2,
        p_1 * q_2 + q_1 * p_2,
        low_p * e_1 - low_q * f_1 + e_2,
        low_p * f_1 + low_q * e_1 + f_2,
    )


@triton.jit
def _read(pointer, at, mask, other, COMPLEX: tl.constexpr):
    if COMPLEX:
        real = tl.load(pointer + 2 * at, mask=mask, other=other)
        return real, tl.load(pointer + 2 * at + 1, mask=mask, other=0.0)
    else:
        real = tl.load(pointer + at, mask=mask, other=other)
        return real, real


@triton.jit
def _write(pointer, at, mask, real, imaginary, COMPLEX: tl.constexpr):
    if COMPLEX:
        tl.store(pointer + 2 * at, real, mask=mask)
        tl.store(pointer + 2 * at + 1, imaginary, mask=mask)
    else:
        tl.store(pointer + at, real, mask=mask)


@triton.jit
def _times(p, state):
    r"""A product in double precision; nothing grows out of a state of zero but NaN."""
    return tl.where((state == 0) & (p == p), 0.0, p * state.to(tl.float64))


@triton.jit
def _tile(a, a_i, b, b_i, h, h_i, COMPLEX: tl.constexpr):
    r"""All states of a tile, (steps, features), from that before it."""
    if COMPLEX:
        p, q, e, f = tl.associative_scan(
            (a.to(tl.float64), a_i.to(tl.float64), b, b_i), 0, _compose_complex
        )
        real = _times(p, h) - _times(q, h_i)
        imaginary = _times(p, h_i) + _times(q, h)
        return real.to(b.dtype) + e, imaginary.to(b.dtype) + f
    else:
        p, e = tl.associative_scan((a.to(tl.float64), b), 0, _compose)
        real = _times(p, h).to(b.dtype) + e
        return real, real


@triton.jit
def _with_conjugate(r, r_i, h, h_i, COMPLEX: tl.constexpr):
    if COMPLEX:
        return r * h + r_i * h_i, r_i * h - r * h_i
    else:
        return r * h, r


@triton.jit
def _last(h, steps, STEPS: tl.constexpr):
    return tl.sum(tl.where(steps == STEPS - 1, h, 0.0), axis=0)[None, :]


@triton.jit
def _forward(
    a_pointer,
    b_pointer,
    h_0_pointer,
    h_pointer,
    time,
    width,
    STEPS: tl.constexpr,
    FEATURES: tl.constexpr,
    COMPLEX: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    features = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)[None, :]
    steps = tl.arange(0, STEPS)[:, None]
    inside = features < width
    h, h_i = _read(h_0_pointer, row * width + features, inside, 0.0, COMPLEX)
    for begin in range(0, time, STEPS):
        t = begin + steps
        mask = (t < time) & inside
        at = (row * time + t) * width + features
        a, a_i = _read(a_pointer, at, mask, 1.0, COMPLEX)
        b, b_i = _read(b_pointer, at, mask, 0.0, COMPLEX)
        states, states_i = _tile(a, a_i, b, b_i, h, h_i, COMPLEX)
        _write(h_pointer, at, mask, states, states_i, COMPLEX)
        h = _last(states, steps, STEPS)
        h_i = _last(states_i, steps, STEPS)


@triton.jit
def _backward(
    a_pointer,
    h_0_pointer,
    h_pointer,
    grad_h_pointer,
    grad_h_n_pointer,
    grad_a_pointer,
    grad_b_pointer,
    time,
    width,
    STEPS: tl.constexpr,
    FEATURES: tl.constexpr,
    COMPLEX: tl.constexpr,
):
    r"""$r_t = \bar h_t + \bar a_{t+1} r_{t+1}$ from the end; $r$ is that of b."""
    row = tl.program_id(0).to(tl.int64)
    features = tl.program_id(1) * FEATURES + tl.arange(0, FEATURES)[None, :]
    steps = tl.arange(0, STEPS)[:, None]
    inside = features < width
    first = row * width + features
    r, r_i = _read(grad_h_n_pointer, first, inside, 0.0, COMPLEX)
    h_0, h_0_i = _read(h_0_pointer, first, inside, 0.0, COMPLEX)
    for begin in range(0, time, STEPS):
        t = time - 1 - begin - steps
        mask = (t >= 0) & inside
        at = (row * time + t) * width + features
        # The last step is followed by no decay, and steps before the first are nothing.
        follows = mask & (t + 1 < time)
        a, a_i = _read(a_pointer, at + width, follows, 1.0, COMPLEX)
        grad, grad_i = _read(grad_h_pointer, at, mask, 0.0, COMPLEX)
        states, states_i = _tile(a, -a_i, grad, grad_i, r, r_i, COMPLEX)
        _write(grad_b_pointer, at, mask, states, states_i, COMPLEX)
        before = mask & (t > 0)
        h, h_i = _read(h_pointer, at - width, before, 0.0, COMPLEX)
        h, h_i = tl.where(t > 0, h, h_0), tl.where(t > 0, h_i, h_0_i)
        of_a, of_a_i = _with_conjugate(states, states_i, h, h_i, COMPLEX)
        _write(grad_a_pointer, at, mask, of_a, of_a_i, COMPLEX)
        r = _last(states, steps, STEPS)
        r_i = _last(states_i, steps, STEPS)
