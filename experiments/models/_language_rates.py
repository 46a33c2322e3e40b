r"""Means over seeds and windows, with intervals for both; Student and Holm."""

import math
import statistics
from collections.abc import Mapping, Sequence
from functools import cache

import torch
from torch import Tensor

Rows = Tensor | Sequence[Sequence[float]]


@cache
def share_within(t: float, freedom: float) -> float:
    r"""How much of Student's t lies within $\pm t$.

    With $t = \sqrt{\nu} \tan \theta$ the density becomes $\cos^{\nu - 1} \theta$.
    """
    points, end = 4000, math.atan(t / math.sqrt(freedom))
    middles = (torch.arange(points, dtype=torch.float64) + 0.5) / points

    def area(angle: float) -> float:
        return angle * (middles * angle).cos().pow(freedom - 1).mean().item()

    return area(end) / area(math.pi / 2)


@cache
def student(freedom: float) -> float:
    """The 97.5 % point of Student's t, whole degrees of freedom or not, by halving."""
    low, high = 0.0, 20.0
    for _ in range(40):
        middle = (low + high) / 2
        if share_within(middle, freedom) < 0.95:
            low = middle
        else:
            high = middle
    return high


def interval(rows: Rows) -> dict[str, float]:
    r"""The mean over seeds and windows, and where it lies for others of both, to 95 %.

    Two variances are added: that of the seeds' means, each over all windows, and that
    of the windows' means, each over all seeds, both by their number. What is left of
    one seed and one window alone is in both, so that it is rather too wide than too
    narrow. The factor is Student's for as many seeds. One seed has no interval: its
    ends are its mean.

    Args:
        rows: For each seed, a number for each window.
    """
    table = torch.as_tensor(rows, dtype=torch.float64)
    mean, seeds = table.mean().item(), table.mean(dim=1).tolist()
    if len(seeds) == 1:
        return {"mean": mean, "low": mean, "high": mean}
    variance = statistics.variance(seeds) / len(seeds) + of_windows(table.mean(dim=0))
    half = student(len(seeds) - 1) * math.sqrt(variance)
    return {"mean": mean, "low": mean - half, "high": mean + half}


def difference(one: Rows, other: Rows) -> dict[str, float]:
    r"""One kind less another: the mean, its interval to 95 %, and `p` of no difference.

    Both read the same windows, so these are paired. A seed gives two kinds the same
    windows of training and not the same weights, so seeds are not: the variance of each
    kind's seeds is taken alone (Welch), with the degrees of freedom of Welch and
    Satterthwaite. With one seed there is no interval, and `p` is 1.

    Args:
        one: For each seed, a number for each window.
        other: Those that are taken from it.
    """
    tables = [torch.as_tensor(rows, dtype=torch.float64) for rows in (one, other)]
    windows = tables[0].mean(dim=0) - tables[1].mean(dim=0)
    mean = windows.mean().item()
    if min(len(table) for table in tables) == 1:
        return {"mean": mean, "low": mean, "high": mean, "p": 1.0}
    parts = [(of_windows(windows), len(windows) - 1)]
    for table in tables:
        seeds = table.mean(dim=1).tolist()
        parts.append((statistics.variance(seeds) / len(seeds), len(seeds) - 1))
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return {"mean": mean, "low": mean, "high": mean, "p": float(mean == 0)}
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    error = math.sqrt(variance)
    half, p = student(freedom) * error, 1 - share_within(abs(mean) / error, freedom)
    return {"mean": mean, "low": mean - half, "high": mean + half, "p": p}


def of_windows(means: Tensor) -> float:
    """The variance of the mean of windows."""
    return means.var().item() / len(means)


def holm(chances: Mapping[str, float]) -> dict[str, float]:
    r"""For each of several comparisons the level at which all together keep it.

    The smallest chance is multiplied by their number, the next by one less, and so on;
    none is below the one before it, and none above 1.
    """
    adjusted, before = {}, 0.0
    for place, name in enumerate(sorted(chances, key=lambda name: chances[name])):
        before = max(before, min(1.0, (len(chances) - place) * chances[name]))
        adjusted[name] = before
    return adjusted
