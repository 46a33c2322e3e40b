r"""The same in blocks, by the online softmax, with a backward pass that recomputes.

The matrix of scores is never there as a whole. The forward pass keeps the output and
one number a query, the logarithm of the sum of the exponentials of its scores; from
that the backward pass makes each block of weights again.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seqref.ops.softmax_attention import reference
from seqref.ops.softmax_attention._blocks import (
    Block,
    Buffer,
    Heads,
    Span,
    blot,
    distances_in,
    hide,
    in_common,
    key_blocks,
    n_seeing,
    query_blocks,
    spans,
)
from seqref.ops.softmax_attention.reference import Sight, wide


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
    tensors = [t for t in (q, k, v, slopes) if t is not None]
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return _Attention.apply(q, k, v, slopes, sight, scale)  # pyright: ignore[reportReturnType]
    return attention_forward(q, k, v, slopes, sight, scale)[0].to(q.dtype)


def attention_forward(
    q: Float[Tensor, "batch heads queries head"],
    k: Float[Tensor, "batch kv_heads keys head"],
    v: Float[Tensor, "batch kv_heads keys value"],
    slopes: Float[Tensor, " heads"] | None,
    sight: Sight,
    scale: float,
) -> tuple[
    Float[Tensor, "batch heads queries value"], Float[Tensor, "batch heads queries one"]
]:
    r"""Outputs, and the log-sum-exp of each query's scores, without a graph.

    Over the blocks of keys, with $S$ the scores of one of them,

    $$ m' = \max(m, \max_j S_{ij}) \qquad
       \ell' = e^{m - m'} \ell + \sum_j e^{S_{ij} - m'} \qquad
       a' = e^{m - m'} a + \sum_j e^{S_{ij} - m'} v_j $$

    and at the end $o_i = c + a / \ell$, $L_i = m + \log \ell$; what the values have in
    common, $c$, is taken from them before, since weights that sum to 1 keep it.

    Shapes:
        - the inputs as `attend`
        - returns: (batch, heads, queries, value) and (batch, heads, queries, 1), which
          is infinity for a query that sees nothing, and minus infinity for one whose
          scores are all minus infinity; in float32 for half precision
    """
    one = wide(q.new_empty(0))
    out, lse = (one.new_empty(*q.shape[:3], size) for size in (v.shape[3], 1))
    slopes = None if slopes is None else wide(slopes).view(k.shape[1], -1)
    buffer, apart = Buffer(q), Buffer(q)
    for span in spans(sight, q, k.shape[2]):
        heads, common = Heads.of(span, q, k), in_common(v, span)
        rows = slice(span.first, span.last)
        for top, bottom in query_blocks(q.shape[2]):
            q_i = heads.queries(q, span, top, bottom) * scale
            online = _Online(q_i, v.shape[3])
            for block in key_blocks(sight, span, top, bottom):
                k_j, v_j = heads.keys(k, span, block), heads.keys(v, span, block)
                scores = buffer.of(*q_i.shape[:2], k_j.shape[1])
                torch.bmm(q_i, k_j.mT, out=scores)
                hide(scores, sight, span, block, slopes)
                online.add(scores, without(v_j, common, apart))
            out_i, lse_i = online.end(common)
            blind = slice(n_seeing(sight, span, top, bottom), None)
            for x, value in ((out_i, 0.0), (lse_i, torch.inf)):
                x.view(len(x), heads.group, -1, x.shape[2])[:, :, blind] = value
            out[rows, :, top:bottom] = heads.back(out_i, bottom - top)
            lse[rows, :, top:bottom] = heads.back(lse_i, bottom - top)
    return out, lse


def without(v_j: Tensor, common: Tensor | None, apart: Buffer) -> Tensor:
    r"""A block's values less what all have in common."""
    if common is None:
        return v_j
    return torch.sub(v_j, common, out=apart.of(*v_j.shape))


class _Online:
    r"""The running maximum, sum and output of a block of queries."""

    def __init__(self, q_i: Tensor, value: int) -> None:
        # Finite: the difference of two minus infinities would be NaN where a query has
        # seen nothing yet.
        lowest = torch.finfo(q_i.dtype).min
        self.top = q_i.new_full((*q_i.shape[:2], 1), lowest)
        self.total = torch.zeros_like(self.top)
        self.out = q_i.new_zeros(*q_i.shape[:2], value)

    def add(self, scores: Tensor, v_j: Tensor) -> None:
        r"""Take in the scores of a block, which are used up."""
        top = torch.maximum(self.top, scores.amax(dim=-1, keepdim=True))
        shrink = self.top.sub_(top).exp_()
        weights = scores.sub_(top).exp_()
        self.total.mul_(shrink).add_(weights.sum(dim=-1, keepdim=True))
        self.out.mul_(shrink).baddbmm_(weights, v_j)
        self.top = top

    def end(self, common: Tensor | None) -> tuple[Tensor, Tensor]:
        r"""Output and log-sum-exp; NaN and minus infinity where no score is finite."""
        out = self.out.div_(self.total)
        if common is not None:
            out.add_(common)
        return out, self.top.add_(self.total.log())


def attention_backward(
    q: Float[Tensor, "batch heads queries head"],
    k: Float[Tensor, "batch kv_heads keys head"],
    v: Float[Tensor, "batch kv_heads keys value"],
    slopes: Float[Tensor, " heads"] | None,
    sight: Sight,
    scale: float,
    out: Float[Tensor, "batch heads queries value"],
    lse: Float[Tensor, "batch heads queries one"],
    grad_out: Float[Tensor, "batch heads queries value"],
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    r"""The adjoint of `attention_forward`.

    A bar marks the gradient of the loss by what stands under it:

    $$ \alpha_{ij} = e^{S_{ij} - L_i} \qquad
       D_i = \bar o_i^\top (o_i - c) \qquad
       \bar S_{ij} = \alpha_{ij} (\bar o_i^\top (v_j - c) - D_i) $$

    $$ \bar v_j = \sum_i \alpha_{ij} \bar o_i \qquad
       \bar q_i = \text{scale} \sum_j \bar S_{ij} k_j \qquad
       \bar k_j = \text{scale} \sum_i \bar S_{ij} q_i $$

    Shapes:
        - the inputs as `attend`; `out` and `lse` as `attention_forward` returns them
        - returns: the gradients of `q`, `k`, `v` and `slopes`, which is None where that
          needs none
    """
    sums = _Sums(q, k, v, slopes)
    # Where no score of a query is finite its weights are NaN, of hidden keys too.
    broken = not bool((lse > -torch.inf).all())
    slopes = None if slopes is None else wide(slopes).view(k.shape[1], -1)
    for span in spans(sight, q, k.shape[2]):
        heads, common = Heads.of(span, q, k), in_common(v, span)
        for top, bottom in query_blocks(q.shape[2]):
            q_i = heads.queries(q, span, top, bottom) * scale
            grad_out_i, out_i, lse_i = (
                heads.queries(x, span, top, bottom) for x in (grad_out, out, lse)
            )
            given = _Given.of(q_i, grad_out_i, out_i, lse_i, common)
            grad_q_i = torch.zeros_like(q_i)
            for block in key_blocks(sight, span, top, bottom):
                k_j, v_j = heads.keys(k, span, block), heads.keys(v, span, block)
                scores = sums.scores.of(*q_i.shape[:2], k_j.shape[1])
                torch.bmm(q_i, k_j.mT, out=scores)
                hidden = hide(scores, sight, span, block, slopes)
                given.hidden = hidden if broken else None
                grad_scores = sums.add(heads, span, block, given, scores, v_j)
                grad_q_i.baddbmm_(grad_scores, k_j)
            grad_q_i = heads.back(grad_q_i.mul_(scale), bottom - top)
            sums.grad_q[span.first : span.last, :, top:bottom] = grad_q_i
    return sums.end(q)


@dataclass
class _Given:
    r"""What a block of queries brings to each block of keys, and what is hidden."""

    q: Tensor
    grad_out: Tensor
    lse: Tensor
    row_sums: Tensor
    common: Tensor | None
    hidden: Tensor | None = None

    @staticmethod
    def of(
        q: Tensor, grad_out: Tensor, out: Tensor, lse: Tensor, common: Tensor | None
    ) -> "_Given":
        # Not sums over keys, and equal to them: of differences to what is common.
        apart = out if common is None else out - common
        row_sums = (grad_out * apart).sum(dim=-1, keepdim=True)
        return _Given(q, grad_out, lse, row_sums, common)


class _Sums:
    r"""The gradients, and the memory for scores and their gradients."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, slopes: Tensor | None) -> None:
        self.scores, self.grad_scores, self.apart = Buffer(q), Buffer(q), Buffer(q)
        self.grad_q = torch.empty_like(q, memory_format=torch.contiguous_format)
        one = wide(q.new_zeros(()))
        # Sums over blocks: half precision would round each of them.
        self.grad_k, self.grad_v = one.new_zeros(k.shape), one.new_zeros(v.shape)
        self.grad_slopes = None
        if slopes is not None and slopes.requires_grad:
            self.grad_slopes = torch.zeros_like(slopes, dtype=torch.float64)

    def add(
        self,
        heads: Heads,
        span: Span,
        block: Block,
        given: "_Given",
        scores: Tensor,
        v_j: Tensor,
    ) -> Tensor:
        r"""Add a block's share for keys and values; returns the scores' gradient."""
        weights = scores.sub_(given.lse).exp_()
        blot(weights, given.hidden, 0.0)
        place = (
            slice(span.first, span.last),
            slice(None),
            slice(block.left, block.right),
        )
        # Views: rows and heads of a contiguous tensor are one axis.
        self.grad_v[place].flatten(0, 1).baddbmm_(weights.mT, given.grad_out)
        grad = self.grad_scores.of(*scores.shape)
        v_j = without(v_j, given.common, self.apart)
        torch.bmm(given.grad_out, v_j.mT, out=grad)
        grad.sub_(given.row_sums).mul_(weights)
        blot(grad, given.hidden, 0.0)
        self.grad_k[place].flatten(0, 1).baddbmm_(grad.mT, given.q)
        if self.grad_slopes is not None:
            distance = distances_in(span, block, grad.device).abs().to(torch.float64)
            by_head = grad.view(heads.rows, len(self.grad_slopes), *distance.shape)
            # Terms of both signs that cancel: in float32 the rounding would show.
            share = torch.einsum("bhij,ij->h", by_head.double(), distance)
            self.grad_slopes -= share
        return grad

    def end(self, q: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        r"""The gradients of `q`, `k`, `v` and `slopes`, in the dtype of `q`."""
        slopes = None if self.grad_slopes is None else self.grad_slopes.to(q.dtype)
        return self.grad_q, self.grad_k.to(q.dtype), self.grad_v.to(q.dtype), slopes


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        q, k, v, slopes, sight, scale = inputs
        out, lse = attention_forward(*inputs)
        ctx.sight, ctx.scale = sight, scale
        # Not the rounded output: where values have much in common, the gradients of the
        # scores are small differences to it.
        ctx.save_for_backward(q, k, v, slopes, out, lse)
        return out.to(q.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor | None, ...]:
        q, k, v, slopes, out, lse = ctx.saved_tensors
        inputs = q, k, v, slopes, ctx.sight, ctx.scale
        needed = ctx.needs_input_grad[:4]
        if torch.is_grad_enabled():
            grads = _by_autograd(inputs, upstream, needed)
        else:
            grads = attention_backward(*inputs, out, lse, *upstream)
        kept = (g if n else None for g, n in zip(grads, needed, strict=True))
        return *kept, None, None


def _by_autograd(
    inputs: tuple[Any, ...], upstream: tuple[Any, ...], needed: tuple[bool, ...]
) -> list[Tensor | None]:
    r"""The gradients by autograd through the loop, so that they have gradients too."""
    *tensors, sight, scale = inputs
    # Aliases: an input that was computed from another one must not pass its gradient on
    # to that one in here.
    aliases: list[Any] = [None if t is None else t.view_as(t) for t in tensors]
    out = reference.attend(*aliases, sight=sight, scale=scale)
    wanted = [alias for alias, need in zip(aliases, needed, strict=True) if need]
    grads = torch.autograd.grad(
        out, wanted, upstream, create_graph=True, materialize_grads=True
    )
    following = iter(grads)
    return [next(following) if need else None for need in needed]
