"""Counts by hand."""

import pytest

from experiments.counts import gru_parameters as experiment


def test_layer_counts_by_hand():
    found = experiment.layer_counts(3, 5)
    assert found["gru"] == 3 * (25 + 15 + 10)
    assert found["lstm"] == 4 * (25 + 15 + 10)
    assert found["ratio"] == 0.75


@pytest.mark.parametrize("size", [(3, 5), (128, 256)])
def test_equal_width_is_the_last_that_fits(size):
    found = experiment.layer_counts(*size)
    width = found["equal_width"]
    assert experiment.layer_counts(size[0], width)["gru"] <= found["lstm"]
    assert experiment.layer_counts(size[0], width + 1)["gru"] > found["lstm"]


def test_model_counts_by_hand():
    found = experiment.model_counts(7, 3, 5)
    around = 7 * 3 + 5 * 7 + 7
    assert found["lstm"] == around + 200
    assert found["gru"] == around + 150
    assert found["saved_percent"] == pytest.approx(100 * 50 / (around + 200))
