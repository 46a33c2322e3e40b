r"""The gated recurrent unit over all steps, and its adjoint."""

from collections.abc import Container
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqref.ops.fused_recurrence.parallel.common import (
    Gradients,
    check_backward,
    check_forward,
    hidden_gradients,
    input_gradients,
    project,
    spread,
    steps,
    steps_back,
)
from seqref.ops.fused_recurrence.reference import Weights


class GRUSaved(NamedTuple):
    r"""What `gru_forward` keeps for `gru_backward`.

    Shapes:
        - `x`: (time, batch, input); `h`: (time + 1, batch, hidden), from $h_0$
        - `gates`: (time, batch, 4 hidden), blocks $s_t, r_t, z_t, n_t$ with
          $s_t = W_{hn} h_{t-1} + b_{hn}$
    """

    x: Tensor
    h: Tensor
    gates: Tensor


def gru_forward(
    x: Float[Tensor, "time batch input"],
    h_0: Float[Tensor, "batch hidden"],
    weights: Weights,
) -> GRUSaved:
    r"""All states and gates of the GRU that resets after the recurrent product.

    $$
    \begin{aligned}
    s_t &= W_{hn} h_{t-1} + b_{hn} \\
    r_t &= \sigma(W_{ir} x_t + b_{ir} + W_{hr} h_{t-1} + b_{hr}) \\
    z_t &= \sigma(W_{iz} x_t + b_{iz} + W_{hz} h_{t-1} + b_{hz}) \\
    n_t &= \tanh(W_{in} x_t + b_{in} + r_t \odot s_t) \\
    h_t &= n_t + z_t \odot (h_{t-1} - n_t)
    \end{aligned}
    $$

    Time stands first here: one step is one block of memory.

    Shapes:
        - `x`: (time, batch, input); `h_0`: (batch, hidden)
        - weights: (3 hidden, input), (3 hidden, hidden), (3 hidden,), (3 hidden,)
        - returns: `GRUSaved(x, h, gates)`

    Raises:
        ValueError: a wrong shape.
        TypeError: `x` is complex.

    Source:
        The equations of `gru_step`.
    """
    check_forward("gru_forward", x, {"h_0": h_0}, weights, 3)
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    time, (batch, hidden) = x.shape[0], h_0.shape
    h = x.new_empty(time + 1, batch, hidden)
    h[0] = h_0
    # Blocks s, r, z, n: the first three take the recurrent product, the last three
    # that of the input, so that each is one product into one slice.
    gates = x.new_empty(time, batch, 4 * hidden)
    project(x, weight_ih, bias_ih, out=gates[..., hidden:])
    gates[..., :hidden] = 0
    if bias_hh is not None:
        gates[..., : 3 * hidden] += n_first(bias_hh)
    transposed = n_first(weight_hh).T
    s, r, z, n = gates.chunk(4, dim=-1)
    srz, rz = gates[..., : 3 * hidden], gates[..., hidden : 3 * hidden]
    for srz_t, rz_t, s_t, r_t, z_t, n_t, h_prev, h_t in steps(
        srz, rz, s, r, z, n, h[:-1], h[1:]
    ):
        srz_t.addmm_(h_prev, transposed)
        rz_t.sigmoid_()
        n_t.addcmul_(r_t, s_t).tanh_()
        torch.lerp(n_t, h_prev, z_t, out=h_t)
    return GRUSaved(x, h, gates)


