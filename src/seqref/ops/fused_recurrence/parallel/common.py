r"""What the four recurrences share: products, weight gradients."""

from collections.abc import Container, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqref.errors import check_shape
from seqref.ops.fused_recurrence.reference import Weights


class Gradients(NamedTuple):
    r"""Gradients of a recurrence with one state; None for one that was skipped.

    Shapes:
        - `x`: (time, batch, input); `h_0`: (batch, hidden); the others as the weights
    """

    x: Tensor | None
    weight_ih: Tensor | None
    bias_ih: Tensor | None
    weight_hh: Tensor | None
    bias_hh: Tensor | None
    h_0: Tensor


class LSTMGradients(NamedTuple):
    r"""Gradients of the LSTM; None for one that was skipped.

    Shapes:
        - `x`: (time, batch, input); `h_0`, `c_0`: (batch, hidden); the others as the
          weights
    """

    x: Tensor | None
    weight_ih: Tensor | None
    bias_ih: Tensor | None
    weight_hh: Tensor | None
    bias_hh: Tensor | None
    h_0: Tensor
    c_0: Tensor


def check_forward(
    where: str, x: Tensor, states: dict[str, Tensor], weights: Weights, n_blocks: int
) -> None:
    r"""Raise unless all is real and has the shapes of `n_blocks` blocks, time first.

    Raises:
        ValueError: a shape is another one.
        TypeError: `x` is complex.
    """
    weight_ih, weight_hh, *biases = weights
    check_shape(where, "weight_hh", weight_hh, (("rows", None), ("hidden", None)))
    hidden = weight_hh.shape[1]
    rows = ("rows", n_blocks * hidden)
    check_shape(where, "weight_hh", weight_hh, (rows, ("hidden", hidden)))
    check_shape(where, "weight_ih", weight_ih, (rows, ("input", None)))
    for name, bias in zip(("bias_ih", "bias_hh"), biases, strict=True):
        if bias is not None:
            check_shape(where, name, bias, (rows,))
    axes = (("time", None), ("batch", None), ("input", weight_ih.shape[1]))
    check_shape(where, "x", x, axes)
    for name, state in states.items():
        # A batch that stands first shows here.
        axes = (("batch", x.shape[1]), ("hidden", hidden))
        check_shape(where, name, state, axes, "time first in x")
    if x.is_complex():
        raise TypeError(f"{where}: `x` must have a real dtype, got {x.dtype}")


def check_backward(
    where: str,
    h: Tensor,
    grad_y: Tensor,
    grad_h_n: Tensor,
    grad_c_n: Tensor | None = None,
) -> None:
    r"""Raise unless the gradients have the shapes of outputs and final states.

    Raises:
        ValueError: one has another shape.
    """
    time, batch, hidden = h.shape[0] - 1, ("batch", h.shape[1]), ("hidden", h.shape[2])
    check_shape(where, "grad_y", grad_y, (("time", time), batch, hidden))
    check_shape(where, "grad_h_n", grad_h_n, (batch, hidden))
    if grad_c_n is not None:
        check_shape(where, "grad_c_n", grad_c_n, (batch, hidden))


def flat(
    x: Float[Tensor, "time batch width"],
) -> Float[Tensor, "time_batch width"]:
    r"""All steps of all rows under one another, for one product over all of them."""
    return x.reshape(-1, x.shape[-1])


def project(
    x: Float[Tensor, "time batch input"],
    weight: Float[Tensor, "rows input"],
    bias: Float[Tensor, " rows"] | None,
    out: Float[Tensor, "time batch rows"],
) -> None:
    r"""Write $W x_t + b$ of all steps into `out`, by one product."""
    into = out.view(-1, out.shape[-1])
    if bias is None:
        torch.mm(flat(x), weight.T, out=into)
    else:
        torch.addmm(bias, flat(x), weight.T, out=into)


def steps(*parts: Tensor) -> Iterator[tuple[Tensor, ...]]:
    r"""One step after the other: the parts at step 1, at step 2, ...

    All views are made at once: an index in the loop takes as long as a small product.
    """
    return zip(*(part.unbind() for part in parts), strict=True)


def steps_back(*parts: Tensor) -> Iterator[tuple[Tensor, ...]]:
    r"""The same from the last step to the first."""
    return zip(*(reversed(part.unbind()) for part in parts), strict=True)


def sum_of(*biases: Tensor | None) -> Tensor | None:
    r"""The sum, or None where there are no biases."""
    first, *others = biases
    for other in others:
        first = None if first is None or other is None else first + other
    return first


def one_minus_square(a: Tensor) -> Tensor:
    r"""$1 - a^2$ in one pass, with one new tensor."""
    return torch.addcmul(a.new_ones(()), a, a, value=-1)


def product_of_all(
    delta: Float[Tensor, "time batch rows"], other: Float[Tensor, "time batch width"]
) -> Float[Tensor, "rows width"]:
    r"""$\sum_t \delta_t^\top x_t$: the gradient of a weight, by one product."""
    return flat(delta).T @ flat(other)


def sum_of_all(
    delta: Float[Tensor, "time batch rows"],
) -> Float[Tensor, " rows"]:
    r"""$\sum_t \delta_t$ over steps and rows: the gradient of a bias."""
    return delta.sum((0, 1))


def spread(
    grad_y: Float[Tensor, "time batch hidden"],
    grad_h_n: Float[Tensor, "batch hidden"],
) -> Float[Tensor, "time_and_one batch hidden"]:
    r"""What reaches each state from outside: $0, \bar y_1 \dots, \bar y_T + \bar h_n$.

    A copy, to which the steps add what reaches a state from the step after it.
    """
    grad_h = grad_y.new_empty(grad_y.shape[0] + 1, *grad_h_n.shape)
    grad_h[0] = 0
    grad_h[1:] = grad_y
    grad_h[-1] += grad_h_n
    return grad_h


def input_gradients(
    delta: Float[Tensor, "time batch rows"],
    x: Float[Tensor, "time batch input"],
    weight_ih: Float[Tensor, "rows input"],
    skip: Container[str],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    r"""Gradients of `x`, `weight_ih`, `bias_ih` from those of $W_{ih} x_t + b_{ih}$."""
    grad_x = None
    if "x" not in skip:
        grad_x = (flat(delta) @ weight_ih).view(*delta.shape[:2], -1)
    weight = None if "weight_ih" in skip else product_of_all(delta, x)
    bias = None if "bias_ih" in skip else sum_of_all(delta)
    return grad_x, weight, bias


def hidden_gradients(
    delta: Float[Tensor, "time batch rows"],
    h_prev: Float[Tensor, "time batch hidden"],
    skip: Container[str],
) -> tuple[Tensor | None, Tensor | None]:
    r"""Gradients of `weight_hh`, `bias_hh` from those of $W_{hh} h_{t-1} + b_{hh}$."""
    weight = None if "weight_hh" in skip else product_of_all(delta, h_prev)
    bias = None if "bias_hh" in skip else sum_of_all(delta)
    return weight, bias
