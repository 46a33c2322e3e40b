r"""The definition: one step of Bahdanau's decoder, and the loop over time."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import linear

from seqref.ops._padding import blank_padding
from seqref.ops._source import softmax_over_source
from seqref.ops.additive_attention.reference import additive_scores
from seqref.ops.fused_recurrence.reference import cho_gru_step


class Parameters(NamedTuple):
    r"""The weights of scores and recurrence, in the order of the op's arguments."""

    weight_query: Tensor
    weight_score: Tensor
    weight_ih: Tensor
    weight_hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None


def bahdanau_step(
    x_t: Float[Tensor, "batch input"],
    h_prev: Float[Tensor, "batch hidden"],
    keys: Float[Tensor, "batch source score"],
    values: Float[Tensor, "batch source value"],
    real: Bool[Tensor, "batch source"],
    weights: Parameters,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""One step: the state before it asks, and the context goes into the step.

    $$
    \begin{aligned}
    e_{tj} &= v^\top \tanh(W_q h_{t-1} + k_j) \qquad
    \alpha_{tj} = \frac{\exp e_{tj}}{\sum_{l \le S} \exp e_{tl}} \qquad
    c_t = \sum_{j \le S} \alpha_{tj} m_j \\
    h_t &= \mathrm{ChoGRU}([x_t; c_t], h_{t-1})
    \end{aligned}
    $$

    Shapes:
        - `x_t`: (batch, input); `h_prev`: (batch, hidden); `keys`: (batch, source,
          score); `values`: (batch, source, value); `real`: (batch, source)
        - returns: `h_t` (batch, hidden), `c_t` (batch, value), the weights (batch,
          source)

    Source:
        Bahdanau, Cho & Bengio (2015), appendix A.
    """
    query_t = linear(h_prev, weights.weight_query)
    scores_t = additive_scores(query_t, keys, weights.weight_score)
    alpha_t = softmax_over_source(scores_t[:, None], real)
    c_t = (alpha_t @ values)[:, 0]
    h_t = cho_gru_step(torch.cat([x_t, c_t], dim=1), h_prev, weights[2:])
    return h_t, c_t, alpha_t[:, 0]


def run(
    x: Float[Tensor, "batch time input"],
    h_0: Float[Tensor, "batch hidden"],
    keys: Float[Tensor, "batch source score"],
    values: Float[Tensor, "batch source value"],
    real: Bool[Tensor, "batch source"],
    weights: Parameters,
    steps: Bool[Tensor, "batch time"] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""All steps, one after the other.

    Shapes:
        - as `bahdanau_step`, with time; `steps`: (batch, time), False in the padding
        - returns: states, last states, contexts, weights
    """
    if steps is not None:
        x = blank_padding(x, steps)
    h_t, results = h_0, []
    for t, x_t in enumerate(x.unbind(1)):
        following, *others = bahdanau_step(x_t, h_t, keys, values, real, weights)
        outputs = (following, *others)
        if steps is not None:
            keep = steps[:, t, None]
            outputs = tuple(output.masked_fill(~keep, 0.0) for output in outputs)
            following = torch.where(keep, following, h_t)
        h_t = following
        results.append(outputs)
    if not results:
        shape = (len(x), 0)
        widths = (h_0.shape[1], values.shape[2], keys.shape[1])
        y, contexts, alpha = (h_0.new_zeros(*shape, width) for width in widths)
        return y, h_0, contexts, alpha
    y, contexts, alpha = (torch.stack(each, 1) for each in zip(*results, strict=True))
    return y, h_t, contexts, alpha
