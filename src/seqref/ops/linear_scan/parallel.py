r"""Reduce, then scan: chunks of the sequence side by side, with a backward by hand.

Chunk $k$ of $L$ steps is the map $h \mapsto p_k h + e_k$, with $p_k$ the product of its
decays and $e_k$ what it gives from a state of zero. A short loop over chunks gives the
state that each starts from; then every chunk is the plain loop from the right start.
"""

import math
from typing import Any

import torch
from jaxtyping import Inexact
from torch import Tensor

from seqref.ops._by_hand import is_batched, takes_operations
from seqref.ops.linear_scan import reference

# Numbers that one operation handles: enough to hide what calling it costs, and few
# enough to stay in a cache.
ELEMENTS = 65536
# From so many numbers in one step on, a plain loop is not slower.
WIDE = 4096


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


def linear_scan_forward(
    a: Inexact[Tensor, "batch time features"],
    b: Inexact[Tensor, "batch time features"],
    h_0: Inexact[Tensor, "batch features"],
    *,
    reverse: bool = False,
) -> Inexact[Tensor, "batch time features"]:
    r"""All states; with `reverse` from the last step to the first.

    Shapes:
        - as `linear_scan`, with the features as one axis; time at least 1
    """
    out = torch.empty_like(b, memory_format=torch.contiguous_format)
    _fill(out, a, b, h_0, reverse)
    return out


def linear_scan_backward(
    a: Inexact[Tensor, "batch time features"],
    h_0: Inexact[Tensor, "batch features"],
    h: Inexact[Tensor, "batch time features"],
    grad_h: Inexact[Tensor, "batch time features"],
    grad_h_n: Inexact[Tensor, "batch features"],
    *,
    wants_a: bool = True,
) -> tuple[
    Inexact[Tensor, "batch time features"] | None,
    Inexact[Tensor, "batch time features"],
    Inexact[Tensor, "batch features"],
]:
    r"""Gradients with respect to `a`, `b` and `h_0`: the same scan from the end.

    $$ r_t = \bar h_t + \bar a_{t+1} r_{t+1} \qquad \bar b_t = r_t \qquad
       \bar a_t = r_t \, \overline{h_{t-1}} $$

    Shapes:
        - as `linear_scan`, with the features as one axis; time at least 1
        - returns: the gradients, shaped as `a`, `b`, `h_0`; that of `a` is None where
          it is not wanted
    """
    # Of complex numbers a gradient takes the conjugate; of real ones this is `a`.
    a, h, h_0 = (x.conj().resolve_conj() for x in (a, h, h_0))
    r = torch.empty_like(h)
    torch.add(grad_h[:, -1], grad_h_n, out=r[:, -1])
    if a.shape[1] > 1:
        _fill(r[:, :-1], a[:, 1:], grad_h[:, :-1], r[:, -1], reverse=True)
    grad_a = None
    if wants_a:
        grad_a = torch.empty_like(h)
        torch.mul(r[:, 1:], h[:, :-1], out=grad_a[:, 1:])
        torch.mul(r[:, 0], h_0, out=grad_a[:, 0])
    return grad_a, r, a[:, 0] * r[:, 0]


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, h_0: Tensor) -> tuple[Tensor, Tensor]:
        h = linear_scan_forward(a, b, h_0)
        ctx.save_for_backward(a, h_0, h)
        return h, h[:, -1].clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor | None, ...]:
        a, h_0, h = ctx.saved_tensors
        if takes_operations(upstream):
            return differentiable_backward(a, h_0, h, *upstream, scan=run)
        wants_a = ctx.needs_input_grad[0]
        return linear_scan_backward(a, h_0, h, *upstream, wants_a=wants_a)


def differentiable_backward(
    a: Inexact[Tensor, "batch time features"],
    h_0: Inexact[Tensor, "batch features"],
    h: Inexact[Tensor, "batch time features"],
    grad_h: Inexact[Tensor, "batch time features"],
    grad_h_n: Inexact[Tensor, "batch features"],
    *,
    scan: Any,
) -> tuple[
    Inexact[Tensor, "batch time features"],
    Inexact[Tensor, "batch time features"],
    Inexact[Tensor, "batch features"],
]:
    r"""What `linear_scan_backward` gives, in operations that have gradients themselves.

    `scan`, the form of the op that runs where vmap does not, is among them.

    Shapes:
        - as `linear_scan_backward`
    """
    if is_batched((grad_h, grad_h_n)):
        scan = reference.run
    a = a.conj()
    decays = torch.cat([a[:, 1:], torch.ones_like(a[:, :1])], dim=1)
    r = scan(decays.flip(1), grad_h.flip(1), grad_h_n)[0].flip(1)
    before = torch.cat([h_0[:, None], h[:, :-1]], dim=1)
    return r * before.conj(), r, a[:, 0] * r[:, 0]


