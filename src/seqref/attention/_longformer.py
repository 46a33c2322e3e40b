r"""A window to both sides, and a few positions that see all and are seen by all."""

from typing import Any, NamedTuple, NoReturn

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from seqref.attention._cross import head_sizes, split_heads
from seqref.errors import (
    check_lengths,
    check_like_parameters,
    check_readable,
    check_shape,
    check_size,
    check_tensor,
)
from seqref.ops._padding import blank_padding, real_steps
from seqref.ops.softmax_attention import softmax_attention, why_no_kernel

# Queries of a block at least.
BLOCK = 128


class LongformerSelfAttention(nn.Module):
    r"""Self-attention to both sides within a window, with global positions.

    With $G$ the global positions, $n$ the length of the row and $r$ the half width, a
    position that is not global has

    $$ o_t^h = \sum_{j \in \Omega_t} \alpha_{tj}^h v_j^h \qquad
       \alpha_{tj}^h = \mathrm{softmax}_{j \in \Omega_t}
       \frac{q_t^{h\top} k_j^h}{\sqrt{d}} \qquad
       \Omega_t = \{ j \le n : |t - j| \le r \} \cup G $$

    and a global one, with queries, keys and values from projections of their own,

    $$ o_t^h = \sum_{j \le n} \mathrm{softmax}_{j \le n}
       \frac{\tilde q_t^{h\top} \tilde k_j^h}{\sqrt{d}} \tilde v_j^h $$

    The output is $[o_t^1; \dots; o_t^H]$; a projection behind it is a module of its
    own. Outputs depend on later inputs, so there is no `step`.

    Args:
        d_model: Width of inputs and outputs, a multiple of `n_heads`.
        n_heads: Heads, $H$.
        half_width: How many positions a query sees on each side of its own, $r$.
        bias: Whether the projections have biases.
        device: Where the parameters are made.
        dtype: Their dtype.

    Shapes:
        - `x`: (batch, time, model); `global_mask`: (batch, time), True where a position
          is global, None for none; `lengths`: (batch,), None for all
        - returns: (batch, time, model), zero in the padding

    Cost:
        O(T (D^2 + (r + g) D)) time for g global positions in the row that has most,
        O(T D) memory and a mask of O(T (r + g)), with r no more than T and no less
        than a block of 128 queries; where `torch.func` transforms it, as many weights
        a head. A sequence no longer than one block has T keys for each query.

    Forms:
        `forward` alone: blocks of queries over their own keys and those within the half
        width of the block, and the keys of global positions. In a block all weights but
        those of the window are 0; where any step that the block reads, before or after,
        or a global one, holds NaN or an infinity, all its outputs can be NaN, as 0
        times NaN is. `step` raises. `torch.export` takes one length, since the number
        of blocks is part of the graph, and refuses a time axis declared by `Dim`; a
        trace of `torch.jit.trace` that was made on more than r steps runs at any.

    Initialisation:
        `query`, `key` and `value` by Glorot's uniform law, biases 0; `query_global`,
        `key_global` and `value_global` are copies of them.

    Raises:
        ValueError: a wrong shape, dtype, device, length or size; values of
            `global_mask` that cannot be read (`torch.func.vmap`, `torch.export`).
        TypeError: `global_mask` is not of dtype bool, `lengths` not of an integer
            dtype; `step` was called.

    Source:
        Beltagy, Peters & Cohan (2020), sec. 3.1. Parameters are named as in
        `transformers.models.longformer.modeling_longformer.LongformerSelfAttention`,
        whose weights load; its `attention_window` is twice `half_width`.
        Differs: no dilation, no dropout on the weights; any length, and any half width
        from 0 on.
    """

    causal = False

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        half_width: int,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = "LongformerSelfAttention"
        self.n_heads, _, self.d_head = head_sizes(where, d_model, n_heads, None, None)
        check_size(where, "half_width", half_width, minimum=0)
        self.d_model = d_model
        self.half_width = half_width
        options: Any = {"bias": bias, "device": device, "dtype": dtype}
        self.query, self.key, self.value = (
            nn.Linear(d_model, d_model, **options) for _ in "qkv"
        )
        self.query_global, self.key_global, self.value_global = (
            nn.Linear(d_model, d_model, **options) for _ in "qkv"
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draw the local projections anew, and copy them to the global ones."""
        for name in ("query", "key", "value"):
            local: nn.Linear = getattr(self, name)
            nn.init.xavier_uniform_(local.weight)
            if local.bias is not None:
                nn.init.zeros_(local.bias)
            getattr(self, f"{name}_global").load_state_dict(local.state_dict())

    def step(self, x_t: Tensor, state: Any = None) -> NoReturn:
        r"""Raise `TypeError`: there is no step without the inputs that come after."""
        raise TypeError(
            "LongformerSelfAttention.step: a window to both sides has no step, since "
            "each output needs inputs that come after it; call the module on the whole "
            "sequence, or take SlidingWindowAttention"
        )

    def forward(
        self,
        x: Float[Tensor, "batch time {self.d_model}"],
        global_mask: Bool[Tensor, "batch time"] | None = None,
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch time {self.d_model}"]:
        self._check(x, global_mask, lengths)
        real = None
        if lengths is not None:
            real = real_steps(lengths.to(x.device), x.shape[1])
            x = blank_padding(x, real)
        chosen = None if global_mask is None else _chosen(global_mask, real)
        q, k, v = (self._heads(part, x) for part in (self.query, self.key, self.value))
        y = _local(q * self.d_head**-0.5, k, v, self.half_width, chosen, real)
        if chosen is not None:
            y = self._with_global(y, x, chosen, lengths)
        y = y.transpose(1, 2).flatten(2).to(self.query.weight.dtype)
        return y if real is None else blank_padding(y, real)

    def _with_global(
        self, y: Tensor, x: Tensor, chosen: "_Chosen", lengths: Tensor | None
    ) -> Tensor:
        r"""The outputs, those of global positions replaced by what they read of all."""
        q = self._heads(self.query_global, chosen.of(x[:, None])[:, 0])
        k, v = (self._heads(part, x) for part in (self.key_global, self.value_global))
        return chosen.put(y, softmax_attention(q, k, v, lengths=lengths))

    def _heads(self, projection: nn.Linear, x: Tensor) -> Tensor:
        return split_heads(projection(x), self.d_head)

    def _check(
        self, x: Tensor, global_mask: Tensor | None, lengths: Tensor | None
    ) -> None:
        where = "LongformerSelfAttention.forward"
        axes = ("batch", None), ("time", None), ("d_model", self.d_model)
        check_shape(where, "x", x, axes)
        check_like_parameters(where, "x", x, self.query.weight)
        batch, time = x.shape[:2]
        if lengths is not None:
            check_lengths(where, lengths, batch, time)
        if global_mask is None:
            return
        check_tensor(where, "global_mask", global_mask)
        if global_mask.dtype != torch.bool:
            raise TypeError(
                f"{where}: `global_mask` must have dtype bool, got {global_mask.dtype}"
            )
        axes = ("batch", batch), ("time", time)
        check_shape(where, "global_mask", global_mask, axes)
        check_readable(where, "global_mask", global_mask)

    def extra_repr(self) -> str:
        return f"{self.d_model}, {self.n_heads}, {self.half_width}"


class _Chosen(NamedTuple):
    r"""The global positions of each row, in as many places as the fullest row needs.

    `mask` (batch, time), `places` (batch, chosen) and `used` (batch, chosen), False
    where a row has fewer.
    """

    mask: Tensor
    places: Tensor
    used: Tensor

    def of(self, x: Tensor) -> Tensor:
        r"""(batch, heads, time, n) to (batch, heads, chosen, n)."""
        return x.gather(2, self._index(x))

    def put(self, x: Tensor, new: Tensor) -> Tensor:
        r"""`x` with `new` (batch, heads, chosen, n) where a row has a position."""
        kept = torch.where(self.used[:, None, :, None], new.to(x.dtype), self.of(x))
        return x.scatter(2, self._index(x), kept)

    def beside(self, x: Tensor, blocks: Tensor) -> Tensor:
        r"""Blocks (batch, heads, blocks, places, n) of `x` behind the chosen of it."""
        chosen = self.of(x)[:, :, None].expand(-1, -1, blocks.shape[2], -1, -1)
        return torch.cat([chosen, blocks], dim=3)

    def _index(self, x: Tensor) -> Tensor:
        return self.places[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])


def _chosen(global_mask: Tensor, real: Tensor | None) -> _Chosen | None:
    r"""The global positions that are real; None where no row has one."""
    mask = global_mask if real is None else global_mask & real.to(global_mask.device)
    most = int(mask.sum(dim=1).max()) if mask.numel() else 0
    if not most:
        return None
    # Positions that are chosen first, in order, and then others, each of them once.
    places = mask.to(torch.int8).sort(dim=1, descending=True, stable=True).indices
    places = places[:, :most]
    return _Chosen(mask, places, mask.gather(1, places))


def _local(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    half_width: int,
    chosen: _Chosen | None,
    real: Tensor | None,
) -> Tensor:
    r"""What each query reads in its window and of the global positions.

    Blocks of queries over their own keys and half a window on both sides. A global
    position counts once: it is taken out of the windows.

    Shapes:
        - `q`, `k`, `v`: (batch, heads, time, head), `q` scaled; `real`: (batch, time)
        - returns: (batch, heads, time, head)
    """
    time = q.shape[2]
    # Nothing lies further away than the sequence is long.
    half_width = min(half_width, time)
    size = max(half_width, BLOCK)
    # One block has no neighbours; a trace is run on sequences of more of them.
    tracing = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    alone = not tracing and time <= size
    size, reach = (max(time, 1), 0) if alone else (size, half_width)
    # A batch of 1 where all rows see alike.
    seen = torch.ones(1, time, dtype=torch.bool, device=q.device)
    seen = seen if real is None else real
    seen = seen if chosen is None else seen & ~chosen.mask.to(seen.device)
    q = _cut(q, size)
    keys, values = (_with_neighbours(_cut(x, size), reach) for x in (k, v))
    # (batch, 1, blocks, 1, keys)
    seen = _with_neighbours(_cut(seen[:, None, :, None], size), reach).mT
    seen = seen & _near(size, reach, half_width, q.device)
    if chosen is not None:
        keys, values = chosen.beside(k, keys), chosen.beside(v, values)
        used = chosen.used[:, None, None, None].expand(*seen.shape[:4], -1)
        seen = torch.cat([used, seen], dim=4)
    out = _attend(q, keys, values, seen)
    return out.flatten(2, 3)[:, :, :time]


def _cut(x: Tensor, size: int) -> Tensor:
    r"""(batch, heads, time, n) to (batch, heads, blocks, size, n), zeros behind."""
    # In this order: of equals `max` gives the first, and a trace must keep the count.
    count = max(-(-x.shape[2] // size), 1)
    rest = count * size - x.shape[2]
    return pad(x, (0, 0, 0, rest)).unflatten(2, (count, size))


def _with_neighbours(x: Tensor, reach: int) -> Tensor:
    r"""Blocks with `reach` positions of those before and after; zeros at both ends.

    Shapes:
        - `x`: (batch, heads, blocks, size, n), size at least `reach`
        - returns: (batch, heads, blocks, size + 2 reach, n)
    """
    before = pad(x[:, :, :-1, x.shape[3] - reach :], (0, 0, 0, 0, 1, 0))
    after = pad(x[:, :, 1:, :reach], (0, 0, 0, 0, 0, 1))
    return torch.cat([before, x, after], dim=3)


def _near(size: int, reach: int, half_width: int, device: torch.device) -> Tensor:
    r"""True where a query of a block sees a place, (size, size + 2 reach)."""
    i = torch.arange(size, device=device)[:, None]
    j = torch.arange(size + 2 * reach, device=device) - reach
    return (i - j).abs() <= half_width


def _attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    r"""A softmax over what is seen; padding, which sees nothing, reads the mean of all.

    Shapes:
        - `q`, `k`, `v`: (batch, heads, blocks, places, head), `q` scaled; `seen`:
          (batch or 1, 1, blocks, queries, keys)
        - returns: as `q`
    """
    batch, _, blocks = q.shape[:3]
    seen = seen | ~seen.any(dim=-1, keepdim=True)
    if why_no_kernel((q, k, v)):
        return (q @ k.mT).masked_fill(~seen, -torch.inf).softmax(dim=-1) @ v
    seen = seen.expand(batch, -1, -1, -1, -1)
    rows = [x.transpose(1, 2).flatten(0, 1) for x in (q, k, v, seen)]
    out = scaled_dot_product_attention(*rows[:3], attn_mask=rows[3], scale=1.0)
    return out.unflatten(0, (-1, blocks)).transpose(1, 2)
