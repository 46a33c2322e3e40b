r"""Weights over the positions of a source, where some of them are padding."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def softmax_over_source(
    scores: Float[Tensor, "batch time source"], real: Bool[Tensor, "batch source"]
) -> Float[Tensor, "batch time source"]:
    r"""Softmax over the real positions of each row: padding has weight 0.

    A row without a real position has the weight 0 everywhere, and no gradient.
    """
    return softmax_over_allowed(scores, real[:, None])


def softmax_over_allowed(
    scores: Float[Tensor, "batch time source"],
    allowed: Bool[Tensor, "batch #time source"],
) -> Float[Tensor, "batch time source"]:
    r"""Softmax over the positions that each query may look at; others have weight 0.

    A query that may look at nothing has the weight 0 everywhere, and no gradient.
    """
    # Where nothing is allowed, a softmax of minus infinities alone would be NaN. The
    # mask at the end would keep it from all results, and yet it would stop torch's
    # anomaly detection; and so would scores there that have overflowed, in gradients.
    some = allowed.any(dim=-1, keepdim=True)
    blank = scores.new_zeros(some.shape).masked_fill(some, -torch.inf)
    weights = torch.softmax(torch.where(allowed, scores, blank), dim=-1)
    return weights.masked_fill(~allowed, 0.0)
