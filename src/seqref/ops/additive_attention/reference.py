r"""The definition: the scores of one query, and the loop over queries."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqref.ops._source import softmax_over_source


def additive_scores(
    query_t: Float[Tensor, "batch hidden"],
    keys: Float[Tensor, "batch source hidden"],
    weight: Float[Tensor, " hidden"],
) -> Float[Tensor, "batch source"]:
    r"""How well each source position fits one query.

    $$ e_{tj} = v^\top \tanh(q_t + k_j) $$

    Shapes:
        - `query_t`: (batch, hidden); `keys`: (batch, source, hidden); `weight`, which
          is $v$: (hidden,)
        - returns: (batch, source)

    Source:
        Bahdanau, Cho & Bengio (2015), appendix A.1.2, with $q_t = W_a s_{t-1}$ and
        $k_j = U_a h_j$.
    """
    return torch.tanh(query_t[:, None] + keys) @ weight


def attend(
    query: Float[Tensor, "batch time hidden"],
    keys: Float[Tensor, "batch source hidden"],
    values: Float[Tensor, "batch source value"],
    weight: Float[Tensor, " hidden"],
    real: Bool[Tensor, "batch source"],
) -> tuple[Float[Tensor, "batch time value"], Float[Tensor, "batch time source"]]:
    r"""Contexts and weights of all queries, one query after the other.

    Shapes:
        - `query`: (batch, time, hidden); `real`: (batch, source), False in the padding,
          where `keys` and `values` are zero
        - returns: `context` (batch, time, value), `weights` (batch, time, source)
    """
    scores = [additive_scores(query_t, keys, weight) for query_t in query.unbind(1)]
    # Without a query a product has the shape of the scores, and nothing in it.
    scores = torch.stack(scores, dim=1) if scores else query @ keys.mT
    weights = softmax_over_source(scores, real)
    return weights @ values, weights
