r"""Segment recurrence (Transformer-XL): attention to inputs that earlier calls kept."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn.functional import pad

from seqref.attention._cross import head_sizes, split_heads
from seqref.attention._scores import _products
from seqref.attention.positions import sinusoidal
from seqref.errors import (
    check_lengths,
    check_like_parameters,
    check_shape,
    check_size,
)
from seqref.ops._padding import blank_padding, real_steps

__all__ = ["SegmentState", "TransformerXLAttention"]


class SegmentState(NamedTuple):
    r"""Inputs of the last steps, and how many of them each row has had.

    `h` (batch, memory, model), `length` (batch,), an integer of at most `memory`. The
    latest input of a row stands last, and what is before its first is zero; a layer
    does not read it. Neither has a gradient.
    """

    h: Float[Tensor, "batch memory model"]
    length: Integer[Tensor, " batch"]


class TransformerXLAttention(nn.Module):
    r"""Causal attention with relative positions, to a segment and the inputs before it.

    With $\tilde h$ the memory, then the segment $x$; $i$ the place of the query in
    $\tilde h$, and $R_n$ the vector of `sinusoidal` for the distance $n$:

    $$ q_i = W_q x_i \qquad k_j = W_{k,E} \tilde h_j \qquad v_j = W_v \tilde h_j
       \qquad r_n = W_{k,R} R_n $$

    $$ A_{ij} = q_i^\top k_j + q_i^\top r_{i - j} + u^\top k_j + v^\top r_{i - j}
       \qquad y_i = W_o \sum_{j \le i} \mathrm{softmax}_j
       \Big( \frac{A_{ij}}{\sqrt{d}} \Big) v_j $$

    in each of the heads, whose results stand side by side before $W_o$. A query sees
    all of the memory and its segment up to itself, or the last `window` of these. What
    is kept are inputs, and no gradient passes into them.

    Args:
        d_model: Width of inputs and outputs.
        n_heads: Heads, $H$.
        memory: How many inputs are kept for the next call.
        window: How many positions a step sees, its own and those before it; None for
            all that there are. Up to `memory + 1` results do not depend on where a
            sequence is cut.
        d_head: Width of a head, $d$; None for `d_model / n_heads`.
        device: Where the parameters are made.
        dtype: Their dtype.

    Shapes:
        - `x_t`: (batch, model); `x`: (batch, time, model), one segment; `lengths`:
          (batch,)
        - `state`: `SegmentState(h, length)` with `h` (batch, memory, model)
        - returns: outputs shaped as the input, and the new state, of the same shape

    Cost:
        O((M + T) D^2 + T (M + T) D) time for a segment of T steps and M kept inputs,
        and so O(M D^2) for a step, which projects the memory anew; M D numbers of
        state. Training keeps T (M + T) weights a head.

    Forms:
        `step`, which is a segment of one step; `scan`; and `forward`, one segment.
        `forward` equals `scan` where a query of the segment sees no further than a step
        does: with `window` at most `memory + 1` (`chunk_invariant` is True), or while
        the memory holds all that came before. Gradients stop at every cut. In a segment
        a later step has the weight 0; where it holds NaN or an infinity, earlier
        outputs can be NaN, as 0 times NaN is.

    Initialisation:
        `qkv_net.weight` as a whole and `r_net.weight` by Glorot's uniform law,
        `o_net.weight` uniform in $(-1/\sqrt{n}, 1/\sqrt{n})$ for n inputs; $u$ and $v$
        are 0.

    Raises:
        ValueError: a wrong shape, dtype, device, length or size; heads that do not
            divide.
        TypeError: `state` is no `SegmentState`; `lengths` is not of an integer dtype.

    Source:
        Dai et al. (2019), sec. 3.2 and 3.3. Parameters have the names and shapes of the
        authors' PyTorch code: `qkv_net` is $W_q, W_{k,E}, W_v$ below each other,
        `r_net` $W_{k,R}$, `o_net` $W_o$, `r_w_bias` $u$, `r_r_bias` $v$. With
        `same_length` and a full memory their code sees `window = memory`, and that of
        XLNet `window = memory + 1`.
        Differs: no residual sum, norm or dropout; $u$ and $v$ are the layer's own, in
        the paper all layers share them; other initial values; an odd `d_model` has the
        vectors of the next even one, less the last number.
    """

    differentiable_state = False

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        memory: int,
        window: int | None = None,
        d_head: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = "TransformerXLAttention"
        sizes = head_sizes(where, d_model, n_heads, None, d_head)
        check_size(where, "memory", memory)
        if window is not None:
            check_size(where, "window", window)
        self.input_size = self.output_size = self.d_model = d_model
        self.n_heads, _, self.d_head = sizes
        self.memory, self.window = memory, window
        options: Any = {"bias": False, "device": device, "dtype": dtype}
        rows = self.n_heads * self.d_head
        self.qkv_net = nn.Linear(d_model, 3 * rows, **options)
        self.r_net = nn.Linear(d_model, rows, **options)
        self.o_net = nn.Linear(rows, d_model, **options)
        biases = self.qkv_net.weight.new_empty(2, self.n_heads, self.d_head)
        self.r_w_bias = nn.Parameter(biases[0].clone())
        self.r_r_bias = nn.Parameter(biases[1].clone())
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draw every parameter anew."""
        nn.init.xavier_uniform_(self.qkv_net.weight)
        nn.init.xavier_uniform_(self.r_net.weight)
        self.o_net.reset_parameters()
        nn.init.zeros_(self.r_w_bias)
        nn.init.zeros_(self.r_r_bias)

    @property
    def chunk_invariant(self) -> bool:
        r"""Whether results do not depend on where a sequence is cut."""
        return self.window is not None and self.window <= self.memory + 1

    def initial_state(self, batch_size: int) -> SegmentState:
        r"""A memory without an input.

        Shapes:
            - returns: `h` (batch, memory, model) and `length` (batch,), zeros

        Raises:
            ValueError: `batch_size` is below 0.
            TypeError: `batch_size` is no int.
        """
        where = "TransformerXLAttention.initial_state"
        check_size(where, "batch_size", batch_size, minimum=0)
        return self._empty(batch_size)

    def step(
        self, x_t: Float[Tensor, "batch {self.d_model}"], state: SegmentState
    ) -> tuple[Float[Tensor, "batch {self.d_model}"], SegmentState]:
        r"""One step: a segment of its own.

        Shapes:
            - as the class
        """
        where = "TransformerXLAttention.step"
        check_shape(where, "x_t", x_t, (("batch", None), ("d_model", self.d_model)))
        check_like_parameters(where, "x_t", x_t, self.r_w_bias)
        y, state = self._segment(x_t[:, None], self._checked(where, state, len(x_t)))
        return y[:, 0], state

    def forward(
        self,
        x: Float[Tensor, "batch time {self.d_model}"],
        state: SegmentState | None = None,
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time {self.d_model}"], SegmentState]:
        where = "TransformerXLAttention.forward"
        axes = ("batch", None), ("time", None), ("d_model", self.d_model)
        check_shape(where, "x", x, axes)
        check_like_parameters(where, "x", x, self.r_w_bias)
        # The size of the batch stays one in a trace.
        state = self._empty(x.shape[0]) if state is None else state
        state = self._checked(where, state, len(x))
        if lengths is None:
            return self._segment(x, state)
        check_lengths(where, lengths, *x.shape[:2])
        real = real_steps(lengths.to(x.device), x.shape[1])
        y, state = self._segment(blank_padding(x, real), state, lengths)
        return blank_padding(y, real), state

    def _empty(self, batch: int) -> SegmentState:
        h = self.r_w_bias.new_zeros(batch, self.memory, self.d_model)
        return SegmentState(h, h.new_zeros(batch, dtype=torch.int64))

    def _checked(self, where: str, state: Any, batch: int) -> SegmentState:
        sizes = batch, self.memory, self.d_model
        return _check_state(where, state, sizes, self.r_w_bias)

    def _segment(
        self, x: Tensor, state: SegmentState, lengths: Tensor | None = None
    ) -> tuple[Tensor, SegmentState]:
        r"""Outputs of a segment, zero in its padding, and the memory behind it."""
        past = blank_padding(state.h.detach(), _real(self.memory, state.length))
        h = torch.cat([past, x], dim=1)
        q, k, v = self._projected(h)
        r = self._distances(h.shape[1])
        # (heads, 1, head): v of the formula is here w.
        u, w = self.r_w_bias[:, None], self.r_r_bias[:, None]
        scores = _products(q + u, k) + relative_shift(_products(q + w, r))
        hidden = ~_seen(x.shape[1], self.memory, self.window, state.length)
        scores = (self.d_head**-0.5 * scores).masked_fill(hidden, -torch.inf)
        out = scores.softmax(dim=-1).to(v.dtype) @ v
        y = self.o_net(out.transpose(1, 2).flatten(2))
        after = _last(h, self.memory, state.length, lengths)
        return y.to(self.r_w_bias.dtype), after

    def _projected(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""Queries of the segment, keys and values of all: (batch, heads, -1, head)."""
        projected = self.qkv_net(h).to(self.r_w_bias.dtype)
        q, k, v = (split_heads(p, self.d_head) for p in projected.chunk(3, dim=2))
        return q[:, :, self.memory :], k, v

    def _distances(self, keys: int) -> Tensor:
        r"""$r_n$ of the distances from `keys - 1` down to 0, (1, heads, keys, head)."""
        n = torch.arange(keys - 1, -1, -1, device=self.r_w_bias.device)
        even, dtype = self.d_model + self.d_model % 2, self.r_w_bias.dtype
        vectors = sinusoidal(n, even, layout="half", dtype=dtype)[:, : self.d_model]
        return split_heads(self.r_net(vectors[None]).to(dtype), self.d_head)

    def extra_repr(self) -> str:
        sizes = f"memory={self.memory}, window={self.window}, d_head={self.d_head}"
        return f"{self.d_model}, {self.n_heads}, {sizes}"


def _real(memory: int, length: Tensor, time: int = 0) -> Tensor:
    r"""Which places of a memory and its segment hold an input, (batch, -1)."""
    j = torch.arange(memory + time, device=length.device)
    return j >= memory - length[:, None]


def _seen(time: int, memory: int, window: int | None, length: Tensor) -> Tensor:
    r"""What each query of a segment sees, (batch, 1, time, memory + time)."""
    j = torch.arange(memory + time, device=length.device)
    distance = j[memory:, None] - j
    seen = distance >= 0
    if window is not None:
        seen = seen & (distance < window)
    return seen & _real(memory, length, time)[:, None, None]


def _last(
    h: Tensor, memory: int, length: Tensor, lengths: Tensor | None
) -> SegmentState:
    r"""The last inputs of each row, from memory and segment, without a gradient."""
    time = h.shape[1] - memory
    if lengths is None:
        kept, count = h[:, time:], length + time
    else:
        new = lengths.to(h.device, torch.int64)
        places = new[:, None] + torch.arange(memory, device=h.device)
        kept = h.gather(1, places[..., None].expand(-1, -1, h.shape[2]))
        count = length + new
    # A copy: a view would keep the whole segment alive.
    return SegmentState(kept.detach().clone(), count.clamp(max=memory))


def _check_state(
    where: str, state: Any, sizes: tuple[int, int, int], parameter: Tensor
) -> SegmentState:
    r"""The state, checked, with its lengths in int64.

    Raises:
        TypeError: it is no `SegmentState`, or its lengths are no integers.
        ValueError: a wrong shape, dtype or device, or a length beyond the memory.
    """
    if not isinstance(state, SegmentState):
        call = "SegmentState(h, length)"
        raise TypeError(
            f"{where}: `state` must be {call}, got {type(state).__name__} (pass {call})"
        )
    batch, memory, width = sizes
    axes = ("batch", batch), ("memory", memory), ("d_model", width)
    check_shape(where, "state.h", state.h, axes)
    check_like_parameters(where, "state.h", state.h, parameter)
    named: Any = {"axis": "memory", "name": "state.length"}
    check_lengths(where, state.length, batch, memory, **named)
    return state._replace(length=state.length.to(state.h.device, torch.int64))


def relative_shift(
    scores: Float[Tensor, "batch heads queries keys"],
) -> Float[Tensor, "batch heads queries keys"]:
    r"""Scores by distance to scores by place: row t moves to the left by T - 1 - t.

    Column c of S belongs to the distance S - 1 - c, for all of T queries, of which the
    last stands at the last key. Afterwards column j belongs to key j. Keys behind a
    query get numbers that mean nothing.
    """
    batch, heads, queries, keys = scores.shape
    # One more number a row: read in rows of T, each row starts one place later.
    padded = pad(scores, (1, 0)).view(batch, heads, keys + 1, queries)
    return padded[:, :, 1:].reshape(batch, heads, queries, keys)
