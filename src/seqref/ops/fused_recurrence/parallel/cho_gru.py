r"""The GRU that resets before the product, over all steps, and its adjoint."""

from collections.abc import Container
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqref.ops.fused_recurrence.parallel.common import (
    Gradients,
    check_backward,
    check_forward,
    input_gradients,
    product_of_all,
    project,
    spread,
    steps,
    steps_back,
    sum_of,
    sum_of_all,
)
from seqref.ops.fused_recurrence.reference import Weights


class ChoGRUSaved(NamedTuple):
    r"""What `cho_gru_forward` keeps for `cho_gru_backward`.

    Shapes:
        - `x`: (time, batch, input); `h`: (time + 1, batch, hidden), from $h_0$
        - `gates`: (time, batch, 3 hidden), blocks $r_t, z_t, n_t$
    """

    x: Tensor
    h: Tensor
    gates: Tensor


def cho_gru_forward(
    x: Float[Tensor, "time batch input"],
    h_0: Float[Tensor, "batch hidden"],
    weights: Weights,
) -> ChoGRUSaved:
    r"""All states and gates of the GRU that resets before the recurrent product.

    $$
    \begin{aligned}
    r_t &= \sigma(W_{ir} x_t + b_{ir} + W_{hr} h_{t-1} + b_{hr}) \\
    z_t &= \sigma(W_{iz} x_t + b_{iz} + W_{hz} h_{t-1} + b_{hz}) \\
    n_t &= \tanh(W_{in} x_t + b_{in} + W_{hn} (r_t \odot h_{t-1}) + b_{hn}) \\
    h_t &= n_t + z_t \odot (h_{t-1} - n_t)
    \end{aligned}
    $$

    Time stands first here: one step is one block of memory.

    Shapes:
        - `x`: (time, batch, input); `h_0`: (batch, hidden)
        - weights: (3 hidden, input), (3 hidden, hidden), (3 hidden,), (3 hidden,)
        - returns: `ChoGRUSaved(x, h, gates)`

    Raises:
        ValueError: a wrong shape.
        TypeError: `x` is complex.

    Source:
        The equations of `cho_gru_step`.
    """
    check_forward("cho_gru_forward", x, {"h_0": h_0}, weights, 3)
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    time, (batch, hidden) = x.shape[0], h_0.shape
    h = x.new_empty(time + 1, batch, hidden)
    h[0] = h_0
    # The part of each sum that waits for no other step; it turns into the gates.
    gates = x.new_empty(time, batch, 3 * hidden)
    project(x, weight_ih, sum_of(bias_ih, bias_hh), out=gates)
    weight_rz, weight_n = weight_hh[: 2 * hidden].T, weight_hh[2 * hidden :].T
    u_t = torch.empty_like(h[0])
    r, z, n = gates.chunk(3, dim=-1)
    rz = gates[..., : 2 * hidden]
    for rz_t, r_t, z_t, n_t, h_prev, h_t in steps(rz, r, z, n, h[:-1], h[1:]):
        rz_t.addmm_(h_prev, weight_rz).sigmoid_()
        torch.mul(r_t, h_prev, out=u_t)
        n_t.addmm_(u_t, weight_n).tanh_()
        torch.lerp(n_t, h_prev, z_t, out=h_t)
    return ChoGRUSaved(x, h, gates)


