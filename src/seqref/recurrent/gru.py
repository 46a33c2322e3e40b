r"""The gated recurrent unit: reset after the recurrent product, and before it."""

from abc import abstractmethod
from typing import NamedTuple

from jaxtyping import Float, Integer
from torch import Tensor

from seqref.ops.fused_recurrence import fused_cho_gru, fused_gru
from seqref.ops.fused_recurrence.reference import Weights, cho_gru_step, gru_step
from seqref.recurrent._base import RecurrentCell, RecurrentLayer, built_from


class GRUState(NamedTuple):
    r"""The state of a `GRU` or `ChoGRU`: `h` (batch, hidden)."""

    h: Float[Tensor, "batch hidden"]


class _GatedCell(RecurrentCell[GRUState]):
    n_blocks = 3
    state_type = GRUState

    @staticmethod
    @abstractmethod
    def _step(x_t: Tensor, h_prev: Tensor, weights: Weights) -> Tensor: ...

    def forward(
        self,
        x_t: Float[Tensor, "batch {self.input_size}"],
        state: GRUState | None = None,
    ) -> tuple[Float[Tensor, "batch {self.hidden_size}"], GRUState]:
        state = self._checked(f"{type(self).__name__}.forward", x_t, state)
        h_t = self._step(x_t, state.h, self.weights)
        return h_t, GRUState(h_t)


class GRUCell(_GatedCell):
    r"""One step of a gated recurrent unit (GRU), reset after the product.

    $$
    \begin{aligned}
    r_t &= \sigma(W_{ir} x_t + b_{ir} + W_{hr} h_{t-1} + b_{hr}) \\
    z_t &= \sigma(W_{iz} x_t + b_{iz} + W_{hz} h_{t-1} + b_{hz}) \\
    n_t &= \tanh(W_{in} x_t + b_{in} + r_t \odot (W_{hn} h_{t-1} + b_{hn})) \\
    h_t &= (1 - z_t) \odot n_t + z_t \odot h_{t-1}
    \end{aligned}
    $$

    Each parameter holds its three blocks in the order r, z, n.

    Args:
        input_size: Width of each input vector.
        hidden_size: Width of the state, which is also the output.
        bias: Whether to add the two bias vectors.
        device: Where the parameters are made.
        dtype: Their dtype.

    Shapes:
        - `x_t`: (batch, input); `state`: `GRUState(h)`, (batch, hidden), or None for
          zeros
        - returns: `h_t` (batch, hidden), new `GRUState`

    Cost:
        O(D^2) time and O(D) state per step.

    Initialisation:
        Every parameter uniform in $(-1/\sqrt{D}, 1/\sqrt{D})$, D the hidden size, as
        in `torch.nn.GRUCell` and `torch.nn.GRU`.

    Raises:
        ValueError: `x_t` or `state` has the wrong shape, dtype or device; a size is
            below 1.
        TypeError: `state` is no `GRUState`; a size is no int.

    Source:
        The equations of `torch.nn.GRUCell` and `torch.nn.GRU`. Cho et al. (2014), eqs.
        5 to 8 of the third arXiv version, reset before the product and print no biases.
        Differs: returns `(h_t, state)`, not `h_t`.
    """

    _step = staticmethod(gru_step)


