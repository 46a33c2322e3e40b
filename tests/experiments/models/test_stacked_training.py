"""The task, the budget and the count of updates of the comparison of depths."""

import dataclasses

import pytest
import torch

from experiments.lab.experiment import find
from experiments.lab.record import measure
from experiments.models import stacked_training as experiment


def test_targets_are_the_parity_of_the_parity():
    x, targets = experiment.batch(5, 9, torch.Generator().manual_seed(0))
    assert x.shape == (5, 9, 1)
    assert set(x.unique().tolist()) == {-1.0, 1.0}
    for bits, wanted in zip(x[..., 0] > 0, targets, strict=True):
        u = v = 0
        for bit, want in zip(bits.tolist(), wanted.tolist(), strict=True):
            u ^= bit
            v ^= u
            assert v == want


@pytest.mark.parametrize("kind", experiment.KINDS)
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_widths_are_the_largest_within_the_budget(kind, depth):
    width = experiment.width_for(kind, depth, 3000)
    network = experiment.Network(kind, depth, width)
    count = sum(p.numel() for p in network.stack.parameters())
    assert count == experiment.parameters(kind, depth, width) <= 3000
    assert experiment.parameters(kind, depth, width + 1) > 3000


def test_updates_are_counted_until_the_accuracy_is_reached():
    config = dataclasses.replace(experiment.SMALL, longest=200, check_every=5)
    found = experiment.updates_needed(config, "LSTM", 1, 25, 0.01, 0)
    assert found % 5 == 0
    assert found == experiment.updates_needed(config, "LSTM", 1, 25, 0.01, 0) < 200
    easy = dataclasses.replace(config, accuracy=0.3)
    assert experiment.updates_needed(easy, "LSTM", 1, 25, 0.01, 0) == 5
    # With a step of 0 nothing is learned.
    assert experiment.updates_needed(config, "LSTM", 1, 25, 0.0, 0) == 200


def test_the_best_learning_rate_is_taken():
    config = dataclasses.replace(
        experiment.SMALL, longest=150, learning_rates=(0.0, 0.01), seeds=(0,)
    )
    found = experiment.measure_stack(config, "LSTM", 1, 25, (0, 1))
    assert found["learning_rate"] == 0.01
    assert found["capped"] == 0
    assert found["updates"]["high"] < 150


@pytest.mark.slow
def test_claims_hold_and_controls_fail():
    record = measure(find("stacked_training"))
    assert set(record["claims"]) == {"C113"}
    for identifier, claim in record["claims"].items():
        assert claim["holds"], identifier
        assert not claim["control_holds"], identifier
    assert record["cases"]["lstm_1"]["times_one_layer"] == 1
