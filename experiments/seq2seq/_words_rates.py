r"""Rates over words and seeds, their differences, and intervals of both."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from experiments import lab

RESAMPLES = 1000


class Ratio(NamedTuple):
    """Two counts for each seed and word, (seeds, words): what is divided by what."""

    above: Tensor
    below: Tensor


class Resampled:
    r"""Rates with 95 % intervals over words and seeds together.

    A rate is the sum of one count over the sum of another, over all words and seeds.
    Each resample draws as many words and as many seeds, with replacement, and each word
    is taken with each seed. All rates see the same resamples, so that a difference is
    paired by word and by seed.
    """

    def __init__(self, seeds: int, words: int) -> None:
        random = lab.generator(0)
        self.words, self.seeds = (
            torch.zeros(RESAMPLES, count, dtype=torch.float64).scatter_add_(
                1,
                torch.randint(count, (RESAMPLES, count), generator=random),
                torch.ones(RESAMPLES, count, dtype=torch.float64),
            )
            for count in (words, seeds)
        )

    def rate(self, ratio: Ratio) -> dict[str, float]:
        """A rate, with its interval."""
        return _summary(*self._values(ratio))

    def difference(self, one: Ratio, other: Ratio) -> dict[str, float]:
        """The first rate less the other, with its interval."""
        first, second = self._values(one), self._values(other)
        return _summary(first[0] - second[0], first[1] - second[1])

    def _values(self, ratio: Ratio) -> tuple[Tensor, Tensor]:
        above, below = (
            ((self.words @ part.T) * self.seeds).sum(dim=1) for part in ratio
        )
        return ratio.above.sum() / ratio.below.sum(), above / below


def _summary(middle: Tensor, drawn: Tensor) -> dict[str, float]:
    drawn = drawn.sort().values
    return {
        "mean": middle.item(),
        "low": drawn[RESAMPLES * 25 // 1000].item(),
        "high": drawn[RESAMPLES * 975 // 1000 - 1].item(),
    }


def stacked(runs: Sequence[Mapping[str, Any]], *path: str) -> Tensor:
    """A column of every seed's answers, (seeds, words)."""
    columns = []
    for run in runs:
        found: Any = run
        for key in path:
            found = found[key]
        columns.append(found)
    return torch.tensor(columns, dtype=torch.float64)


def per(runs: Sequence[Mapping[str, Any]], *path: str) -> Ratio:
    """Edits over phonemes of the nearest pronunciation."""
    return Ratio(stacked(runs, *path, "edits"), stacked(runs, *path, "phonemes"))


def wer(runs: Sequence[Mapping[str, Any]], *path: str) -> Ratio:
    """Wrong words over words."""
    wrong = (stacked(runs, *path, "edits") > 0).double()
    return Ratio(wrong, torch.ones_like(wrong))


def among(ratio: Ratio, mask: Tensor) -> Ratio:
    """Of some of the words alone."""
    return Ratio(ratio.above * mask, ratio.below * mask)
