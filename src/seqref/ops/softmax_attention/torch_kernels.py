r"""The same by `torch.nn.functional.scaled_dot_product_attention`."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from seqref.ops.softmax_attention.reference import (
    Sight,
    blank,
    distances,
    linear_bias,
    visible,
    wide,
)


def attend(
    q: Float[Tensor, "batch heads queries head"],
    k: Float[Tensor, "batch kv_heads keys head"],
    v: Float[Tensor, "batch kv_heads keys value"],
    slopes: Float[Tensor, " heads"] | None,
    sight: Sight,
    scale: float,
) -> Float[Tensor, "batch heads queries value"]:
    r"""As `reference.attend`, equal to rounding.

    Shapes:
        - as there
    """
    k, v = blank(k, v, sight)
    q, k, v = (_with_a_last_stride_of_1(x) for x in (q, k, v))
    if not needs_mask(q, k, slopes, sight):
        if not sight.causal:
            return _folded(q, k, v, None, scale)
        if scale <= 0:
            # torch hides later keys before it scales: minus infinity would become plus
            # infinity, or NaN.
            q, scale = (-q, -scale) if scale < 0 else (q * 0, 1.0)
        # Sizes are tensors while torch traces.
        shared = bool(q.shape[1] != k.shape[1])
        return scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scale, enable_gqa=shared
        )
    distance = distances(sight, q.shape[2], k.shape[2], q.device)
    seen = visible(sight, distance)[:, None]
    if slopes is None:
        return _folded(q, k, v, seen, scale)
    # Minus infinity and not a large finite number: with that torch's kernel for CPUs
    # gives a query without a key the mean of the values, and a wrong gradient.
    bias = linear_bias(slopes, distance).masked_fill(~seen, -torch.inf)
    out = _folded(q, k, v, bias, scale)
    # Without a score torch drops the mask, and with it the slopes from the graph.
    return out if bias.numel() else out + slopes[:0].sum()


def is_fused(
    q: Tensor, k: Tensor, v: Tensor, slopes: Tensor | None, sight: Sight
) -> bool:
    r"""Whether torch's kernel for CPUs runs without a tensor of queries by keys.

    That kernel wants values as wide as the keys; for others torch makes the matrix.

    Shapes:
        - as `attend`
    """
    return q.shape[3] == v.shape[3] and not needs_mask(q, k, slopes, sight)


def needs_mask(q: Tensor, k: Tensor, slopes: Tensor | None, sight: Sight) -> bool:
    r"""Whether more than causality in a square limits or weighs what is seen.

    torch aligns its causal mask at the top left, which is right in a square alone.

    Shapes:
        - as `attend`
    """
    if slopes is not None or sight.window is not None or sight.lengths is not None:
        return True
    at_start = isinstance(sight.offset, int) and sight.offset == 0
    return sight.causal and not (at_start and q.shape[2] == k.shape[2])


def overflows(
    out: Tensor, q: Tensor, k: Tensor, slopes: Tensor | None, sight: Sight, scale: float
) -> bool:
    r"""Whether a query's output may be what is left where its scores overflow.

    Where all are minus infinity torch's kernels give 0, as if it saw no key; and they
    multiply by the scale at other places, so that one of plus infinity may be too
    early. False at once where no output begins with 0 or NaN.

    Shapes:
        - as `attend`, and what it returned
    """
    if out.numel() == 0 or k.numel() == 0:
        return False
    # An output of zeros begins with one. A NaN is not above 0.
    if out.detach()[..., 0].abs().amin() > 0:
        return False
    size = _largest(q) * _largest(k) * q.shape[3] * max(1.0, abs(scale))
    if slopes is not None:
        furthest = distances(sight, q.shape[2], k.shape[2], q.device).abs().max()
        size += _largest(slopes) * furthest.item()
    return size >= torch.finfo(wide(q).dtype).max


def _largest(x: Tensor) -> float:
    r"""The largest absolute value, but NaN."""
    return x.detach().abs().nan_to_num_(0.0, math.inf).amax().item()


def _with_a_last_stride_of_1(x: Tensor) -> Tensor:
    r"""A copy in order where need be: for others torch makes the matrix of weights."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _folded(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float
) -> Tensor:
    r"""Heads that share keys, as further queries of one head: no key is copied."""
    # Not len(): of a trace that would be the number of rows that it was made with.
    kv_heads, queries = k.shape[1], q.shape[2]
    group = q.shape[1] // kv_heads
    if group == 1:
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    if mask is not None:
        heads = kv_heads if mask.shape[1] > 1 else 1
        mask = mask.expand(-1, heads * group, -1, -1)
        mask = mask.reshape(mask.shape[0], heads, group * queries, k.shape[2])
    q = q.reshape(q.shape[0], kv_heads, group * queries, q.shape[3])
    out = scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return out.reshape(q.shape[0], kv_heads * group, queries, v.shape[3])