def chunks_of(batch: int, time: int, features: int) -> int:
    r"""Into how many chunks a sequence is cut."""
    step = max(1, batch * features)
    if step >= WIDE:
        return 1
    # More chunks than this cost more calls in the loop over chunks than they save.
    balanced = math.isqrt(5 * time // 2)
    return max(1, min(ELEMENTS // step, balanced, time))


def _fill(out: Tensor, a: Tensor, b: Tensor, start: Tensor, reverse: bool) -> None:
    r"""Write $h_t = a_t h_{t \mp 1} + b_t$ into `out`, (batch, time, features)."""
    batch, time, features = b.shape
    count = chunks_of(batch, time, features)
    if count > 1:
        # The last chunks may be left over; they are steps of the plain loop.
        size = -(-time // count)
        count = time // size
        whole = count * size
        inside = slice(time - whole, None) if reverse else slice(0, whole)
        chunks, decays, inputs = (
            x[:, inside].unflatten(1, (count, size)) for x in (out, a, b)
        )
        start = _in_chunks(chunks, decays, inputs, start, reverse)
        rest = slice(0, time - whole) if reverse else slice(whole, None)
        out, a, b = out[:, rest], a[:, rest], b[:, rest]
    _loop(out.unbind(1), a.unbind(1), b.unbind(1), start, reverse)


def _loop(out: Any, a: Any, b: Any, h: Tensor, reverse: bool) -> None:
    order = -1 if reverse else 1
    for out_t, a_t, b_t in zip(out[::order], a[::order], b[::order], strict=True):
        torch.addcmul(b_t, a_t, h, out=out_t)
        h = out_t


def _in_chunks(
    out: Tensor, a: Tensor, b: Tensor, start: Tensor, reverse: bool
) -> Tensor:
    r"""The scan over chunks, (batch, chunks, steps, features); the state after it."""
    steps_a, steps_b = a.unbind(2), b.unbind(2)
    order = -1 if reverse else 1
    (first, *others), (_, *decays) = steps_b[::order], steps_a[::order]
    e = first.clone(memory_format=torch.contiguous_format)
    for a_t, b_t in zip(decays, others, strict=True):
        torch.addcmul(b_t, a_t, e, out=e)
    starts = _starts(_product(a, steps_a), e, start, order)
    _loop(out.unbind(2), steps_a, steps_b, starts, reverse)
    return out[:, 0, 0] if reverse else out[:, -1, -1]


def _product(a: Tensor, steps: tuple[Tensor, ...]) -> Tensor:
    r"""The product of the decays of each chunk, in double precision.

    In single precision it has lost digits, all to the same side where decays are just
    below 1: of $L$ factors at most $L$ roundings of its own size. A product below $1/L$
    may have, since that is no more than one rounding of the state it multiplies.

    Shapes:
        - `a`: (batch, chunks, steps, features); `steps`: the same, unbound
        - returns: (batch, chunks, features)
    """
    wide = torch.promote_types(a.dtype, torch.float64)
    if a.device.type == "cpu" and a.dtype != wide:
        p = a.prod(dim=2)
        # False of NaN and of what has overflowed, too.
        if (p.abs() < 1 / a.shape[2]).all():
            return p.to(wide)
    if a.numel() <= 4 * ELEMENTS:
        return a.to(wide).prod(dim=2)
    # A copy of all of it in double precision would leave the cache.
    p = steps[0].to(wide, copy=True)
    for a_t in steps[1:]:
        p.mul_(a_t)
    return p


def _starts(p: Tensor, e: Tensor, start: Tensor, order: int) -> Tensor:
    r"""The state before each chunk, (batch, chunks, features)."""
    # An infinite product would make NaN of a state of zero, out of which nothing grows.
    p = p.nan_to_num(nan=torch.nan)
    products, ends = (x.unbind(1)[::order] for x in (p, e.to(p.dtype)))
    starts = torch.empty_like(p)
    states = starts.unbind(1)[::order]
    states[0].copy_(start)
    for k in range(1, len(states)):
        torch.addcmul(ends[k - 1], products[k - 1], states[k - 1], out=states[k])
    return starts.to(e.dtype)
