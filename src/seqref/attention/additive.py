r"""Additive attention: a small network scores each source position."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn
from torch.nn.functional import linear

from seqref.attention._query import over_queries, real_positions
from seqref.errors import (
    check_like_parameters,
    check_shape,
    check_size,
)
from seqref.ops.additive_attention import attend


class AdditiveSource(NamedTuple):
    r"""A source made ready for any number of queries; zero in the padding.

    `keys` (batch, source, hidden), `values` (batch, source, memory), `real`
    (batch, source), False in the padding.
    """

    keys: Float[Tensor, "batch source hidden"]
    values: Float[Tensor, "batch source memory"]
    real: Bool[Tensor, "batch source"]


class AdditiveAttention(nn.Module):
    r"""Attention whose scores come from one hidden layer of tanh.

    $$ k_j = W_k m_j \qquad e_{tj} = v^\top \tanh(W_q q_t + k_j) \qquad
       \alpha_{tj} = \frac{\exp e_{tj}}{\sum_{l \le S} \exp e_{tl}} \qquad
       c_t = \sum_{j \le S} \alpha_{tj} m_j $$

    over the $S$ real positions of the row's source. $m_j$ are the outputs of an encoder
    and $q_t$ is a state of a decoder, in Bahdanau et al. the one *before* step $t$.

    Args:
        query_size: Width of each query.
        memory_size: Width of each source vector, and of the contexts.
        hidden_size: Width of the layer between.
        device: Where the parameters are made.
        dtype: Their dtype.

    Shapes:
        - `query`: (batch, query) for one step, (batch, time, query) for several; of one
          step also (n batch, query), where each row of the source serves n queries that
          stand next to each other
        - `memory`: (batch, source, memory); `lengths`: (batch,), the real positions of
          each row, None for all
        - returns: `context`, as `query` with width memory, and `weights`, as `query`
          with width source; a row of length 0 has zeros in both

    Cost:
        O(S D^2) once for a source of S positions, O(S D + D^2) for each query, D the
        widths. For the backward pass S + D numbers are kept for each query, and S D
        where the op's backward pass by hand does not run.

    Initialisation:
        Every parameter uniform in $(-1/\sqrt{n}, 1/\sqrt{n})$, n the width of what it
        multiplies, as in `torch.nn.Linear`. Bahdanau et al. drew $W_q$ and $W_k$ with a
        standard deviation of 0.001 and set $v$ to zero.

    Raises:
        ValueError: a wrong shape, dtype, device or length; a size below 1.
        TypeError: `lengths` is not of an integer dtype; a size is no int.

    Source:
        Bahdanau, Cho & Bengio (2015), eqs. 5 and 6, appendix A.1.2: `weight_query` is
        their $W_a$, `weight_key` $U_a$, `weight_score` $v_a$.
    """

    def __init__(
        self,
        query_size: int,
        memory_size: int,
        hidden_size: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        sizes = {"query_size": query_size, "memory_size": memory_size}
        for name, size in (*sizes.items(), ("hidden_size", hidden_size)):
            check_size("AdditiveAttention", name, size)
        self.query_size = query_size
        self.memory_size = memory_size
        self.hidden_size = hidden_size
        empty = torch.empty((), device=device, dtype=dtype).new_empty
        self.weight_query = nn.Parameter(empty(hidden_size, query_size))
        self.weight_key = nn.Parameter(empty(hidden_size, memory_size))
        self.weight_score = nn.Parameter(empty(hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draw every parameter anew."""
        for parameter in self.parameters():
            bound = parameter.shape[-1] ** -0.5
            nn.init.uniform_(parameter, -bound, bound)

    def prepare(
        self,
        memory: Float[Tensor, "batch source {self.memory_size}"],
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> AdditiveSource:
        r"""Project the keys, once for all queries.

        Shapes:
            - `memory`: (batch, source, memory); `lengths`: (batch,)
            - returns: `AdditiveSource(keys, values, real)`
        """
        return self._prepared("AdditiveAttention.prepare", memory, lengths)

    def attend(
        self, query: Float[Tensor, "*rows {self.query_size}"], source: AdditiveSource
    ) -> tuple[
        Float[Tensor, "*rows {self.memory_size}"], Float[Tensor, "*rows source"]
    ]:
        r"""Contexts and weights of queries over what `prepare` returned.

        Shapes:
            - as the class
        """
        return self._attended("AdditiveAttention.attend", query, source)

    def forward(
        self,
        query: Float[Tensor, "*rows {self.query_size}"],
        memory: Float[Tensor, "batch source {self.memory_size}"],
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> tuple[
        Float[Tensor, "*rows {self.memory_size}"], Float[Tensor, "*rows source"]
    ]:
        where = "AdditiveAttention.forward"
        return self._attended(where, query, self._prepared(where, memory, lengths))

    def _prepared(
        self, where: str, memory: Tensor, lengths: Tensor | None
    ) -> AdditiveSource:
        axes = (("batch", None), ("source", None), ("memory_size", self.memory_size))
        check_shape(where, "memory", memory, axes)
        check_like_parameters(where, "memory", memory, self.weight_key)
        memory, real = real_positions(where, memory, lengths)
        # No bias: a key of zero stays one, so that the padding stays blank.
        return AdditiveSource(linear(memory, self.weight_key), memory, real)

    def _attended(
        self, where: str, query: Tensor, source: AdditiveSource
    ) -> tuple[Tensor, Tensor]:
        if not isinstance(source, AdditiveSource):
            raise TypeError(
                f"{where}: `source` must be an AdditiveSource, got "
                f"{type(source).__name__} (pass what prepare(memory, lengths) returned)"
            )
        keys, values, real = source
        for name, value, width in (
            ("keys", keys, ("hidden_size", self.hidden_size)),
            ("values", values, ("memory_size", self.memory_size)),
        ):
            axes = (("batch", real.shape[0]), ("source", real.shape[1]), width)
            check_shape(where, f"source.{name}", value, axes)

        def run(query: Tensor) -> tuple[Tensor, Tensor]:
            check_like_parameters(where, "query", query, self.weight_query)
            projected = linear(query, self.weight_query)
            return attend(where, None, projected, keys, values, self.weight_score, real)

        return over_queries(where, query, len(real), self.query_size, run)

    def extra_repr(self) -> str:
        return f"{self.query_size}, {self.memory_size}, {self.hidden_size}"
