r"""When two results of a model count as different, and the words for it."""

from collections.abc import Callable

import torch
from torch import Tensor

# What rounding may leave, relative to the scale of a result.
TOLERANCE = {
    torch.float64: 1e-9,
    torch.float32: 1e-4,
    torch.float16: 8 * torch.finfo(torch.float16).eps,
    torch.bfloat16: 8 * torch.finfo(torch.bfloat16).eps,
}
# The least scale. Probabilities are small, and half precision has no digits to spare.
LEAST = {torch.float32: 0.1, torch.float16: 1e-3, torch.bfloat16: 1e-3}
HALF = (torch.float16, torch.bfloat16)
# Differences up to this size, relative to the same, may be float32 rounding.
SINGLE = 1e-5
# How much larger than most a value must be to be taken for that of a mask.
LARGE = 1e5
# The share of rounding, in units of the last place, in a reaction that is none.
UNITS = {torch.float16: 2, torch.bfloat16: 2}


def scale(want: Tensor, got: Tensor) -> float:
    r"""The size that a difference is relative to.

    It is the largest finite value among those that differ at all, so that constants,
    such as the lowest number in the place of a masked score, hide no difference
    elsewhere. Below 1 it is at least the largest of all that are not masked: a value
    near zero is rounded like those that it was summed of.
    """
    values = want.double()
    values = values[(values != got.double()) & values.isfinite()].abs()
    differing = float(values.max()) if values.numel() else 0.0
    return max(LEAST.get(want.dtype, 1.0), differing, min(1.0, _unmasked(want)))


def _unmasked(want: Tensor) -> float:
    sizes = want.double().abs()
    sizes = sizes[sizes.isfinite() & (sizes > 0)]
    if not sizes.numel():
        return 0.0
    typical = sizes.kthvalue(1 + len(sizes) // 10).values
    return float(sizes[sizes <= LARGE * typical].max())


def differ(want: Tensor, got: Tensor, atol: float | None = None) -> Tensor:
    r"""Where two tensors differ by more than `atol`; None is what rounding leaves.

    NaN differs from all.
    """
    if atol is None:
        atol = TOLERANCE.get(want.dtype, 0.0) * scale(want, got)
    want, got = want.double(), got.double()
    # Equal infinities have no difference that is a number.
    return ~(((got - want).abs() <= atol) | (got == want))


def same_or_nan(want: Tensor, got: Tensor, atol: float | None = None) -> bool:
    r"""Whether two results agree, with NaN in the same places."""
    if want.shape != got.shape:
        return False
    both_nan = want.isnan() & got.isnan()
    return not (differ(want, got, atol) & ~both_nan).any()


def changed(one: Tensor, two: Tensor) -> Tensor:
    r"""Where a value reacts: it differs, and by more than the rounding of a sum."""
    if not one.is_floating_point():
        return one != two
    least = LEAST[one.dtype] if one.dtype in HALF else 1.0
    units = UNITS.get(one.dtype, 64) * torch.finfo(one.dtype).eps
    one, two = one.double(), two.double()
    allowed = units * one.abs().clamp(min=least)
    return ~(((one - two).abs() <= allowed) | (one == two))


def steps_that_change(one: Tensor, two: Tensor) -> Tensor:
    r"""For each row and step whether any value reacts."""
    return changed(one, two).reshape(*one.shape[:2], -1).any(dim=-1)


def worst_of(error: Tensor, bad: Tensor) -> tuple[int, ...]:
    r"""The place of the largest error among those that count."""
    # NaN is the worst of all: it is no number to compare.
    worst = error.nan_to_num(nan=torch.inf).masked_fill(~bad, -1).argmax()
    return tuple(int(i) for i in torch.unravel_index(worst, error.shape))


def sentence(
    what: Callable[[tuple[int, ...]], str],
    when: str,
    want: Tensor,
    got: Tensor,
    causes: str,
    atol: float | None = None,
) -> str:
    r"""The place and size of the largest difference, and what to look for."""
    bad, largest = differ(want, got, atol), scale(want, got)
    error = (got.double() - want.double()).abs().nan_to_num(nan=torch.inf)
    index = worst_of(error, bad)
    if want[index].isnan():
        return (
            f"{what(index)} is NaN before anything is changed, so it cannot be "
            "compared.\nUsual causes: a row whose steps are all masked, a logarithm "
            "or root of a number below zero"
        )
    message = (
        f"{what(index)} changes by {float(error[index]):.3g} {when} "
        f"(from {float(want[index]):.6g} to {float(got[index]):.6g}; "
        f"{int(bad.sum())} of {bad.numel()} values differ).\nUsual causes: {causes}"
    )
    return message + _rounding(want.dtype, float(error[index]) / largest)


def _rounding(dtype: torch.dtype, share: float) -> str:
    r"""Words for a difference that may be rounding all the same."""
    if dtype == torch.float64 and share <= SINGLE:
        return (
            ".\nThis is as small as rounding in float32: a model that computes in "
            "float32 inside needs dtype=torch.float32"
        )
    if dtype in HALF and share <= 8 * TOLERANCE[dtype]:
        return (
            f".\nThis may be rounding in {dtype}: a module that is passed itself is "
            "checked in float64, and `atol` is the difference that may be left"
        )
    return ""