class ChoGRUCell(_GatedCell):
    r"""One step of a gated recurrent unit (GRU), reset before the product.

    $$
    \begin{aligned}
    r_t &= \sigma(W_{ir} x_t + b_{ir} + W_{hr} h_{t-1} + b_{hr}) \\
    z_t &= \sigma(W_{iz} x_t + b_{iz} + W_{hz} h_{t-1} + b_{hz}) \\
    n_t &= \tanh(W_{in} x_t + b_{in} + W_{hn} (r_t \odot h_{t-1}) + b_{hn}) \\
    h_t &= (1 - z_t) \odot n_t + z_t \odot h_{t-1}
    \end{aligned}
    $$

    Each parameter holds its three blocks in the order r, z, n. Weights of a
    `GRUCell` have the same shapes and another meaning: some steps of the one cell are
    steps of the other under no weights.

    Args:
        input_size: Width of each input vector.
        hidden_size: Width of the state, which is also the output.
        bias: Whether to add the two bias vectors.
        device: Where the parameters are made.
        dtype: Their dtype.

    Shapes:
        - `x_t`: (batch, input); `state`: `GRUState(h)`, (batch, hidden), or None for
          zeros
        - returns: `h_t` (batch, hidden), new `GRUState`

    Cost:
        O(D^2) time and O(D) state per step.

    Initialisation:
        Every parameter uniform in $(-1/\sqrt{D}, 1/\sqrt{D})$, D the hidden size, as
        in `torch.nn.GRUCell` and `torch.nn.GRU`.

    Raises:
        ValueError: `x_t` or `state` has the wrong shape, dtype or device; a size is
            below 1.
        TypeError: `state` is no `GRUState`; a size is no int.

    Source:
        Cho et al. (2014), eqs. 5 to 8 of the third arXiv version, without biases.
        Differs: two bias vectors, names, gate order and layout as in
        `torch.nn.GRUCell`; returns `(h_t, state)`.
    """

    _step = staticmethod(cho_gru_step)


class _GatedLayer(RecurrentLayer[_GatedCell, GRUState]):
    @staticmethod
    @abstractmethod
    def _fused(
        x: Tensor,
        h_0: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias_ih: Tensor | None = None,
        bias_hh: Tensor | None = None,
        *,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]: ...

    def step(
        self,
        x_t: Float[Tensor, "batch {self.input_size}"],
        state: GRUState | None = None,
    ) -> tuple[Float[Tensor, "batch {self.hidden_size}"], GRUState]:
        r"""One step, the definition of the layer; None starts from zeros."""
        state = self.cell._checked(f"{type(self).__name__}.step", x_t, state)
        h_t = self.cell._step(x_t, state.h, self.cell.weights)
        return h_t, GRUState(h_t)

    def forward(
        self,
        x: Float[Tensor, "batch time {self.input_size}"],
        state: GRUState | None = None,
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time {self.hidden_size}"], GRUState]:
        state = self._checked(x, state, lengths)
        y, h_n = self._fused(x, state.h, *self.cell.weights, lengths=lengths)
        return y, GRUState(h_n)


class GRU(_GatedLayer):
    r"""A gated recurrent unit (GRU) over a sequence, reset after the product.

    $$ n_t = \tanh(W_{in} x_t + b_{in} + r_t \odot (W_{hn} h_{t-1} + b_{hn})) \qquad
    h_t = (1 - z_t) \odot n_t + z_t \odot h_{t-1} \qquad y_t = h_t $$

    with the gates $r_t, z_t$ as in `GRUCell`.

    Forms:
        `step` (one step), `scan` (a loop over it), and `forward`, which is the op
        `fused_gru`.
    """

    @built_from(GRUCell)
    def __init__(self) -> None: ...

    _fused = staticmethod(fused_gru)


class ChoGRU(_GatedLayer):
    r"""A gated recurrent unit (GRU) over a sequence, reset before the product.

    $$ n_t = \tanh(W_{in} x_t + b_{in} + W_{hn} (r_t \odot h_{t-1}) + b_{hn}) \qquad
    h_t = (1 - z_t) \odot n_t + z_t \odot h_{t-1} \qquad y_t = h_t $$

    with the gates $r_t, z_t$ as in `ChoGRUCell`.

    Forms:
        `step` (one step), `scan` (a loop over it), and `forward`, which is the op
        `fused_cho_gru`.
    """

    @built_from(ChoGRUCell)
    def __init__(self) -> None: ...

    _fused = staticmethod(fused_cho_gru)
