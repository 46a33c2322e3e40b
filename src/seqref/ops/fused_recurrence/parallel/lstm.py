r"""The LSTM over all steps, and its adjoint."""

from collections.abc import Container
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqref.ops.fused_recurrence.parallel.common import (
    LSTMGradients,
    check_backward,
    check_forward,
    hidden_gradients,
    input_gradients,
    project,
    spread,
    steps,
    steps_back,
    sum_of,
)
from seqref.ops.fused_recurrence.reference import Weights


class LSTMSaved(NamedTuple):
    r"""What `lstm_forward` keeps for `lstm_backward`.

    Shapes:
        - `x`: (time, batch, input)
        - `h`, `c`: (time + 1, batch, hidden), from $h_0, c_0$
        - `gates`: (time, batch, 4 hidden), blocks $i_t, f_t, g_t, o_t$
    """

    x: Tensor
    h: Tensor
    c: Tensor
    gates: Tensor


def lstm_forward(
    x: Float[Tensor, "time batch input"],
    h_0: Float[Tensor, "batch hidden"],
    c_0: Float[Tensor, "batch hidden"],
    weights: Weights,
    ended: Bool[Tensor, "time batch 1"] | None = None,
) -> LSTMSaved:
    r"""All states and gates of the LSTM.

    $$
    \begin{aligned}
    i_t &= \sigma(W_{ii} x_t + b_{ii} + W_{hi} h_{t-1} + b_{hi}) \\
    f_t &= \sigma(W_{if} x_t + b_{if} + W_{hf} h_{t-1} + b_{hf}) \\
    g_t &= \tanh(W_{ig} x_t + b_{ig} + W_{hg} h_{t-1} + b_{hg}) \\
    o_t &= \sigma(W_{io} x_t + b_{io} + W_{ho} h_{t-1} + b_{ho}) \\
    c_t &= f_t \odot c_{t-1} + i_t \odot g_t \qquad
    h_t = o_t \odot \tanh c_t
    \end{aligned}
    $$

    Time stands first here: one step is one block of memory. Where a row has `ended`,
    $i_t = 0$ and $f_t = 1$: it holds its $c_t$.

    Shapes:
        - `x`: (time, batch, input); `h_0`, `c_0`: (batch, hidden); `ended`: (time,
          batch, 1) or None
        - weights: (4 hidden, input), (4 hidden, hidden), (4 hidden,), (4 hidden,)
        - returns: `LSTMSaved(x, h, c, gates)`

    Raises:
        ValueError: a wrong shape.
        TypeError: `x` is complex.

    Source:
        The equations of `lstm_step`.
    """
    check_forward("lstm_forward", x, {"h_0": h_0, "c_0": c_0}, weights, 4)
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    time, (batch, hidden) = x.shape[0], h_0.shape
    h = x.new_empty(time + 1, batch, hidden)
    c = x.new_empty(time + 1, batch, hidden)
    h[0], c[0] = h_0, c_0
    # The part of each sum that waits for no other step; it turns into the gates.
    gates = x.new_empty(time, batch, 4 * hidden)
    project(x, weight_ih, sum_of(bias_ih, bias_hh), out=gates)
    if ended is not None:
        gates[..., :hidden].masked_fill_(ended, -torch.inf)
        gates[..., hidden : 2 * hidden].masked_fill_(ended, torch.inf)
    transposed = weight_hh.T
    i, f, g, o = gates.chunk(4, dim=-1)
    i_and_f = gates[..., : 2 * hidden]
    for gates_t, i_and_f_t, i_t, f_t, g_t, o_t, h_prev, c_prev, h_t, c_t in steps(
        gates, i_and_f, i, f, g, o, h[:-1], c[:-1], h[1:], c[1:]
    ):
        gates_t.addmm_(h_prev, transposed)
        i_and_f_t.sigmoid_()
        g_t.tanh_()
        o_t.sigmoid_()
        torch.mul(f_t, c_prev, out=c_t).addcmul_(i_t, g_t)
        torch.tanh(c_t, out=h_t).mul_(o_t)
    return LSTMSaved(x, h, c, gates)


