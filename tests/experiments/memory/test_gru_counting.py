"""Counters by hand, what they say, and a short training."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from experiments.memory import gru_counting as experiment
from seqref.tasks.counting import A, B


def test_a_counter_is_right_or_makes_either_mistake():
    def step(x_t, state):
        state = torch.zeros(len(x_t), 1) if state is None else state
        return state + x_t[:, :1] - x_t[:, 1:]

    def far(threshold):
        return experiment.try_hand(step, torch.float32, threshold, 6)

    assert far(0.5) == 6
    # Yes one step too early, and never.
    assert far(1.5) == 1
    assert far(-0.5) == 0
    # Of a pair of states the second counts.
    pairs = experiment.try_hand(
        lambda x_t, state: (None, step(x_t, state and state[1])), torch.float32, 0.5, 6
    )
    assert pairs == 6


def test_the_hand_made_cell_state_counts_exactly():
    cell = experiment.hand_lstm()
    a, b = (torch.tensor([v], dtype=torch.float64) for v in (A, B))
    state = None
    counts = []
    for x_t in [a] * 5 + [b] * 5:
        state = cell(x_t, state)
        counts.append(state[1].item())
    assert counts == [1, 2, 3, 4, 5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("delta", [0.1, 0.01, 0.001])
def test_the_hand_made_gru_follows_its_closed_form(delta):
    cell = experiment.hand_gru(delta)
    a, b = (torch.tensor([v], dtype=torch.float64) for v in (A, B))
    h = torch.zeros(1, 1, dtype=torch.float64)
    for n in range(1, 8):
        h = cell(a, h)
        assert h.item() == pytest.approx(1 - (1 - delta) ** n, abs=1e-12)
    for _ in range(7):
        h = cell(b, h)
    assert h.item() == pytest.approx(-((1 - (1 - delta) ** 7) ** 2), abs=1e-12)


@pytest.mark.parametrize("delta", [1e-1, 1e-2, 1e-3])
def test_the_hand_made_gru_counts_to_the_root_of_half_its_inverse_step(delta):
    cell = experiment.hand_gru(delta)
    reach = experiment.try_hand(cell, torch.float64, delta / 2, 60)
    assert reach == pytest.approx((1 / (2 * delta)) ** 0.5, abs=1)


def test_in_float32_rounding_cuts_the_drift_away():
    steps, ends = {}, {}
    for dtype in (torch.float32, torch.float64):
        cell, h = experiment.hand_gru(1e-6).to(dtype), None
        a, b = (torch.tensor([v], dtype=dtype) for v in (A, B))
        values = [0.0]
        with torch.no_grad():
            for _ in range(1000):
                h = cell(a, h)
                values.append(h.item())
            for _ in range(1000):
                h = cell(b, h)
        steps[dtype] = {after - before for before, after in pairwise(values)}
        ends[dtype] = h.item()
    assert len(steps[torch.float32]) == 1
    assert steps[torch.float32].pop() * 2**24 == 16
    assert ends[torch.float32] == 0
    assert len(steps[torch.float64]) == 1000
    assert ends[torch.float64] == pytest.approx(-1e-6, rel=0.01)


def test_training_learns_short_words_and_without_it_none():
    config = experiment.Config(
        train_to=3, steps=300, learning_rate=0.03, try_to=5, seeds=(0, 1)
    )
    before, after = (
        experiment.measure_trained(config, "lstm_4", updates) for updates in (0, 300)
    )
    assert before["reach"]["high"] < 3 <= after["reach"]["low"]
    assert after["parameters"] == sum(p.numel() for p in nn.LSTM(2, 4).parameters())
    assert after["train_to"] == 3
    for case in (before, after):
        assert len(case["reaches"]) == 2
        # A word whose predecessors are all right is right in as many networks.
        assert len(case["share_right"]) == 5
        assert case["share_right"][0] >= sum(r > 0 for r in case["reaches"]) / 2