def n_first(weight: Tensor) -> Tensor:
    r"""Rows in the order n, r, z instead of r, z, n; also for a bias."""
    return weight.roll(weight.shape[0] // 3, dims=0)


def gru_backward(
    saved: GRUSaved,
    weights: Weights,
    grad_y: Float[Tensor, "time batch hidden"],
    grad_h_n: Float[Tensor, "batch hidden"],
    skip: Container[str] = (),
) -> Gradients:
    r"""The adjoint of `gru_forward`: backpropagation through time.

    A bar marks the gradient of the loss by what stands under it; $\delta^r_t$,
    $\delta^z_t$, $\delta^n_t$ are those by the sums inside $r_t, z_t, n_t$, and
    $\delta^s_t = \bar s_t$. From the last step to the first:

    $$
    \begin{aligned}
    \bar h_T &= \bar y_T + \bar h_n \\
    \delta^n_t &= \bar h_t \odot (1 - z_t) \odot (1 - n_t^2) \\
    \delta^z_t &= \bar h_t \odot (h_{t-1} - n_t) \odot z_t \odot (1 - z_t) \\
    \delta^s_t &= \delta^n_t \odot r_t \\
    \delta^r_t &= \delta^n_t \odot s_t \odot r_t \odot (1 - r_t) \\
    \bar h_{t-1} &= \bar y_{t-1} + \bar h_t \odot z_t + W_{hn}^\top \delta^s_t
    + W_{hr}^\top \delta^r_t + W_{hz}^\top \delta^z_t
    \end{aligned}
    $$

    with $\bar y_0 = 0$. The weights then take one product each: with
    $\delta^i_t = (\delta^r_t, \delta^z_t, \delta^n_t)$ and
    $\delta^h_t = (\delta^r_t, \delta^z_t, \delta^s_t)$,

    $$
    \bar x_t = W_{ih}^\top \delta^i_t \quad
    \bar W_{ih} = \sum_t \delta^i_t x_t^\top \quad
    \bar b_{ih} = \sum_t \delta^i_t \quad
    \bar W_{hh} = \sum_t \delta^h_t h_{t-1}^\top \quad
    \bar b_{hh} = \sum_t \delta^h_t
    $$

    Args:
        saved: What `gru_forward` returned.
        weights: The weights that it was given.
        grad_y: $\bar y_t$, the gradients of the loss by the outputs.
        grad_h_n: $\bar h_n$, the gradient by the final state.
        skip: Names of gradients that are not wanted; they are None.

    Shapes:
        - `grad_y`: (time, batch, hidden); `grad_h_n`: (batch, hidden)
        - returns: `Gradients`, each in the shape of what it belongs to

    Raises:
        ValueError: a gradient has the wrong shape.

    Source:
        The chain rule on the equations of `gru_step`.
    """
    x, h, gates = saved
    check_backward("gru_backward", h, grad_y, grad_h_n)
    weight_ih, weight_hh, _, _ = weights
    hidden = h.shape[-1]
    s, r, z, n = gates.chunk(4, dim=-1)
    # The factors of all steps in one pass; delta[t - 1] turns into delta_t in place.
    delta = torch.empty_like(gates)
    delta_s, delta_r, delta_z, delta_n = delta.chunk(4, dim=-1)
    torch.mul(1 - z, 1 - n.square(), out=delta_n)
    torch.mul(h[:-1] - n, z * (1 - z), out=delta_z)
    torch.mul(delta_n, r, out=delta_s)
    torch.mul(delta_s, s * (1 - r), out=delta_r)
    rows = n_first(weight_hh)
    grad_h = spread(grad_y, grad_h_n)
    delta_srz = delta[..., : 3 * hidden]
    by_gate = delta_srz.unflatten(-1, (3, hidden))
    for_gates = grad_h[1:].unsqueeze(2)
    for by_gate_t, for_gates_t, delta_srz_t, z_t, grad_h_t, grad_h_prev in steps_back(
        by_gate, for_gates, delta_srz, z, grad_h[1:], grad_h[:-1]
    ):
        by_gate_t.mul_(for_gates_t)
        grad_h_prev.addcmul_(grad_h_t, z_t).addmm_(delta_srz_t, rows)
    delta_n.mul_(grad_h[1:])
    weight, bias = hidden_gradients(delta_srz, h[:-1], skip)
    return Gradients(
        *input_gradients(delta[..., hidden:], x, weight_ih, skip),
        None if weight is None else n_last(weight),
        None if bias is None else n_last(bias),
        h_0=grad_h[0],
    )


def n_last(weight: Tensor) -> Tensor:
    r"""The inverse of `n_first`."""
    return weight.roll(-(weight.shape[0] // 3), dims=0)
