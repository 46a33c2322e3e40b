r"""The LSTM as it was: the cell of 1997, peepholes, and coupled gates."""

from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from seqref.errors import check_choice
from seqref.ops.fused_recurrence.reference import Weights
from seqref.recurrent._base import built_from
from seqref.recurrent._looped import LoopedCell, LoopedLayer
from seqref.recurrent.lstm import LSTMState

GRADIENTS = ("whole", "truncated")


def lstm_1997_step(
    x_t: Float[Tensor, "batch input"],
    h_prev: Float[Tensor, "batch hidden"],
    c_prev: Float[Tensor, "batch hidden"],
    weights: Weights,
) -> tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch hidden"]]:
    r"""One step of the memory cell of 1997, by the equations of `LSTM1997Cell`.

    Shapes:
        - `x_t`: (batch, input); `h_prev`, `c_prev`: (batch, hidden)
        - weights: (3 hidden, input), (3 hidden, hidden), (3 hidden,), (3 hidden,)
        - returns: `h_t`, `c_t`, each (batch, hidden)

    Source:
        Hochreiter & Schmidhuber (1997), eqs. 3 to 9.
    """
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    gates_pre = linear(x_t, weight_ih, bias_ih) + linear(h_prev, weight_hh, bias_hh)
    i_pre, g_pre, o_pre = gates_pre.chunk(3, dim=1)
    i_t = torch.sigmoid(i_pre)
    # eq. 5: 4 sigmoid(a) - 2, without the difference of two near numbers
    g_t = 2 * torch.tanh(g_pre / 2)
    o_t = torch.sigmoid(o_pre)
    c_t = c_prev + i_t * g_t
    # eq. 4: 2 sigmoid(a) - 1
    h_t = o_t * torch.tanh(c_t / 2)
    return h_t, c_t


class _Cell(LoopedCell[LSTMState]):
    state_type = LSTMState

    def _inputs(self, x: Tensor, state: LSTMState) -> Tensor:
        # Each step is whole, as the equations have it.
        return x

    def _next(self, inputs_t: Tensor, state: LSTMState) -> LSTMState:
        h_t, c_t = self._update(inputs_t, state.h, state.c)
        # As in every layer: the dtype of the state, also under autocast.
        return LSTMState(h_t.to(state.h.dtype), c_t.to(state.c.dtype))

    def _blocks(self, x_t: Tensor, h_prev: Tensor) -> tuple[Tensor, ...]:
        r"""The pre-activations, one for each block of the parameters."""
        weight_ih, weight_hh, bias_ih, bias_hh = self.weights
        gates_pre = linear(x_t, weight_ih, bias_ih) + linear(h_prev, weight_hh, bias_hh)
        return gates_pre.chunk(self.n_blocks, dim=1)

    @abstractmethod
    def _update(
        self, x_t: Tensor, h_prev: Tensor, c_prev: Tensor
    ) -> tuple[Tensor, Tensor]: ...


