"""What is collected from a trained model."""

import dataclasses
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from experiments.models import trained_lstm
from seqref import LSTM
from seqref.models import LanguageModel

TINY = dataclasses.replace(
    trained_lstm.experiment.small,
    gate_rows=2,
    gate_steps=9,
    targets=300,
    contexts=(1, 4),
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return LanguageModel(7, LSTM(3, 5))


def hold_candidates_at_one(model):
    cell = model.layer.cell
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.unflatten(0, (4, 5))[2] = 0
        cell.bias_ih[10:15] = 50


def tokens(length=400):
    return torch.randint(7, (length,), generator=torch.Generator().manual_seed(1))


def test_gates_are_those_that_make_the_next_state(model):
    hold_candidates_at_one(model)
    text = tokens()
    gates = trained_lstm.gates(TINY, model, text)
    rows = text[:18].view(2, 9)
    with torch.no_grad():
        h = model.embedding(rows)
        y, state = model.layer(h)
        _, before = model.layer(h[:, :-1])
    last = {name: values.view(9, 2, 5)[-1] for name, values in gates.items()}
    # With candidates of 1: c = f c' + i, and h = o tanh(c).
    torch.testing.assert_close(y[:, -1], last["output"] * torch.tanh(state.c))
    torch.testing.assert_close(
        state.c, last["forget"] * before.c + last["input"], rtol=1e-5, atol=1e-6
    )


def test_shares_near_the_ends_and_the_histogram():
    case = trained_lstm.gate_case(torch.tensor([0.05, 0.5, 0.55, 0.95, 0.99]))
    assert case["near_0"] == pytest.approx(0.2)
    assert case["near_1"] == pytest.approx(0.4)
    assert case["decided"] == pytest.approx(0.6)
    assert sum(case["histogram"]) == pytest.approx(1)
    assert case["histogram"][-1] == pytest.approx(0.4)


def test_bits_by_context_use_the_characters_before_the_target_and_no_others(model):
    text = tokens()
    by_context = trained_lstm.bits_by_context(TINY, model, text, seed=0)
    places = torch.randint(
        4, len(text), (300,), generator=torch.Generator().manual_seed(100)
    )
    for context, bits in by_context.items():
        total = 0.0
        for place in places.tolist():
            logits, _ = model(text[None, place - context : place])
            total += cross_entropy(logits[0, -1], text[place]).item()
        assert bits == pytest.approx(total / 300 / math.log(2), rel=1e-5)
