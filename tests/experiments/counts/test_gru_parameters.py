"""Counts by hand."""

import pytest

from experiments.counts import gru_parameters as experiment


def test_layer_counts_by_hand():
    counts = experiment.layer_counts(3, 5)
    assert counts["gru"] == 3 * (25 + 15 + 10)
    assert counts["lstm"] == 4 * (25 + 15 + 10)
    assert counts["ratio"] == 0.75


@pytest.mark.parametrize("size", [(3, 5), (128, 256)])
def test_equal_width_is_the_last_that_fits(size):
    counts = experiment.layer_counts(*size)
    width = counts["equal_width"]
    assert experiment.layer_counts(size[0], width)["gru"] <= counts["lstm"]
    assert experiment.layer_counts(size[0], width + 1)["gru"] > counts["lstm"]


def test_model_counts_by_hand():
    counts = experiment.model_counts(7, 3, 5)
    around = 7 * 3 + 5 * 7 + 7
    assert counts["lstm"] == around + 200
    assert counts["gru"] == around + 150
    assert counts["saved_percent"] == pytest.approx(100 * 50 / (around + 200))
