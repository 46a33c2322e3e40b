"""The task, the budget and the count of updates of the comparison of depths."""

import dataclasses

import pytest
import torch

from experiments import lab
from experiments.lab.experiment import find
from experiments.models import stacked_training as experiment

SMALL = find("stacked_training").small


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
    config = dataclasses.replace(SMALL, longest=200, check_every=5)
    updates = experiment.updates_needed(config, "LSTM", 1, 25, 0.01, 0)
    assert updates % 5 == 0
    assert updates == experiment.updates_needed(config, "LSTM", 1, 25, 0.01, 0) < 200
    easy = dataclasses.replace(config, accuracy=0.3)
    assert experiment.updates_needed(easy, "LSTM", 1, 25, 0.01, 0) == 5
    # With a step of 0 nothing is learned.
    assert experiment.updates_needed(config, "LSTM", 1, 25, 0.0, 0) == 200


def test_the_best_learning_rate_is_taken():
    config = dataclasses.replace(
        SMALL, longest=150, learning_rates=(0.0, 0.01), seeds=(0,)
    )
    measured = experiment.measure_stack(config, "LSTM", 1, 25, (0, 1))
    assert measured["learning_rate"] == 0.01
    assert measured["capped"] == 0
    assert measured["updates"]["high"] < 150


def test_each_stack_is_compared_with_one_layer_of_its_kind(monkeypatch):
    medians = {("LSTM", 1): 10.0, ("LSTM", 4): 30.0, ("RNN", 1): 20.0, ("RNN", 4): 50.0}

    def measured(config, kind, depth, width, seeds):
        return {
            "kind": kind,
            "width": width,
            "updates": {"median": medians[kind, depth]},
        }

    monkeypatch.setattr(experiment, "measure_stack", measured)
    cases = experiment.run(SMALL, lab.untracked)["cases"]
    times = {name: case["times_one_layer"] for name, case in cases.items()}
    assert times == {
        "lstm_1": 1,
        "lstm_4": 3,
        "lstm_4_wide": 3,
        "lstm_1_again": 1,
        "rnn_1": 1,
        "rnn_4": 2.5,
        "rnn_4_wide": 2.5,
        "rnn_1_again": 1,
    }
    assert cases["lstm_4_wide"]["width"] == cases["lstm_1"]["width"]
    assert cases["lstm_4"]["width"] < cases["lstm_1"]["width"]
