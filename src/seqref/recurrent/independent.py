r"""Recurrences without a matrix: each unit sees its own past alone."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqref.errors import check_choice, check_size
from seqref.recurrent._base import built_from
from seqref.recurrent._looped import LoopedCell, LoopedLayer

__all__ = ["IndRNN", "IndRNNCell", "IndRNNState", "limit_recurrent_"]


class IndRNNState(NamedTuple):
    r"""What an `IndRNN` carries from step to step: `h` (batch, hidden)."""

    h: Float[Tensor, "batch hidden"]


class IndRNNCell(LoopedCell[IndRNNState]):
    r"""One step of an independently recurrent network.

    $$ h_t = \phi(W_{ih} x_t + b_{ih} + u \odot h_{t-1} + b_{hh}) $$

    with $\phi$ the rectifier or the hyperbolic tangent, and $u$ a vector: an `RNNCell`
    whose recurrent matrix is diagonal. `weight_hh` holds $u$.

    Args:
        input_size: Width of each input vector.
        hidden_size: Width of the hidden state.
        nonlinearity: ``"relu"`` or ``"tanh"``.
        bias: Whether to add the two bias vectors.
        device: Where the parameters are made.
        dtype: Their dtype.

    Shapes:
        - `x_t`: (batch, input); `state`: `IndRNNState(h)`, (batch, hidden), or None
          for zeros
        - returns: `h_t` (batch, hidden), new `IndRNNState`

    Cost:
        O(D I) time and O(D) state per step, I the input size.

    Initialisation:
        $u$ uniform in (0, 1), all else uniform in $(-1/\sqrt{D}, 1/\sqrt{D})$, D the
        hidden size.

    Raises:
        ValueError: `x_t` or `state` has the wrong shape, dtype or device; a size is
            below 1; `nonlinearity` is unknown.
        TypeError: `state` is no `IndRNNState`; a size is no int.

    Source:
        Li, Li, Cook, Zhu & Gao (2018).
        Differs: two bias vectors, as in `torch.nn.RNNCell`.
    """

    n_blocks = 1
    state_type = IndRNNState

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        nonlinearity: str = "relu",
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_choice(
            type(self).__name__, "nonlinearity", nonlinearity, ("relu", "tanh")
        )
        super().__init__(input_size, hidden_size, bias=bias, device=device, dtype=dtype)
        self.nonlinearity = nonlinearity

    def _recurrent_shape(self) -> tuple[int, ...]:
        return (self.hidden_size,)

    def reset_parameters(self) -> None:
        r"""Draw every parameter anew."""
        super().reset_parameters()
        nn.init.uniform_(self.weight_hh, 0.0, 1.0)

    def _next(self, inputs_t: Tensor, state: IndRNNState) -> IndRNNState:
        pre_t = inputs_t + self.weight_hh * state.h
        if self.bias_hh is not None:
            pre_t = pre_t + self.bias_hh
        h_t = torch.relu(pre_t) if self.nonlinearity == "relu" else torch.tanh(pre_t)
        return IndRNNState(h_t.to(state.h.dtype))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, nonlinearity={self.nonlinearity!r}"


class IndRNN(LoopedLayer[IndRNNState]):
    r"""An independently recurrent network over a sequence.

    $$ h_t = \phi(W_{ih} x_t + b_{ih} + u \odot h_{t-1} + b_{hh}) \qquad y_t = h_t $$

    Forms:
        `step` (one step), `scan` (a loop over it), and `forward`, the same loop with
        the inputs' share of all steps computed at once.
    """

    @built_from(IndRNNCell)
    def __init__(self) -> None: ...


@torch.no_grad()
def limit_recurrent_(
    layer: IndRNN | IndRNNCell, steps: int, largest: float = 2.0
) -> None:
    r"""Move each recurrent weight into the range that bounds its gradient.

    $$ |u_i| \le \gamma^{1/T} \quad\text{gives}\quad
       \left|\frac{\partial h_{T,i}}{\partial h_{0,i}}\right| \le \gamma $$

    since no slope of the rectifier or of tanh is above 1. Call it after each update.

    Args:
        layer: What it is done to, in place.
        steps: $T$, over which the gradient is bounded.
        largest: $\gamma$, how large it may become.

    Shapes:
        - none

    Raises:
        TypeError: `layer` is no `IndRNN` or `IndRNNCell`; `steps` is no int.
        ValueError: `steps` is below 1, or `largest` is not above 0.

    Source:
        Li et al. (2018).
    """
    where = "limit_recurrent_"
    cell = layer.cell if isinstance(layer, IndRNN) else layer
    if not isinstance(cell, IndRNNCell):
        raise TypeError(
            f"{where}: `layer` must be an IndRNN or IndRNNCell, got "
            f"{type(layer).__name__}"
        )
    check_size(where, "steps", steps)
    if not largest > 0:
        raise ValueError(f"{where}: `largest` must be above 0, got {largest}")
    exact = largest ** (1 / steps)
    bound = cell.weight_hh.new_tensor(exact).item()
    if bound > exact:
        # Rounded up, its power would exceed `largest`.
        bound *= 1 - torch.finfo(cell.weight_hh.dtype).eps
    cell.weight_hh.clamp_(-bound, bound)
