r"""What causal self-attention of several heads shares, whatever its state keeps."""

from abc import ABC, abstractmethod
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear

from seqref.attention._cross import head_sizes, reset_rest, split_heads
from seqref.attention.positions import Rotary
from seqref.errors import check_lengths, check_like_parameters, check_shape, check_size
from seqref.ops._padding import blank_padding, real_steps


@runtime_checkable
class Cached(Protocol):
    r"""A state with keys, values, and how many steps each row has seen."""

    @property
    def k(self) -> Tensor: ...
    @property
    def v(self) -> Tensor: ...
    @property
    def length(self) -> Tensor: ...


State = TypeVar("State", bound=Cached)


class SelfAttention(nn.Module, ABC, Generic[State]):
    r"""Parameters, projections, positions and padding of causal self-attention.

    A concrete class says what its state is and how queries read it: `_fresh_state`,
    `_checked_state` and `_read`.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        n_kv_heads: int | None,
        d_head: int | None,
        bias: bool,
        positions: Rotary | Float[Tensor, " heads"] | None,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        sizes = head_sizes(where, d_model, n_heads, n_kv_heads, d_head)
        self.input_size = self.output_size = self.d_model = d_model
        self.n_heads, self.n_kv_heads, self.d_head = sizes
        self.bias = bias
        empty = torch.empty((), device=device, dtype=dtype).new_empty
        rows = (self.n_heads + 2 * self.n_kv_heads) * self.d_head
        self.in_proj_weight = nn.Parameter(empty(rows, d_model))
        self.in_proj_bias = nn.Parameter(empty(rows)) if bias else None
        self.out_proj = nn.Linear(
            self.n_heads * self.d_head, d_model, bias=bias, device=device, dtype=dtype
        )
        self.rotary, slopes = _positions(where, positions, self.n_heads, self.d_head)
        # Follows the parameters to their device and dtype; no part of a checkpoint.
        self.slopes: Tensor | None
        if slopes is not None:
            slopes = empty(n_heads).copy_(slopes.detach())
        self.register_buffer("slopes", slopes, persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draw every parameter anew."""
        nn.init.xavier_uniform_(self.in_proj_weight)
        reset_rest(self)

    @abstractmethod
    def _fresh_state(self, batch_size: int) -> State: ...

    @abstractmethod
    def _checked_state(self, where: str, state: object, batch: int) -> State:
        r"""The state, of the right kind and shapes, with its lengths in int64."""

    @abstractmethod
    def _read(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        state: State | None,
        first: int | Tensor,
        count: int | Tensor,
    ) -> tuple[Tensor, State]:
        r"""What queries read from the state and new keys and values; the new state.

        Shapes:
            - `q`: (batch, heads, time, head); `k`, `v`: (batch, kv_heads, time, head),
              zero where a row has ended; `first`: the position of the first step;
              `count`: how many steps are real; each for all rows, or (batch,)
            - returns: (batch, heads, time, head), and the state
        """

    def _initial(self, batch_size: int) -> State:
        where = f"{type(self).__name__}.initial_state"
        check_size(where, "batch_size", batch_size, minimum=0)
        return self._fresh_state(batch_size)

    def _one(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        where = f"{type(self).__name__}.step"
        check_shape(where, "x_t", x_t, (("batch", None), ("d_model", self.d_model)))
        check_like_parameters(where, "x_t", x_t, self.in_proj_weight)
        state = self._checked_state(where, state, len(x_t))
        y, state = self._attended(x_t[:, None], state)
        return y[:, 0], state

    def _whole(
        self, x: Tensor, state: State | None, lengths: Tensor | None
    ) -> tuple[Tensor, State]:
        where = f"{type(self).__name__}.forward"
        axes = ("batch", None), ("time", None), ("d_model", self.d_model)
        check_shape(where, "x", x, axes)
        check_like_parameters(where, "x", x, self.in_proj_weight)
        if state is not None:
            state = self._checked_state(where, state, len(x))
        if lengths is None:
            return self._attended(x, state)
        check_lengths(where, lengths, *x.shape[:2])
        real = real_steps(lengths.to(x.device), x.shape[1])
        y, state = self._attended(blank_padding(x, real), state, real)
        return blank_padding(y, real), state

    def _attended(
        self, x: Tensor, state: State | None, real: Tensor | None = None
    ) -> tuple[Tensor, State]:
        # Where nothing is kept all rows start at 0, which torch has a kernel for.
        first = 0 if state is None or not state.k.shape[2] else state.length
        q, k, v = self._projected(x, first)
        count: int | Tensor = x.shape[1]
        if real is not None:
            # A weight of 0 times NaN would be NaN.
            blank = ~real[:, None, :, None]
            k, v = k.masked_fill(blank, 0.0), v.masked_fill(blank, 0.0)
            count = real.sum(dim=1)
        out, after = self._read(q, k, v, state, first, count)
        y = self.out_proj(out.transpose(1, 2).flatten(2))
        return y.to(self.in_proj_weight.dtype), after

    def _projected(
        self, x: Tensor, first: int | Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        r"""Queries, keys and values, (batch, heads, time, head), at their positions."""
        heads = self.n_heads, self.n_kv_heads, self.n_kv_heads
        projected = linear(x, self.in_proj_weight, self.in_proj_bias)
        # Under autocast a projection is in half precision, and what is kept is not.
        projected = projected.to(self.in_proj_weight.dtype)
        parts = projected.split([n * self.d_head for n in heads], dim=2)
        q, k, v = (split_heads(part, self.d_head) for part in parts)
        if self.rotary is not None:
            q, k = self.rotary(q, first), self.rotary(k, first)
        return q, k, v

    @property
    def _kv_sizes(self) -> tuple[int, int]:
        return self.n_kv_heads, self.d_head


def _positions(
    where: str, positions: object, n_heads: int, d_head: int
) -> tuple[Rotary | None, Tensor | None]:
    r"""What turns queries and keys, and the slopes of a bias: one of them or none."""
    if positions is None:
        return None, None
    if isinstance(positions, Rotary):
        if positions.d_head != d_head:
            raise ValueError(
                f"{where}: `positions` must have d_head={d_head}, got "
                f"{positions.d_head}"
            )
        return positions, None
    if not isinstance(positions, Tensor):
        raise TypeError(
            f"{where}: `positions` must be a Rotary, a tensor of slopes or None, got "
            f"{type(positions).__name__}"
        )
    check_shape(where, "positions", positions, (("n_heads", n_heads),))
    return None, positions