def lstm_backward(
    saved: LSTMSaved,
    weights: Weights,
    grad_y: Float[Tensor, "time batch hidden"],
    grad_h_n: Float[Tensor, "batch hidden"],
    grad_c_n: Float[Tensor, "batch hidden"],
    skip: Container[str] = (),
) -> LSTMGradients:
    r"""The adjoint of `lstm_forward`: backpropagation through time.

    A bar marks the gradient of the loss by what stands under it; $\delta^i_t \dots$ are
    those by the sums inside $i_t, f_t, g_t, o_t$. From the last step to the first:

    $$
    \begin{aligned}
    \bar h_T &= \bar y_T + \bar h_n \\
    \bar c_t &= \bar h_t \odot o_t \odot (1 - \tanh^2 c_t) + \bar c_{t+1} \odot f_{t+1}
    \qquad \text{at } T\text{: } + \bar c_n \text{ instead} \\
    \delta^i_t &= \bar c_t \odot g_t \odot i_t \odot (1 - i_t) \\
    \delta^f_t &= \bar c_t \odot c_{t-1} \odot f_t \odot (1 - f_t) \\
    \delta^g_t &= \bar c_t \odot i_t \odot (1 - g_t^2) \\
    \delta^o_t &= \bar h_t \odot \tanh c_t \odot o_t \odot (1 - o_t) \\
    \bar h_{t-1} &= \bar y_{t-1} + W_{hh}^\top \delta_t
    \qquad \delta_t = (\delta^i_t, \delta^f_t, \delta^g_t, \delta^o_t)
    \end{aligned}
    $$

    with $\bar y_0 = 0$ and, at the start, $\bar c_0 = \bar c_1 \odot f_1$. The weights
    then take one product each:

    $$
    \bar x_t = W_{ih}^\top \delta_t \quad
    \bar W_{ih} = \sum_t \delta_t x_t^\top \quad
    \bar W_{hh} = \sum_t \delta_t h_{t-1}^\top \quad
    \bar b_{ih} = \bar b_{hh} = \sum_t \delta_t
    $$

    Args:
        saved: What `lstm_forward` returned.
        weights: The weights that it was given.
        grad_y: $\bar y_t$, the gradients of the loss by the outputs.
        grad_h_n: $\bar h_n$, the gradient by the final hidden state.
        grad_c_n: $\bar c_n$, the gradient by the final cell state.
        skip: Names of gradients that are not wanted; they are None.

    Shapes:
        - `grad_y`: (time, batch, hidden); `grad_h_n`, `grad_c_n`: (batch, hidden)
        - returns: `LSTMGradients`, each in the shape of what it belongs to

    Raises:
        ValueError: a gradient has the wrong shape.

    Source:
        The chain rule on the equations of `lstm_step`.
    """
    x, h, c, gates = saved
    check_backward("lstm_backward", h, grad_y, grad_h_n, grad_c_n)
    weight_ih, weight_hh, _, _ = weights
    hidden = h.shape[-1]
    f = gates[..., hidden : 2 * hidden]
    # delta[t - 1] turns from the factors of the derivatives into delta_t, in place.
    delta, c_by_h = _factors(gates, c)
    grad_h = spread(grad_y, grad_h_n)
    grad_c_t = grad_c_n.clone(memory_format=torch.contiguous_format)
    delta_ifg = delta[..., : 3 * hidden].unflatten(-1, (3, hidden))
    delta_o = delta[..., 3 * hidden :]
    for_gates = grad_c_t[:, None]
    for (
        delta_t,
        delta_ifg_t,
        delta_o_t,
        f_t,
        c_by_h_t,
        grad_h_t,
        grad_h_prev,
    ) in steps_back(delta, delta_ifg, delta_o, f, c_by_h, grad_h[1:], grad_h[:-1]):
        grad_c_t.addcmul_(grad_h_t, c_by_h_t)
        delta_ifg_t.mul_(for_gates)
        delta_o_t.mul_(grad_h_t)
        grad_h_prev.addmm_(delta_t, weight_hh)
        grad_c_t.mul_(f_t)
    return LSTMGradients(
        *input_gradients(delta, x, weight_ih, skip),
        *hidden_gradients(delta, h[:-1], skip),
        h_0=grad_h[0],
        c_0=grad_c_t,
    )


def _factors(
    gates: Float[Tensor, "time batch four_hidden"],
    c: Float[Tensor, "time_and_one batch hidden"],
) -> tuple[Float[Tensor, "time batch four_hidden"], Float[Tensor, "time batch hidden"]]:
    r"""What $\bar c_t$ and $\bar h_t$ are multiplied by, for all steps in one pass.

    Shapes:
        - returns: the factors of $\delta^i_t \dots \delta^o_t$ (time,
          batch, 4 hidden), and $o_t (1 - \tanh^2 c_t)$ (time, batch, hidden)
    """
    i, f, g, o = gates.chunk(4, dim=-1)
    tanh_c = torch.tanh(c[1:])
    factors = torch.empty_like(gates)
    of_i, of_f, of_g, of_o = factors.chunk(4, dim=-1)
    torch.mul(g, i * (1 - i), out=of_i)
    torch.mul(c[:-1], f * (1 - f), out=of_f)
    torch.mul(i, 1 - g.square(), out=of_g)
    torch.mul(tanh_c, o * (1 - o), out=of_o)
    return factors, o * (1 - tanh_c.square())
