r"""The Elman recurrence over all steps, and its adjoint."""

from collections.abc import Container
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from seqref.errors import check_choice
from seqref.ops.fused_recurrence.parallel.common import (
    Gradients,
    check_backward,
    check_forward,
    hidden_gradients,
    input_gradients,
    one_minus_square,
    project,
    spread,
    steps,
    steps_back,
    sum_of,
)
from seqref.ops.fused_recurrence.reference import Weights


class RNNSaved(NamedTuple):
    r"""What `rnn_forward` keeps for `rnn_backward`.

    Shapes:
        - `x`: (time, batch, input); `h`: (time + 1, batch, hidden), from $h_0$
    """

    x: Tensor
    h: Tensor


def rnn_forward(
    x: Float[Tensor, "time batch input"],
    h_0: Float[Tensor, "batch hidden"],
    weights: Weights,
    nonlinearity: str = "tanh",
) -> RNNSaved:
    r"""All states of the Elman recurrence.

    $$ h_t = \phi(a_t) \qquad a_t = W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh} $$

    Time stands first here: one step is one block of memory.

    Shapes:
        - `x`: (time, batch, input); `h_0`: (batch, hidden)
        - weights: (hidden, input), (hidden, hidden), (hidden,), (hidden,)
        - returns: `RNNSaved(x, h)`

    Raises:
        ValueError: a wrong shape, or an unknown `nonlinearity`.
        TypeError: `x` is complex.

    Source:
        The equation of `rnn_step`.
    """
    check_choice("rnn_forward", "nonlinearity", nonlinearity, ("tanh", "relu"))
    check_forward("rnn_forward", x, {"h_0": h_0}, weights, 1)
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    h = x.new_empty(x.shape[0] + 1, *h_0.shape)
    h[0] = h_0
    # The part of a_t that waits for no other step; h[t] turns into h_t in place.
    project(x, weight_ih, sum_of(bias_ih, bias_hh), out=h[1:])
    transposed = weight_hh.T
    for h_prev, h_t in steps(h[:-1], h[1:]):
        h_t.addmm_(h_prev, transposed)
        if nonlinearity == "tanh":
            h_t.tanh_()
        else:
            h_t.relu_()
    return RNNSaved(x, h)


def rnn_backward(
    saved: RNNSaved,
    weights: Weights,
    grad_y: Float[Tensor, "time batch hidden"],
    grad_h_n: Float[Tensor, "batch hidden"],
    nonlinearity: str = "tanh",
    skip: Container[str] = (),
) -> Gradients:
    r"""The adjoint of `rnn_forward`: backpropagation through time.

    With $\bar h_t$ the gradient of the loss by $h_t$ and $\delta_t$ that by $a_t$,
    from the last step to the first:

    $$
    \begin{aligned}
    \bar h_T &= \bar y_T + \bar h_n \qquad
    \bar h_t = \bar y_t + W_{hh}^\top \delta_{t+1} \\
    \delta_t &= \phi'(a_t) \odot \bar h_t
    \qquad \phi'(a_t) = 1 - h_t^2 \ \text{(tanh)}, \quad [h_t > 0] \ \text{(relu)} \\
    \bar h_0 &= W_{hh}^\top \delta_1 \qquad \bar x_t = W_{ih}^\top \delta_t \\
    \bar W_{ih} &= \sum_t \delta_t x_t^\top \qquad
    \bar W_{hh} = \sum_t \delta_t h_{t-1}^\top \qquad
    \bar b_{ih} = \bar b_{hh} = \sum_t \delta_t
    \end{aligned}
    $$

    Args:
        saved: What `rnn_forward` returned.
        weights: The weights that it was given.
        grad_y: $\bar y_t$, the gradients of the loss by the outputs.
        grad_h_n: $\bar h_n$, the gradient by the final state.
        nonlinearity: ``"tanh"`` or ``"relu"``, as in the forward pass.
        skip: Names of gradients that are not wanted; they are None.

    Shapes:
        - `grad_y`: (time, batch, hidden); `grad_h_n`: (batch, hidden)
        - returns: `Gradients`, each in the shape of what it belongs to

    Raises:
        ValueError: a gradient has the wrong shape, or an unknown `nonlinearity`.

    Source:
        The chain rule on the equation of `rnn_step`.
    """
    x, h = saved
    check_choice("rnn_backward", "nonlinearity", nonlinearity, ("tanh", "relu"))
    check_backward("rnn_backward", h, grad_y, grad_h_n)
    weight_ih, weight_hh, _, _ = weights
    # phi'(a_t) of all steps in one pass; delta[t - 1] turns into delta_t in place.
    delta = one_minus_square(h[1:]) if nonlinearity == "tanh" else (h[1:] > 0).to(h)
    grad_h = spread(grad_y, grad_h_n)
    for delta_t, grad_h_t, grad_h_prev in steps_back(delta, grad_h[1:], grad_h[:-1]):
        delta_t.mul_(grad_h_t)
        grad_h_prev.addmm_(delta_t, weight_hh)
    return Gradients(
        *input_gradients(delta, x, weight_ih, skip),
        *hidden_gradients(delta, h[:-1], skip),
        h_0=grad_h[0],
    )
