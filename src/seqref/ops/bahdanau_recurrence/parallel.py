r"""All steps in plain PyTorch, with a backward pass derived by hand.

What waits for no other step leaves the loop: the products with the inputs, the factors
of the derivatives, and the gradients of the matrices, one product each at the end. The
tanh of the scores is made again on the way back, where the gradients of the keys and of
the scores' weight are added up.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqref.ops._padding import blank_padding
from seqref.ops._source import softmax_over_source
from seqref.ops.additive_attention.parallel import add_query, score_gradients
from seqref.ops.bahdanau_recurrence import reference
from seqref.ops.bahdanau_recurrence.reference import Parameters
from seqref.ops.fused_recurrence.parallel.cho_gru import _factors
from seqref.ops.fused_recurrence.parallel.common import product_of_all, sum_of_all


class Saved(NamedTuple):
    r"""What the forward pass keeps.

    Shapes:
        - `h`: (time + 1, batch, hidden), from $h_0$; `gates`: (time, batch, 3 hidden),
          blocks $r_t, z_t, n_t$; `contexts`: (time, batch, value); `alpha`: (time,
          batch, source)
    """

    h: Tensor
    gates: Tensor
    contexts: Tensor
    alpha: Tensor


def bahdanau_forward(
    x: Float[Tensor, "time batch input"],
    h_0: Float[Tensor, "batch hidden"],
    keys: Float[Tensor, "batch source score"],
    values: Float[Tensor, "batch source value"],
    real: Bool[Tensor, "batch source"],
    weights: Parameters,
) -> Saved:
    r"""All states, gates, contexts and weights of attention; time stands first.

    Shapes:
        - `x`: (time, batch, input); the others as `bahdanau_step`
        - returns: `Saved(h, gates, contexts, alpha)`
    """
    time, batch, width = x.shape
    (_, source, size), hidden = keys.shape, h_0.shape[1]
    weight_ih, weight_hh = weights.weight_ih, weights.weight_hh
    h = x.new_empty(time + 1, batch, hidden)
    h[0] = h_0
    gates = (x.reshape(-1, width) @ weight_ih[:, :width].T).view(time, batch, -1)
    for bias in (weights.bias_ih, weights.bias_hh):
        if bias is not None:
            gates += bias
    contexts = x.new_empty(time, batch, 1, values.shape[2])
    alpha = x.new_empty(time, batch, 1, source)
    # One product for all that reads the state before the step, but for the candidate.
    first = torch.cat([weights.weight_query, weight_hh[: 2 * hidden]]).T.contiguous()
    of_context, of_reset = weight_ih[:, width:].T, weight_hh[2 * hidden :].T
    tanh, scores = torch.empty_like(keys), x.new_empty(batch * source)
    u_t, product = torch.empty_like(h[0]), x.new_empty(batch, size + 2 * hidden)
    for t in range(time):
        h_prev, gates_t = h[t], gates[t]
        torch.mm(h_prev, first, out=product)
        torch.add(keys, product[:, None, :size], out=tanh).tanh_()
        torch.mv(tanh.view(-1, size), weights.weight_score, out=scores)
        alpha[t] = softmax_over_source(scores.view(batch, 1, source), real)
        torch.bmm(alpha[t], values, out=contexts[t])
        gates_t.addmm_(contexts[t, :, 0], of_context)
        gates_t[:, : 2 * hidden].add_(product[:, size:]).sigmoid_()
        r_t, z_t, n_t = gates_t.chunk(3, dim=1)
        torch.mul(r_t, h_prev, out=u_t)
        n_t.addmm_(u_t, of_reset).tanh_()
        torch.lerp(n_t, h_prev, z_t, out=h[t + 1])
    return Saved(h, gates, contexts[:, :, 0], alpha[:, :, 0])


def bahdanau_backward(
    x: Float[Tensor, "time batch input"],
    keys: Float[Tensor, "batch source score"],
    values: Float[Tensor, "batch source value"],
    weights: Parameters,
    saved: Saved,
    grad_y: Float[Tensor, "time batch hidden"],
    grad_contexts: Float[Tensor, "time batch value"],
    grad_alpha: Float[Tensor, "time batch source"],
) -> tuple[Tensor, ...]:
    r"""The adjoint of `bahdanau_forward`.

    A bar marks the gradient of the loss by what stands under it. From the last step to
    the first, with $\delta_t$ the gradients by the sums inside $r_t, z_t, n_t$ as in
    `cho_gru_backward`, and $\bar e_{tj}$, $\bar q_t$ as in `attention_backward`:

    $$
    \begin{aligned}
    \tilde c_t &= \bar c_t + W_c^\top \delta_t \\
    \tilde\alpha_{tj} &= \bar\alpha_{tj} + \tilde c_t^\top m_j \\
    \bar h_{t-1} &= \bar y_{t-1} + \bar h_t \odot z_t + \bar u_t \odot r_t
    + W_{hr}^\top \delta^r_t + W_{hz}^\top \delta^z_t + W_q^\top \bar q_t
    \end{aligned}
    $$

    with $W_c$ the columns of `weight_ih` that multiply the context.

    Shapes:
        - `grad_y`: (time, batch, hidden), that of the last state added to its last
          step; `grad_contexts`: (time, batch, value); `grad_alpha`: (time, batch,
          source)
        - returns: the gradients of `x`, `h_0`, `keys`, `values` and the six weights
    """
    h, gates, contexts, alpha = saved
    width, size, hidden = x.shape[2], keys.shape[2], h.shape[2]
    back = _steps_back(
        width, keys, values, weights, saved, grad_y, grad_contexts, grad_alpha
    )
    grad_values = torch.bmm(alpha.permute(1, 2, 0), back.contexts.transpose(0, 1))
    grad_keys = (back.scores.sum(0)[..., None] - back.squares).mul_(
        weights.weight_score
    )
    by_reset = gates[..., :hidden] * h[:-1]
    grad_first = product_of_all(back.by_state, h[:-1])
    grad_reset = product_of_all(back.delta[..., 2 * hidden :], by_reset)
    bias = sum_of_all(back.delta)
    return (
        back.delta @ weights.weight_ih[:, :width],
        back.h[0],
        grad_keys,
        grad_values,
        grad_first[:size],
        back.firsts.sum((0, 1)),
        product_of_all(back.delta, torch.cat([x, contexts], dim=-1)),
        torch.cat([grad_first[size:], grad_reset]),
        bias,
        bias,
    )


class Back(NamedTuple):
    r"""What the way back from step to step leaves for the gradients.

    Shapes:
        - `h`: (time + 1, batch, hidden); `delta`: (time, batch, 3 hidden); `by_state`:
          (time, batch, score + 2 hidden), by query, reset and update gate;
          `contexts`: (time, batch, value); `scores`: (time, batch, source); `squares`
          and `firsts`: the sums over time of $\bar e a^2$ and $\bar e a$
    """

    h: Tensor
    delta: Tensor
    by_state: Tensor
    contexts: Tensor
    scores: Tensor
    squares: Tensor
    firsts: Tensor


def _before(keys: Tensor, saved: Saved, grad_y: Tensor, grad_contexts: Tensor) -> Back:
    h, gates, _, alpha = saved
    batch, _, size = keys.shape
    return Back(
        torch.cat([torch.zeros_like(h[:1]), grad_y]),
        _factors(gates, h),
        h.new_empty(len(gates), batch, size + 2 * h.shape[2]),
        grad_contexts.clone(),
        torch.empty_like(alpha),
        torch.zeros_like(keys),
        keys.new_zeros(batch, 1, size),
    )


def _steps_back(
    width: int,
    keys: Tensor,
    values: Tensor,
    weights: Parameters,
    saved: Saved,
    grad_y: Tensor,
    grad_contexts: Tensor,
    grad_alpha: Tensor,
) -> Back:
    (h, gates, _, alpha), (batch, _, size) = saved, keys.shape
    hidden, weight_hh = h.shape[2], weights.weight_hh
    of_context, of_reset = weights.weight_ih[:, width:], weight_hh[2 * hidden :]
    first = torch.cat([weights.weight_query, weight_hh[: 2 * hidden]])
    queries = h[:-1] @ weights.weight_query.T
    r, z, _ = gates.chunk(3, dim=-1)
    back = _before(keys, saved, grad_y, grad_contexts)
    tanh, grad_u_t = torch.empty_like(keys), torch.empty_like(h[0])
    grad_query_t = keys.new_empty(batch, size)
    for t in reversed(range(len(gates))):
        grad_h_t, delta_t, by_state_t = back.h[t + 1], back.delta[t], back.by_state[t]
        delta_r_t, delta_z_t, delta_n_t = delta_t.chunk(3, dim=1)
        delta_n_t.mul_(grad_h_t)
        delta_z_t.mul_(grad_h_t)
        torch.mm(delta_n_t, of_reset, out=grad_u_t)
        delta_r_t.mul_(grad_u_t)
        grad_c_t = back.contexts[t].addmm_(delta_t, of_context)
        reached = grad_alpha[t] + torch.bmm(values, grad_c_t[..., None])[..., 0]
        back.scores[t] = score_gradients(alpha[t], reached)
        torch.add(keys, queries[t][:, None], out=tanh).tanh_()
        add_query(tanh, back.scores[t], back.squares, back.firsts, grad_query_t)
        torch.mul(grad_query_t, -weights.weight_score, out=by_state_t[:, :size])
        by_state_t[:, size:] = delta_t[:, : 2 * hidden]
        grad_h_prev = back.h[t].addcmul_(grad_h_t, z[t]).addcmul_(grad_u_t, r[t])
        grad_h_prev.addmm_(by_state_t, first)
    return back


def run(
    x: Tensor,
    h_0: Tensor,
    keys: Tensor,
    values: Tensor,
    real: Tensor,
    weights: Parameters,
    steps: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""As `reference.run`, equal to rounding.

    Shapes:
        - as there
    """
    return _Recurrence.apply(real, steps, x, h_0, keys, values, *weights)  # pyright: ignore


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, real: Tensor, steps: Tensor | None, *tensors: Any
    ) -> tuple[Tensor, ...]:
        x, h_0, keys, values, *weights = tensors
        x_first = _time_first(x, steps)
        saved = bahdanau_forward(x_first, h_0, keys, values, real, Parameters(*weights))
        outputs = [each.transpose(0, 1) for each in (saved.h[1:], *saved[2:])]
        h_n = saved.h[-1]
        if steps is not None:
            last = steps.sum(1)
            h_n = saved.h[last, torch.arange(len(last), device=last.device)]
            outputs = [each.masked_fill(~steps[..., None], 0.0) for each in outputs]
        ctx.save_for_backward(real, steps, *tensors, *saved)
        # Copies: what the caller writes into them must not reach what is kept.
        y, contexts, alpha = (
            each.clone(memory_format=torch.contiguous_format) for each in outputs
        )
        return y, h_n.clone(), contexts, alpha

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor | None, ...]:
        real, steps, *rest = ctx.saved_tensors
        tensors, saved = rest[:10], Saved(*rest[10:])
        needed = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            grads = _by_autograd(real, steps, tensors, upstream, needed)
        else:
            grads = _by_hand(steps, tensors, saved, upstream)
        wanted = (g if n else None for g, n in zip(grads, needed, strict=True))
        return None, None, *wanted


