"""The LSTM's total derivative against automatic differentiation."""

from dataclasses import replace

import pytest
import torch

from experiments import lab
from experiments.gradients import lstm_jacobian as experiment
from seqref import LSTMState

CONFIG = experiment.Config(hidden_size=5, input_size=3, warm_up=4, steps=6, seeds=(0,))
SMALL = experiment.experiment.small


def gates(cell, x_t, h_prev):
    """The activated gates i, f, g and o of one step."""
    by_input = x_t @ cell.weight_ih.T + cell.bias_ih
    i_pre, f_pre, g_pre, o_pre = (
        by_input + h_prev @ cell.weight_hh.T + cell.bias_hh
    ).chunk(4)
    return i_pre.sigmoid(), f_pre.sigmoid(), g_pre.tanh(), o_pre.sigmoid()


def follow(cell, x, o_start, c_start):
    """Final c after the steps of x, with h = o * tanh(c) at the start."""
    state = LSTMState((o_start * c_start.tanh())[None], c_start[None])
    for x_t in x:
        _, state = cell(x_t[None], state)
    return state.c[0]


@pytest.fixture(scope="module")
def traced():
    """What is measured, the cell and the inputs, and what the last warm step left."""
    case = experiment.CASES["weights_times_2"]
    trace = experiment.trace(case, CONFIG, 0)
    cell = experiment.build(case, CONFIG, 0).cell.requires_grad_(False)
    x = lab.normal(1000, CONFIG.warm_up + CONFIG.steps, CONFIG.input_size)
    h, c = torch.zeros(2, CONFIG.hidden_size, dtype=torch.float64)
    for x_t in x[: CONFIG.warm_up]:
        i_t, f_t, g_t, o_t = gates(cell, x_t, h)
        c = f_t * c + i_t * g_t
        h = o_t * c.tanh()
    return trace, cell, x[CONFIG.warm_up :], (o_t, h, c)


def test_total_derivative_of_one_step(traced):
    trace, cell, x, (o_start, h_start, c_start) = traced
    total = torch.func.jacrev(lambda c: follow(cell, x[:1], o_start, c))(c_start)
    f_t = gates(cell, x[0], h_start)[1]
    dropped = total - torch.diag(f_t)
    assert trace["dropped"][0] == pytest.approx(experiment.norm(dropped), rel=1e-10)
    assert trace["direct"][0] == pytest.approx(f_t.max().item(), rel=1e-10)
    # The short answer is not the derivative, and not by a rounding error.
    assert dropped.abs().max() > 0.01


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_norms_over_many_steps_are_those_of_autograd(traced, steps):
    trace, cell, x, (o_start, h, c) = traced
    total = torch.func.jacrev(lambda c: follow(cell, x[:steps], o_start, c))(c)
    expected = experiment.norm(total)
    assert trace["jacobian"][steps - 1] == pytest.approx(expected, rel=1e-10)
    product = torch.ones_like(c)
    for x_t in x[:steps]:
        i_t, f_t, g_t, o_t = gates(cell, x_t, h)
        c = f_t * c + i_t * g_t
        h, product = o_t * c.tanh(), product * f_t
    expected = product.max().item()
    assert trace["product"][steps - 1] == pytest.approx(expected, rel=1e-10)


def test_cases_change_what_they_name():
    size = SMALL.hidden_size

    def cell_of(name):
        return experiment.build(experiment.CASES[name], SMALL, 0).cell

    default, scaled = cell_of("default"), cell_of("weights_times_4_bias_5")
    torch.testing.assert_close(scaled.weight_ih, 4 * default.weight_ih)
    torch.testing.assert_close(scaled.weight_hh, 4 * default.weight_hh)
    moved = scaled.bias_ih - default.bias_ih
    assert torch.equal(moved[:size], torch.zeros(size, dtype=torch.float64))
    torch.testing.assert_close(moved[size : 2 * size], torch.full_like(moved[:size], 5))
    assert not moved[2 * size :].any()
    assert not cell_of("no_recurrence").weight_hh.any()


def test_the_factor_over_many_steps_grows_with_the_width():
    """In the median: a single narrow network may lie anywhere."""
    factors = []
    for width, networks in ((4, 40), (48, 10)):
        seeds = tuple(range(networks))
        config = replace(SMALL, hidden_size=width, input_size=width, seeds=seeds)
        case = experiment.measure(experiment.CASES["default"], config)
        factors.append(case["log10_true_over_product"]["step_40"])
    assert factors[1] > factors[0] + 0.5
