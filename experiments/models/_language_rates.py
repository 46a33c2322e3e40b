r"""Means over seeds and windows, with intervals for both."""

import math
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

# The 97.5 % point of Student's t by its degrees of freedom.
STUDENT = (12.7062, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.30600)


def interval(rows: Tensor | Sequence[Sequence[float]]) -> dict[str, float]:
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
    windows = table.mean(dim=0)
    variance = statistics.variance(seeds) / len(seeds)
    variance += windows.var().item() / len(windows)
    half = STUDENT[len(seeds) - 2] * math.sqrt(variance)
    return {"mean": mean, "low": mean - half, "high": mean + half}
