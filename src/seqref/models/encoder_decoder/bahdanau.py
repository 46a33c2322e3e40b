r"""Bahdanau's decoder: attention before the step."""

from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqref.attention import AdditiveAttention
from seqref.errors import check_size
from seqref.models._like import made_like
from seqref.models.encoder_decoder.bound import (
    AttendingDecoder,
    Source,
    at_last_step,
    blank,
    by_scan,
)
from seqref.models.encoder_decoder.fits import (
    check_attention,
    embedding_width,
    first_output,
    no_weights,
    widths,
)
from seqref.ops.bahdanau_recurrence import bahdanau_recurrence
from seqref.recurrence import map_state
from seqref.recurrent import ChoGRU, GRUState


class BahdanauState(NamedTuple):
    r"""State of a `BahdanauDecoder`.

    `layer` is the layer's state; `output` (rows, hidden) the layer's last output, which
    asks at the next step; `weights` (rows, source) those of the last step, zeros before
    the first.
    """

    layer: Any
    output: Float[Tensor, "rows hidden"]
    weights: Float[Tensor, "rows source"]


class BahdanauDecoder(AttendingDecoder):
    r"""Attention before the step: the state before it asks, the context goes in.

    $$
    \begin{aligned}
    c_t &= \sum_j \alpha_{tj} m_j \qquad
    \alpha_t = \mathrm{attention}(s_{t-1}, m) \\
    s_t &= \text{layer}([x_t; c_t], s_{t-1}) \\
    \tilde t_t &= W_o [s_{t-1}; x_t; c_t] + b_o \qquad
    y_{t,k} = \max(\tilde t_{t,2k-1}, \tilde t_{t,2k})
    \end{aligned}
    $$

    The readout takes the state *before* the step as well, so that $y_t$ waits for
    attention and not for the layer.

    Args:
        layer: Any causal layer whose input is as wide as $[x_t; c_t]$; `ChoGRU` in the
            paper.
        attention: With `prepare` and `attend`, a query as wide as the layer's output:
            `AdditiveAttention` in the paper.
        readout_size: Width of $y_t$, half the readout's.

    Shapes:
        - `memory`: (batch, source, memory); `lengths`: (batch,), None for all
        - bound, `x_t`: (rows, input), the layer's input less the memory's width;
          `y_t`: (rows, readout); state: `BahdanauState`

    Cost:
        O(S D + D^2) time a step for a source of S positions. Over `ChoGRU` with
        `AdditiveAttention` all steps after the first are the op `bahdanau_recurrence`;
        over other layers they are a loop.

    Initialisation:
        Layer and attention keep their own; the readout uniform in
        $(-1/\sqrt{n}, 1/\sqrt{n})$, n its input width.

    Raises:
        TypeError: `layer` is no causal layer that tells its widths; `attention` has no
            `prepare` and `attend`.
        ValueError: widths that do not fit; a size below 1; a wrong shape or length.

    Source:
        Bahdanau, Cho & Bengio (2015), appendix A.2.2, where $z_t$ has the other sign
        and biases are left out. The readout takes $s_{t-1}$ as the appendix's formula
        does; the probability that it stands for is written with $s_t$.
    """

    state_type = BahdanauState

    def __init__(
        self, layer: nn.Module, attention: nn.Module, readout_size: int
    ) -> None:
        super().__init__()
        where = "BahdanauDecoder"
        takes, gives = widths(where, layer)
        check_attention(where, attention, gives)
        check_size(where, "readout_size", readout_size)
        self.input_size = embedding_width(where, takes, attention, "memory_size")
        self.output_size = readout_size
        self.layer: Any = layer
        self.attention: Any = attention
        width = gives + takes
        self.readout = nn.Linear(width, 2 * readout_size, **made_like(layer))

    def layer_state(self, rows: int) -> Any:
        return self.layer.initial_state(rows)

    def state_from(self, start: Any, source: Source) -> BahdanauState:
        output = first_output(start, self.attention.query_size)
        return BahdanauState(start, output, no_weights(output, source))

    def advance(
        self, x_t: Tensor, state: BahdanauState, source: Source
    ) -> tuple[Tensor, BahdanauState]:
        context, following = self._advance(x_t, state, source)
        return self._read(state.output, x_t, context), following

    def _advance(
        self, x_t: Tensor, state: BahdanauState, source: Source
    ) -> tuple[Tensor, BahdanauState]:
        context, weights = self.attention.attend(state.output, source.attended)
        joined = torch.cat([x_t, context], dim=1)
        output, layer = self.layer.step(joined, state.layer)
        return context, BahdanauState(layer, output, weights)

    def _read(self, before: Tensor, x: Tensor, context: Tensor) -> Tensor:
        # Pairs that stand next to each other, as in the paper.
        pairs = self.readout(torch.cat([before, x, context], dim=-1))
        return pairs.unflatten(-1, (self.output_size, 2)).amax(dim=-1)

    def sequence(
        self,
        x: Tensor,
        state: BahdanauState,
        source: Source,
        lengths: Tensor | None,
    ) -> tuple[Tensor, BahdanauState, Tensor]:
        published = (
            type(self.layer) is ChoGRU and type(self.attention) is AdditiveAttention
        )
        if not published or x.shape[1] == 0 or len(x) == 0:
            return by_scan(self, x, state, source, lengths)
        return self._by_op(x, state, source, lengths)

    def _by_op(
        self,
        x: Tensor,
        state: BahdanauState,
        source: Source,
        lengths: Tensor | None,
    ) -> tuple[Tensor, BahdanauState, Tensor]:
        # The op's state both asks and is carried on. In the state that came these are
        # two tensors, so the first step is made by itself.
        x, remaining, keep = blank(x, lengths), None, None
        context, first = self._advance(x[:, 0], state, source)
        if lengths is not None:
            lengths = lengths.to(x.device, torch.int64)
            remaining, keep = (lengths - 1).clamp(min=0), lengths[:, None] > 0
            first = map_state(partial(torch.where, keep), first, state)
        # The op has a source for each row; `step` shares it.
        each = len(x) // source.batch
        keys, values, real = source.attended
        if each > 1:
            keys, values, real = (t.repeat_interleave(each, 0) for t in source.attended)
        outputs, h_n, contexts, weights = bahdanau_recurrence(
            x[:, 1:],
            first.layer.h,
            keys,
            values,
            self.attention.weight_query,
            self.attention.weight_score,
            *self.layer.cell.weights,
            lengths=remaining,
            source_lengths=real.sum(1),
        )
        before = torch.stack([state.output, first.output], dim=1)
        before = torch.cat([before, outputs], dim=1)[:, :-1]
        contexts = torch.cat([context[:, None], contexts], dim=1)
        weights = torch.cat([first.weights[:, None], weights], dim=1)
        y = blank(self._read(before, x, contexts), lengths)
        output = h_n if keep is None else torch.where(keep, h_n, state.output)
        weights = blank(weights, lengths)
        last = at_last_step(state.weights, weights, lengths)
        return y, BahdanauState(GRUState(h_n), output, last), weights