class LSTM1997Cell(_Cell):
    r"""One step of the memory cell of 1997: no forget gate.

    $$
    \begin{aligned}
    i_t &= \sigma(W_{ii} x_t + b_{ii} + W_{hi} h_{t-1} + b_{hi}) \\
    g_t &= 4\,\sigma(W_{ig} x_t + b_{ig} + W_{hg} h_{t-1} + b_{hg}) - 2 \\
    o_t &= \sigma(W_{io} x_t + b_{io} + W_{ho} h_{t-1} + b_{ho}) \\
    c_t &= c_{t-1} + i_t \odot g_t \\
    h_t &= o_t \odot (2\,\sigma(c_t) - 1)
    \end{aligned}
    $$

    Each parameter holds its three blocks in the order i, g, o.

    Args:
        input_size: Width of each input vector.
        hidden_size: Width of hidden state and cell state.
        bias: Whether to add the two bias vectors.
        gradient: ``"whole"``: what backpropagation through time gives. ``"truncated"``,
            the learning rule of the paper: an error that reaches a pre-activation
            changes the weights there and goes no further back in time, so that none
            reaches $h_{t-1}$, and along $c$ the factor is 1. This is not the gradient
            of the loss. The outputs are the same.
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
        in the other cells and layers; the paper's were drawn within 0.1 or 0.2 of 0,
        gates often with negative biases.

    Raises:
        ValueError: `x_t` or `state` has the wrong shape, dtype or device; a size is
            below 1; `gradient` is unknown.
        TypeError: `state` is no `LSTMState`; a size is no int.

    Source:
        Hochreiter & Schmidhuber (1997), sec. 4, eqs. 3 to 9; truncation: appendix A.1.
        Differs: one cell for each pair of gates (memory cell blocks of size 1); no unit
        reads the gates of the step before; `x_t` is of the current step, as in sec. 5,
        where the appendix has $t - 1$; two bias vectors; `x_t` takes a gradient, where
        the inputs of the paper are data.
    """

    n_blocks = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        gradient: str = "whole",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias=bias, device=device, dtype=dtype)
        check_choice(type(self).__name__, "gradient", gradient, GRADIENTS)
        self.gradient = gradient

    def _update(
        self, x_t: Tensor, h_prev: Tensor, c_prev: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.gradient == "truncated":
            # The one way from a net input back in time; c_prev stays on the graph.
            h_prev = h_prev.detach()
        return lstm_1997_step(x_t, h_prev, c_prev, self.weights)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, gradient={self.gradient!r}"


class LSTM1997(LoopedLayer[LSTMState]):
    r"""The LSTM of 1997 over a sequence: no forget gate.

    $$ c_t = c_{t-1} + i_t \odot g_t \qquad h_t = o_t \odot (2\,\sigma(c_t) - 1)
    \qquad y_t = h_t $$

    with $i_t, g_t, o_t$ as in `LSTM1997Cell`.

    Cost:
        O(T D^2) time, T steps one after the other; O(D) state. By either gradient
        training keeps all T steps; the paper's own algorithm carries sums forwards
        instead and keeps none.
    """

    @built_from(LSTM1997Cell)
    def __init__(self) -> None: ...


class PeepholeLSTMCell(_Cell):
    r"""One step of an LSTM whose gates also read the cell state.

    $$
    \begin{aligned}
    i_t &= \sigma(W_{ii} x_t + b_{ii} + W_{hi} h_{t-1} + b_{hi} + p_i \odot c_{t-1}) \\
    f_t &= \sigma(W_{if} x_t + b_{if} + W_{hf} h_{t-1} + b_{hf} + p_f \odot c_{t-1}) \\
    g_t &= \tanh(W_{ig} x_t + b_{ig} + W_{hg} h_{t-1} + b_{hg}) \\
    c_t &= f_t \odot c_{t-1} + i_t \odot g_t \\
    o_t &= \sigma(W_{io} x_t + b_{io} + W_{ho} h_{t-1} + b_{ho} + p_o \odot c_t) \\
    h_t &= o_t \odot \tanh c_t
    \end{aligned}
    $$

    Four parameters are those of an `LSTMCell`, blocks in the order i, f, g, o. The
    fifth, `weight_ch`, holds the peephole weights $p_i, p_f, p_o$, one for each unit
    and gate. With zeros there the cell is an `LSTMCell`.

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
        O(D^2) time and O(D) state per step; 3 D products more than an `LSTMCell`.

    Initialisation:
        Every parameter uniform in $(-1/\sqrt{D}, 1/\sqrt{D})$, D the hidden size; the
        forget gate's bias is not special.

    Raises:
        ValueError: `x_t` or `state` has the wrong shape, dtype or device; a size is
            below 1.
        TypeError: `state` is no `LSTMState`; a size is no int.

    Source:
        Peephole connections: Gers & Schmidhuber (2000). The equations are those of the
        ONNX operator LSTM with its input P, whose blocks stand in the order i, o, f.
        Differs: blocks in the order i, f, g, o and i, f, o.
    """

    n_blocks = 4

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias=bias, device=device, dtype=dtype)
        self.weight_ch = nn.Parameter(self.weight_hh.new_empty(3 * hidden_size))
        # Those of the base are drawn a second time, so that a seed gives what it gave.
        self.reset_parameters()

    def _update(
        self, x_t: Tensor, h_prev: Tensor, c_prev: Tensor
    ) -> tuple[Tensor, Tensor]:
        i_pre, f_pre, g_pre, o_pre = self._blocks(x_t, h_prev)
        p_i, p_f, p_o = self.weight_ch.chunk(3)
        i_t = torch.sigmoid(i_pre + p_i * c_prev)
        f_t = torch.sigmoid(f_pre + p_f * c_prev)
        g_t = torch.tanh(g_pre)
        c_t = f_t * c_prev + i_t * g_t
        # The output gate sees the new cell state.
        o_t = torch.sigmoid(o_pre + p_o * c_t)
        h_t = o_t * torch.tanh(c_t)
        return h_t, c_t


