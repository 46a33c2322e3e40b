r"""Right padding inside an op: which steps are real."""

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor


def real_steps(
    lengths: Integer[Tensor, " batch"], time: int
) -> Bool[Tensor, "batch time"]:
    r"""True where a step belongs to its row, False where it is padding."""
    steps = torch.arange(time, device=lengths.device)
    return steps < lengths[:, None].to(torch.int64)


def blank_padding(
    x: Float[Tensor, "batch time width"], real: Bool[Tensor, "batch time"]
) -> Float[Tensor, "batch time width"]:
    r"""`x` with zeros in the padding.

    A mask on the result alone is not enough: the backward pass would multiply a zero
    by what the padding holds, and zero times NaN is NaN.
    """
    return x.masked_fill(~real[..., None], 0.0)
