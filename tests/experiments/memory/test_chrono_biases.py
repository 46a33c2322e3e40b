"""Recipes with one of chrono's biases, layers before training; then the small run."""

import math

import pytest
import torch

from experiments.lab.experiment import find
from experiments.lab.record import measure
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
    for found in (both, forget, closed):
        assert torch.equal(found[:, 2:], plain[:, 2:])
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
    found = experiment.start("lstm_chrono", 7, 2, (0, 1, 2))
    assert found["apart"] == pytest.approx(5)
    assert found["slope"] == pytest.approx(1 - math.tanh(1) ** 2)


@pytest.fixture(scope="module")
def record():
    return measure(find("chrono_biases"))


def test_claims_hold_and_controls_fail(record):
    assert set(record["claims"]) == {"C146.input", "C146.forget"}
    for identifier, claim in record["claims"].items():
        assert claim["holds"], identifier
        assert not claim["control_holds"], identifier


def test_the_open_gate_alone_has_the_symbol_and_a_cell_without_slope(record):
    cases = record["cases"]
    alone = cases["lstm_chrono_forget_200"]["start"]
    both = cases["lstm_chrono_200"]["start"]
    assert alone["apart"] > 50 * both["apart"]
    assert alone["slope"] < 0.05 < 0.9 < both["slope"]
    assert cases["lstm_chrono_input_200"]["start"]["apart"] < 1e-15


def test_tables_have_a_line_for_each_recipe(record):
    found = experiment.tables(record)
    assert set(found) == {"solved", "start"}
    for text in found.values():
        assert text.count("\n") == 2 + len(experiment.SMALL.recipes)
    assert "slope, lag 200" in found["start"]
