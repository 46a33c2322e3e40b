r"""Attention of several heads over a source, and what the causal layer shares."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn.functional import linear

from seqref.attention._query import real_positions
from seqref.errors import (
    check_lengths,
    check_like_parameters,
    check_shape,
    check_size,
)
from seqref.ops._padding import real_steps
from seqref.ops._source import softmax_over_allowed
from seqref.ops.softmax_attention import softmax_attention


class CrossSource(NamedTuple):
    r"""A source made ready for any number of queries.

    `keys` and `values` (batch, kv_heads, source, head), `lengths` (batch,), the real
    positions of each row.
    """

    keys: Float[Tensor, "batch kv_heads source head"]
    values: Float[Tensor, "batch kv_heads source head"]
    lengths: Integer[Tensor, " batch"]


class CrossAttention(nn.Module):
    r"""Attention of several heads over a source, such as the outputs of an encoder.

    $$ q_t^h = W_q^h x_t + b_q^h \qquad k_j^g = W_k^g m_j + b_k^g \qquad
       v_j^g = W_v^g m_j + b_v^g $$

    $$ o_t^h = \sum_{j < S} \alpha_{tj}^h v_j^g \qquad
       \alpha_{tj}^h = \mathrm{softmax}_{j < S} \frac{q_t^{h\top} k_j^g}{\sqrt{d}}
       \qquad c_t = W_o [o_t^1; \dots; o_t^H] + b_o $$

    with $S$ the length of the row's source, and $g$ the head of keys that head $h$
    shares with its neighbours. Every query sees all of the source.

    Args:
        d_model: Width of queries and contexts.
        n_heads: Heads of queries, $H$.
        memory_size: Width of each source vector $m_j$; None for `d_model`.
        n_kv_heads: Heads of keys and values, of which `n_heads` is a multiple; None for
            as many.
        d_head: Width of a head, $d$; None for `d_model / n_heads`.
        bias: Whether the projections have biases.
        device: Where the parameters are made.
        dtype: Their dtype.

    Shapes:
        - `query`: (batch, time, model), one step as (batch, 1, model); no order among
          the queries matters, so beams may stand there
        - `memory`: (batch, source, memory); `lengths`: (batch,), None for all
        - returns: `context` (batch, time, model), $b_o$ where a row has length 0;
          `weights` (batch, heads, time, source), which are 0 there and in the padding,
          and sum to 1 elsewhere

    Cost:
        O(S D^2) once for a source of S positions, O(S D + D^2) for each query.

    Initialisation:
        The three projections by Glorot's uniform law, each by itself; the rest as
        `MultiHeadAttention`.

    Raises:
        ValueError: a wrong shape, dtype, device, length or size; heads that do not
            divide.
        TypeError: `lengths` is not of an integer dtype, `source` no `CrossSource`.

    Source:
        Vaswani et al. (2017), sec. 3.2.2 and 3.2.3. Parameters are named as in
        `torch.nn.MultiheadAttention` with `kdim` and `vdim` of another width, whose
        weights load where `n_kv_heads` and `d_head` are not given; for the same width
        use `cross_attention_from_torch`.
        Differs: no dropout on the weights; weights of each head, not their mean, and by
        a method of their own, since the op does not make them.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        memory_size: int | None = None,
        n_kv_heads: int | None = None,
        d_head: int | None = None,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = "CrossAttention"
        sizes = head_sizes(where, d_model, n_heads, n_kv_heads, d_head)
        self.n_heads, self.n_kv_heads, self.d_head = sizes
        if memory_size is None:
            memory_size = d_model
        check_size(where, "memory_size", memory_size)
        self.d_model = d_model
        self.memory_size = memory_size
        self.bias = bias
        empty = torch.empty((), device=device, dtype=dtype).new_empty
        rows, kv_rows = n_heads * self.d_head, self.n_kv_heads * self.d_head
        self.q_proj_weight = nn.Parameter(empty(rows, d_model))
        self.k_proj_weight = nn.Parameter(empty(kv_rows, memory_size))
        self.v_proj_weight = nn.Parameter(empty(kv_rows, memory_size))
        self.in_proj_bias = nn.Parameter(empty(rows + 2 * kv_rows)) if bias else None
        options: Any = {"bias": bias, "device": device, "dtype": dtype}
        self.out_proj = nn.Linear(rows, d_model, **options)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draw every parameter anew."""
        for weight in (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            nn.init.xavier_uniform_(weight)
        reset_rest(self)

    def prepare(
        self,
        memory: Float[Tensor, "batch source {self.memory_size}"],
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> CrossSource:
        r"""Project keys and values, once for all queries.

        Shapes:
            - `memory`: (batch, source, memory); `lengths`: (batch,)
            - returns: `CrossSource(keys, values, lengths)`
        """
        keys, values = self._projected("CrossAttention.prepare", memory, lengths)
        if lengths is None:
            batch, size, _ = memory.shape
            lengths = memory.new_full((batch,), size, dtype=torch.int64)
        return CrossSource(keys, values, lengths.to(memory.device, torch.int64))

    def attend(
        self, query: Float[Tensor, "batch time {self.d_model}"], source: CrossSource
    ) -> Float[Tensor, "batch time {self.d_model}"]:
        r"""Contexts of queries over what `prepare` returned.

        Shapes:
            - as the class
        """
        q = self._queries("CrossAttention.attend", query, source)
        return self._context(q, source.keys, source.values, source.lengths)

    def weights(
        self, query: Float[Tensor, "batch time {self.d_model}"], source: CrossSource
    ) -> Float[Tensor, "batch {self.n_heads} time source"]:
        r"""The weights of each head, as a tensor: for a look at them.

        Shapes:
            - as the class
        """
        q = self._queries("CrossAttention.weights", query, source)
        time, size = q.shape[2], source.keys.shape[2]
        group = self.n_heads // self.n_kv_heads
        grouped = q.reshape(q.shape[0], self.n_kv_heads, group * time, self.d_head)
        scores = (grouped @ source.keys.mT) * self.d_head**-0.5
        real = real_steps(source.lengths, size)[:, None]
        weights = softmax_over_allowed(scores.flatten(1, 2), real)
        return weights.view(q.shape[0], self.n_heads, time, size)

    def forward(
        self,
        query: Float[Tensor, "batch time {self.d_model}"],
        memory: Float[Tensor, "batch source {self.memory_size}"],
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch time {self.d_model}"]:
        where = "CrossAttention.forward"
        keys, values = self._projected(where, memory, lengths)
        q = self._split_queries(where, query, len(memory))
        return self._context(q, keys, values, lengths)

    def _projected(
        self, where: str, memory: Tensor, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        axes = ("batch", None), ("source", None), ("memory_size", self.memory_size)
        check_shape(where, "memory", memory, axes)
        check_like_parameters(where, "memory", memory, self.k_proj_weight)
        memory, _ = real_positions(where, memory, lengths)
        _, k_bias, v_bias = self._biases()
        keys = linear(memory, self.k_proj_weight, k_bias)
        values = linear(memory, self.v_proj_weight, v_bias)
        return split_heads(keys, self.d_head), split_heads(values, self.d_head)

    def _queries(self, where: str, query: Tensor, source: CrossSource) -> Tensor:
        sizes = self.n_kv_heads, self.d_head
        _check_source(where, source, sizes, self.k_proj_weight)
        return self._split_queries(where, query, len(source.lengths))

    def _split_queries(self, where: str, query: Tensor, batch: int) -> Tensor:
        axes = ("batch", batch), ("time", None), ("d_model", self.d_model)
        hint = "one step? pass query[:, None]" if query.dim() == 2 else ""
        check_shape(where, "query", query, axes, hint)
        check_like_parameters(where, "query", query, self.q_proj_weight)
        q = linear(query, self.q_proj_weight, self._biases()[0])
        return split_heads(q, self.d_head)

    def _biases(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        if self.in_proj_bias is None:
            return None, None, None
        sizes = [len(self.q_proj_weight), *2 * [len(self.k_proj_weight)]]
        q, k, v = self.in_proj_bias.split(sizes)
        return q, k, v

    def _context(
        self, q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor | None
    ) -> Tensor:
        out = softmax_attention(q, keys, values, lengths=lengths)
        joined = out.transpose(1, 2).flatten(2)
        return self.out_proj(joined).to(self.q_proj_weight.dtype)

    def extra_repr(self) -> str:
        return f"{self.d_model}, {self.n_heads}, memory_size={self.memory_size}"


def _check_source(
    where: str, source: object, sizes: tuple[int, int], parameter: Tensor
) -> None:
    if not isinstance(source, CrossSource):
        raise TypeError(
            f"{where}: `source` must be a CrossSource, got "
            f"{type(source).__name__} (pass what prepare(memory, lengths) returned)"
        )
    heads, head = ("kv_heads", sizes[0]), ("d_head", sizes[1])
    axes = ("batch", None), heads, ("source", None), head
    check_shape(where, "source.keys", source.keys, axes)
    batch, size = source.keys.shape[0], source.keys.shape[2]
    axes = ("batch", batch), heads, ("source", size), head
    check_shape(where, "source.values", source.values, axes)
    for name, value in (("keys", source.keys), ("values", source.values)):
        check_like_parameters(where, f"source.{name}", value, parameter)
    named: Any = {"axis": "source", "name": "source.lengths"}
    check_lengths(where, source.lengths, batch, size, **named)


def split_heads(x: Float[Tensor, "batch time width"], d_head: int) -> Tensor:
    r"""(batch, time, heads head) to (batch, heads, time, head)."""
    return x.unflatten(2, (-1, d_head)).transpose(1, 2)


def head_sizes(
    where: str, d_model: int, n_heads: int, n_kv_heads: int | None, d_head: int | None
) -> tuple[int, int, int]:
    r"""Heads of queries, heads of keys, and their width, checked.

    Raises:
        ValueError: a size below 1, or one that does not divide another.
        TypeError: a size is no int.
    """
    check_size(where, "d_model", d_model)
    check_size(where, "n_heads", n_heads)
    if n_kv_heads is None:
        n_kv_heads = n_heads
    check_size(where, "n_kv_heads", n_kv_heads)
    if n_heads % n_kv_heads:
        raise ValueError(
            f"{where}: `n_heads` must be a multiple of n_kv_heads={n_kv_heads}, got "
            f"{n_heads}"
        )
    if d_head is None:
        if d_model % n_heads:
            raise ValueError(
                f"{where}: `d_model` must be a multiple of n_heads={n_heads} where "
                f"`d_head` is not given, got {d_model}"
            )
        d_head = d_model // n_heads
    check_size(where, "d_head", d_head)
    return n_heads, n_kv_heads, d_head


def reset_rest(attention: Any) -> None:
    r"""Draw the output projection as `torch.nn.Linear` does; biases are zero."""
    attention.out_proj.reset_parameters()
    for bias in (attention.out_proj.bias, attention.in_proj_bias):
        if bias is not None:
            nn.init.zeros_(bias)
