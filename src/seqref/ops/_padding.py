r"""Right padding inside an op: which steps are real, and rows read backwards."""

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


def reverse_rows(
    x: Float[Tensor, "batch time ..."], lengths: Integer[Tensor, " batch"] | None = None
) -> Float[Tensor, "batch time ..."]:
    r"""Each row's real steps from the last to the first; the padding stays in place.

    Twice is the identity. Without lengths every step is real.
    """
    if lengths is None:
        return x.flip(1)
    batch, time = x.shape[:2]
    real = real_steps(lengths.to(x.device), time)
    steps = torch.arange(time, device=x.device)
    last = lengths[:, None].to(x.device, torch.int64) - 1
    source = torch.where(real, last - steps, steps)
    # Every step is read once, so the backward pass has nothing to add up in an order
    # that a GPU may choose.
    return x.gather(1, source.view(batch, time, *[1] * (x.dim() - 2)).expand_as(x))
