r"""Multiplicative attention: Luong's scores, over all of a source or a window of it."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn
from torch.nn.functional import linear

from seqref.attention._query import over_queries, real_positions
from seqref.attention._scores import ConcatScore, make_score
from seqref.attention._window import make_window, target_steps
from seqref.errors import (
    check_like_parameters,
    check_shape,
    check_size,
)
from seqref.ops.additive_attention import attend


class MultiplicativeSource(NamedTuple):
    r"""A source made ready for any number of queries; zero in the padding.

    `keys` (batch, source, key), of width 0 where the scores do not read the source and
    in `float32` where they are products of half precision, `values`
    (batch, source, memory), `real` (batch, source), False in the padding.
    """

    keys: Float[Tensor, "batch source key"]
    values: Float[Tensor, "batch source memory"]
    real: Bool[Tensor, "batch source"]


class MultiplicativeAttention(nn.Module):
    r"""Attention by one of Luong's four scores, global or local.

    $$ e_{tj} = \begin{cases}
       q_t^\top m_j & \text{dot} \\
       q_t^\top W_k m_j & \text{general} \\
       v^\top \tanh(W_q q_t + W_k m_j) & \text{concat} \\
       (W_l q_t)_j & \text{location}
       \end{cases} \qquad
       \alpha_{tj} = \frac{\exp e_{tj}}{\sum_{l \in \Omega_t} \exp e_{tl}} \, g_{tj}
       \qquad c_t = \sum_{j \in \Omega_t} \alpha_{tj} m_j $$

    over the positions $\Omega_t$, counted from 1. Global: the $S$ real ones of the row.
    Local: those with $|j - p_t| \le D$ among them. $p_t = t$ where monotonic, and

    $$ p_t = S \, \sigma(v_p^\top \tanh(W_p q_t)) \qquad
       g_{tj} = \exp\left(-\frac{(j - p_t)^2}{2 (D / 2)^2}\right) $$

    where predictive; elsewhere $g_{tj} = 1$. $m_j$ are the outputs of an encoder, and
    $q_t$ is a state of a decoder, in Luong et al. the one *of* step $t$.

    Args:
        query_size: Width of each query.
        memory_size: Width of each source vector, and of the contexts.
        score: `"dot"` (the two widths must be equal), `"general"`, `"concat"`, or
            `"location"`, which does not read the source.
        window: None for all positions, `"monotonic"` for local-m, `"predictive"` for
            local-p.
        half_width: $D$ of a window, in positions.
        hidden_size: Width of the layer inside the concat score.
        max_source: The longest source, its padding counted, for which location scores
            have a row.
        device: Where the parameters are made.
        dtype: Their dtype.

    Shapes:
        - `query`: (batch, query) for one step, (batch, time, query) for several; of one
          step also (n batch, query), where each row of the source serves n queries that
          stand next to each other
        - `memory`: (batch, source, memory); `lengths`: (batch,), the real positions of
          each row, None for all
        - `position`: (batch,), or (n batch,) as the queries: the target step of each
          row's first query, from 0; needed by `"monotonic"`, and not read otherwise
        - returns: `context`, as `query` with width memory, and `weights`, as `query`
          with width source. They are 0 in the padding and outside the window. The rest
          sums to 1, to less where predictive; a row of length 0, and a window that lies
          past the source, have zeros in both

    Cost:
        O(S D) for each query of a source of S positions, D the widths, and O(D^2) more
        for concat and where predictive; for general and concat O(S D^2) once. A window
        saves nothing, since all scores are made. For the backward pass S + D numbers
        are kept for each query; S D by concat with a window, and by concat wherever the
        op's backward pass by hand does not run.

    Initialisation:
        Every parameter uniform in $(-1/\sqrt{n}, 1/\sqrt{n})$, n the width of what it
        multiplies, as in `torch.nn.Linear`.

    Raises:
        ValueError: a wrong shape, dtype, device, length or position; a size below 1; an
            unknown score or window; an argument that the score or window lacks or has
            no use for.
        TypeError: `lengths` or `position` is not of an integer dtype; a size is no int.

    Source:
        Luong, Pham & Manning (2015), sec. 3.1 and 3.2, eqs. 7 to 10. In `scores`,
        `weight_key` is their $W_a$ of general, and with `weight_query` that of concat,
        cut in two; `weight_score` is $v_a$, `weight_location` the $W_a$ of eq. 8. In
        `weigh`, `weight_hidden` is $W_p$ and `weight_center` $v_p$. As there, the
        softmax runs over the window alone (their vector has its width), $p_t$ of eq. 9
        is a real number, the weights of eq. 10 are not normalised again, and what lies
        outside the sentence is left out. The paper gives $W_p$ no shape (here square)
        and does not say from where $j$ counts.
        Differs: the keys' part of concat is learned, theirs was the identity (footnote
        15); location scores are cut to the source *before* the softmax, so that the
        weights sum to 1, and refuse a source that is too long, where the paper cuts
        the vector of weights and ignores the source's last words (footnote 6).
    """

    def __init__(
        self,
        query_size: int,
        memory_size: int,
        *,
        score: str = "general",
        window: str | None = None,
        half_width: int | None = None,
        hidden_size: int | None = None,
        max_source: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = "MultiplicativeAttention"
        check_size(where, "query_size", query_size)
        check_size(where, "memory_size", memory_size)
        self.query_size = query_size
        self.memory_size = memory_size
        self.score = score
        self.window = window
        self.half_width = half_width
        self.max_source = max_source
        empty = torch.empty((), device=device, dtype=dtype)
        sizes = query_size, memory_size
        self.scores = make_score(where, score, sizes, hidden_size, max_source, empty)
        self.weigh = make_window(where, window, half_width, query_size, empty)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draw every parameter anew."""
        for parameter in self.parameters():
            bound = parameter.shape[-1] ** -0.5
            nn.init.uniform_(parameter, -bound, bound)

    @property
    def uses_position(self) -> bool:
        r"""Whether `attend` needs the target step: the window moves with it."""
        return self.window == "monotonic"

    def prepare(
        self,
        memory: Float[Tensor, "batch source {self.memory_size}"],
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> MultiplicativeSource:
        r"""Project the keys, once for all queries.

        Shapes:
            - `memory`: (batch, source, memory); `lengths`: (batch,)
            - returns: `MultiplicativeSource(keys, values, real)`
        """
        return self._prepared("MultiplicativeAttention.prepare", memory, lengths)

    def attend(
        self,
        query: Float[Tensor, "*rows {self.query_size}"],
        source: MultiplicativeSource,
        position: Integer[Tensor, " positions"] | None = None,
    ) -> tuple[
        Float[Tensor, "*rows {self.memory_size}"], Float[Tensor, "*rows source"]
    ]:
        r"""Contexts and weights of queries over what `prepare` returned.

        Shapes:
            - as the class
        """
        where = "MultiplicativeAttention.attend"
        return self._attended(where, query, source, position)

    def forward(
        self,
        query: Float[Tensor, "*rows {self.query_size}"],
        memory: Float[Tensor, "batch source {self.memory_size}"],
        lengths: Integer[Tensor, " batch"] | None = None,
        position: Integer[Tensor, " positions"] | None = None,
    ) -> tuple[
        Float[Tensor, "*rows {self.memory_size}"], Float[Tensor, "*rows source"]
    ]:
        where = "MultiplicativeAttention.forward"
        source = self._prepared(where, memory, lengths)
        return self._attended(where, query, source, position)

    def _prepared(
        self, where: str, memory: Tensor, lengths: Tensor | None
    ) -> MultiplicativeSource:
        axes = (("batch", None), ("source", None), ("memory_size", self.memory_size))
        check_shape(where, "memory", memory, axes)
        for parameter in tuple(self.parameters())[:1]:
            check_like_parameters(where, "memory", memory, parameter)
        most = self.max_source
        # Of the padded axis: lengths may be tensors that nobody can read.
        if most is not None and memory.shape[1] > most:
            raise ValueError(
                f"{where}: `memory` must have at most max_source={most} positions, "
                f"got {memory.shape[1]} (location scores have a row for each)"
            )
        memory, real = real_positions(where, memory, lengths)
        return MultiplicativeSource(self.scores.keys(memory), memory, real)

    def _attended(
        self,
        where: str,
        query: Tensor,
        source: MultiplicativeSource,
        position: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        _check_source(where, source, self.scores.key_size, self.memory_size)
        keys, values, real = source

        def run(queries: Tensor) -> tuple[Tensor, Tensor]:
            check_like_parameters(where, "query", queries, values, "the source's")
            steps = None
            if self.uses_position:
                steps = target_steps(where, position, query, len(real))
            scores = self.scores
            if isinstance(scores, ConcatScore) and self.window is None:
                projected = linear(queries, scores.weight_query)
                weight = scores.weight_score
                return attend(where, None, projected, keys, values, weight, real)
            weights = self.weigh(scores(queries, keys), queries, real, steps)
            weights = weights.to(values.dtype)
            return weights @ values, weights

        return over_queries(where, query, len(real), self.query_size, run)

    def extra_repr(self) -> str:
        options = [self.query_size, self.memory_size, f"score={self.score!r}"]
        if self.window is not None:
            options += [f"window={self.window!r}", f"half_width={self.half_width}"]
        return ", ".join(map(str, options))


def _check_source(where: str, source: object, key_size: int, memory_size: int) -> None:
    if not isinstance(source, MultiplicativeSource):
        raise TypeError(
            f"{where}: `source` must be a MultiplicativeSource, got "
            f"{type(source).__name__} (pass what prepare(memory, lengths) returned)"
        )
    rows = ("batch", source.real.shape[0]), ("source", source.real.shape[1])
    check_shape(where, "source.keys", source.keys, (*rows, ("key", key_size)))
    width = ("memory_size", memory_size)
    check_shape(where, "source.values", source.values, (*rows, width))
