r"""The parts of a transformer as functions of one step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from seqref.attention import LearnedPositions, MultiHeadAttention
from seqref.decoding.kv_cache._rows import LayerCache, seen_places
from seqref.models import (
    AddPositions,
    FeedForward,
    GatedFeedForward,
    PostNormBlock,
    PreNormBlock,
)
from seqref.ops.softmax_attention.reference import wide


class Place:
    r"""Where a step stands: the position of its token, and the masks that follow.

    `position` is an int where it is one for all rows, else (batch,); `longest` is the
    largest. Layers whose caches have one size share a mask.
    """

    def __init__(self, position: int | Tensor, longest: int) -> None:
        self.position, self.longest = position, longest
        self._masks: dict[Any, Tensor] = {}

    def mask(self, cache: LayerCache, slopes: Tensor | None) -> Tensor | None:
        r"""What hides or weighs the places of a cache; None where nothing does."""
        if slopes is None and isinstance(self.position, int):
            return None
        key = cache.size, id(slopes)
        if key not in self._masks:
            used = min(self.longest + 1, cache.size)
            behind, seen = seen_places(self.position, cache.size, used, cache.k)
            mask = seen[:, None]
            if slopes is not None:
                bias = -slopes[:, None] * behind[:, None].to(slopes.dtype)
                mask = bias.masked_fill(~mask, -torch.inf)
            # (rows, heads or 1, used)
            self._masks[key] = mask
        return self._masks[key]


class Affine:
    r"""A linear map of rows, its matrix stored as it is read fastest.

    A product of one row with a matrix reads the matrix once and computes little else.
    On the processors tried (AMD EPYC) a matrix of more outputs than inputs was read
    faster with a row for each input; then a copy is made, and otherwise the weight
    itself is used.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        turned = weight.detach().t()
        self.matrix = (
            turned.contiguous() if turned.shape[0] < turned.shape[1] else turned
        )
        self.bias = None if bias is None else bias.detach()

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        r"""$x W^\top + b$, added to `residual` where there is one."""
        if residual is not None:
            start = residual if self.bias is None else residual + self.bias
            return torch.addmm(start, x, self.matrix)
        if self.bias is None:
            return torch.mm(x, self.matrix)
        return torch.addmm(self.bias, x, self.matrix)


class Attend:
    r"""One step of multi-head attention over its cache, up to the joined heads."""

    def __init__(self, attention: MultiHeadAttention, rows: int, capacity: int) -> None:
        self.cache = LayerCache(attention, rows, capacity)
        self.inward = Affine(attention.in_proj_weight, attention.in_proj_bias)
        self.outward = Affine(attention.out_proj.weight, attention.out_proj.bias)
        self.rotary, self.slopes = attention.rotary, attention.slopes
        self.heads = attention.n_heads, attention.n_kv_heads
        self.d_head = attention.d_head

    def __call__(self, x: Tensor, place: Place, residual: Tensor | None) -> Tensor:
        batch, (heads, kv_heads) = len(x), self.heads
        projected = self.inward(x).view(batch, heads + 2 * kv_heads, self.d_head)
        turned, v_t = projected.split([heads + kv_heads, kv_heads], dim=1)
        if self.rotary is not None:
            # Queries and keys stand next to each other, and turn by the same angles.
            turned = self.rotary(turned[:, :, None], place.position)[:, :, 0]
        q, k_t = turned.split([heads, kv_heads], dim=1)
        self.cache.put(k_t, v_t, place.position)
        used = min(place.longest + 1, self.cache.size)
        group = heads // kv_heads
        mask = place.mask(self.cache, self.slopes)
        if mask is not None:
            # (batch or 1, kv_heads or 1, group or 1, used)
            mask = mask.unflatten(1, (-1, group) if self.slopes is not None else (1, 1))
        # Heads that share keys are queries beside each other.
        q = q.reshape(batch, kv_heads, group, self.d_head)
        k, v = (x[:batch, :, :used] for x in (self.cache.k, self.cache.v))
        out = scaled_dot_product_attention(q, k, v, attn_mask=mask)
        if _may_overflow(out):
            out = by_definition(q, k, v, mask)
        return self.outward(out.reshape(batch, heads * self.d_head), residual)


def _may_overflow(out: Tensor) -> bool:
    r"""Whether an output begins with 0 or NaN, as where all scores have overflowed.

    To read values is to wait for a GPU; there torch's kernel has the last word.
    """
    if out.device.type != "cpu" or not out.numel():
        return False
    # A NaN is not above 0.
    return not out[..., 0].abs().amin() > 0


def by_definition(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    r"""A softmax of scores and a mean by it, NaN where it is of infinities alone.

    torch's kernels give 0 there, as if nothing were seen.

    Shapes:
        - `q`: (batch, kv_heads, group, head); `k`, `v`: (batch, kv_heads, used, head);
          `mask`: what is seen, or what is added, to (batch, kv_heads, group, used)
        - returns: as `q`
    """
    scores = (wide(q) * q.shape[3] ** -0.5) @ wide(k).mT
    if mask is not None:
        hidden = ~mask if mask.dtype == torch.bool else mask == -torch.inf
        scores = scores if mask.dtype == torch.bool else scores + wide(mask)
        # By the sum alone a hidden score of plus infinity would be NaN.
        scores = scores.masked_fill(hidden, -torch.inf)
    return (scores.softmax(dim=-1) @ wide(v)).to(q.dtype)


def network_of(module: nn.Module) -> Callable[[Tensor, Tensor | None], Tensor]:
    r"""The position-wise network of a block, its output added to a residual."""
    if type(module) is FeedForward:
        inward = Affine(module.inward.weight, module.inward.bias)
        outward = Affine(module.outward.weight, module.outward.bias)
        activation = module.activation
        return lambda x, residual: outward(activation(inward(x)), residual)
    if type(module) is GatedFeedForward:
        gate = Affine(module.gate.weight, module.gate.bias)
        inward = Affine(module.inward.weight, module.inward.bias)
        outward = Affine(module.outward.weight, module.outward.bias)
        activation = module.activation
        return lambda x, residual: outward(activation(gate(x)) * inward(x), residual)
    return partial(_of_any_kind, module)


def _of_any_kind(module: nn.Module, x: Tensor, residual: Tensor | None) -> Tensor:
    with evaluating(module):
        y = module(x)
    return y if residual is None else residual + y


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    r"""In evaluation mode inside; after it each part is in the mode that it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


class BlockStep:
    r"""One step of a pre- or post-norm block."""

    def __init__(
        self, block: PreNormBlock | PostNormBlock, rows: int, capacity: int
    ) -> None:
        self.attend = Attend(block.attention, rows, capacity)
        self.network = network_of(block.feed_forward)
        self.norms = block.norm_attention, block.norm_feed_forward
        self.before = isinstance(block, PreNormBlock)

    def __call__(self, x: Tensor, place: Place) -> Tensor:
        first, second = self.norms
        if self.before:
            x = self.attend(first(x), place, x)
            return self.network(second(x), x)
        x = first(self.attend(x, place, x))
        return second(self.network(x, x))


class PositionStep:
    r"""One step of `AddPositions`."""

    def __init__(self, layer: AddPositions) -> None:
        self.positions, self.norm = layer.positions, layer.norm

    def __call__(self, x: Tensor, place: Place) -> Tensor:
        at = place.position
        if isinstance(self.positions, LearnedPositions):
            x = x + self.positions.weight[at]
        else:
            offset = torch.as_tensor(at, device=x.device).expand(len(x))
            x = self.positions(x[:, None], offset)[:, 0]
        return x if self.norm is None else self.norm(x)
