r"""Luong's decoder: attention after the step, and input feeding."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from seqref.errors import check_size
from seqref.models._like import made_like
from seqref.models.encoder_decoder.bound import AttendingDecoder, Source, by_scan
from seqref.models.encoder_decoder.fits import (
    check_attention,
    first_output,
    no_weights,
    widths,
)
from seqref.recurrence import width_of


class LuongState(NamedTuple):
    r"""State of a `LuongDecoder`.

    `layer` is the layer's state; `attended` (rows, output) the last $\tilde h_t$, which
    is a part of the next input; `position` (rows,) the number of steps so far;
    `weights` (rows, source) those of the last step, zeros before the first.
    """

    layer: Any
    attended: Float[Tensor, "rows output"]
    position: Integer[Tensor, " rows"]
    weights: Float[Tensor, "rows source"]


class LuongDecoder(AttendingDecoder):
    r"""Attention after the step: the new state asks, and input feeding carries it on.

    $$
    \begin{aligned}
    h_t &= \text{layer}([x_t; \tilde h_{t-1}], h_{t-1}) \qquad
    c_t = \sum_j \alpha_{tj} m_j \qquad \alpha_t = \mathrm{attention}(h_t, m) \\
    \tilde h_t &= \tanh(W_c [c_t; h_t]) \qquad y_t = \tilde h_t
    \end{aligned}
    $$

    Args:
        layer: Any causal layer whose input is as wide as $[x_t; \tilde h_{t-1}]$;
            a stack of LSTMs in the paper.
        attention: With `prepare` and `attend`, a query as wide as the layer's output:
            `MultiplicativeAttention` in the paper.
        output_size: Width of $\tilde h_t$; None for the layer's.

    Shapes:
        - `memory`: (batch, source, memory); `lengths`: (batch,), None for all
        - bound, `x_t`: (rows, input), the layer's input less `output_size`; `y_t`:
          (rows, output); state: `LuongState`

    Cost:
        O(S D + D^2) time a step for a source of S positions; a whole target is a loop,
        since each input needs the output before.

    Initialisation:
        Layer and attention keep their own; $W_c$ uniform in
        $(-1/\sqrt{n}, 1/\sqrt{n})$, n its input width.

    Raises:
        TypeError: `layer` is no causal layer that tells its widths; `attention` has no
            `prepare` and `attend`.
        ValueError: widths that do not fit; a size below 1; a wrong shape or length.

    Source:
        Luong, Pham & Manning (2015), eq. 5 and sec. 3.3 (input feeding).
    """

    state_type = LuongState

    def __init__(
        self, layer: nn.Module, attention: nn.Module, output_size: int | None = None
    ) -> None:
        super().__init__()
        where = "LuongDecoder"
        takes, gives = widths(where, layer)
        check_attention(where, attention, gives, tells_position=True)
        self.output_size = gives if output_size is None else output_size
        check_size(where, "output_size", self.output_size)
        if takes <= self.output_size:
            raise ValueError(
                f"{where}: `layer` must have an input_size above output_size="
                f"{self.output_size}, since it reads the token's embedding and the "
                f"output before, got {takes}"
            )
        self.input_size = takes - self.output_size
        self.layer: Any = layer
        self.attention: Any = attention
        joined = gives + width_of(attention, "memory_size")  # pyright: ignore
        like = made_like(layer)
        self.combine = nn.Linear(joined, self.output_size, bias=False, **like)

    def layer_state(self, rows: int) -> Any:
        return self.layer.initial_state(rows)

    def state_from(self, start: Any, source: Source) -> LuongState:
        output = first_output(start, self.attention.query_size)
        rows = len(output)
        attended = output.new_zeros(rows, self.output_size)
        position = torch.zeros(rows, dtype=torch.int64, device=output.device)
        return LuongState(start, attended, position, no_weights(output, source))

    def advance(
        self, x_t: Tensor, state: LuongState, source: Source
    ) -> tuple[Tensor, LuongState]:
        joined = torch.cat([x_t, state.attended], dim=1)
        h_t, layer = self.layer.step(joined, state.layer)
        where_it_is = {}
        if getattr(self.attention, "uses_position", False):
            where_it_is["position"] = state.position
        context, weights = self.attention.attend(h_t, source.attended, **where_it_is)
        attended = torch.tanh(self.combine(torch.cat([context, h_t], dim=1)))
        return attended, LuongState(layer, attended, state.position + 1, weights)

    def sequence(
        self, x: Tensor, state: LuongState, source: Source, lengths: Tensor | None
    ) -> tuple[Tensor, LuongState, Tensor]:
        return by_scan(self, x, state, source, lengths)
