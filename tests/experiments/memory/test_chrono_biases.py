"""Recipes with one of chrono's biases, layers before training."""

import math
from dataclasses import replace

import pytest
import torch

from experiments.lab.experiment import find
from experiments.lab.seeding import seeded
from experiments.memory import chrono_biases as experiment
from experiments.memory._networks import layer_of


def biases(recipe, horizon=50.0, width=8):
    with seeded(4):
        layer = layer_of(recipe, 2, width, horizon)
    return torch.stack([layer.bias_ih_l0, layer.bias_hh_l0]).unflatten(1, (4, width))


def test_each_recipe_sets_the_biases_of_its_name():
    both, plain = biases("lstm_chrono"), biases("lstm")
    forget, closed = biases("lstm_chrono_forget"), biases("lstm_chrono_input")
    # Blocks i, f, g, o; one seed, so that what is not set is what `lstm` draws.
    assert torch.equal(forget[:, 1], both[:, 1])
    assert torch.equal(forget[:, 0], plain[:, 0])
    assert torch.equal(closed[:, 0], both[:, 0])
    assert torch.equal(closed[:, 1], plain[:, 1])
    for gates in (both, forget, closed):
        assert torch.equal(gates[:, 2:], plain[:, 2:])
    assert not torch.equal(both[:, 0], plain[:, 0])
    large = biases("lstm_bias_5")
    assert torch.equal(large.sum(0)[1], torch.full((8,), 5.0))
    assert torch.equal(large[:, [0, 2, 3]], plain[:, [0, 2, 3]])


def test_the_start_of_a_cell_that_keeps_and_one_that_adds(monkeypatch):
    class Layer:
        """Last outputs 3 and 4 apart in two units; cell states 0, 1, 1 and 9."""

        def __call__(self, x):
            assert x[:, 0].tolist() == [[1, 0], [0, 1]]
            assert not x[:, 1:].any()
            y = torch.zeros(2, x.shape[1], 2)
            y[0, -1] = torch.tensor([3.0, 4.0])
            state = type("State", (), {"c": torch.tensor([[0.0, 1.0], [1.0, 9.0]])})
            return y, state

    class Network:
        layer = Layer()

        def double(self):
            return self

    monkeypatch.setattr(experiment, "build", lambda *arguments: Network())
    start = experiment.start("lstm_chrono", 7, 2, (0, 1, 2))
    assert start["apart"] == pytest.approx(5)
    assert start["slope"] == pytest.approx(1 - math.tanh(1) ** 2)


def test_the_open_gate_alone_has_the_symbol_and_a_cell_without_slope():
    alone, both, closed = (
        experiment.start(f"lstm_chrono{end}", 200, 32, (0, 1))
        for end in ("_forget", "", "_input")
    )
    assert alone["apart"] > 50 * both["apart"]
    assert alone["slope"] < 0.05 < 0.9 < both["slope"]
    assert closed["apart"] < 1e-15


def test_each_case_has_the_start_of_its_recipe_and_lag():
    config = replace(
        find("chrono_biases").small,
        recipes=("lstm", "lstm_chrono"),
        lags=(5, 8),
        hidden_size=4,
        updates=1,
        seeds=(0, 1),
    )
    result = find("chrono_biases").result(config)
    for recipe in config.recipes:
        for lag in config.lags:
            start = result["cases"][f"{recipe}_{lag}"]["start"]
            assert start == experiment.start(recipe, lag, 4, (0, 1))
    for row in result["series"]["rows"]:
        assert (row["hidden_size"], row["horizon"]) == (4, row["lag"])
