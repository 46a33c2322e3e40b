r"""The LSTM with layer normalization."""

import math
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from seqref.errors import check_number
from seqref.recurrent._base import built_from
from seqref.recurrent._looped import Device, LoopedCell, LoopedLayer, cell_update
from seqref.recurrent.lstm import LSTMState


class LayerNormLSTMCell(LoopedCell[LSTMState]):
    r"""One step of an LSTM with layer normalization.

    $$
    \begin{aligned}
    (i_{pre}, f_{pre}, g_{pre}, o_{pre}) &=
      \mathrm{LN}_{ih}(W_{ih} x_t) + \mathrm{LN}_{hh}(W_{hh} h_{t-1}) \\
    c_t &= \sigma(f_{pre}) \odot c_{t-1} + \sigma(i_{pre}) \odot \tanh(g_{pre}) \\
    h_t &= \sigma(o_{pre}) \odot \tanh(\mathrm{LN}_c(c_t))
    \end{aligned}
    $$

    Each LN takes the mean and the variance over one vector of one row: 4 hidden numbers
    in `norm_ih` and `norm_hh`, hidden numbers in `norm_c`; then it multiplies by its
    `weight` and adds its `bias`. The state holds $c_t$ as it is, before `norm_c`.

    Args:
        input_size: Width of each input vector.
        hidden_size: Width of hidden state and cell state; at least 2.
        bias: Whether the three norms have a bias. There are no other biases.
        eps: Added to each variance; above 0 and finite.
        device: Where the parameters are made.
        dtype: Their dtype.

    Shapes:
        - `x_t`: (batch, input); `state`: `LSTMState(h, c)`, each (batch, hidden), or
          None for zeros
        - returns: `h_t` (batch, hidden), new `LSTMState`

    Cost:
        O(D^2) time and O(D) state per step.

    Initialisation:
        Both matrices uniform in $(-1/\sqrt{D}, 1/\sqrt{D})$, D the hidden size; each
        norm's weight 1 and bias 0. While the biases are 0, each input of zeros with
        which a sequence begins multiplies gradients, up to the order of 1 / `eps`.

    Raises:
        ValueError: `x_t` or `state` has the wrong shape, dtype or device; a size is
            too small; `eps` is not above 0 or not finite.
        TypeError: `state` is no `LSTMState`; a size is no int; `eps` is no number.

    Source:
        Ba, Kiros & Hinton (2016), in the form of `lnlstm_layer` in their code.
        Differs: order of the gates as in `torch.nn.LSTMCell`; the biases are those of
        the norms alone, where that code adds one further vector twice, inside and
        outside of the norm of the inputs.
    """

    state_type = LSTMState
    # The norm of one number is zero, whatever the number.
    least_hidden_size = 2

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        eps: float = 1e-5,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, bias=False, device=device, dtype=dtype
        )
        where = type(self).__name__
        check_number(where, "eps", eps, above=0, finite_in=torch.float64)
        self.bias, self.eps = bias, eps
        norm = partial(nn.LayerNorm, eps=eps, bias=bias, device=device, dtype=dtype)
        self.norm_ih = norm(4 * hidden_size)
        self.norm_hh = norm(4 * hidden_size)
        self.norm_c = norm(hidden_size)

    def reset_parameters(self) -> None:
        r"""Draw both matrices anew; the norms' weights become 1, their biases 0."""
        bound = 1 / math.sqrt(self.hidden_size)
        for weight in (self.weight_ih, self.weight_hh):
            nn.init.uniform_(weight, -bound, bound)
        for norm in self.children():
            cast(nn.LayerNorm, norm).reset_parameters()

    def _inputs(self, x: Tensor, state: LSTMState) -> Tensor:
        return self.norm_ih(linear(x, self.weight_ih))

    def _next(self, inputs_t: Tensor, state: LSTMState) -> LSTMState:
        h_prev, c_prev = state
        gates_pre = inputs_t + self.norm_hh(linear(h_prev, self.weight_hh))
        c_t, o_t = cell_update(gates_pre, c_prev)
        h_t = o_t * torch.tanh(self.norm_c(c_t))
        return LSTMState(h_t.to(h_prev.dtype), c_t.to(c_prev.dtype))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, eps={self.eps}"


class LayerNormLSTM(LoopedLayer[LSTMState]):
    r"""An LSTM with layer normalization over a sequence.

    $$ c_t = f_t \odot c_{t-1} + i_t \odot g_t \qquad
    h_t = o_t \odot \tanh(\mathrm{LN}_c(c_t)) \qquad y_t = h_t $$

    with the gates $i_t, f_t, g_t, o_t$ as in `LayerNormLSTMCell`: their pre-activations
    are normalized too.

    Forms:
        `step` (one step), `scan` (a loop over it), and `forward`, the same loop with
        the inputs' share of all steps computed at once.
    """

    @built_from(LayerNormLSTMCell)
    def __init__(self) -> None: ...
