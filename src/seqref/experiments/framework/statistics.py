r"""Medians and ranges over seeds."""

import math
import statistics
from collections.abc import Iterable


def median(values: Iterable[float]) -> float:
    """The median as a float."""
    return float(statistics.median(values))


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, lowest and highest value."""
    found = list(values)
    return {"median": median(found), "low": min(found), "high": max(found)}


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
