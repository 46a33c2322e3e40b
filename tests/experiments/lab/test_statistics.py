"""Intervals of shares and of means."""

import pytest
import torch

from experiments.lab.seeding import generator
from experiments.lab.statistics import mean_interval, share_interval


@pytest.mark.parametrize(
    ("good", "runs", "low", "high"),
    [
        # From scipy 1.17.1, binomtest(good, runs).proportion_ci(0.95, "wilson").
        (0, 5, 0.0, 0.43448246478317476),
        (3, 5, 0.23072428127601297, 0.8823792257673521),
        (10, 10, 0.7224672001371109, 1.0),
        (17, 40, 0.28509392559950375, 0.5780493145800892),
    ],
)
def test_the_interval_of_a_share(good, runs, low, high):
    interval = share_interval(good, runs)
    assert interval["share"] == good / runs
    assert interval["low"] == pytest.approx(low, abs=1e-12)
    assert interval["high"] == pytest.approx(high, abs=1e-12)


def test_impossible_counts_are_refused():
    for good, runs in ((1, 0), (-1, 3), (4, 3)):
        with pytest.raises(ValueError, match=f"got {good} of {runs}"):
            share_interval(good, runs)


def test_the_interval_of_a_mean_covers_it_about_as_often_as_it_says():
    random, covered = generator(0), 0
    for _ in range(400):
        values = torch.randn(30, generator=random, dtype=torch.float64)
        interval = mean_interval(values.tolist())
        assert interval["mean"] == pytest.approx(values.mean().item())
        covered += interval["low"] <= 0 <= interval["high"]
    assert 0.90 < covered / 400 < 0.98


@pytest.mark.parametrize(("size", "share"), [(5, 0.84), (20, 0.93)])
def test_the_interval_is_too_narrow_for_few_values(size, share):
    random, covered = generator(0), 0
    for _ in range(1000):
        values = torch.randn(size, generator=random, dtype=torch.float64)
        interval = mean_interval(values.tolist())
        covered += interval["low"] <= 0 <= interval["high"]
    # Three standard errors of a share are 0.035 and 0.024.
    assert covered / 1000 == pytest.approx(share, abs=0.03)


def test_the_interval_of_equal_values_has_no_width():
    interval = mean_interval([0.5, 0.5, 0.5])
    assert interval == {"mean": 0.5, "low": 0.5, "high": 0.5}
    with pytest.raises(ValueError, match="must hold at least one, got none"):
        mean_interval([])
