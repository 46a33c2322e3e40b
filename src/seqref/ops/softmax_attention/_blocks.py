r"""Blocks of queries and keys, and what hides a part of one.

A span is a group of rows of the batch that see alike; a block is a part of its scores:
all its heads, some queries, some keys. Blocks in which nothing is seen are never made.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from seqref.ops.softmax_attention.reference import Sight, wide

QUERIES = KEYS = 128
# Scores of one block over all its rows and heads: 1 MiB of float32, so that a block
# stays in the cache between the operations on it.
SCORES = 2**18


class Span(NamedTuple):
    r"""Rows `first` to `last` of a batch, with one offset and one length."""

    first: int
    last: int
    offset: int
    length: int


class Block(NamedTuple):
    r"""Queries `top` to `bottom` and keys `left` to `right` of a span."""

    top: int
    bottom: int
    left: int
    right: int


class Heads(NamedTuple):
    r"""A block's tensors as stacks of matrices, one for each row and each key head.

    Queries of heads that share keys stand below each other in one matrix, so that keys
    are read once for all of them and never repeated.
    """

    rows: int
    kv_heads: int
    group: int

    @staticmethod
    def of(span: Span, q: Tensor, k: Tensor) -> "Heads":
        return Heads(span.last - span.first, k.shape[1], q.shape[1] // k.shape[1])

    @property
    def matrices(self) -> int:
        return self.rows * self.kv_heads

    def queries(self, x: Tensor, span: Span, top: int, bottom: int) -> Tensor:
        r"""(batch, heads, queries, n) to (matrices, group part, n)."""
        part = wide(x[span.first : span.last, :, top:bottom])
        return part.reshape(self.matrices, self.group * (bottom - top), x.shape[3])

    def keys(self, x: Tensor, span: Span, block: Block) -> Tensor:
        r"""(batch, kv_heads, keys, n) to (matrices, part, n)."""
        part = wide(x[span.first : span.last, :, block.left : block.right])
        return part.reshape(self.matrices, block.right - block.left, x.shape[3])

    def back(self, x: Tensor, length: int) -> Tensor:
        r"""(matrices, group part, n) to (rows, heads, part, n)."""
        return x.reshape(self.rows, self.kv_heads * self.group, length, x.shape[2])


class Buffer:
    r"""Memory that all blocks use, one after the other."""

    def __init__(self, like: Tensor) -> None:
        self.flat = wide(like.new_empty(0))

    def of(self, *shape: int) -> Tensor:
        count = shape[0] * shape[1] * shape[2]
        if self.flat.numel() < count:
            self.flat = self.flat.new_empty(count)
        return self.flat[:count].view(shape)


def spans(sight: Sight, q: Tensor, keys: int) -> Iterator[Span]:
    r"""The batch in groups of rows that see alike, small enough for the cache."""
    batch, heads, queries = q.shape[:3]
    if sight.lengths is None and isinstance(sight.offset, int):
        block = heads * min(queries, QUERIES) * min(keys, KEYS)
        rows = max(1, SCORES // max(1, block))
        for first in range(0, batch, rows):
            yield Span(first, min(first + rows, batch), sight.offset, keys)
        return
    offsets = _by_row(sight.offset, batch)
    lengths = _by_row(keys if sight.lengths is None else sight.lengths, batch)
    for row, (offset, length) in enumerate(zip(offsets, lengths, strict=True)):
        yield Span(row, row + 1, offset, length)


def _by_row(value: int | Tensor, batch: int) -> list[int]:
    return [value] * batch if isinstance(value, int) else value.tolist()


def query_blocks(queries: int) -> Iterator[tuple[int, int]]:
    r"""First and last query of each block."""
    for top in range(0, queries, QUERIES):
        yield top, min(top + QUERIES, queries)


def key_blocks(sight: Sight, span: Span, top: int, bottom: int) -> Iterator[Block]:
    r"""The blocks of keys of which a query from `top` to `bottom` sees at least one."""
    low, high = 0, span.length
    if sight.causal:
        high = min(high, span.offset + bottom)
    if sight.window is not None:
        low = max(low, span.offset + top - sight.window + 1)
        high = min(high, span.offset + bottom - 1 + sight.window)
    for left in range(low, high, KEYS):
        yield Block(top, bottom, left, min(left + KEYS, high))


def distances_in(span: Span, block: Block, device: torch.device) -> Tensor:
    r"""How far each key of the block lies behind each query, (queries, keys)."""
    first = span.offset + block.top
    i = torch.arange(first, first + block.bottom - block.top, device=device)
    return i[:, None] - torch.arange(block.left, block.right, device=device)


def n_seeing(sight: Sight, span: Span, top: int, bottom: int) -> int:
    r"""How many of the queries from `top` to `bottom` see a key: the first ones."""
    if span.length == 0 or sight.window is None:
        return (bottom - top) * (span.length > 0)
    end = span.length + sight.window - 1 - span.offset
    return min(max(end - top, 0), bottom - top)


def in_common(v: Tensor, span: Span) -> Tensor | None:
    r"""What a head's values have in common, $c$: near their mean, or 0.

    No component is further from 0 than twice the smallest of the values, so that
    $|v_j - c| \le |v_j|$ in each component: whatever a query sees, what is left is not
    larger, and a value that is far from the others takes nothing from them.

    Shapes:
        - returns: (matrices, 1, value), or None where it is 0
    """
    part = v[span.first : span.last, :, : span.length]
    if part.numel() == 0:
        return None
    mean = part.mean(dim=2, keepdim=True, dtype=wide(v.new_empty(0)).dtype)
    low, high = (wide(x) for x in (part.amin(2, True), part.amax(2, True)))
    c = mean.clamp_(2 * high.clamp(max=0.0), 2 * low.clamp(min=0.0))
    # Of NaN or infinities nothing is taken.
    c = c.nan_to_num_(0.0, 0.0, 0.0).flatten(0, 1)
    return c if c.any() else None


def hide(
    scores: Tensor, sight: Sight, span: Span, block: Block, slopes: Tensor | None
) -> Tensor | None:
    r"""Write what a block's queries do not see as minus infinity, and add the bias.

    Shapes:
        - `scores`: (matrices, group queries, keys), written in place; `slopes`:
          (kv_heads, group)
        - returns: (queries, keys), True where a key is hidden; None where none is
    """
    nearest = span.offset + block.top - (block.right - 1)
    furthest = span.offset + block.bottom - 1 - block.left
    crosses = sight.causal and nearest < 0
    if sight.window is not None:
        crosses |= furthest >= sight.window or -nearest >= sight.window
    if slopes is None and not crosses:
        return None
    distance = distances_in(span, block, scores.device)
    if slopes is not None:
        by_head = scores.view(-1, *slopes.shape, *distance.shape)
        bias = slopes[:, :, None, None] * distance.abs().to(slopes.dtype)
        by_head.sub_(bias)
    if not crosses:
        return None
    hidden = distance < 0 if sight.causal else torch.zeros_like(distance).bool()
    if sight.window is not None:
        hidden |= distance.abs() >= sight.window
    blot(scores, hidden, -torch.inf)
    return hidden


def blot(x: Tensor, hidden: Tensor | None, value: float) -> None:
    r"""Write `value` where a block's key is hidden, in each of its matrices.

    Shapes:
        - `x`: (matrices, group queries, keys), written in place; `hidden`: as `hide`
          returns it
    """
    if hidden is not None:
        x.view(-1, *hidden.shape).masked_fill_(hidden, value)
