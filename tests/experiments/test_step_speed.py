"""What is timed is one step, done in several ways."""

import time

import pytest
import torch

from seqref import LSTM, LSTMState
from seqref.experiments import step_speed as experiment
from seqref.experiments.framework.experiment import find
from seqref.experiments.framework.record import measure


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


def test_ratios_are_of_one_round(monkeypatch):
    """A stepper that is twice as slow by a clock of our own has the ratio 2."""
    now = [0.0]

    def taking(seconds):
        def step(x_t, state):
            now[0] += seconds
            return x_t, state

        return step

    named = {"plain": taking(1.0), "again": taking(1.0), "one_by_one": taking(2.0)}
    monkeypatch.setattr(experiment, "steppers", lambda layer, compiled: named)
    monkeypatch.setattr(time, "process_time", lambda: now[0])
    found = experiment.measure_size(experiment.SMALL, 64, 1)
    assert found["ratios"]["again"]["median"] == pytest.approx(1)
    assert found["ratios"]["one_by_one"]["median"] == pytest.approx(2)
    assert found["microseconds"] == pytest.approx(1e6)


def test_claim_holds_and_control_fails():
    before = torch.get_num_threads()
    record = measure(find("step_speed"))
    assert torch.get_num_threads() == before
    claim = record["claims"]["C119"]
    assert claim["holds"]
    assert not claim["control_holds"]
    assert record["numbers"]["a_stream_64_1"] == 1