class PeepholeLSTM(LoopedLayer[LSTMState]):
    r"""An LSTM over a sequence whose gates also read the cell state.

    $$ c_t = f_t \odot c_{t-1} + i_t \odot g_t \qquad h_t = o_t \odot \tanh c_t
    \qquad y_t = h_t $$

    with $i_t, f_t, g_t, o_t$ as in `PeepholeLSTMCell`: $i_t$ and $f_t$ read $c_{t-1}$,
    $o_t$ reads $c_t$.
    """

    @built_from(PeepholeLSTMCell)
    def __init__(self) -> None: ...


class CoupledGateLSTMCell(_Cell):
    r"""One step of an LSTM that forgets as much as it writes.

    $$
    \begin{aligned}
    i_t &= \sigma(W_{ii} x_t + b_{ii} + W_{hi} h_{t-1} + b_{hi}) \\
    g_t &= \tanh(W_{ig} x_t + b_{ig} + W_{hg} h_{t-1} + b_{hg}) \\
    o_t &= \sigma(W_{io} x_t + b_{io} + W_{ho} h_{t-1} + b_{ho}) \\
    c_t &= (1 - i_t) \odot c_{t-1} + i_t \odot g_t \\
    h_t &= o_t \odot \tanh c_t
    \end{aligned}
    $$

    Each parameter holds its three blocks in the order i, g, o. An entry of the cell
    state that starts between -1 and 1 stays there.

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
        O(D^2) time and O(D) state per step; three quarters of an `LSTMCell`'s products.

    Initialisation:
        Every parameter uniform in $(-1/\sqrt{D}, 1/\sqrt{D})$, D the hidden size.

    Raises:
        ValueError: `x_t` or `state` has the wrong shape, dtype or device; a size is
            below 1.
        TypeError: `state` is no `LSTMState`; a size is no int.

    Source:
        Greff et al. (2017) compare it as a variant of the LSTM with peepholes; here it
        has none. The ONNX operator LSTM with `input_forget` = 1.
        Differs: two bias vectors, names and layout as in `torch.nn`'s cells.
    """

    n_blocks = 3

    def _update(
        self, x_t: Tensor, h_prev: Tensor, c_prev: Tensor
    ) -> tuple[Tensor, Tensor]:
        i_pre, g_pre, o_pre = self._blocks(x_t, h_prev)
        i_t = torch.sigmoid(i_pre)
        g_t = torch.tanh(g_pre)
        o_t = torch.sigmoid(o_pre)
        c_t = (1 - i_t) * c_prev + i_t * g_t
        h_t = o_t * torch.tanh(c_t)
        return h_t, c_t


class CoupledGateLSTM(LoopedLayer[LSTMState]):
    r"""An LSTM over a sequence that forgets as much as it writes.

    $$ c_t = (1 - i_t) \odot c_{t-1} + i_t \odot g_t \qquad h_t = o_t \odot \tanh c_t
    \qquad y_t = h_t $$

    with $i_t, g_t, o_t$ as in `CoupledGateLSTMCell`.
    """

    @built_from(CoupledGateLSTMCell)
    def __init__(self) -> None: ...
