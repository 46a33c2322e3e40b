r"""Noise in training: zoneout, and dropout with one mask for a whole sequence."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from seqref.errors import check_probability, check_shape, check_tensor
from seqref.recurrent._base import built_from
from seqref.recurrent._looped import Device, LoopedCell, LoopedLayer, cell_update
from seqref.recurrent.lstm import LSTMState


def zoneout(
    new: Float[Tensor, "..."],
    old: Float[Tensor, "..."],
    p: float,
    training: bool = True,
) -> Float[Tensor, "..."]:
    r"""Keep each number of a state as it was with probability p.

    $$ \text{training: } d \odot \text{old} + (1 - d) \odot \text{new}, \quad
    d \sim \text{Bernoulli}(p) \qquad
    \text{evaluation: } p\, \text{old} + (1 - p)\, \text{new} $$

    The draws come from torch's global generator, one for each number, as in
    `torch.nn.functional.dropout`. Gradients reach `old` where it was kept and `new`
    elsewhere; in evaluation both, with the factors p and 1 - p.

    Args:
        new: What the step has made.
        old: The same state before the step.
        p: Probability of keeping the old value; at least 0, below 1.
        training: Whether to draw, or to take the expectation.

    Shapes:
        - `new`, `old`: (...), alike
        - returns: the same shape

    Raises:
        ValueError: the shapes, dtypes or devices differ; `p` is below 0 or not below 1.
        TypeError: `new` or `old` is no tensor; `p` is no number.

    Source:
        Krueger et al. (2017).
    """
    check_tensor("zoneout", "new", new)
    axes = [(f"axis {axis}", size) for axis, size in enumerate(new.shape)]
    check_shape("zoneout", "old", old, axes)
    check_probability("zoneout", "p", p)
    for what in ("dtype", "device"):
        wanted, got = getattr(new, what), getattr(old, what)
        if got != wanted:
            raise ValueError(
                f"zoneout: `old` must have the {what} of `new`, {wanted}, got {got}"
            )
    if not training:
        # Nothing of `old` is taken at p = 0, where zero times infinity would be NaN.
        kept = p * old if p > 0 else torch.zeros_like(old)
        return kept + (1 - p) * new
    keeps_new = torch.empty_like(new).bernoulli_(1 - p).bool()
    return torch.where(keeps_new, new, old)


class ZoneoutLSTMCell(LoopedCell[LSTMState]):
    r"""One step of an LSTM with zoneout on both of its states.

    $$
    \begin{aligned}
    (i_{pre}, f_{pre}, g_{pre}, o_{pre}) &=
      W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh} \\
    \tilde c_t &= \sigma(f_{pre}) \odot c_{t-1} + \sigma(i_{pre}) \odot \tanh(g_{pre})
      & \tilde h_t &= \sigma(o_{pre}) \odot \tanh \tilde c_t \\
    c_t &= d_t^c \odot c_{t-1} + (1 - d_t^c) \odot \tilde c_t
      & h_t &= d_t^h \odot h_{t-1} + (1 - d_t^h) \odot \tilde h_t
    \end{aligned}
    $$

    In training the entries of $d_t^c$ and $d_t^h$ are 1 with the probabilities
    `zoneout_c` and `zoneout_h` and 0 else, drawn anew for each row, unit and step; in
    evaluation they are those probabilities.

    Args:
        input_size: Width of each input vector.
        hidden_size: Width of hidden state and cell state.
        zoneout_c: Probability that a number of the cell state stays as it was; at least
            0, below 1.
        zoneout_h: The same for the hidden state.
        bias: Whether to add the two bias vectors.
        device: Where the parameters are made.
        dtype: Their dtype.

    Shapes:
        - `x_t`: (batch, input); `state`: `LSTMState(h, c)`, each (batch, hidden), or
          None for zeros
        - returns: `h_t` (batch, hidden), new `LSTMState`

    Cost:
        O(D^2) time and O(D) state per step.

    Initialisation:
        Every parameter uniform in $(-1/\sqrt{D}, 1/\sqrt{D})$, D the hidden size.

    Raises:
        ValueError: `x_t` or `state` has the wrong shape, dtype or device; a size is
            below 1; a probability is below 0 or not below 1.
        TypeError: `state` is no `LSTMState`; a size is no int; a probability is no
            number.

    Source:
        Krueger et al. (2017), as in the step function of their `zoneout_pmnist.py`.
        Differs: no batch normalization; names, order of the gates and two bias vectors
        as in `torch.nn.LSTMCell`.
    """

    state_type = LSTMState

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        zoneout_c: float,
        zoneout_h: float,
        bias: bool = True,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias=bias, device=device, dtype=dtype)
        check_probability(type(self).__name__, "zoneout_c", zoneout_c)
        check_probability(type(self).__name__, "zoneout_h", zoneout_h)
        self.zoneout_c, self.zoneout_h = float(zoneout_c), float(zoneout_h)

    def _next(self, inputs_t: Tensor, state: LSTMState) -> LSTMState:
        h_prev, c_prev = state
        gates_pre = inputs_t + linear(h_prev, self.weight_hh, self.bias_hh)
        c_new, o_t = cell_update(gates_pre, c_prev)
        h_new = o_t * torch.tanh(c_new)
        c_t = zoneout(c_new.to(c_prev.dtype), c_prev, self.zoneout_c, self.training)
        h_t = zoneout(h_new.to(h_prev.dtype), h_prev, self.zoneout_h, self.training)
        return LSTMState(h_t, c_t)

    def extra_repr(self) -> str:
        rates = f"zoneout_c={self.zoneout_c}, zoneout_h={self.zoneout_h}"
        return f"{super().extra_repr()}, {rates}"


class ZoneoutLSTM(LoopedLayer[LSTMState]):
    r"""An LSTM with zoneout over a sequence.

    $$ c_t = d_t^c \odot c_{t-1} + (1 - d_t^c) \odot \tilde c_t \qquad
    h_t = d_t^h \odot h_{t-1} + (1 - d_t^h) \odot \tilde h_t \qquad y_t = h_t $$

    with $\tilde c_t$ and $\tilde h_t$ what an LSTM would make, and the masks as in
    `ZoneoutLSTMCell`.

    Forms:
        `step` (one step), `scan` (a loop over it), and `forward`, the same loop with
        the inputs' share of all steps computed at once. In training all three draw the
        same masks from the same state of torch's generator; in a `Stacked` a call draws
        layer by layer, `step` and `scan` step by step.
    """

    @built_from(ZoneoutLSTMCell)
    def __init__(self) -> None: ...


class VariationalLSTMState(NamedTuple):
    r"""The state of a `VariationalLSTM`: `h`, `c`, and the masks of this sequence."""

    h: Float[Tensor, "batch hidden"]
    c: Float[Tensor, "batch hidden"]
    mask_x: Float[Tensor, "batch input"]
    mask_h: Float[Tensor, "batch hidden"]


class VariationalLSTMCell(LoopedCell[VariationalLSTMState]):
    r"""One step of an LSTM with one dropout mask for all steps of a sequence.

    $$
    \begin{aligned}
    (i_{pre}, f_{pre}, g_{pre}, o_{pre}) &=
      W_{ih} (m^x \odot x_t) + b_{ih} + W_{hh} (m^h \odot h_{t-1}) + b_{hh} \\
    c_t &= \sigma(f_{pre}) \odot c_{t-1} + \sigma(i_{pre}) \odot \tanh(g_{pre}) \\
    h_t &= \sigma(o_{pre}) \odot \tanh c_t
    \end{aligned}
    $$

    The masks $m^x$ and $m^h$ are part of the state. `initial_state` draws them, and a
    step returns them unchanged: their entries are 0 with the probabilities `dropout_x`
    and `dropout_h`, and 1 / (1 - probability) else. In evaluation a step does not look
    at them, and `initial_state` fills them with ones.

    Args:
        input_size: Width of each input vector.
        hidden_size: Width of hidden state and cell state.
        dropout_x: Probability that a feature of the input is dropped; at least 0, below
            1.
        dropout_h: Probability that a unit of the hidden state is hidden from the gates;
            at least 0, below 1. The outputs and the state keep it.
        bias: Whether to add the two bias vectors.
        device: Where the parameters are made.
        dtype: Their dtype.

    Shapes:
        - `x_t`: (batch, input); `state`: `VariationalLSTMState(h, c, mask_x, mask_h)`,
          each (batch, hidden) but `mask_x` (batch, input), or None for
          `initial_state`
        - returns: `h_t` (batch, hidden), new `VariationalLSTMState`

    Cost:
        O(D^2) time and O(D) state per step.

    Initialisation:
        Every parameter uniform in $(-1/\sqrt{D}, 1/\sqrt{D})$, D the hidden size.

    Raises:
        ValueError: `x_t` or `state` has the wrong shape, dtype or device; a size is
            below 1; a probability is below 0 or not below 1.
        TypeError: `state` is no `VariationalLSTMState`; a size is no int; a probability
            is no number.

    Source:
        Gal & Ghahramani (2016).
        Differs: one mask for all four gates, where the authors' `main_dropout.lua`
        draws one for each gate; names, order of the gates and two bias vectors as in
        `torch.nn.LSTMCell`.
    """

    state_type = VariationalLSTMState

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        dropout_x: float,
        dropout_h: float,
        bias: bool = True,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias=bias, device=device, dtype=dtype)
        check_probability(type(self).__name__, "dropout_x", dropout_x)
        check_probability(type(self).__name__, "dropout_h", dropout_h)
        self.dropout_x, self.dropout_h = float(dropout_x), float(dropout_h)

    def redraw(self, state: VariationalLSTMState) -> VariationalLSTMState:
        r"""The same `h` and `c` with masks drawn anew.

        Shapes:
            - returns: as `state`

        Raises:
            ValueError: `state` has the wrong shape, dtype or device.
            TypeError: `state` is no `VariationalLSTMState`.
        """
        return self._redraw(f"{type(self).__name__}.redraw", state)

    def _redraw(self, where: str, state: Any) -> VariationalLSTMState:
        batch = 0
        if isinstance(state, VariationalLSTMState):
            axes = (("batch", None), self._axis("h"))
            check_shape(where, "state.h", state.h, axes)
            batch = state.h.shape[0]
        state = self._checked_state(where, state, batch)
        fresh = self._fresh_state(batch)
        return state._replace(mask_x=fresh.mask_x, mask_h=fresh.mask_h)

    def _axis(self, field: str) -> tuple[str, int]:
        if field == "mask_x":
            return "input_size", self.input_size
        return "hidden_size", self.hidden_size

    def _fresh_state(self, batch_size: int) -> VariationalLSTMState:
        state = super()._fresh_state(batch_size)
        return state._replace(
            mask_x=_mask(state.mask_x, self.dropout_x, self.training),
            mask_h=_mask(state.mask_h, self.dropout_h, self.training),
        )

    def _inputs(self, x: Tensor, state: VariationalLSTMState) -> Tensor:
        if self.training:
            mask = state.mask_x
            x = x * (mask[:, None] if x.dim() == 3 else mask)
        return linear(x, self.weight_ih, self.bias_ih)

    def _next(
        self, inputs_t: Tensor, state: VariationalLSTMState
    ) -> VariationalLSTMState:
        h_prev, c_prev = state.h, state.c
        seen = h_prev * state.mask_h if self.training else h_prev
        gates_pre = inputs_t + linear(seen, self.weight_hh, self.bias_hh)
        c_t, o_t = cell_update(gates_pre, c_prev)
        h_t = o_t * torch.tanh(c_t)
        return state._replace(h=h_t.to(h_prev.dtype), c=c_t.to(c_prev.dtype))

    def extra_repr(self) -> str:
        rates = f"dropout_x={self.dropout_x}, dropout_h={self.dropout_h}"
        return f"{super().extra_repr()}, {rates}"


class VariationalLSTM(LoopedLayer[VariationalLSTMState]):
    r"""An LSTM with one dropout mask for all steps of a sequence.

    $$ (h_t, c_t) = \text{LSTM}(m^x \odot x_t,\; m^h \odot h_{t-1},\; c_{t-1})
    \qquad y_t = h_t $$

    with the masks as in `VariationalLSTMCell`: drawn by `initial_state`, carried with
    the state, and left aside in evaluation. So a sequence that is cut into chunks
    meets one mask in all of them, whichever form runs it; `redraw` begins another. A
    state that was begun in evaluation has masks of ones, hence no dropout if it is
    carried into training.

    Forms:
        `step` (one step), `scan` (a loop over it), and `forward`, the same loop with
        the inputs' share of all steps computed at once. From one state all three give
        the same result, in training too.
    """

    @built_from(VariationalLSTMCell)
    def __init__(self) -> None: ...

    def redraw(self, state: VariationalLSTMState) -> VariationalLSTMState:
        r"""The same `h` and `c` with masks drawn anew: between chunks, if wanted.

        Shapes:
            - returns: as `state`

        Raises:
            ValueError: `state` has the wrong shape, dtype or device.
            TypeError: `state` is no `VariationalLSTMState`.
        """
        return self.cell._redraw("VariationalLSTM.redraw", state)


class LockedDropout(nn.Module):
    r"""Dropout with one mask for all steps of a sequence.

    $$ y_t = m \odot x_t $$

    In training each entry of $m$ is 0 with probability p and 1 / (1 - p) else, drawn
    anew for each call, row and feature, and the same at each step; in evaluation it is
    1. It keeps no state, so chunks of one sequence get a mask each: where that matters,
    use `VariationalLSTM`, whose masks are carried.

    Args:
        p: Probability that a feature is dropped; at least 0, below 1.

    Shapes:
        - `x`: (batch, time, width)
        - returns: the same shape

    Cost:
        One product per number, and B D draws for a call.

    Initialisation:
        There are no parameters.

    Raises:
        ValueError: `x` has another number of axes; `p` is below 0 or not below 1.
        TypeError: `x` is no tensor; `p` is no number.

    Source:
        Gal & Ghahramani (2016); the name is that of the code of Merity, Keskar &
        Socher (2018).
        Differs: batch first.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        check_probability("LockedDropout", "p", p)
        self.p = float(p)

    def forward(
        self, x: Float[Tensor, "batch time width"]
    ) -> Float[Tensor, "batch time width"]:
        axes = (("batch", None), ("time", None), ("width", None))
        check_shape("LockedDropout.forward", "x", x, axes)
        if not self.training:
            return x
        mask = x.new_empty(x.shape[0], 1, x.shape[2]).bernoulli_(1 - self.p)
        return x * mask.div_(1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"


def _mask(like: Tensor, p: float, training: bool) -> Tensor:
    # Not in place: torch.func.vmap refuses to write different draws into one tensor.
    return torch.bernoulli(like, 1 - p) / (1 - p) if training else torch.ones_like(like)