def _time_first(x: Tensor, steps: Tensor | None) -> Tensor:
    return (x if steps is None else blank_padding(x, steps)).transpose(0, 1)


def _by_hand(
    steps: Tensor | None,
    tensors: list[Any],
    saved: Saved,
    upstream: tuple[Tensor, ...],
) -> list[Tensor]:
    x, h_0, keys, values, *weights = tensors
    grad_y, grad_h_n, *others = upstream
    grad_y = grad_y.transpose(0, 1).clone()
    grad_h_0 = torch.zeros_like(h_0)
    others = [other.transpose(0, 1) for other in others]
    if steps is None:
        grad_y[-1] += grad_h_n
    else:
        # The last state is that after the row's last real step, or the first one.
        ended = ~steps.T[..., None]
        grad_y.masked_fill_(ended, 0.0)
        others = [other.masked_fill(ended, 0.0) for other in others]
        last, none = steps.sum(1) - 1, ~steps.any(1, keepdim=True)
        rows = torch.arange(len(last), device=last.device)
        grad_y[last.clamp(min=0), rows] += grad_h_n.masked_fill(none, 0.0)
        grad_h_0 = grad_h_n.where(none, 0.0)
    grads = bahdanau_backward(
        _time_first(x, steps),
        keys,
        values,
        Parameters(*weights),
        saved,
        grad_y,
        *others,
    )
    return [grads[0].transpose(0, 1), grads[1] + grad_h_0, *grads[2:]]


def _by_autograd(
    real: Tensor,
    steps: Tensor | None,
    tensors: list[Any],
    upstream: tuple[Tensor, ...],
    needed: tuple[bool, ...],
) -> list[Tensor | None]:
    r"""The gradients by autograd through the loop, so that they have gradients too."""
    aliases: list[Any] = [
        None if tensor is None else tensor.view_as(tensor) for tensor in tensors
    ]
    x, h_0, keys, values, *weights = aliases
    outputs = reference.run(x, h_0, keys, values, real, Parameters(*weights), steps)
    wanted = [alias for alias, need in zip(aliases, needed, strict=True) if need]
    grads = torch.autograd.grad(
        outputs, wanted, upstream, create_graph=True, materialize_grads=True
    )
    following = iter(grads)
    return [next(following) if need else None for need in needed]
