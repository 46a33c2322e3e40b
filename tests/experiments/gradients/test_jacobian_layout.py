"""Four formulas for one Jacobian."""

import pytest
import torch

from experiments.gradients import jacobian_layout as experiment
from seqref import RNNState

CONFIG = experiment.SMALL


def test_the_true_jacobians_are_those_of_the_layer():
    layer = experiment.build(CONFIG, 0, symmetric=False)
    trace = experiment.follow(layer, CONFIG, 0, inputs=True)
    t = CONFIG.steps
    size = (1, t + 1, CONFIG.input_size)
    x = torch.randn(
        size, generator=torch.Generator().manual_seed(1000), dtype=torch.float64
    )

    def step(h_prev):
        return layer.step(x[:, t], RNNState(h_prev[None]))[0][0]

    expected = torch.func.jacrev(step)(trace.h[t - 1])
    found = experiment.jacobians(trace, t)
    torch.testing.assert_close(found["jacobian"], expected, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(found["transpose"], expected.T, atol=1e-9, rtol=1e-9)


def test_which_formula_is_which():
    found = experiment.compare(CONFIG, 0)
    exact = {
        ("state", "jacobian"),
        ("state_transposed", "transpose"),
        ("pre_activation", "of_pre_activations"),
    }
    for formula in experiment.FORMULAS:
        for jacobian in experiment.JACOBIANS:
            distance = found[f"{formula}_to_{jacobian}"]
            if (formula, jacobian) in exact:
                assert distance < 1e-8
            else:
                assert distance > 0.1, (formula, jacobian)


def test_the_symmetric_matrix_is_symmetric_and_orthogonal():
    w_hh = experiment.build(CONFIG, 1, symmetric=True).cell.weight_hh
    eye = torch.eye(CONFIG.hidden_size, dtype=torch.float64)
    torch.testing.assert_close(w_hh, w_hh.T, atol=1e-10, rtol=0)
    torch.testing.assert_close(w_hh @ w_hh.T, eye, atol=1e-10, rtol=0)


def test_the_swapped_formula_is_exact_only_where_nothing_distinguishes_it():
    rest = experiment.compare(CONFIG, 0, symmetric=True, inputs=False)
    assert rest["swapped_to_jacobian"] == pytest.approx(0, abs=1e-8)
    assert rest["cosine_of_swapped"] == pytest.approx(1)
