r"""Sliding windows: a causal layer whose state does not grow, and Longformer's."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn.functional import pad

from seqref.attention._cache import KVState, check_kept, extended
from seqref.attention._longformer import LongformerSelfAttention
from seqref.attention._self import SelfAttention
from seqref.attention.positions import Rotary
from seqref.errors import check_lengths, check_size
from seqref.ops.softmax_attention import softmax_attention

__all__ = ["LongformerSelfAttention", "SlidingWindowAttention", "WindowState"]

# Queries of a block at least: many small products take longer than few larger ones.
BLOCK = 64
# Steps that a state may have counted: sums with positions stay within int64.
FURTHEST = 2**62


class WindowState(NamedTuple):
    r"""Keys and values of the last steps, and how many steps each row has had.

    `k` and `v` (batch, kv_heads, window - 1, head), `length` (batch,), an integer. The
    newest key of a row that has had n steps stands at min(n, window - 1) - 1, older
    ones before it, and what is beyond is zero. No field changes its shape.
    """

    k: Float[Tensor, "batch kv_heads kept head"]
    v: Float[Tensor, "batch kv_heads kept head"]
    length: Integer[Tensor, " batch"]


class SlidingWindowAttention(SelfAttention[WindowState]):
    r"""Causal self-attention over the last positions, which are all that is kept.

    $$ q_t^h = W_q^h x_t + b_q^h \qquad k_t^g = W_k^g x_t + b_k^g \qquad
       v_t^g = W_v^g x_t + b_v^g $$

    $$ o_t^h = \sum_{j = \max(1, t - w + 1)}^{t} \alpha_{tj}^h v_j^g \qquad
       \alpha_{tj}^h = \mathrm{softmax}_j \frac{q_t^{h\top} k_j^g}{\sqrt{d}} \qquad
       y_t = W_o [o_t^1; \dots; o_t^H] + b_o $$

    with $w$ the window, which counts the step itself, and $g$ the head of keys that
    head $h$ shares with its neighbours. `MultiHeadAttention` with the same `window` has
    the same parameters and outputs; its cache grows.

    Args:
        d_model: Width of inputs and outputs.
        n_heads: Heads of queries, $H$.
        window: How many positions a step sees, $w$: its own and those before it.
        n_kv_heads: Heads of keys and values, of which `n_heads` is a multiple; None for
            as many, 1 for multi-query attention.
        d_head: Width of a head, $d$; None for `d_model / n_heads`.
        bias: Whether the projections have biases.
        positions: None, `Rotary(d_head)`, which turns queries and keys before they are
            kept, or the slopes of a bias by distance, (heads,), as `alibi_slopes`
            returns them. They are copied and fixed: no gradient reaches them.
        device: Where the parameters are made.
        dtype: Their dtype.

    Shapes:
        - `x_t`: (batch, model); `x`: (batch, time, model); `lengths`: (batch,)
        - `state`: `WindowState(k, v, length)` with `k`, `v` (batch, kv_heads,
          window - 1, head) and `length` (batch,)
        - returns: outputs shaped as the input, and the new state, of the same shapes

    Cost:
        O(D^2 + w D) time for a step, O(T (D^2 + w D)) for a sequence; O(T D) memory
        there, and O(w T) a head for the weights where the op keeps them. The state has
        2 kv_heads (w - 1) d numbers for each row at any time.

    Forms:
        `step`, `scan`, and `forward`: blocks of at least w queries, each over its own
        keys and those of the block before it, the first over the state's. In a block
        all weights but those of the window are 0; where any step that the block reads,
        before or after, the state included, holds NaN or an infinity, all its outputs
        can be NaN, as 0 times NaN is. `step` has no such product.

        `torch.export` takes `forward` at one number of steps, since the number of
        blocks is part of the graph, and refuses a time axis declared by `Dim`; `step`
        is one graph for any stream. A trace of `torch.jit.trace` is one block over all
        steps, O(T^2 D), and runs at any number of them.

    Initialisation:
        As `MultiHeadAttention`: `in_proj_weight` by Glorot's uniform law, with the
        bound $\sqrt{6 / (\text{rows} + \text{columns})}$; `out_proj.weight` uniform in
        $(-1/\sqrt{n}, 1/\sqrt{n})$ for n inputs; biases 0.

    Raises:
        ValueError: a wrong shape, dtype, device, length or size; heads that do not
            divide.
        TypeError: `state` is no `WindowState`; `lengths` is not of an integer dtype;
            `positions` is neither a `Rotary` nor a tensor; `window` is no int.

    Source:
        Beltagy, Peters & Cohan (2020), sec. 3.1, where a window extends to both sides;
        causal, and with a cache of the size of the window: Jiang et al. (2023), sec. 2.
        `sliding_window` of `transformers` counts as `window` does.
        Differs: the state has no key of the step itself, so w - 1 of them.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        window: int,
        *,
        n_kv_heads: int | None = None,
        d_head: int | None = None,
        bias: bool = True,
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
        check_size("SlidingWindowAttention", "window", window)
        self.window = window

    def initial_state(self, batch_size: int) -> WindowState:
        r"""Room for `window - 1` keys and values, all zero, and no step.

        Shapes:
            - returns: `k`, `v` (batch, kv_heads, window - 1, head), `length` (batch,)

        Raises:
            ValueError: `batch_size` is below 0.
            TypeError: `batch_size` is no int.
        """
        return self._initial(batch_size)

    def step(
        self, x_t: Float[Tensor, "batch {self.d_model}"], state: WindowState
    ) -> tuple[Float[Tensor, "batch {self.d_model}"], WindowState]:
        r"""One step: its query over its own key and those that are kept.

        Shapes:
            - as the class
        """
        return self._one(x_t, state)

    def forward(
        self,
        x: Float[Tensor, "batch time {self.d_model}"],
        state: WindowState | None = None,
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time {self.d_model}"], WindowState]:
        return self._whole(x, state, lengths)

    def _fresh_state(self, batch_size: int) -> WindowState:
        shape = batch_size, self.n_kv_heads, self.window - 1, self.d_head
        k, v = (self.in_proj_weight.new_zeros(shape) for _ in "kv")
        return WindowState(k, v, k.new_zeros(batch_size, dtype=torch.int64))

    def _checked_state(self, where: str, state: object, batch: int) -> WindowState:
        sizes = batch, self.n_kv_heads, self.d_head, self.window - 1
        checked = check_kept(where, state, WindowState, sizes, self.in_proj_weight)
        check_lengths(
            where, checked.length, batch, FURTHEST, axis="steps", name="state.length"
        )
        length = checked.length.to(checked.k.device, torch.int64)
        return WindowState(checked.k, checked.v, length)

    def _read(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        state: WindowState | None,
        first: int | Tensor,
        count: int | Tensor,
    ) -> tuple[Tensor, WindowState]:
        r"""The first block over the state and its own keys, the others over two blocks.

        Blocks are at least as long as the window, so only the first meets the state.
        """
        before = self._fresh_state(q.shape[0]) if state is None else state
        after = _after(before, k, v, count)
        if not q.shape[2]:
            return q, after
        # A trace holds one block of all steps: it is run on other numbers of them.
        tracing = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
        size = q.shape[2] if tracing else max(self.window, BLOCK)
        q_1, k_1, v_1 = (q, k, v) if tracing else (x[:, :, :size] for x in (q, k, v))
        offset: int | Tensor = 0
        if state is not None:
            offset = state.length.clamp(max=self.window - 1)
            # Keys follow each row's own; without a state there are as many as queries,
            # and torch has a kernel for that triangle.
            kept = KVState(state.k, state.v, offset)
            k_1, v_1, _ = extended(kept, k_1, v_1, q_1.shape[2])
        limits: Any = {"causal": True, "window": self.window, "slopes": self.slopes}
        out = softmax_attention(q_1, k_1, v_1, offset=offset, **limits)
        if not tracing and q.shape[2] > size:
            rows = _later_blocks(q, k, v, size, self.window - 1)
            later = softmax_attention(*rows, offset=self.window - 1, **limits)
            blocks = -(-q.shape[2] // size) - 1
            later = later.unflatten(0, (-1, blocks)).transpose(1, 2).flatten(2, 3)
            out = torch.cat([out, later[:, :, : q.shape[2] - size]], dim=2)
        return out, after

    def extra_repr(self) -> str:
        heads = f"n_kv_heads={self.n_kv_heads}, d_head={self.d_head}"
        return f"{self.d_model}, {self.n_heads}, {self.window}, {heads}"


def _later_blocks(
    q: Tensor, k: Tensor, v: Tensor, size: int, before: int
) -> tuple[Tensor, Tensor, Tensor]:
    r"""All blocks but the first, as rows of a batch: queries, and what they may see.

    Shapes:
        - `q`, `k`, `v`: (batch, heads, time, head)
        - returns: queries (batch blocks, heads, size, head); keys and values with
          `before` positions more, those before the block
    """
    time = q.shape[2]
    count = -(-time // size)
    if count * size > time:
        q, k, v = (pad(x, (0, 0, 0, count * size - time)) for x in (q, k, v))
    # (batch, blocks, heads, size, head)
    q, k, v = (x.unflatten(2, (count, size)).transpose(1, 2) for x in (q, k, v))
    k, v = (torch.cat([x[:, :-1, :, size - before :], x[:, 1:]], dim=3) for x in (k, v))
    q, k, v = (x.flatten(0, 1) for x in (q[:, 1:], k, v))
    return q, k, v


def _after(
    before: WindowState, k: Tensor, v: Tensor, count: int | Tensor
) -> WindowState:
    r"""The state after `count` of the new keys and values.

    Copies of each row's last ones: a view would hold on to the memory of all.

    Shapes:
        - `k`, `v`: (batch, kv_heads, time, head); `count`: for all rows or (batch,)
    """
    size = before.k.shape[2]
    kept = before.length.clamp(max=size)
    start = (kept + count - size).clamp(min=0)
    # Places among a row's kept keys and the new ones behind them.
    places = (start[:, None] + torch.arange(size, device=k.device))[:, None, :, None]
    old_ends, new_ends = (n.view(-1, 1, 1, 1) for n in (kept, kept + count))

    def last(old: Tensor, new: Tensor) -> Tensor:
        of_old = places.clamp(max=size - 1).expand_as(old)
        chosen = old.gather(2, of_old)
        if new.shape[2]:
            of_new = (places - old_ends).clamp(0, new.shape[2] - 1).expand_as(old)
            chosen = torch.where(places < old_ends, chosen, new.gather(2, of_new))
        return chosen.masked_fill(places >= new_ends, 0.0)

    return WindowState(last(before.k, k), last(before.v, v), before.length + count)
