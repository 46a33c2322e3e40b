"""The equations, the direct path and the counts."""

import pytest
import torch
from torch import nn

from experiments.counts import lstm_anatomy as experiment


def test_operations_are_two_for_each_multiply_add_of_the_products():
    # Four gates; input and state of width D each; T steps.
    assert experiment.lstm_flops(5, 8) == 2 * 5 * 4 * 8 * (8 + 8)
    # Scores and sums: T x T dot products of length D, twice.
    assert experiment.attention_flops(5, 8) == 2 * 2 * 5 * 5 * 8


def test_the_path_is_measured_against_gates_that_it_does_not_make():
    # With a squash that halves, the derivative is the product times a half a step.
    config = experiment.Config(steps=20)
    off = experiment.path(config, 0, lambda c: c / 2)
    assert off == pytest.approx(1 - 0.5**20, rel=1e-12)


def test_a_step_reads_the_weights_in_the_order_given():
    torch.manual_seed(0)
    cell = nn.LSTMCell(2, 3)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.bias_ih.copy_(torch.arange(4.0).repeat_interleave(3))
    zero = torch.zeros(1, 3)
    now = experiment.step(cell, torch.zeros(1, 2), zero, zero, "ifgo")
    expected = [torch.sigmoid(torch.tensor(v)) for v in (0.0, 1.0, 3.0)]
    for name, value in zip("ifo", expected, strict=True):
        torch.testing.assert_close(now[name], value.expand(1, 3))
    torch.testing.assert_close(now["g"], torch.tanh(torch.tensor(2.0)).expand(1, 3))
