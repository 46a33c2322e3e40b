"""The written-out GRU beside its judges, and what the determinants stand on."""

import pytest
import torch

from experiments import lab
from experiments.counts import gru_conventions as experiment
from seqref.ops.fused_recurrence.reference import cho_gru_step, gru_step


@pytest.mark.parametrize(
    ("reading", "step"), [("torch", gru_step), ("reset_first", cho_gru_step)]
)
def test_unroll_is_the_steps_of_the_package(reading, step):
    draw = lab.generator(0)
    shapes = ((15, 3), (15, 5), (15,), (15,))
    weights = tuple(torch.randn(s, generator=draw).double() for s in shapes)
    x, h_t = torch.randn(2, 4, 3).double(), torch.randn(2, 5).double()
    y = experiment.unroll(experiment.READINGS[reading], weights, x, h_t)
    for t in range(4):
        h_t = step(x[:, t], h_t, weights)
        torch.testing.assert_close(y[:, t], h_t, atol=1e-12, rtol=1e-12)


def test_negated_changes_the_update_gate_alone_and_undoes_itself():
    weights = experiment.random_two_units(lab.generator(0))
    weights[0][2:4] = 1.0
    once = experiment.negated(weights)
    assert torch.equal(once[0][2:4], -weights[0][2:4])
    for part, changed in zip(weights, once, strict=True):
        assert torch.equal(part[:2], changed[:2])
        assert torch.equal(part[4:], changed[4:])
    for part, twice in zip(weights, experiment.negated(once), strict=True):
        assert torch.equal(part, twice)


def test_turn_by_hand():
    # With h = (s, 0) unit 1 has r = sigmoid(s), unit 2 has r = 1/2; both read s.
    half, one = (torch.tensor(s).double().sigmoid() for s in (0.5, 1.0))
    moves = torch.stack(
        [torch.stack([0.5 * half, half * 0 + 0.25]), torch.stack([one, one * 0 + 0.5])]
    )
    expected = torch.linalg.det(moves).abs().item()
    state = experiment.turn(experiment.READINGS["torch"], experiment.two_units())
    assert state == pytest.approx(expected, abs=1e-12)
    assert expected > 0.02
