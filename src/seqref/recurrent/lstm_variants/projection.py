r"""The LSTM with a projected hidden state."""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from seqref.errors import check_size
from seqref.recurrent._base import built_from
from seqref.recurrent._looped import Device, LoopedCell, LoopedLayer, cell_update
from seqref.recurrent.lstm import LSTMState


class ProjectedLSTMCell(LoopedCell[LSTMState]):
    r"""One step of an LSTM whose hidden state is projected to a smaller width.

    $$
    \begin{aligned}
    (i_{pre}, f_{pre}, g_{pre}, o_{pre}) &=
      W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh} \\
    c_t &= \sigma(f_{pre}) \odot c_{t-1} + \sigma(i_{pre}) \odot \tanh(g_{pre}) \\
    h_t &= W_{hr} (\sigma(o_{pre}) \odot \tanh c_t)
    \end{aligned}
    $$

    Args:
        input_size: Width of each input vector.
        hidden_size: Width of cell state and gates.
        proj_size: Width of hidden state and output; below `hidden_size`.
        bias: Whether to add the two bias vectors.
        device: Where the parameters are made.
        dtype: Their dtype.

    Shapes:
        - `x_t`: (batch, input); `state`: `LSTMState(h, c)`, (batch, proj) and (batch,
          hidden), or None for zeros
        - returns: `h_t` (batch, proj), new `LSTMState`

    Cost:
        O(D (I + P)) time and O(D + P) state per step.

    Initialisation:
        Every parameter uniform in $(-1/\sqrt{D}, 1/\sqrt{D})$, D the hidden size, as
        in `torch.nn.LSTM`.

    Raises:
        ValueError: `x_t` or `state` has the wrong shape, dtype or device; a size is
            below 1, or `proj_size` not below `hidden_size`.
        TypeError: `state` is no `LSTMState`; a size is no int.

    Source:
        The equations of `torch.nn.LSTM` with `proj_size`, its names and its order of
        the gates; its documentation names Sak, Senior & Beaufays (2014).
    """

    state_type = LSTMState

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        proj_size: int,
        *,
        bias: bool = True,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias=bias, device=device, dtype=dtype)
        where = type(self).__name__
        check_size(where, "proj_size", proj_size)
        if proj_size >= hidden_size:
            raise ValueError(
                f"{where}: `proj_size` must be below hidden_size={hidden_size}, got "
                f"{proj_size}"
            )
        self.proj_size = proj_size
        # A square matrix was drawn before. Without that draw, which is thrown away, a
        # seed would give other weights than those that the records were measured with.
        like = self.weight_hh
        # The square matrix that the base drew is thrown away, as no other parameter of
        # a cell is. Without its draws a seed would give other weights than before.
        self.weight_hh = nn.Parameter(like.new_empty(4 * hidden_size, proj_size))
        self.weight_hr = nn.Parameter(like.new_empty(proj_size, hidden_size))
        self.reset_parameters()

    def _axis(self, field: str) -> tuple[str, int]:
        if field == "h":
            return "proj_size", self.proj_size
        return "hidden_size", self.hidden_size

    def _next(self, inputs_t: Tensor, state: LSTMState) -> LSTMState:
        h_prev, c_prev = state
        gates_pre = inputs_t + linear(h_prev, self.weight_hh, self.bias_hh)
        c_t, o_t = cell_update(gates_pre, c_prev)
        h_t = linear(o_t * torch.tanh(c_t), self.weight_hr)
        return LSTMState(h_t.to(h_prev.dtype), c_t.to(c_prev.dtype))

    def extra_repr(self) -> str:
        sizes = f"{self.input_size}, {self.hidden_size}, {self.proj_size}"
        return f"{sizes}, bias={self.bias}"


class ProjectedLSTM(LoopedLayer[LSTMState]):
    r"""An LSTM with a projected hidden state over a sequence.

    $$ c_t = f_t \odot c_{t-1} + i_t \odot g_t \qquad
    h_t = W_{hr} (o_t \odot \tanh c_t) \qquad y_t = h_t $$

    with the gates $i_t, f_t, g_t, o_t$ as in `ProjectedLSTMCell`.

    Forms:
        `step` (one step), `scan` (a loop over it), and `forward`, the same loop with
        the inputs' share of all steps computed at once.
    """

    @built_from(ProjectedLSTMCell)
    def __init__(self) -> None: ...

    @property
    def proj_size(self) -> int:
        return self.cell.proj_size
