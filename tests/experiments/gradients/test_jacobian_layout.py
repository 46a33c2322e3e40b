"""Four formulas for one Jacobian."""

import pytest
import torch

from experiments.gradients import jacobian_layout as layout
from seqref import RNNState

CONFIG = layout.experiment.small
DRIVEN = layout.CASES["driven"]


def test_the_true_jacobians_are_those_of_the_layer():
    layer = layout.build(DRIVEN, CONFIG, 0)
    x_t, z_prev = torch.randn(
        (2, CONFIG.hidden_size), generator=torch.Generator().manual_seed(1)
    ).double()
    x_t = x_t[None, : CONFIG.input_size]

    def step(h_prev):
        return layer.step(x_t, RNNState(h_prev[None]))[0][0]

    h_prev = z_prev.tanh()
    of_state = torch.func.jacrev(step)(h_prev)
    of_pre = torch.func.jacrev(lambda z: step(z.tanh()).atanh())(z_prev)
    jacobians = layout.jacobians(layer, x_t, h_prev)
    torch.testing.assert_close(jacobians["jacobian"], of_state, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(jacobians["transpose"], of_state.T, atol=1e-9, rtol=1e-9)
    got_pre = jacobians["of_pre_activations"]
    torch.testing.assert_close(got_pre, of_pre, atol=1e-9, rtol=1e-9)


def test_which_formula_is_which():
    distances = layout.compare(DRIVEN, CONFIG, 0)
    exact = {
        ("state", "jacobian"),
        ("state_transposed", "transpose"),
        ("pre_activation", "of_pre_activations"),
    }
    for formula in layout.FORMULAS:
        for jacobian in layout.JACOBIANS:
            distance = distances[f"{formula}_to_{jacobian}"]
            if (formula, jacobian) in exact:
                assert distance < 1e-8
            else:
                assert distance > 0.1, (formula, jacobian)


def test_the_symmetric_matrix_is_symmetric_and_orthogonal():
    w_hh = layout.build(layout.Case(symmetric=True), CONFIG, 1).cell.weight_hh
    eye = torch.eye(CONFIG.hidden_size, dtype=torch.float64)
    torch.testing.assert_close(w_hh, w_hh.T, atol=1e-10, rtol=0)
    torch.testing.assert_close(w_hh @ w_hh.T, eye, atol=1e-10, rtol=0)


def test_the_swapped_formula_is_exact_only_where_nothing_distinguishes_it():
    rest = layout.compare(layout.CASES["symmetric_at_rest"], CONFIG, 0)
    assert rest["swapped_to_jacobian"] == pytest.approx(0, abs=1e-8)
    assert rest["cosine"] == pytest.approx(1)
