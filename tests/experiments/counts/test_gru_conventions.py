"""The written-out GRU beside its judges, and what the determinants stand on."""

import pytest
import torch

from experiments.counts import gru_conventions as experiment
from experiments.lab.experiment import find
from experiments.lab.record import measure
from experiments.lab.seeding import generator
from seqref.ops.fused_recurrence.reference import cho_gru_step, gru_step


@pytest.mark.parametrize(
    ("reset_first", "step"), [(False, gru_step), (True, cho_gru_step)]
)
def test_unroll_is_the_steps_of_the_package(reset_first, step):
    draw = generator(0)
    shapes = ((15, 3), (15, 5), (15,), (15,))
    weights = tuple(torch.randn(s, generator=draw).double() for s in shapes)
    x, h_t = torch.randn(2, 4, 3).double(), torch.randn(2, 5).double()
    y = experiment.unroll(x, h_t, weights, z_keeps=True, reset_first=reset_first)
    for t in range(4):
        h_t = step(x[:, t], h_t, weights)
        torch.testing.assert_close(y[:, t], h_t, atol=1e-12, rtol=1e-12)


def test_negated_changes_the_update_gate_alone_and_undoes_itself():
    weights = experiment.random_two_units(generator(0))
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
    expected = torch.linalg.det(moves).item()
    found = experiment.turn(experiment.two_units(), reset_first=False)
    assert found == pytest.approx(expected, abs=1e-12)
    assert abs(expected) > 0.02


def test_claims_hold_and_controls_fail():
    record = measure(find("gru_conventions"))
    assert set(record["claims"]) == {"C45", "C46.error", "C46.no-map", "C47"}
    for identifier, claim in record["claims"].items():
        assert claim["holds"], identifier
        assert not claim["control_holds"], identifier
