"""Closed forms of the forget gate, and the gates of torch.nn.LSTM."""

import pytest
import torch
from torch import nn

from experiments import lab
from experiments.gradients import forget_gate as experiment
from seqref import LSTMCell, LSTMState


@pytest.mark.parametrize("bias", [-2.0, 0.0, 1.0, 5.0])
def test_half_is_left_after_the_half_life(bias):
    gate = experiment.gate_of(bias)
    assert gate == pytest.approx(torch.tensor(bias).double().sigmoid().item())
    assert gate ** experiment.half_life(gate) == pytest.approx(0.5)


@pytest.mark.parametrize("steps", [1, 10, 1000])
def test_bias_for_is_the_inverse(steps):
    bias = experiment.bias_for(steps)
    assert experiment.half_life(experiment.gate_of(bias)) == pytest.approx(steps)


def test_gates_are_those_that_move_the_cell_state():
    with lab.seeded(0):
        layer = nn.LSTM(3, 4, batch_first=True, dtype=torch.float64)
    cell = LSTMCell(3, 4, dtype=torch.float64)
    with torch.no_grad():
        for name, parameter in cell.named_parameters():
            parameter.copy_(dict(layer.named_parameters())[f"{name}_l0"])
    x = torch.randn((2, 5, 3), generator=lab.generator(1), dtype=torch.float64)
    gates = experiment.forget_gates(layer, x)
    # With c = 0 and c = 1 before a step the results differ by f.
    state = cell.initial_state(2)
    for t in range(5):
        ones = torch.ones_like(state.c)
        high = cell(x[:, t], LSTMState(state.h, ones))[1].c
        low = cell(x[:, t], LSTMState(state.h, 0 * ones))[1].c
        torch.testing.assert_close(gates[:, t], high - low, atol=1e-10, rtol=1e-10)
        _, state = cell(x[:, t], state)


def test_the_product_of_gates_is_that_of_a_constant_gate_when_nothing_moves_it():
    config = experiment.Config(batch_size=2, seeds=(0,))
    drawn = experiment.measure_width(config, 4)
    assert drawn["bias_low"] < 0 < drawn["bias_high"]
    assert -45 < drawn["log10_product"] < -20
    raised = experiment.measure_width(config, 4, 30.0)
    assert raised["mean_gate"] == pytest.approx(1)
    assert raised["log10_product"] == pytest.approx(0, abs=1e-9)
    assert raised["bias_low"] == pytest.approx(drawn["bias_low"] + 30)
