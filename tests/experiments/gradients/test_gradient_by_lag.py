"""The Jacobian by hand against automatic differentiation, and what is measured."""

import math

import pytest
import torch

from experiments.gradients import gradient_by_lag
from experiments.gradients._networks import products_by_lag, step_jacobian
from experiments.lab.seeding import generator, seeded
from seqref import RNN, RNNState

EXACT = {"atol": 1e-10, "rtol": 1e-10}


def layer_and_input(nonlinearity, steps=6):
    with seeded(3):
        layer = RNN(3, 5, nonlinearity=nonlinearity, dtype=torch.float64)
    x = torch.randn((1, steps, 3), generator=generator(4), dtype=torch.float64)
    return layer, x


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_step_jacobian_is_the_derivative_of_the_step(nonlinearity):
    layer, x = layer_and_input(nonlinearity)
    h_prev = torch.randn(5, generator=generator(5), dtype=torch.float64)

    def step(h):
        return layer.step(x[:, 0], RNNState(h[None]))[0][0]

    expected = torch.func.jacrev(step)(h_prev)
    jacobian = step_jacobian(step(h_prev), layer.cell.weight_hh, nonlinearity)
    torch.testing.assert_close(jacobian, expected, **EXACT)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("lag", [0, 1, 2, 5])
def test_product_is_the_derivative_over_the_lag(nonlinearity, lag):
    layer, x = layer_and_input(nonlinearity)
    h = layer(x)[0][0]
    start = h[len(h) - 1 - lag]

    def follow(h_start):
        state = RNNState(h_start[None])
        for x_t in x[:, len(h) - lag :].unbind(1):
            _, state = layer.step(x_t, state)
        return state.h[0]

    expected = torch.func.jacrev(follow)(start)
    products = products_by_lag(h, layer.cell.weight_hh, nonlinearity, (0, 1, 2, 5))
    torch.testing.assert_close(products[lag], expected, **EXACT)


def test_a_loss_keeps_what_autograd_says():
    layer, x = layer_and_input("tanh")
    h_start = layer(x[:, :2])[1].h.detach().requires_grad_()
    y, _ = layer(x[:, 2:], RNNState(h_start))
    loss = torch.randn(5, generator=generator(6), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(loss @ y[0, -1], h_start)
    h = layer(x)[0][0]
    product = products_by_lag(h, layer.cell.weight_hh, "tanh", (4,))[4]
    torch.testing.assert_close(loss @ product, gradient[0], **EXACT)


def test_product_needs_enough_steps():
    with pytest.raises(ValueError, match="`h` must have at least 3 steps, got 2"):
        products_by_lag(torch.zeros(2, 4), torch.eye(4), "tanh", (3,))


def test_initialisations_are_what_their_names_say():
    networks = gradient_by_lag.networks(gradient_by_lag.Config())
    eye = torch.eye(32, dtype=torch.float64)

    def recurrent(name):
        return networks[name].build(32, 32, 0).cell

    cell = recurrent("orthogonal_tanh")
    torch.testing.assert_close(cell.weight_hh @ cell.weight_hh.T, eye, **EXACT)
    assert not cell.bias_ih.any()
    assert not cell.bias_hh.any()
    cell = recurrent("expanding_linear")
    torch.testing.assert_close(cell.weight_hh @ cell.weight_hh.T, 1.21 * eye, **EXACT)
    cell = recurrent("identity_relu")
    assert torch.equal(cell.weight_hh, eye)
    assert 0.0008 < cell.weight_ih.std() < 0.0012
    assert cell.nonlinearity == "relu"
    cell = recurrent("default_tanh")
    bound = 1 / math.sqrt(32)
    assert 0.9 * bound < cell.weight_hh.abs().max() < bound
    assert cell.bias_ih.any()


def test_small_inputs_are_smaller():
    config = gradient_by_lag.Config(small_input=0.25)
    for name, network in gradient_by_lag.networks(config).items():
        assert network.input_std == (0.25 if name.endswith("small") else 1)


def test_sizes_of_a_rotation():
    rotation = torch.tensor([[0.0, -2.0], [0.5, 0.0]], dtype=torch.float64)
    # Eigenvalues are i and -i; singular values 2 and 0.5.
    sizes = gradient_by_lag.sizes_of([rotation])
    assert sizes["spectral_radius"] == pytest.approx(1)
    assert sizes["largest_singular_value"] == pytest.approx(2)
    distances = gradient_by_lag.distances_from_1([rotation])
    assert distances["modulus_farthest_from_1"] == pytest.approx(0, abs=1e-9)
    assert distances["eigenvalue_farthest_from_1"] == pytest.approx(math.sqrt(2))
