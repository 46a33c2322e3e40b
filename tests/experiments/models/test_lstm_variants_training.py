"""The task, the layers and the counts of the comparison of noise."""

import dataclasses

import pytest
import torch

from experiments import lab
from experiments.lab.experiment import find
from experiments.lab.seeding import generator
from experiments.models import lstm_variants_training as experiment
from seqref import LSTM, VariationalLSTM, ZoneoutLSTM

CONFIG = find("lstm_variants_training").small


def test_targets_are_signs_of_the_sum_of_two_features():
    x, target = experiment.batch(CONFIG, 50, generator(0))
    assert x.shape == (50, CONFIG.steps, CONFIG.features)
    for row, wanted in zip(x.tolist(), target.tolist(), strict=True):
        total = sum(step[0] + step[1] for step in row[: CONFIG.steps // 2])
        assert wanted == (1 if total > 0 else 0)
    assert 0.2 < target.mean() < 0.8


def test_layers_are_what_their_names_say():
    kinds = {"plain": LSTM, "zoneout": ZoneoutLSTM, "variational": VariationalLSTM}
    for name, kind in kinds.items():
        layer = experiment.layer_of(CONFIG, name)
        assert type(layer) is kind
        assert layer.training
    assert experiment.layer_of(CONFIG, "zoneout").cell.zoneout_c == CONFIG.zoneout_c
    x, h = CONFIG.dropout_x, CONFIG.dropout_h
    rates = {"": (x, h), "_inputs": (x, 0.0), "_state": (0.0, h)}
    for end, wanted in rates.items():
        cell = experiment.layer_of(CONFIG, f"variational{end}").cell
        assert (cell.dropout_x, cell.dropout_h) == wanted


def test_scores_are_those_of_evaluation():
    network = experiment.Network(CONFIG, "variational")
    x, target = experiment.batch(CONFIG, 40, generator(1))
    first, again = (experiment.score(network, x, target) for _ in range(2))
    assert first == again
    assert network.training
    odds = network.eval()(x)
    chance = torch.sigmoid(odds)
    loss = -(target * chance.log() + (1 - target) * (1 - chance).log()).mean()
    right = sum((o > 0) == (t > 0) for o, t in zip(odds, target, strict=True)) / 40
    assert first == pytest.approx((loss.item(), right.item()), abs=1e-5)


def test_a_run_depends_on_its_seed_alone():
    config = dataclasses.replace(CONFIG, updates=20, n_heldout=50)
    one = experiment.train(config, "zoneout", 4)
    torch.rand(3)
    assert experiment.train(config, "zoneout", 4) == one
    assert experiment.train(config, "zoneout", 5) != one
    assert one["loss"] <= one["last_loss"]


def test_what_is_learned_by_heart_and_differences_from_the_plain_layer(monkeypatch):
    assert experiment.train(CONFIG, "plain", 0)["own_accuracy"] == 1
    known = {"plain": 0.5, "zoneout": 0.25, "plain_again": 0.625}

    def trained(config, name, seed):
        value = known.get(name, 0.0) + seed
        keys = ("loss", "accuracy", "last_loss", "own_accuracy")
        return dict.fromkeys(keys, value)

    monkeypatch.setattr(experiment, "train", trained)
    config = dataclasses.replace(CONFIG, seeds=(0, 1), control_seeds=(20, 21))
    cases = experiment.run(config, lab.untracked)["cases"]
    nothing = {"mean": 0, "low": 0, "high": 0}
    assert cases["plain"]["loss_difference"] == nothing
    assert cases["zoneout"]["accuracy_difference"]["mean"] == -0.25
    # Each seed is compared with the plain layer's of the same place.
    assert cases["zoneout"]["last_loss_difference"]["low"] == -0.25
    assert cases["plain_again"]["loss_difference"]["mean"] == 20.125
    assert "own_accuracy_difference" not in cases["zoneout"]
