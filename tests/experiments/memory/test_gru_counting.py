"""Words, counters by hand and the count of right answers; then the small run."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from experiments.lab.experiment import find
from experiments.lab.record import measure
from experiments.memory import _counters as counters
from experiments.memory import gru_counting as experiment

NAN = float("nan")


def test_words_and_answers():
    x, answers = counters.words(2)
    assert x[0].tolist() == [[1, 0], [0, 1], [0, 0], [0, 0]]
    assert x[1].tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    expected = torch.tensor([[NAN, 1, NAN, NAN], [NAN, NAN, 0, 1]])
    assert torch.equal(answers.isnan(), expected.isnan())
    assert answers.nan_to_num().tolist() == expected.nan_to_num().tolist()


def test_right_counts_both_kinds_of_mistakes():
    def step(x_t, state):
        state = torch.zeros(len(x_t)) if state is None else state
        return state + x_t[:, 0] - x_t[:, 1]

    def answer(yes):
        return counters.right(step, yes, 6)

    assert answer(lambda s: s == 0).tolist() == [True] * 6
    # Yes one step too early, never, and only for words above three.
    assert answer(lambda s: s <= 1).tolist() == [True] + [False] * 5
    assert answer(lambda s: s < 0).tolist() == [False] * 6
    assert counters.reach(torch.tensor([True, True, False, True])) == 2
    assert counters.reach(torch.tensor([False, True])) == 0
    assert counters.reach(torch.tensor([True, True])) == 2


def test_the_hand_made_cell_state_counts_exactly():
    cell = counters.hand_lstm()
    a, b = (torch.tensor([v], dtype=torch.float64) for v in (counters.A, counters.B))
    state = None
    found = []
    for x_t in [a] * 5 + [b] * 5:
        state = cell(x_t, state)
        found.append(state[1].item())
    assert found == [1, 2, 3, 4, 5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("delta", [0.1, 0.01, 0.001])
def test_the_hand_made_gru_follows_its_closed_form(delta):
    cell = counters.hand_gru(delta)
    a, b = (torch.tensor([v], dtype=torch.float64) for v in (counters.A, counters.B))
    h = torch.zeros(1, 1, dtype=torch.float64)
    for n in range(1, 8):
        h = cell(a, h)
        assert h.item() == pytest.approx(1 - (1 - delta) ** n, abs=1e-12)
    for _ in range(7):
        h = cell(b, h)
    assert h.item() == pytest.approx(-((1 - (1 - delta) ** 7) ** 2), abs=1e-12)


@pytest.mark.parametrize("delta", [1e-1, 1e-2, 1e-3])
def test_the_hand_made_gru_counts_to_the_root_of_half_its_inverse_step(delta):
    found = counters.try_hand(counters.hand_gru(delta), torch.float64, delta / 2, 60)
    assert found == pytest.approx((1 / (2 * delta)) ** 0.5, abs=1)


def test_in_float32_rounding_cuts_the_drift_away():
    steps, ends = {}, {}
    for dtype in (torch.float32, torch.float64):
        cell, h = counters.hand_gru(1e-6).to(dtype), None
        a, b = (torch.tensor([v], dtype=dtype) for v in (counters.A, counters.B))
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


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_trying_a_layer_is_reading_each_word(kind):
    layer, head = experiment.build(kind, 3, 0)
    with torch.no_grad():
        head.bias.fill_(0.3)
        head.weight.mul_(3)
    good = counters.try_layer(layer, head, 5)
    x, answers = counters.words(5)
    said = (head(layer(x)[0])[..., 0] > 0).float()
    asked = ~answers.isnan()
    for row in range(5):
        alone = said[row][asked[row]].equal(answers[row][asked[row]])
        assert alone == bool(good[row])


def test_training_learns_short_words():
    config = experiment.Config(3, 300, 0.03, 5, (), 5, (0,))
    layer, head = experiment.build(nn.LSTM, 4, 0)
    assert counters.reach(counters.try_layer(layer, head, 5)) < 3
    experiment.train(config, layer, head)
    assert counters.reach(counters.try_layer(layer, head, 5)) >= 3


def test_claims_hold_and_controls_fail():
    record = measure(find("gru_counting"))
    names = {"C50.learned", "C50.beyond", "C50.state", "C50.precision"}
    assert set(record["claims"]) == names
    for identifier, claim in record["claims"].items():
        assert claim["holds"], identifier
        assert not claim["control_holds"], identifier
