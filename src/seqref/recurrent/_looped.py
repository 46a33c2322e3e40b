r"""Cells and layers without an op of their own, run by the reference's loop."""

from abc import abstractmethod
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn.functional import linear

from seqref.ops._padding import blank_padding, real_steps
from seqref.ops.fused_recurrence.reference import loop
from seqref.recurrent._base import RecurrentCell, RecurrentLayer

State = TypeVar("State", bound=tuple[Tensor, ...])
Device = torch.device | str | None


class LoopedCell(RecurrentCell[State]):
    r"""A cell in two parts, so that a layer does the first for all steps at once.

    `_inputs` makes the share of the pre-activations that no state before the step has
    a part in, and `_next` makes the rest of the step.
    """

    n_blocks = 4

    def _inputs(self, x: Tensor, state: State) -> Tensor:
        return linear(x, self.weight_ih, self.bias_ih)

    @abstractmethod
    def _next(self, inputs_t: Tensor, state: State) -> State: ...

    def _step(self, where: str, x_t: Tensor, state: State | None) -> tuple[Any, State]:
        state = self._checked(where, x_t, state)
        following = self._next(self._inputs(x_t, state), state)
        return following[0], following

    def forward(
        self, x_t: Float[Tensor, "batch {self.input_size}"], state: State | None = None
    ) -> tuple[Float[Tensor, "batch output"], State]:
        r"""One step; None starts from the initial state."""
        return self._step(f"{type(self).__name__}.forward", x_t, state)


class LoopedLayer(RecurrentLayer[Any, State]):
    r"""A `LoopedCell` over a sequence."""

    @property
    def output_size(self) -> int:
        r"""Width of the outputs."""
        return self.cell._axis("h")[1]

    def step(
        self, x_t: Float[Tensor, "batch {self.input_size}"], state: State | None = None
    ) -> tuple[Float[Tensor, "batch {self.output_size}"], State]:
        r"""One step, the layer's definition; None starts from the initial state."""
        return self.cell._step(f"{type(self).__name__}.step", x_t, state)

    def forward(
        self,
        x: Float[Tensor, "batch time {self.input_size}"],
        state: State | None = None,
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time {self.output_size}"], State]:
        cell, first = self.cell, self._checked(x, state, lengths)
        if lengths is not None:
            lengths = lengths.to(x.device)
            x = blank_padding(x, real_steps(lengths, x.shape[1]))
        kind = cell.state_type
        y, final = loop(
            lambda inputs_t, states: cell._next(inputs_t, kind(*states)),
            cell._inputs(x, first),
            first,
            lengths,
        )
        return y, kind(*final)


def cell_update(gates_pre: Tensor, c_prev: Tensor) -> tuple[Tensor, Tensor]:
    r"""What every variant shares: the new cell state, and the output gate."""
    i_pre, f_pre, g_pre, o_pre = gates_pre.chunk(4, dim=-1)
    i_t = torch.sigmoid(i_pre)
    f_t = torch.sigmoid(f_pre)
    g_t = torch.tanh(g_pre)
    o_t = torch.sigmoid(o_pre)
    return f_t * c_prev + i_t * g_t, o_t
