"""Dropout and gradients of stacks: what is measured is what the names say."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from experiments.models import stacked
from seqref import LSTM, RNN, Stacked

F64 = torch.float64
SMALL = stacked.experiment.small


def test_the_copying_layers_show_the_mask():
    config = replace(SMALL, hidden_size=40, steps=30, batch_size=5, dropout=0.25)
    masks = stacked.masks_of_torch(config, seed=0)
    assert masks.shape == (30, 5, 40)
    assert set(masks.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    # Two independent masks agree where both drop or both keep.
    expected = 0.25**2 + 0.75**2
    assert stacked.repeats(masks) == pytest.approx(expected, abs=0.03)
    assert stacked.repeats(masks[:1].expand(30, 5, 40)) == 1


def test_the_gradient_through_layers_is_that_of_autograd_and_torch():
    config = replace(SMALL, seeds=(0,))
    stack = stacked.build(config, 2, seed=0)
    judge = nn.LSTM(16, 16, 2, batch_first=True, dtype=F64)
    weights = {}
    for name in judge.state_dict():
        parameter, _, layer = name.rpartition("_l")
        weights[name] = getattr(stack.layers[int(layer)].cell, parameter).detach()
    judge.load_state_dict(weights)
    random = torch.Generator().manual_seed(1000)
    x, upstream = torch.randn(2, 2, 20, 16, generator=random, dtype=F64)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(judge(x)[0], x, upstream)
    kept = stacked.kept_through_layers(config, 2, LSTM, residual=False)
    expected = (gradient.norm() / upstream.norm()).log10().item()
    assert kept == pytest.approx(dict.fromkeys(kept, expected), abs=1e-9)


def test_the_gradient_by_lag_of_a_known_stack():
    """Two linear unit layers with the weight w: (k + 1) w^k is left at lag k."""
    config = replace(SMALL, hidden_size=1, lags=(0, 1, 2, 5))
    layers = [RNN(1, 1, nonlinearity="relu", dtype=F64) for _ in range(2)]
    for layer in layers:
        with torch.no_grad():
            layer.cell.weight_ih.fill_(1.0)
            layer.cell.weight_hh.fill_(0.5)
            # Large enough that no unit is ever shut.
            layer.cell.bias_ih.fill_(50.0)
            layer.cell.bias_hh.zero_()
    kept = stacked.kept_by_lag(Stacked(layers), config, seed=0)
    assert kept == pytest.approx([1, 2 * 0.5, 3 * 0.25, 6 * 0.5**5], rel=1e-12)


def test_the_raised_bias_is_that_of_the_forget_gates_alone():
    plain, biased = (
        stacked.build(SMALL, 2, seed=0, forget_bias=bias) for bias in (None, 5.0)
    )
    for layer, old in zip(biased.layers, plain.layers, strict=True):
        assert (layer.cell.bias_ih[16:32] == 5).all()
        assert not layer.cell.bias_hh[16:32].count_nonzero()
        assert torch.equal(layer.cell.bias_ih[:16], old.cell.bias_ih[:16])
        assert torch.equal(layer.cell.bias_ih[32:], old.cell.bias_ih[32:])
        assert torch.equal(layer.cell.weight_hh, old.cell.weight_hh)


def test_what_is_left_is_measured_from_the_largest():
    points = [{"median": -abs(lag - 3) / 10} for lag in SMALL.lags]
    case = stacked.lag_case(SMALL, points)
    assert case["largest_at"] == 3
    assert case["left_at_100"] == pytest.approx(-9.7)
    # Lag 0 is 0.3 below the largest; after 9, which is 0.6 below, comes 20.
    assert case["tenth_from"] == 20


def test_a_gradient_that_stays_has_no_end_of_its_reach():
    def case(*medians):
        lags = (0, 1, 50, 100)[-len(medians) :]
        points = [{"median": median} for median in medians]
        return stacked.lag_case(replace(SMALL, lags=lags), points)

    assert "tenth_from" not in case(0.0, -0.4, -0.9)
    # What is small before the largest does not count.
    assert case(-5.0, 0.0, -0.9, -1.1)["tenth_from"] == 100
