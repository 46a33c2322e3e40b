r"""Absolute positions as a layer: what is added below the first block."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor, nn

from seqref.attention import sinusoidal
from seqref.errors import check_lengths, check_probability, check_shape, check_size
from seqref.models._like import made_like
from seqref.models.encoder_decoder.bound import blank
from seqref.models.transformer.stack import check_norm
from seqref.recurrence import width_of


class PositionState(NamedTuple):
    r"""State of `AddPositions`: how many steps each row has had, (batch,) integers."""

    position: Integer[Tensor, " batch"]


class SinusoidalPositions(nn.Module):
    r"""The fixed vectors of `sinusoidal`, added to what stands at each position.

    Args:
        d_model: Width of each vector; even.

    Shapes:
        - `x`: (batch, time, model); `offset`: (batch,), the steps before the first
        - returns: as `x`

    Cost:
        O(T D) for T steps; no parameters.

    Raises:
        ValueError: `d_model` is odd or below 2.
        TypeError: `d_model` is no int.

    Source:
        Vaswani et al. (2017), sec. 3.5.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        sinusoidal(torch.zeros(0, dtype=torch.int64), d_model)
        self.d_model = d_model

    def forward(
        self,
        x: Float[Tensor, "batch time {self.d_model}"],
        offset: Integer[Tensor, " batch"],
    ) -> Float[Tensor, "batch time {self.d_model}"]:
        steps = torch.arange(x.shape[1], device=x.device)
        places = offset.to(x.device)[:, None] + steps
        return x + sinusoidal(places, self.d_model, dtype=x.dtype)


class AddPositions(nn.Module):
    r"""A layer that adds a vector for each position; its state counts the steps.

    $$ y_t = \mathrm{norm}(x_t + p_{n + t}) $$

    after $n$ steps of earlier calls. It stands below the first block.

    Args:
        positions: Called as ``positions(x, offset)`` with one offset a row, returns the
            sum: `LearnedPositions`, or `SinusoidalPositions`.
        norm: A norm of the sum, as BERT has; None for none.
        dropout: Probability that a number of the result is zeroed in training.

    Shapes:
        - `x`: (batch, time, model); `x_t`: (batch, model); `lengths`: (batch,)
          integers, the rest of each row is padding; `state`: `PositionState(position)`,
          or None for zeros
        - returns: `y`, as `x`, zero in the padding, and the state

    Cost:
        O(T D) for T steps, and one integer a row of state.

    Initialisation:
        `positions` and `norm` keep their own.

    Forms:
        `step`, `scan` (a loop over it), and `forward`.

    Raises:
        TypeError: `positions` does not tell `d_model`; `state` is no `PositionState`;
            `lengths` is not of an integer dtype.
        ValueError: `dropout` outside 0 to 1; a wrong shape or length; a position that
            `positions` does not have.

    Source:
        Vaswani et al. (2017), sec. 3.5; the norm: Devlin et al. (2019), in their code.
    """

    def __init__(
        self,
        positions: nn.Module,
        *,
        norm: nn.Module | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        width = width_of(positions, "d_model")
        if width is None:
            raise TypeError(
                "AddPositions: `positions` must be a module with `d_model`, such as "
                f"seqref.LearnedPositions, got {type(positions).__name__}"
            )
        check_norm("AddPositions", norm)
        check_probability("AddPositions", "dropout", dropout)
        self.input_size = self.output_size = width
        self.positions = positions
        self.norm = norm
        self.dropout = float(dropout)

    def initial_state(self, batch_size: int) -> PositionState:
        r"""No step so far, in every row."""
        check_size("AddPositions.initial_state", "batch_size", batch_size, minimum=0)
        device = made_like(self).get("device")
        return PositionState(torch.zeros(batch_size, dtype=torch.int64, device=device))

    def step(
        self, x_t: Float[Tensor, "batch {self.input_size}"], state: PositionState
    ) -> tuple[Float[Tensor, "batch {self.input_size}"], PositionState]:
        r"""One step: the vector of the state's position is added."""
        where = "AddPositions.step"
        check_shape(where, "x_t", x_t, (("batch", None), ("d_model", self.input_size)))
        y, state = self._run(where, x_t[:, None], state, None)
        return y[:, 0], state

    def forward(
        self,
        x: Float[Tensor, "batch time {self.input_size}"],
        state: PositionState | None = None,
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time {self.input_size}"], PositionState]:
        where = "AddPositions.forward"
        axes = ("batch", None), ("time", None), ("d_model", self.input_size)
        check_shape(where, "x", x, axes)
        if lengths is not None:
            check_lengths(where, lengths, *x.shape[:2])
        if state is None:
            state = self.initial_state(len(x))
        return self._run(where, x, state, lengths)

    def _run(
        self, where: str, x: Tensor, state: Any, lengths: Tensor | None
    ) -> tuple[Tensor, PositionState]:
        if not isinstance(state, PositionState):
            raise TypeError(
                f"{where}: `state` must be a PositionState, got {type(state).__name__} "
                "(pass what initial_state or the step before returned)"
            )
        axes = (("batch", len(x)),)
        check_shape(where, "state.position", state.position, axes)
        y = self.positions(blank(x, lengths), state.position)
        y = y if self.norm is None else self.norm(y)
        y = blank(F.dropout(y, self.dropout, self.training), lengths)
        taken = x.shape[1] if lengths is None else lengths.to(state.position)
        return y, PositionState(state.position + taken)
