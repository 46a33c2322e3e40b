r"""The long short-term memory with a forget gate."""

from typing import NamedTuple

from jaxtyping import Float, Integer
from torch import Tensor

from seqref.ops.fused_recurrence import fused_lstm
from seqref.ops.fused_recurrence.reference import lstm_step
from seqref.recurrent._base import RecurrentCell, RecurrentLayer, built_from


class LSTMState(NamedTuple):
    r"""The state of an `LSTM`: hidden state `h` and cell state `c`."""

    h: Float[Tensor, "batch hidden"]
    c: Float[Tensor, "batch hidden"]


class LSTMCell(RecurrentCell[LSTMState]):
    r"""One step of a long short-term memory (LSTM).

    $$
    \begin{aligned}
    i_t &= \sigma(W_{ii} x_t + b_{ii} + W_{hi} h_{t-1} + b_{hi}) \\
    f_t &= \sigma(W_{if} x_t + b_{if} + W_{hf} h_{t-1} + b_{hf}) \\
    g_t &= \tanh(W_{ig} x_t + b_{ig} + W_{hg} h_{t-1} + b_{hg}) \\
    o_t &= \sigma(W_{io} x_t + b_{io} + W_{ho} h_{t-1} + b_{ho}) \\
    c_t &= f_t \odot c_{t-1} + i_t \odot g_t \\
    h_t &= o_t \odot \tanh c_t
    \end{aligned}
    $$

    Each parameter holds its four blocks in the order i, f, g, o.

    Args:
        input_size: Width of each input vector.
        hidden_size: Width of hidden state and cell state.
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
        Every parameter uniform in $(-1/\sqrt{D}, 1/\sqrt{D})$, D the hidden size, as
        in `torch.nn.LSTMCell` and `torch.nn.LSTM`; the forget gate's bias is not
        special.

    Raises:
        ValueError: `x_t` or `state` has the wrong shape, dtype or device; a size is
            below 1.
        TypeError: `state` is no `LSTMState`; a size is no int.

    Source:
        Hochreiter & Schmidhuber (1997), without a forget gate; forget gate: Gers,
        Schmidhuber & Cummins (2000).
        Differs: two bias vectors, names, gate order and layout as in
        `torch.nn.LSTMCell`; returns `(h_t, state)`, not `(h, c)`.
    """

    n_blocks = 4
    state_type = LSTMState

    def forward(
        self,
        x_t: Float[Tensor, "batch {self.input_size}"],
        state: LSTMState | None = None,
    ) -> tuple[Float[Tensor, "batch {self.hidden_size}"], LSTMState]:
        state = self._checked("LSTMCell.forward", x_t, state)
        h_t, c_t = lstm_step(x_t, state.h, state.c, self.weights)
        return h_t, LSTMState(h_t, c_t)


class LSTM(RecurrentLayer[LSTMCell, LSTMState]):
    r"""A long short-term memory (LSTM) over a sequence.

    $$ c_t = f_t \odot c_{t-1} + i_t \odot g_t \qquad h_t = o_t \odot \tanh c_t
    \qquad y_t = h_t $$

    with the gates $i_t, f_t, g_t, o_t$ as in `LSTMCell`.

    Forms:
        `step` (one step), `scan` (a loop over it), and `forward`, which is the op
        `fused_lstm`.
    """

    @built_from(LSTMCell)
    def __init__(self) -> None: ...

    def step(
        self,
        x_t: Float[Tensor, "batch {self.input_size}"],
        state: LSTMState | None = None,
    ) -> tuple[Float[Tensor, "batch {self.hidden_size}"], LSTMState]:
        r"""One step, the definition of the layer; None starts from zeros."""
        state = self.cell._checked("LSTM.step", x_t, state)
        h_t, c_t = lstm_step(x_t, state.h, state.c, self.cell.weights)
        return h_t, LSTMState(h_t, c_t)

    def forward(
        self,
        x: Float[Tensor, "batch time {self.input_size}"],
        state: LSTMState | None = None,
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time {self.hidden_size}"], LSTMState]:
        state = self._checked(x, state, lengths)
        y, h_n, c_n = fused_lstm(
            x, state.h, state.c, *self.cell.weights, lengths=lengths
        )
        return y, LSTMState(h_n, c_n)
