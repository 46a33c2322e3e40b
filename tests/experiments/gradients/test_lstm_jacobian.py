"""The LSTM's Jacobian by hand against automatic differentiation."""

from dataclasses import replace

import pytest
import torch

from experiments.gradients import lstm_jacobian as experiment
from experiments.lab.seeding import generator, seeded
from seqref import LSTM, LSTMState

EXACT = {"atol": 1e-10, "rtol": 1e-10}
HIDDEN = 5


@pytest.fixture
def cell():
    with seeded(1):
        return LSTM(3, HIDDEN, dtype=torch.float64).cell


def draw(seed, *size):
    return torch.randn(size, generator=generator(seed), dtype=torch.float64)


def follow(cell, x, o_start, c_start):
    """Final h and c after the steps of x, with h = o * tanh(c) at the start."""
    state = LSTMState((o_start * c_start.tanh())[None], c_start[None])
    for x_t in x:
        _, state = cell(x_t[None], state)
    return state.h[0], state.c[0]


def test_gates_are_those_of_the_cell(cell):
    x_t, h_prev, c_prev = draw(2, 3), draw(3, HIDDEN), draw(4, HIDDEN)
    i_t, f_t, g_t, o_t = experiment.gates(cell, x_t, h_prev)
    _, state = cell(x_t[None], LSTMState(h_prev[None], c_prev[None]))
    c_t = f_t * c_prev + i_t * g_t
    torch.testing.assert_close(state.c[0], c_t, **EXACT)
    torch.testing.assert_close(state.h[0], o_t * c_t.tanh(), **EXACT)


def test_total_derivative_of_one_step(cell):
    x, o_prev, c_prev = draw(2, 1, 3), draw(3, HIDDEN).sigmoid(), draw(4, HIDDEN)
    expected = torch.func.jacrev(lambda c: follow(cell, x, o_prev, c)[1])(c_prev)
    gate = experiment.gates(cell, x[0], o_prev * c_prev.tanh())
    dropped = experiment.through_hidden(cell, gate, c_prev)
    dropped = dropped * experiment.output_slope(c_prev, o_prev)
    torch.testing.assert_close(torch.diag(gate.f_t) + dropped, expected, **EXACT)
    # The short answer is not the derivative, and not by a rounding error.
    assert (torch.diag(gate.f_t) - expected).abs().max() > 0.01


def test_jacobian_of_the_whole_state(cell):
    x_t, h_prev, c_prev = draw(2, 3), draw(3, HIDDEN), draw(4, HIDDEN)

    def step(both):
        h, c = both.split(HIDDEN)
        state = cell(x_t[None], LSTMState(h[None], c[None]))[1]
        return torch.cat([state.h[0], state.c[0]])

    both = torch.cat([h_prev, c_prev])
    expected = torch.func.jacrev(step)(both)
    gate = experiment.gates(cell, x_t, h_prev)
    c_t = step(both)[HIDDEN:]
    found = experiment.state_jacobian(cell, gate, c_prev, c_t)
    torch.testing.assert_close(found, expected, **EXACT)


def test_norms_over_many_steps_are_those_of_autograd():
    config = experiment.Config(
        hidden_size=HIDDEN, input_size=3, warm_up=4, steps=6, seeds=(0,)
    )
    case = experiment.CASES["weights_times_2"]
    with torch.no_grad():
        found = experiment.trace(case, config, 0)
    cell = experiment.build(case, config, 0).cell
    x = draw(1000, 10, 3)
    state = cell.initial_state(1)
    gates = []
    for x_t in x[:4]:
        gates.append(experiment.gates(cell, x_t, state.h[0]))
        _, state = cell(x_t[None], state)
    o_start, c_start = gates[-1].o_t.detach(), state.c[0].detach()
    for steps in (1, 3, 6):
        expected = torch.func.jacrev(
            lambda c, n=steps: follow(cell, x[4 : 4 + n], o_start, c)[1]
        )(c_start)
        norm = torch.linalg.matrix_norm(expected, 2).item()
        assert found.jacobian[steps - 1] == pytest.approx(norm, rel=1e-10)


def test_cases_change_what_they_name():
    config = experiment.SMALL
    size = config.hidden_size

    def cell_of(name):
        return experiment.build(experiment.CASES[name], config, 0).cell

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
    found = []
    for width, networks in ((4, 40), (48, 10)):
        size = {"hidden_size": width, "input_size": width}
        config = replace(experiment.SMALL, seeds=tuple(range(networks)), **size)
        case = experiment.run(config)["cases"]["default"]
        found.append(case["log10_true_over_product"]["step_40"])
    assert found[1] > found[0] + 0.5
