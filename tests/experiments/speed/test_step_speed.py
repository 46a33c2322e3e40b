"""What is timed is one step, done in several ways."""

from dataclasses import replace

import pytest
import torch

from experiments.lab.experiment import find
from experiments.lab.record import measure
from experiments.speed import step_speed as experiment
from seqref import LSTM, LSTMState


def test_all_steppers_make_the_same_step():
    layer = LSTM(6, 6, dtype=torch.float64)
    x, h, c = torch.randn(3, 4, 6, dtype=torch.float64)
    named = experiment.steppers(layer, compiled=False)
    expected = layer.step(x, LSTMState(h, c))
    assert set(named) == {"plain", "again", "torch.nn", "one_by_one"}
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


def test_ratios_are_of_one_round(monkeypatch, clock):
    """A stepper that is twice as slow by a clock of our own has the ratio 2."""
    plain, twice = clock.taking(1.0), clock.taking(2.0)
    named = {"plain": plain, "again": plain, "one_by_one": twice}
    monkeypatch.setattr(experiment, "steppers", lambda layer, compiled: named)
    found = experiment.measure_size(experiment.SMALL, 64, 1)
    assert found["ratios"]["again"]["median"] == pytest.approx(1)
    assert found["ratios"]["one_by_one"]["median"] == pytest.approx(2)
    assert found["microseconds"] == pytest.approx(1e6)


def test_where_all_takes_equally_long_streams_in_one_step_are_cheaper():
    """Every reading takes a millisecond, however many rows a step has."""
    before = torch.get_num_threads()
    tiny = replace(experiment.SMALL, steps=6, rounds=2)
    record = measure(replace(find("step_speed"), small=tiny))
    assert torch.get_num_threads() == before
    assert record["claims"]["C119"]["number"] == pytest.approx(1 / 64)
    assert record["numbers"]["a_stream_64_1"] == 1
