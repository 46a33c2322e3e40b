r"""Medians, ranges and intervals over seeds."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import torch

from experiments.lab.seeding import generator

T = TypeVar("T")
# Half of the width of a 95 % interval of the normal distribution.
NORMAL_95 = 1.959963984540054
RESAMPLES = 2000


def median(values: Iterable[float]) -> float:
    """The median as a float."""
    return float(statistics.median(values))


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, lowest and highest value."""
    found = list(values)
    return {"median": median(found), "low": min(found), "high": max(found)}


def by_place(
    rows: Sequence[Mapping[str, Sequence[float]]],
    summary: Callable[[Iterable[float]], T],
) -> dict[str, list[T]]:
    """By key, the `summary` of the first values of all rows, of the second, and on."""
    return {
        key: [
            summary(values) for values in zip(*(row[key] for row in rows), strict=True)
        ]
        for key in rows[0]
    }


def log10_summary(values: Iterable[float]) -> dict[str, float]:
    r"""Decimal logarithm of the median, the lowest and the highest of positive values.

    Rounded to nine decimals: what is left of float64 arithmetic beyond that differs
    between processors.

    Raises:
        ValueError: A value is not positive.
    """
    found = spread(values)
    if found["low"] <= 0:
        raise ValueError(
            f"log10_summary: `values` must be positive, got {found['low']}"
        )
    # + 0.0 turns -0.0 into 0.0.
    return {key: round(math.log10(value), 9) + 0.0 for key, value in found.items()}


def log10_summaries(rows: Iterable[Iterable[float]]) -> list[dict[str, float]]:
    """`log10_summary` of each column of rows, one a seed."""
    return [log10_summary(column) for column in zip(*rows, strict=True)]


def share_interval(good: int, runs: int) -> dict[str, float]:
    r"""The share of `runs` that were good, with Wilson's 95 % interval.

    It stays within 0 and 1 and has a width where all runs, or none, were good.

    Raises:
        ValueError: `good` is not between 0 and `runs`, or `runs` is 0.
    """
    if runs < 1 or not 0 <= good <= runs:
        raise ValueError(
            "share_interval: `good` must be between 0 and `runs`, of at least 1, got "
            f"{good} of {runs}"
        )
    share, z = good / runs, NORMAL_95**2 / runs
    middle = (share + z / 2) / (1 + z)
    half = math.sqrt(share * (1 - share) * z + z**2 / 4) / (1 + z)
    # The formula reaches 0 and 1 but for rounding where no run, or each, was good.
    low = 0.0 if good == 0 else middle - half
    high = 1.0 if good == runs else middle + half
    return {"share": share, "low": low, "high": high}


def mean_interval(values: Sequence[float]) -> dict[str, float]:
    r"""The mean, with the 95 % interval of the percentile bootstrap.

    `RESAMPLES` draws with replacement, always the same ones for as many values. It is
    too narrow for few values: of normal ones it holds the true mean in about 93 % of
    samples of 20 and 84 % of samples of five. Values that are all equal get an interval
    of width 0, which says nothing of other seeds.

    Raises:
        ValueError: There are no values.
    """
    if len(values) == 0:
        raise ValueError("mean_interval: `values` must hold at least one, got none")
    found = torch.tensor(values, dtype=torch.float64)
    size = (RESAMPLES, len(values))
    chosen = torch.randint(len(values), size, generator=generator(0))
    means = found[chosen].mean(dim=1).sort().values
    return {
        "mean": found.mean().item(),
        "low": means[RESAMPLES * 25 // 1000].item(),
        "high": means[RESAMPLES * 975 // 1000 - 1].item(),
    }
