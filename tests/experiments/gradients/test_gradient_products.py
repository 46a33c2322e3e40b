"""Products of Jacobians and their bound, networks and chains against torch."""

import math
import statistics

import numpy as np
import pytest
import torch
from torch import nn

from experiments.gradients import gradient_products as products
from experiments.gradients._networks import Network, scaled_orthogonal_
from experiments.lab.seeding import generator

F64 = torch.float64


def jacobian_by_torch(layer, x, warm_up, nonlinearity):
    """The last state by the one after `warm_up` steps, by torch.nn."""
    judge = nn.RNN(
        *layer.cell.weight_ih.shape[::-1],
        nonlinearity=nonlinearity,
        batch_first=True,
        dtype=F64,
    )
    judge.load_state_dict({f"{k}_l0": v for k, v in layer.cell.state_dict().items()})
    start = judge(x[:, :warm_up])[1].detach().flatten()
    return torch.autograd.functional.jacobian(
        lambda h: judge(x[:, warm_up:], h[None, None])[1].flatten(), start
    ).numpy()


@pytest.mark.parametrize("name", ["default_tanh", "random_tanh", "default_relu"])
def test_norms_are_those_of_torch(name):
    network, width, lags = products.NETWORKS[name], 6, (1, 10)
    config = products.Config(hidden_size=width, warm_up=5, lags=lags)
    followed = products.follow(network, config, seed=2)
    layer = network.build(width, width, 2)
    x = torch.randn((1, 15, width), generator=generator(1002), dtype=F64)
    phi = "relu" if network.activation == "relu" else "tanh"
    sigma = np.linalg.norm(layer.cell.weight_hh.detach().numpy(), 2)
    h = layer(x)[0][0, 5:].detach().numpy()
    factor = math.log10(sigma * ((1 - h**2).max() if phi == "tanh" else 1.0))
    excess = []
    for lag in lags:
        jacobian = jacobian_by_torch(layer, x, 15 - lag, phi)
        expected = math.log10(np.linalg.norm(jacobian, 2))
        assert followed["norms"][lag] == pytest.approx(expected, abs=1e-8)
        assert expected < lag * factor + 1e-8
        excess.append(expected - lag * factor)
    assert followed["excess_norm"] == pytest.approx(max(excess), abs=1e-7)
    assert followed["bound"] == pytest.approx(10 * factor)
    assert followed["largest_singular_value"] == pytest.approx(sigma)


def test_a_bound_by_the_radius_is_broken_by_a_shear():
    # Both eigenvalues are 1/2; a single step stretches by more than 2.
    config = products.Config(hidden_size=2, warm_up=0, lags=(1, 2))
    followed = products.follow(Network("shear", shear_), config, seed=0)
    assert followed["excess_norm"] <= 1e-9
    assert followed["excess_radius"] > math.log10(2)


def shear_(layer, seed):
    layer.cell.weight_hh.copy_(torch.tensor([[0.5, 2.0], [0.0, 0.5]]))


@pytest.mark.parametrize("orthogonal", [True, False])
def test_matrices_have_the_norm_asked_for(orthogonal):
    base = scaled_orthogonal_() if orthogonal else products.normal_
    scaled = products.scaled_(base, products.norm, 0.95)
    weight = Network("", scaled).build(8, 8, 1).cell.weight_hh.detach().numpy()
    singular = np.linalg.svd(weight, compute_uv=False)
    assert singular[0] == pytest.approx(0.95)
    assert (singular[-1] > 0.94) == orthogonal


def test_initialisations_are_what_their_labels_say():
    cell = products.NETWORKS["random_tanh"].build(12, 12, 0).cell
    radius = np.abs(np.linalg.eigvals(cell.weight_hh.detach().numpy())).max()
    assert radius == pytest.approx(3)
    assert not cell.bias_ih.any()
    cell = products.NETWORKS["expanding_relu"].build(12, 12, 0).cell
    assert torch.equal(cell.weight_hh, 1.1 * torch.eye(12, dtype=F64))
    assert cell.nonlinearity == "relu"
    config = products.Config(hidden_size=6, warm_up=2, lags=(3,))
    rest = products.follow(products.NETWORKS["orthogonal_rest"], config, 0)
    assert rest["largest_state"] == 0
    assert rest["norms"][3] == pytest.approx(0, abs=1e-9)


def test_a_tied_linear_chain_is_a_power_and_an_untied_one_is_not():
    tied, untied = (
        products.norms_by_depth(products.CHAINS[name], 5, (1, 2, 7), seed=4)
        for name in ("tied_linear", "untied_linear")
    )
    drawn = torch.randn((5, 5), generator=generator(4), dtype=F64) / math.sqrt(5)
    for norm, power in zip(tied, (1, 2, 7), strict=True):
        expected = np.linalg.norm(np.linalg.matrix_power(drawn.numpy(), power), 2)
        assert norm == pytest.approx(math.log10(expected), abs=1e-8)
    assert untied[0] == tied[0]
    assert abs(untied[1] - tied[1]) > 0.01
    large = products.norms_by_depth(
        products.CHAINS["untied_large"], 5, (1, 2, 7), seed=4
    )
    # 1.5 is the only difference.
    for depth, a, b in zip((1, 2, 7), untied, large, strict=True):
        assert b - a == pytest.approx(depth * math.log10(1.5), abs=1e-8)


def test_a_chain_with_tanh_is_what_autograd_says():
    chain, width, depth = products.CHAINS["untied_tanh"], 4, 3
    random = generator(9)

    def follow(h):
        for _ in range(depth):
            weight = torch.randn((width, width), generator=random, dtype=F64)
            noise = torch.randn(width, generator=random, dtype=F64)
            h = torch.tanh(weight @ h / math.sqrt(width) + products.NOISE * noise)
        return h

    start = torch.zeros(width, dtype=F64)
    jacobian = torch.autograd.functional.jacobian(follow, start)
    norm = products.norms_by_depth(chain, width, (depth,), seed=9)[0]
    expected = math.log10(np.linalg.norm(jacobian.numpy(), 2))
    assert norm == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("name", ["tied_linear", "untied_linear"])
def test_wider_chains_spread_less(name):
    def deviation(width):
        seeds = range(16)
        chain = products.CHAINS[name]
        norms = [products.norms_by_depth(chain, width, (60,), s)[0] for s in seeds]
        return statistics.stdev(norms)

    assert deviation(64) < 0.7 * deviation(8)
