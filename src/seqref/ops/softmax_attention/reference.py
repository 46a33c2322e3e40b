r"""The definition: one query over the keys that it sees, and the loop over queries."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from seqref.ops._padding import real_steps
from seqref.ops._source import softmax_over_allowed


class Sight(NamedTuple):
    r"""What decides which keys a query sees.

    `causal`; `window`, None for no limit; `offset`, the position of the first query
    among the keys, an int or (batch,); `lengths` (batch,), the real keys of each row,
    None for all.
    """

    causal: bool
    window: int | None
    offset: int | Integer[Tensor, " batch"]
    lengths: Integer[Tensor, " batch"] | None


def distances(
    sight: Sight, queries: int, keys: int, device: torch.device
) -> Integer[Tensor, "rows queries keys"]:
    r"""How far each key lies behind each query: $p + i - j$, below 0 ahead of it.

    Shapes:
        - returns: (rows, queries, keys), rows 1 where the offset is one for all
    """
    i = torch.arange(queries, device=device)
    first = torch.as_tensor(sight.offset, device=device).to(torch.int64).view(-1, 1)
    j = torch.arange(keys, device=device)
    return (first + i)[..., None] - j


def visible(
    sight: Sight, distance: Integer[Tensor, "rows queries keys"]
) -> Bool[Tensor, "batch queries keys"]:
    r"""True where a query sees a key.

    Shapes:
        - `distance`: as `distances` returns it
        - returns: (batch, queries, keys), batch 1 where all rows see alike
    """
    seen = torch.ones_like(distance, dtype=torch.bool)
    if sight.causal:
        seen = seen & (distance >= 0)
    if sight.window is not None:
        seen = seen & (distance.abs() < sight.window)
    if sight.lengths is not None:
        seen = seen & real_steps(sight.lengths, distance.shape[2])[:, None]
    return seen


def attend_one(
    q_i: Float[Tensor, "batch heads head"],
    k: Float[Tensor, "batch kv_heads keys head"],
    v: Float[Tensor, "batch kv_heads keys value"],
    seen_i: Bool[Tensor, "#batch keys"],
    bias_i: Float[Tensor, "#batch heads keys"] | None,
    scale: float,
) -> Float[Tensor, "batch heads value"]:
    r"""What one query reads.

    $$ e_j = \text{scale} \; q_i^\top k_j + b_j \qquad
       \alpha_j = \frac{\exp e_j}{\sum_{l\ \text{seen}} \exp e_l} \qquad
       o_i = \sum_{j\ \text{seen}} \alpha_j v_j $$

    Shapes:
        - `q_i`: (batch, heads, head); `k`, `v`: (batch, kv_heads, keys, ...); `seen_i`:
          (batch or 1, keys); `bias_i`: (batch or 1, heads, keys)
        - returns: (batch, heads, value); zero where nothing is seen
    """
    # Heads that share keys stand next to each other: (batch, kv_heads, group, head).
    grouped = (q_i * scale).unflatten(1, (k.shape[1], -1))
    scores = (grouped @ k.mT).flatten(1, 2)
    if bias_i is not None:
        scores = scores + bias_i
    seen_i = seen_i[:, None].expand(len(scores), -1, -1)
    weights = softmax_over_allowed(scores, seen_i)
    return (weights.unflatten(1, (k.shape[1], -1)) @ v).flatten(1, 2)


def attend(
    q: Float[Tensor, "batch heads queries head"],
    k: Float[Tensor, "batch kv_heads keys head"],
    v: Float[Tensor, "batch kv_heads keys value"],
    slopes: Float[Tensor, " heads"] | None,
    sight: Sight,
    scale: float,
) -> Float[Tensor, "batch heads queries value"]:
    r"""All queries, one after the other.

    Half precision is computed in float32 and rounded at the end.

    Shapes:
        - `q`: (batch, heads, queries, head); `k`, `v`: (batch, kv_heads, keys, ...);
          `slopes`: (heads,)
        - returns: (batch, heads, queries, value)
    """
    wide_q, (wide_k, wide_v) = wide(q), (wide(x) for x in blank(k, v, sight))
    distance = distances(sight, q.shape[2], k.shape[2], q.device)
    seen = visible(sight, distance)
    bias = None if slopes is None else linear_bias(slopes, distance)
    outputs = [
        attend_one(
            q_i, wide_k, wide_v, seen[:, i], None if bias is None else bias[:, :, i],
            scale,
        )
        for i, q_i in enumerate(wide_q.unbind(2))
    ]  # fmt: skip
    if not outputs:
        out = q @ k.new_zeros(k.shape[3], v.shape[3])
        # Zero, and yet part of the graph: each input gets a gradient of zeros.
        return out + sum(x.flatten()[:0].sum() for x in (k, v, slopes) if x is not None)
    return torch.stack(outputs, dim=2).to(q.dtype)


def blank(
    k: Float[Tensor, "batch kv_heads keys head"],
    v: Float[Tensor, "batch kv_heads keys value"],
    sight: Sight,
) -> tuple[
    Float[Tensor, "batch kv_heads keys head"],
    Float[Tensor, "batch kv_heads keys value"],
]:
    r"""Keys and values with zeros in the padding.

    A mask on the scores alone is not enough: the products with the weights would
    multiply a zero by what the padding holds, and zero times NaN is NaN.
    """
    if sight.lengths is None:
        return k, v
    padding = ~real_steps(sight.lengths, k.shape[2])[:, None, :, None]
    return k.masked_fill(padding, 0.0), v.masked_fill(padding, 0.0)


def linear_bias(
    slopes: Float[Tensor, " heads"], distance: Integer[Tensor, "rows queries keys"]
) -> Float[Tensor, "rows heads queries keys"]:
    r"""What is added to the scores: $b_{ij} = -\text{slope} \; |p + i - j|$ by head.

    Shapes:
        - `slopes`: (heads,); `distance`: (rows, queries, keys)
        - returns: (rows, heads, queries, keys), in float32 for half precision
    """
    slopes = wide(slopes)
    return -slopes[:, None, None] * distance.abs()[:, None].to(slopes.dtype)


def wide(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    r"""Half precision as float32, anything else as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
