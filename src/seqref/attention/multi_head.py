r"""Multi-head attention: a causal layer with a cache, and attention over a source."""

from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn.functional import linear

from seqref.attention._cache import KVState, check_cache, empty_cache, extended
from seqref.attention._cross import (
    CrossAttention,
    CrossSource,
    head_sizes,
    reset_rest,
    split_heads,
)
from seqref.attention.positions import Rotary
from seqref.errors import (
    check_lengths,
    check_like_parameters,
    check_shape,
    check_size,
)
from seqref.ops._padding import blank_padding, real_steps
from seqref.ops.softmax_attention import softmax_attention

__all__ = ["CrossAttention", "CrossSource", "KVState", "MultiHeadAttention"]


class MultiHeadAttention(nn.Module):
    r"""Causal self-attention of several heads, with its keys and values as state.

    $$ q_t^h = W_q^h x_t + b_q^h \qquad k_t^g = W_k^g x_t + b_k^g \qquad
       v_t^g = W_v^g x_t + b_v^g $$

    $$ o_t^h = \sum_{j \le t} \alpha_{tj}^h v_j^g \qquad
       \alpha_{tj}^h = \mathrm{softmax}_j \frac{q_t^{h\top} k_j^g}{\sqrt{d}} \qquad
       y_t = W_o [o_t^1; \dots; o_t^H] + b_o $$

    with $g$ the head of keys that head $h$ shares with its neighbours. Step $t$ counts
    from the first of all calls that the state has seen.

    Args:
        d_model: Width of inputs and outputs.
        n_heads: Heads of queries, $H$.
        n_kv_heads: Heads of keys and values, of which `n_heads` is a multiple; None for
            as many, 1 for multi-query attention.
        d_head: Width of a head, $d$; None for `d_model / n_heads`.
        bias: Whether the projections have biases.
        window: How many positions a step sees, its own and those before it; None for
            all. The cache keeps all of them in any case.
        positions: None, `Rotary(d_head)`, which turns queries and keys before they are
            cached, or the slopes of a bias by distance, (heads,), as `alibi_slopes`
            returns them. They are copied and fixed: no gradient reaches them.
        device: Where the parameters are made.
        dtype: Their dtype.

    Shapes:
        - `x_t`: (batch, model); `x`: (batch, time, model); `lengths`: (batch,)
        - `state`: `KVState(k, v, length)` with `k`, `v` (batch, kv_heads, cached, head)
          and `length` (batch,), how many of the cached positions each row has; beyond
          them it is zero
        - returns: outputs shaped as the input, and the new state, in which `cached` has
          grown by the number of steps

    Cost:
        O(D^2 + n D) time for a step after n others, O(T D^2 + T^2 D) for a sequence;
        O(D) more state with each step, 2 kv_heads d numbers.

    Forms:
        `step`, `scan`, and the op `softmax_attention` over the whole sequence, which is
        `forward`. There a later step has the weight 0; where it holds NaN or an
        infinity, earlier outputs can be NaN, as 0 times NaN is. `step` has no such
        product.

    Initialisation:
        `in_proj_weight` as a whole by Glorot's law, uniform in $(-a, a)$ with
        $a = \sqrt{6 / (\text{rows} + \text{columns})}$; `out_proj.weight` uniform in
        $(-1/\sqrt{n}, 1/\sqrt{n})$ for n inputs; biases 0. As
        `torch.nn.MultiheadAttention`.

    Raises:
        ValueError: a wrong shape, dtype, device, length or size; heads that do not
            divide.
        TypeError: `state` is no `KVState`; `lengths` is not of an integer dtype;
            `positions` is neither a `Rotary` nor a tensor.

    Source:
        Vaswani et al. (2017), sec. 3.2.2; one head of keys: Shazeer (2019); several:
        Ainslie et al. (2023). `in_proj_weight` has the rows of queries, keys and
        values below each other, as in `torch.nn.MultiheadAttention`, whose weights
        load where `n_kv_heads` and `d_head` are not given.
        Differs: no dropout on the weights; biases, which the paper has not.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        n_kv_heads: int | None = None,
        d_head: int | None = None,
        bias: bool = True,
        window: int | None = None,
        positions: Rotary | Float[Tensor, " heads"] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = "MultiHeadAttention"
        sizes = head_sizes(where, d_model, n_heads, n_kv_heads, d_head)
        self.input_size = self.output_size = self.d_model = d_model
        self.n_heads, self.n_kv_heads, self.d_head = sizes
        self.bias = bias
        if window is not None:
            check_size(where, "window", window)
        self.window = window
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

    def initial_state(self, batch_size: int) -> KVState:
        r"""An empty cache.

        Shapes:
            - returns: `k`, `v` (batch, kv_heads, 0, head), `length` (batch,) of zeros

        Raises:
            ValueError: `batch_size` is below 0.
            TypeError: `batch_size` is no int.
        """
        where = "MultiHeadAttention.initial_state"
        check_size(where, "batch_size", batch_size, minimum=0)
        return empty_cache(batch_size, self._kv_sizes, self.in_proj_weight)

    def step(
        self, x_t: Float[Tensor, "batch {self.d_model}"], state: KVState
    ) -> tuple[Float[Tensor, "batch {self.d_model}"], KVState]:
        r"""One step: its query over all keys so far, its own among them.

        Shapes:
            - as the class
        """
        where = "MultiHeadAttention.step"
        check_shape(where, "x_t", x_t, (("batch", None), ("d_model", self.d_model)))
        check_like_parameters(where, "x_t", x_t, self.in_proj_weight)
        y, state = self._attended(x_t[:, None], self._cache(where, state, len(x_t)))
        return y[:, 0], state

    def forward(
        self,
        x: Float[Tensor, "batch time {self.d_model}"],
        state: KVState | None = None,
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time {self.d_model}"], KVState]:
        where = "MultiHeadAttention.forward"
        axes = ("batch", None), ("time", None), ("d_model", self.d_model)
        check_shape(where, "x", x, axes)
        check_like_parameters(where, "x", x, self.in_proj_weight)
        if state is None:
            # The size of the batch stays one in a trace.
            state = empty_cache(x.shape[0], self._kv_sizes, self.in_proj_weight)
        state = self._cache(where, state, len(x))
        if lengths is None:
            return self._attended(x, state)
        check_lengths(where, lengths, *x.shape[:2])
        real = real_steps(lengths.to(x.device), x.shape[1])
        y, state = self._attended(blank_padding(x, real), state, real)
        return blank_padding(y, real), state

    @property
    def _kv_sizes(self) -> tuple[int, int]:
        return self.n_kv_heads, self.d_head

    def _cache(self, where: str, state: KVState, batch: int) -> KVState:
        return check_cache(where, state, batch, self._kv_sizes, self.in_proj_weight)

    def _attended(
        self, x: Tensor, state: KVState, real: Tensor | None = None
    ) -> tuple[Tensor, KVState]:
        r"""Outputs over the cache with the steps of `x` behind it, and that cache.

        A query sees no key behind its own position, so what is beyond a row's length
        has the weight 0. It is zero, in the cache and in a row's padding, since a
        weight of 0 times NaN would be NaN.
        """
        # An empty cache starts all rows at 0, which torch has a kernel for.
        first = state.length if state.k.shape[2] else 0
        q, k, v = self._projected(x, first)
        count: int | Tensor = x.shape[1]
        if real is not None:
            blank = ~real[:, None, :, None]
            k, v = k.masked_fill(blank, 0.0), v.masked_fill(blank, 0.0)
            count = real.sum(dim=1)
        after = extended(state, k, v, count)
        options: Any = {"offset": first, "window": self.window, "slopes": self.slopes}
        out = softmax_attention(q, after.k, after.v, causal=True, **options)
        y = self.out_proj(out.transpose(1, 2).flatten(2))
        return y.to(self.in_proj_weight.dtype), after

    def _projected(
        self, x: Tensor, first: int | Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        r"""Queries, keys and values, (batch, heads, time, head), at their positions."""
        heads = self.n_heads, self.n_kv_heads, self.n_kv_heads
        projected = linear(x, self.in_proj_weight, self.in_proj_bias)
        # Under autocast a projection is in half precision, and the cache is not.
        projected = projected.to(self.in_proj_weight.dtype)
        parts = projected.split([n * self.d_head for n in heads], dim=2)
        q, k, v = (split_heads(part, self.d_head) for part in parts)
        if self.rotary is not None:
            q, k = self.rotary(q, first), self.rotary(k, first)
        return q, k, v

    def extra_repr(self) -> str:
        heads = f"n_kv_heads={self.n_kv_heads}, d_head={self.d_head}"
        options = f"{heads}, bias={self.bias}, window={self.window}"
        return f"{self.d_model}, {self.n_heads}, {options}"


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
