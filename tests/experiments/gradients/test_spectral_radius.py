"""The examples against torch.nn, and growth in random networks against theory."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from experiments.gradients import _radius_examples as examples
from experiments.gradients import spectral_radius
from experiments.lab.seeding import generator
from seqref import RNNState

F64 = torch.float64


def log10_norm_by_torch(weight, drive, start, steps):
    """The largest singular value of the final state by the first, by torch.nn."""
    judge = nn.RNN(2, 2, bias=False, batch_first=True, dtype=F64)
    with torch.no_grad():
        judge.weight_ih_l0.copy_(torch.eye(2))
        judge.weight_hh_l0.copy_(torch.tensor(weight))
    x = torch.tensor(drive, dtype=F64).repeat(1, steps, 1)
    jacobian = torch.autograd.functional.jacobian(
        lambda h: judge(x, h[None, None])[1].flatten(), torch.tensor(start, dtype=F64)
    )
    return math.log10(np.linalg.norm(jacobian.numpy(), 2))


@pytest.mark.parametrize("name", examples.EXAMPLES)
@pytest.mark.parametrize("steps", [10, 60])
def test_products_of_the_examples_are_those_of_torch(name, steps):
    expected = log10_norm_by_torch(*examples.EXAMPLES[name], steps)
    log10_norm = examples.of_example(*examples.EXAMPLES[name])[f"log10_at_{steps}"]
    assert log10_norm == pytest.approx(expected, abs=1e-4)


def test_the_blocks_have_one_eigenvalue_and_run_as_one_of_them():
    size, steps = 6, 10
    block = examples.BLOCK_RADIUS * examples.random_matrix(size, 3)
    row = torch.cat([block, -block], dim=1)
    nilpotent = torch.cat([row, row])
    assert (nilpotent @ nilpotent).abs().max() < 1e-12
    # Alone: the first half under I/2 + A and the noise, the second taken away.
    alone = examples.tanh_layer(0.5 * torch.eye(size, dtype=F64) + block)
    shape = (1, max(examples.MARKS), size)
    noise = torch.randn(shape, generator=generator(1003), dtype=F64)
    jacobian = torch.autograd.functional.jacobian(
        lambda h: alone(noise[:, :steps], RNNState(h[None]))[1].h[0],
        torch.zeros(size, dtype=F64),
    )
    blocks = examples.of_blocks(size, 3, driven=True)
    assert blocks["spectral_radius"] == pytest.approx(0.5, abs=1e-4)
    # The columns of the second half are -A where those of the first are I/2 + A.
    assert blocks[f"log10_at_{steps}"] > math.log10(np.linalg.norm(jacobian, 2)) - 1e-9
    assert blocks[f"log10_at_{steps}"] < math.log10(3 * np.linalg.norm(jacobian, 2))


def test_a_turn_has_its_modulus():
    turn = examples.of_turn(1.1)
    assert turn["modulus"] == pytest.approx(1.1)
    assert turn["largest_real_part"] == pytest.approx(-0.55)
    assert turn["log10_at_100"] == pytest.approx(100 * math.log10(1.1))


def test_at_rest_the_factor_is_the_radius():
    layer = examples.tanh_layer(1.3 * examples.random_matrix(12, 0))
    growth = spectral_radius.growth(
        layer, torch.zeros(1, 200, 12, dtype=F64), (100, 200)
    )
    assert 10 ** growth["log10_factor"] == pytest.approx(1.3, rel=0.02)
    assert growth["log10_slope"] == 0


def test_factor_and_slopes_are_of_the_same_steps():
    layer = examples.tanh_layer(torch.tensor([[1.2]], dtype=F64))
    x = torch.randn(1, 30, 1, generator=generator(0), dtype=F64)
    growth = spectral_radius.growth(layer, x, (5, 12))
    # One unit has one slope at each step, and the rule is exact.
    expected = math.log10(1.2) + growth["log10_slope"]
    assert growth["log10_factor"] == pytest.approx(expected, abs=1e-8)


def mean_field_factor(radius, std):
    """The factor for infinitely wide random networks, by quadrature."""
    z, weights = np.polynomial.hermite_e.hermegauss(101)
    weights = weights / weights.sum()
    variance = 1.0
    for _ in range(1000):
        mean_square = weights @ np.tanh(np.sqrt(variance) * z) ** 2
        variance = radius**2 * mean_square + std**2
    slopes = 1 - np.tanh(np.sqrt(variance) * z) ** 2
    return radius * math.sqrt(weights @ slopes**2)


@pytest.mark.parametrize(("radius", "std"), [(0.8, 0.5), (1.75, 0.5), (2.5, 1.0)])
def test_wide_networks_grow_as_mean_field_theory_says(radius, std):
    config = spectral_radius.Config(hidden_size=160, lags=(50, 100), radii=(radius,))
    (growth,) = spectral_radius.of_network(config, std, 0)
    expected = mean_field_factor(radius, std)
    assert 10 ** growth["log10_factor"] == pytest.approx(expected, rel=0.06)
    assert radius * 10 ** growth["log10_slope"] == pytest.approx(expected, rel=0.06)


def test_where_growth_starts():
    assert spectral_radius.crossing((1.0, 2.0, 3.0), (-1.0, -0.5, 0.5)) == 2.5
    assert spectral_radius.crossing((1.0, 2.0), (-1.0, 0.0)) == 2.0
    for logarithms in [(-1.0, -0.5), (0.0, 1.0)]:
        with pytest.raises(ValueError, match="`logarithms` must pass from below 0"):
            spectral_radius.crossing((1.0, 2.0), logarithms)


def test_noisy_blocks_have_the_product_that_torch_finds():
    size, steps = 3, 10
    layer, x = examples.noisy_blocks(size, 5, steps, normal=False)
    judge = nn.RNN(2 * size, 2 * size, bias=False, batch_first=True, dtype=F64)
    with torch.no_grad():
        judge.weight_ih_l0.copy_(torch.eye(2 * size))
        judge.weight_hh_l0.copy_(layer.cell.weight_hh)
    jacobian = torch.autograd.functional.jacobian(
        lambda h: judge(x, h[None, None])[1].flatten(), torch.zeros(2 * size).double()
    )
    longer = torch.cat([x, torch.zeros(1, 50, 2 * size, dtype=F64)], dim=1)
    driven = examples.of_driven(layer, longer, torch.zeros(6, dtype=F64))
    expected = math.log10(np.linalg.norm(jacobian.numpy(), 2))
    assert driven["log10_at_10"] == pytest.approx(expected, abs=1e-8)


def test_without_the_blocks_the_matrix_is_normal_and_the_bound_holds():
    layer, x = examples.noisy_blocks(3, 5, 60, normal=True)
    weight = layer.cell.weight_hh
    assert torch.equal(weight, 0.5 * torch.eye(6, dtype=F64))
    driven = examples.of_driven(layer, x, torch.zeros(6, dtype=F64))
    for mark in examples.MARKS:
        assert driven[f"log10_at_{mark}"] < mark * math.log10(0.5)


def test_noise_is_what_the_blocks_grow_by():
    config = spectral_radius.experiment.small
    strong, weak = (spectral_radius.of_noise(config, std) for std in (1.0, 0.1))
    assert strong["factor_low"] > 1.3
    assert weak["factor_high"] < 0.9
    # Slopes and radius alone would have them shrink.
    assert strong["slope_rule"] < 0.3
