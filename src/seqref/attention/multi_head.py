r"""Multi-head attention: a causal layer with a cache, and attention over a source."""

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from seqref.attention._cache import KVState, check_cache, empty_cache, extended
from seqref.attention._cross import CrossAttention, CrossSource
from seqref.attention._self import SelfAttention
from seqref.attention.positions import Rotary
from seqref.errors import check_size
from seqref.ops.softmax_attention import softmax_attention

__all__ = ["CrossAttention", "CrossSource", "KVState", "MultiHeadAttention"]


class MultiHeadAttention(SelfAttention[KVState]):
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
        super().__init__(
            d_model,
            n_heads,
            n_kv_heads=n_kv_heads,
            d_head=d_head,
            bias=bias,
            positions=positions,
            device=device,
            dtype=dtype,
        )
        if window is not None:
            check_size("MultiHeadAttention", "window", window)
        self.window = window

    def initial_state(self, batch_size: int) -> KVState:
        r"""An empty cache.

        Shapes:
            - returns: `k`, `v` (batch, kv_heads, 0, head), `length` (batch,) of zeros

        Raises:
            ValueError: `batch_size` is below 0.
            TypeError: `batch_size` is no int.
        """
        return self._initial(batch_size)

    def step(
        self, x_t: Float[Tensor, "batch {self.d_model}"], state: KVState
    ) -> tuple[Float[Tensor, "batch {self.d_model}"], KVState]:
        r"""One step: its query over all keys so far, its own among them.

        Shapes:
            - as the class
        """
        return self._one(x_t, state)

    def forward(
        self,
        x: Float[Tensor, "batch time {self.d_model}"],
        state: KVState | None = None,
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time {self.d_model}"], KVState]:
        return self._whole(x, state, lengths)

    def _fresh_state(self, batch_size: int) -> KVState:
        return empty_cache(batch_size, self._kv_sizes, self.in_proj_weight)

    def _checked_state(self, where: str, state: object, batch: int) -> KVState:
        return check_cache(where, state, batch, self._kv_sizes, self.in_proj_weight)

    def _read(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        state: KVState | None,
        first: int | Tensor,
        count: int | Tensor,
    ) -> tuple[Tensor, KVState]:
        r"""Outputs over the cache with the new keys behind it, and that cache.

        A query sees no key behind its own position, so what is beyond a row's length
        has the weight 0. It is zero, in the cache and in a row's padding, since a
        weight of 0 times NaN would be NaN.
        """
        if state is None:
            # The size of the batch stays one in a trace.
            state = self._fresh_state(q.shape[0])
        after = extended(state, k, v, count)
        out = softmax_attention(
            q,
            after.k,
            after.v,
            causal=True,
            offset=first,
            window=self.window,
            slopes=self.slopes,
        )
        return out, after

    def extra_repr(self) -> str:
        heads = f"n_kv_heads={self.n_kv_heads}, d_head={self.d_head}"
        options = f"{heads}, bias={self.bias}, window={self.window}"
        return f"{self.d_model}, {self.n_heads}, {options}"
