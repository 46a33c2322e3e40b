"""What is timed is one step, done in several ways."""

from dataclasses import replace

import pytest
import torch

from experiments.lab import timing
from experiments.lab.experiment import find
from experiments.lab.record import measure
from experiments.speed import step_speed as experiment
from seqref import LSTM, LSTMState

SMALL = find("step_speed").small


def test_all_steppers_make_the_same_step():
    layer = LSTM(6, 6, dtype=torch.float64)
    x, h, c = torch.randn(3, 4, 6, dtype=torch.float64)
    named = experiment.steppers(layer, compiled=False)
    expected = layer.step(x, LSTMState(h, c))
    assert set(named) == {"plain", "torch.nn", "one_by_one"}
    for step in named.values():
        y_t, state = step(x, LSTMState(h, c))
        torch.testing.assert_close(y_t, expected[0], atol=1e-12, rtol=0)
        torch.testing.assert_close(state, expected[1], atol=1e-12, rtol=0)


def test_a_drive_goes_on_from_its_own_state():
    layer = LSTM(3, 3)
    x = torch.randn(2, 3)
    _, expected = layer(x[:, None].expand(2, 5, 3))
    state = experiment.drive(layer.step, x, layer.initial_state(2), 5)
    torch.testing.assert_close(state, expected)


def test_times_are_those_of_one_step(monkeypatch, clock):
    """A stepper that is twice as slow has the ratio 2, however many steps it takes."""
    named = {"plain": clock.taking(1.0), "one_by_one": clock.taking(2.0)}
    monkeypatch.setattr(experiment, "steppers", lambda layer, compiled: named)
    with timing.setting():
        row = experiment.compare(SMALL, 64, 10)
    assert row["ratios"][timing.AGAIN]["median"] == 1
    assert row["ratios"]["one_by_one"]["median"] == 2
    assert row["seconds"] == 1


def test_memory_is_that_of_one_step_and_unknown_of_compiled_code(monkeypatch):
    named = {name: LSTM(64, 64).step for name in ("plain", "compiled")}
    monkeypatch.setattr(experiment, "steppers", lambda layer, compiled: named)
    few, many = (
        experiment.compare(replace(SMALL, steps=steps), 64, 8) for steps in (4, 40)
    )
    # All gates at once, and that several times, but not once for each step.
    gates = 4 * 4 * 8 * 64
    assert gates < few["peak"] == many["peak"] < 4 * gates
    assert few["ratios"]["compiled"]["peak"] is None


def test_where_all_takes_equally_long_streams_in_one_step_are_cheaper():
    """Every reading takes as long, however many rows a step has."""
    before = torch.get_num_threads()
    tiny = replace(SMALL, steps=6, rounds=2)
    record = measure(replace(find("step_speed"), small=tiny))
    assert torch.get_num_threads() == before
    assert record["claims"]["C119"]["number"] == pytest.approx(1 / 64)
    assert record["numbers"]["a_stream_64_1"] == 1
    assert "compiled" not in find("step_speed").rendered(record)["sizes"]