def cho_gru_backward(
    saved: ChoGRUSaved,
    weights: Weights,
    grad_y: Float[Tensor, "time batch hidden"],
    grad_h_n: Float[Tensor, "batch hidden"],
    skip: Container[str] = (),
) -> Gradients:
    r"""The adjoint of `cho_gru_forward`: backpropagation through time.

    A bar marks the gradient of the loss by what stands under it; $\delta^r_t$,
    $\delta^z_t$, $\delta^n_t$ are those by the sums inside $r_t, z_t, n_t$, and
    $u_t = r_t \odot h_{t-1}$. From the last step to the first:

    $$
    \begin{aligned}
    \bar h_T &= \bar y_T + \bar h_n \\
    \delta^n_t &= \bar h_t \odot (1 - z_t) \odot (1 - n_t^2) \\
    \delta^z_t &= \bar h_t \odot (h_{t-1} - n_t) \odot z_t \odot (1 - z_t) \\
    \bar u_t &= W_{hn}^\top \delta^n_t \\
    \delta^r_t &= \bar u_t \odot h_{t-1} \odot r_t \odot (1 - r_t) \\
    \bar h_{t-1} &= \bar y_{t-1} + \bar h_t \odot z_t + \bar u_t \odot r_t
    + W_{hr}^\top \delta^r_t + W_{hz}^\top \delta^z_t
    \end{aligned}
    $$

    with $\bar y_0 = 0$. The weights then take one product each: with
    $\delta_t = (\delta^r_t, \delta^z_t, \delta^n_t)$,

    $$
    \begin{aligned}
    \bar x_t &= W_{ih}^\top \delta_t \qquad
    \bar W_{ih} = \sum_t \delta_t x_t^\top \qquad
    \bar b_{ih} = \bar b_{hh} = \sum_t \delta_t \\
    \bar W_{hr} &= \sum_t \delta^r_t h_{t-1}^\top \qquad
    \bar W_{hz} = \sum_t \delta^z_t h_{t-1}^\top \qquad
    \bar W_{hn} = \sum_t \delta^n_t u_t^\top
    \end{aligned}
    $$

    Args:
        saved: What `cho_gru_forward` returned.
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
        The chain rule on the equations of `cho_gru_step`.
    """
    x, h, gates = saved
    check_backward("cho_gru_backward", h, grad_y, grad_h_n)
    weight_ih, weight_hh, _, _ = weights
    hidden = h.shape[-1]
    weight_rz, weight_n = weight_hh[: 2 * hidden], weight_hh[2 * hidden :]
    r, z, _ = gates.chunk(3, dim=-1)
    # delta[t - 1] turns from the factors of the derivatives into delta_t, in place.
    delta = _factors(gates, h)
    delta_r, delta_z, delta_n = delta.chunk(3, dim=-1)
    grad_h = spread(grad_y, grad_h_n)
    grad_u_t = torch.empty_like(grad_h[0])
    deltas = (delta_r, delta_z, delta_n, delta[..., : 2 * hidden])
    # delta_t holds the parts r, z, n and, once more, r and z together.
    for *delta_t, r_t, z_t, grad_h_t, grad_h_prev in steps_back(
        *deltas, r, z, grad_h[1:], grad_h[:-1]
    ):
        delta_r_t, delta_z_t, delta_n_t, delta_rz_t = delta_t
        delta_n_t.mul_(grad_h_t)
        delta_z_t.mul_(grad_h_t)
        torch.mm(delta_n_t, weight_n, out=grad_u_t)
        delta_r_t.mul_(grad_u_t)
        grad_h_prev.addcmul_(grad_h_t, z_t).addcmul_(grad_u_t, r_t)
        grad_h_prev.addmm_(delta_rz_t, weight_rz)
    weight = None
    if "weight_hh" not in skip:
        weight_of_rz = product_of_all(delta[..., : 2 * hidden], h[:-1])
        weight = torch.cat([weight_of_rz, product_of_all(delta_n, r * h[:-1])])
    bias = None if "bias_hh" in skip else sum_of_all(delta)
    grads = input_gradients(delta, x, weight_ih, skip)
    return Gradients(*grads, weight, bias, h_0=grad_h[0])


def _factors(
    gates: Float[Tensor, "time batch three_hidden"],
    h: Float[Tensor, "time_and_one batch hidden"],
) -> Float[Tensor, "time batch three_hidden"]:
    r"""What $\bar u_t$ and $\bar h_t$ are multiplied by, for all steps in one pass.

    Shapes:
        - returns: the factors of $\delta^r_t, \delta^z_t, \delta^n_t$ (time, batch,
          3 hidden)
    """
    r, z, n = gates.chunk(3, dim=-1)
    factors = torch.empty_like(gates)
    of_r, of_z, of_n = factors.chunk(3, dim=-1)
    torch.mul(h[:-1], r * (1 - r), out=of_r)
    torch.mul(h[:-1] - n, z * (1 - z), out=of_z)
    torch.mul(1 - z, 1 - n.square(), out=of_n)
    return factors
