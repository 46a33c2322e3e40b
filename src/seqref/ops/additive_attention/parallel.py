r"""The same with a backward pass by hand that makes the scores' tanh again.

Autograd keeps tanh(q + k) of every query and source position: T S D numbers a row. Here
each query's are made in one buffer, forwards and again backwards; what is kept are the
weights, T S numbers.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqref.ops._source import softmax_over_source
from seqref.ops.additive_attention import reference


def attend(
    query: Float[Tensor, "batch time hidden"],
    keys: Float[Tensor, "batch source hidden"],
    values: Float[Tensor, "batch source value"],
    weight: Float[Tensor, " hidden"],
    real: Bool[Tensor, "batch source"],
) -> tuple[Float[Tensor, "batch time value"], Float[Tensor, "batch time source"]]:
    r"""As `reference.attend`, equal to rounding.

    Shapes:
        - as there
    """
    tensors = (query, keys, values, weight)
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return _Attention.apply(*tensors, real)  # pyright: ignore[reportReturnType]
    return attention_forward(*tensors, real)


def attention_forward(
    query: Float[Tensor, "batch time hidden"],
    keys: Float[Tensor, "batch source hidden"],
    values: Float[Tensor, "batch source value"],
    weight: Float[Tensor, " hidden"],
    real: Bool[Tensor, "batch source"],
) -> tuple[Float[Tensor, "batch time value"], Float[Tensor, "batch time source"]]:
    r"""Contexts and weights, without a graph.

    Shapes:
        - as `attend`
    """
    (batch, time, hidden), source = query.shape, keys.shape[1]
    # Time first: what one query writes is one block of memory.
    scores = query.new_empty(time, batch * source)
    tanh = keys.new_empty(batch, source, hidden)
    for query_t, scores_t in zip(query.unbind(1), scores, strict=True):
        torch.add(keys, query_t[:, None], out=tanh).tanh_()
        torch.mv(tanh.view(-1, hidden), weight, out=scores_t)
    scores = scores.view(time, batch, source).transpose(0, 1)
    weights = softmax_over_source(scores, real)
    return weights @ values, weights


def attention_backward(
    query: Float[Tensor, "batch time hidden"],
    keys: Float[Tensor, "batch source hidden"],
    values: Float[Tensor, "batch source value"],
    weight: Float[Tensor, " hidden"],
    weights: Float[Tensor, "batch time source"],
    grad_context: Float[Tensor, "batch time value"],
    grad_weights: Float[Tensor, "batch time source"],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""The adjoint of `attention_forward`.

    A bar marks the gradient of the loss by what stands under it, and
    $a_{tj} = \tanh(q_t + k_j)$:

    $$
    \begin{aligned}
    \tilde\alpha_{tj} &= \bar\alpha_{tj} + \bar c_t^\top m_j \qquad
    \bar e_{tj} = \alpha_{tj} \Big(\tilde\alpha_{tj}
    - \sum_l \alpha_{tl} \tilde\alpha_{tl}\Big) \qquad
    \bar m_j = \sum_t \alpha_{tj} \bar c_t \\
    \bar v &= \sum_{t,j} \bar e_{tj} a_{tj} \qquad
    \bar k_j = v \odot \sum_t \bar e_{tj} (1 - a_{tj}^2) \qquad
    \bar q_t = -v \odot \sum_j \bar e_{tj} a_{tj}^2
    \end{aligned}
    $$

    The last line leaves out $\sum_j \bar e_{tj}$, which is zero: a softmax does not
    change when all its scores grow alike.

    Shapes:
        - the inputs as `attend`, where the padding has weight 0; `weights` and the
          gradients as its outputs
        - returns: the gradients of `query`, `keys`, `values` and `weight`
    """
    grad_values = weights.mT @ grad_context
    grad_scores = score_gradients(weights, grad_weights + grad_context @ values.mT)
    grad_query = query.new_empty(query.shape[1], len(query), len(weight))
    # The sums over all queries of grad_e a^2 and of grad_e a.
    squares, firsts = torch.zeros_like(keys), keys.new_zeros(len(keys), 1, len(weight))
    tanh = torch.empty_like(keys)
    for query_t, grad_scores_t, grad_query_t in zip(
        query.unbind(1), grad_scores.unbind(1), grad_query, strict=True
    ):
        torch.add(keys, query_t[:, None], out=tanh)
        add_query(tanh.tanh_(), grad_scores_t, squares, firsts, grad_query_t)
    grad_query = grad_query.mul_(-weight).transpose(0, 1)
    grad_keys = (grad_scores.sum(1)[..., None] - squares).mul_(weight)
    return grad_query, grad_keys, grad_values, firsts.sum((0, 1))


def score_gradients(
    weights: Float[Tensor, "... source"], grad_weights: Float[Tensor, "... source"]
) -> Float[Tensor, "... source"]:
    r"""The adjoint of the softmax."""
    mean = (weights * grad_weights).sum(-1, keepdim=True)
    return weights * (grad_weights - mean)


def add_query(
    tanh: Float[Tensor, "batch source hidden"],
    grad_scores_t: Float[Tensor, "batch source"],
    squares: Float[Tensor, "batch source hidden"],
    firsts: Float[Tensor, "batch one hidden"],
    out: Float[Tensor, "batch hidden"],
) -> None:
    r"""Add one query's share to `squares` and `firsts`; its sum over j goes to `out`.

    `tanh` is used up.
    """
    by_source = grad_scores_t[:, None]
    firsts.baddbmm_(by_source, tanh)
    tanh.square_()
    torch.bmm(by_source, tanh, out=out[:, None])
    squares.addcmul_(tanh, grad_scores_t[..., None])


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        context, weights = attention_forward(*inputs)
        # The caller gets a copy, and may write to it.
        ctx.save_for_backward(*inputs, weights)
        return context, weights.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor | None, ...]:
        query, keys, values, weight, real, weights = ctx.saved_tensors
        tensors = query, keys, values, weight
        needed = ctx.needs_input_grad[:4]
        if torch.is_grad_enabled():
            grads = _by_autograd(tensors, real, upstream, needed)
        else:
            grads = attention_backward(*tensors, weights, *upstream)
        return *(g if n else None for g, n in zip(grads, needed, strict=True)), None


def _by_autograd(
    tensors: tuple[Tensor, Tensor, Tensor, Tensor],
    real: Tensor,
    upstream: tuple[Any, ...],
    needed: tuple[bool, ...],
) -> list[Tensor | None]:
    r"""The gradients by autograd through the loop, so that they have gradients too."""
    # Aliases: an input that was computed from another one must not pass its gradient on
    # to that one in here.
    query, keys, values, weight = (tensor.view_as(tensor) for tensor in tensors)
    outputs = reference.attend(query, keys, values, weight, real)
    aliases = query, keys, values, weight
    wanted = [alias for alias, need in zip(aliases, needed, strict=True) if need]
    grads = torch.autograd.grad(
        outputs, wanted, upstream, create_graph=True, materialize_grads=True
    )
    following = iter(grads)
    return [next(following) if need else None for need in needed]
