r"""The Elman network, the plain recurrent neural network."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from seqref.errors import check_choice
from seqref.ops.fused_recurrence import fused_rnn
from seqref.ops.fused_recurrence.reference import rnn_step
from seqref.recurrent._base import RecurrentCell, RecurrentLayer, built_from


class RNNState(NamedTuple):
    r"""The state of an `RNN`: `h` (batch, hidden)."""

    h: Float[Tensor, "batch hidden"]


class RNNCell(RecurrentCell[RNNState]):
    r"""One step of an Elman recurrent network.

    $$ h_t = \phi(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh}) $$

    with $\phi$ the hyperbolic tangent or the rectifier.

    Args:
        input_size: Width of each input vector.
        hidden_size: Width of the state, which is also the output.
        nonlinearity: ``"tanh"`` or ``"relu"``.
        bias: Whether to add the two bias vectors.
        device: Where the parameters are made.
        dtype: Their dtype.

    Shapes:
        - `x_t`: (batch, input); `state`: `RNNState(h)`, (batch, hidden), or None for
          zeros
        - returns: `h_t` (batch, hidden), new `RNNState`

    Cost:
        O(D^2) time and O(D) state per step.

    Initialisation:
        Every parameter uniform in $(-1/\sqrt{D}, 1/\sqrt{D})$, D the hidden size, as
        in `torch.nn.RNNCell` and `torch.nn.RNN`.

    Raises:
        ValueError: `x_t` or `state` has the wrong shape, dtype or device; a size is
            below 1; `nonlinearity` is unknown.
        TypeError: `state` is no `RNNState`; a size is no int.

    Source:
        Elman (1990), whose activation lies between 0 and 1.
        Differs: two bias vectors, names and layout as in `torch.nn.RNNCell`; returns
        `(h_t, state)`, not `h_t`.
    """

    n_blocks = 1
    state_type = RNNState

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        nonlinearity: str = "tanh",
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_choice("RNNCell", "nonlinearity", nonlinearity, ("tanh", "relu"))
        super().__init__(input_size, hidden_size, bias=bias, device=device, dtype=dtype)
        self.nonlinearity = nonlinearity

    def forward(
        self,
        x_t: Float[Tensor, "batch {self.input_size}"],
        state: RNNState | None = None,
    ) -> tuple[Float[Tensor, "batch {self.hidden_size}"], RNNState]:
        state = self._checked("RNNCell.forward", x_t, state)
        h_t = rnn_step(x_t, state.h, self.weights, self.nonlinearity)
        return h_t, RNNState(h_t)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, nonlinearity={self.nonlinearity!r}"


class RNN(RecurrentLayer[RNNCell, RNNState]):
    r"""An Elman recurrent network over a sequence.

    $$ h_t = \phi(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh}) \qquad y_t = h_t $$

    with $\phi$ as in `RNNCell`.

    Forms:
        `step` (one step), `scan` (a loop over it), and `forward`, which is the op
        `fused_rnn`.
    """

    @built_from(RNNCell)
    def __init__(self) -> None: ...

    def step(
        self,
        x_t: Float[Tensor, "batch {self.input_size}"],
        state: RNNState | None = None,
    ) -> tuple[Float[Tensor, "batch {self.hidden_size}"], RNNState]:
        r"""One step, the definition of the layer; None starts from zeros."""
        state = self.cell._checked("RNN.step", x_t, state)
        h_t = rnn_step(x_t, state.h, self.cell.weights, self.cell.nonlinearity)
        return h_t, RNNState(h_t)

    def forward(
        self,
        x: Float[Tensor, "batch time {self.input_size}"],
        state: RNNState | None = None,
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time {self.hidden_size}"], RNNState]:
        state = self._checked(x, state, lengths)
        y, h_n = fused_rnn(
            x,
            state.h,
            *self.cell.weights,
            nonlinearity=self.cell.nonlinearity,
            lengths=lengths,
        )
        return y, RNNState(h_n)
