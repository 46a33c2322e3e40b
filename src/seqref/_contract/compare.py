r"""When two results of a model count as different, and the words for it."""

from collections.abc import Callable

import torch
from torch import Tensor

# What rounding may leave, relative to the largest value (or 1).
TOLERANCE = {
    torch.float64: 1e-9,
    torch.float32: 1e-4,
    torch.float16: 2e-2,
    torch.bfloat16: 1e-1,
}
# Differences up to this size, relative to the same, may be float32 rounding.
SINGLE = 1e-5


def scale(want: Tensor, got: Tensor) -> float:
    r"""The largest finite value among those that differ at all, at least 1.

    Constants, such as the lowest number in the place of a masked score, are equal bit
    for bit, and so they hide no difference elsewhere.
    """
    values = want.double()
    values = values[(values != got.double()) & values.isfinite()].abs()
    return max(1.0, float(values.max())) if values.numel() else 1.0


def differ(want: Tensor, got: Tensor) -> Tensor:
    r"""Where two tensors differ by more than rounding; NaN differs from all."""
    allowed = TOLERANCE.get(want.dtype, 0.0) * scale(want, got)
    want, got = want.double(), got.double()
    # Equal infinities have no difference that is a number.
    return ~(((got - want).abs() <= allowed) | (got == want))


def same_or_nan(want: Tensor, got: Tensor) -> bool:
    r"""Whether two results agree, with NaN in the same places."""
    if want.shape != got.shape:
        return False
    both_nan = want.isnan() & got.isnan()
    return not (differ(want, got) & ~both_nan).any()


def changed(one: Tensor, two: Tensor) -> Tensor:
    r"""Where a value reacts: it differs, and by more than the rounding of a sum."""
    if not one.is_floating_point():
        return one != two
    allowed = 64 * torch.finfo(one.dtype).eps * one.abs().clamp(min=1)
    return ~(((one - two).abs() <= allowed) | (one == two))


def sentence(
    what: Callable[[tuple[int, ...]], str],
    when: str,
    want: Tensor,
    got: Tensor,
    causes: str,
) -> str:
    r"""The place and size of the largest difference, and what to look for."""
    bad, largest = differ(want, got), scale(want, got)
    error = (got.double() - want.double()).abs().nan_to_num(nan=torch.inf)
    worst = error.masked_fill(~bad, -1).argmax()
    index = tuple(int(i) for i in torch.unravel_index(worst, error.shape))
    if want[index].isnan():
        return (
            f"{what(index)} is NaN before anything is changed, so it cannot be "
            "compared.\nUsual causes: a row whose steps are all masked, a logarithm "
            "or root of a number below zero"
        )
    found = (
        f"{what(index)} changes by {float(error[index]):.3g} {when} "
        f"(from {float(want[index]):.6g} to {float(got[index]):.6g}; "
        f"{int(bad.sum())} of {bad.numel()} values differ).\nUsual causes: {causes}"
    )
    if want.dtype == torch.float64 and float(error[index]) <= SINGLE * largest:
        found += (
            ".\nThis is as small as rounding in float32: a model that computes in "
            "float32 inside needs dtype=torch.float32"
        )
    return found
