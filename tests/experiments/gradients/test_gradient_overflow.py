"""Slopes, overflow and clipping against closed forms and torch."""

import math

import pytest
import torch
from torch import nn

from experiments import lab
from experiments.gradients import _overflow_clipping as clipping
from experiments.gradients import gradient_overflow as experiment

F64 = torch.float64


def test_slopes_are_the_closed_form_until_they_are_lost():
    slopes = experiment.slopes(torch.tanh, F64)
    assert slopes["lowest_to_8_5"] == pytest.approx(1 / math.cosh(8.5) ** 2, rel=1e-6)
    assert slopes["highest"] == 1
    # tanh rounds to 1 where 2 exp(-2a) is below half of the spacing under 1, 2^-53.
    for dtype, bits in ((F64, 53), (torch.float32, 24)):
        expected = (bits + 2) * math.log(2) / 2
        zero_from = experiment.slopes(torch.tanh, dtype)["zero_from"]
        assert zero_from == pytest.approx(expected, abs=0.4)


def test_a_gradient_that_doubles_ends_where_the_exponents_end():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, F64):
        # The largest number is a fraction below 1 times 2 to this power.
        exponent = math.frexp(torch.finfo(dtype).max)[1]
        assert experiment.first_infinite_lag(dtype) == exponent


def judge_of(layer):
    judge = nn.RNN(layer.input_size, layer.hidden_size, batch_first=True, dtype=F64)
    judge.load_state_dict({f"{k}_l0": v for k, v in layer.cell.state_dict().items()})
    return judge


def test_the_gradient_is_that_of_torch():
    layer = clipping.exploding_layer(5, F64, 3.0, seed=1)
    eigenvalues = torch.linalg.eigvals(layer.cell.weight_hh.detach())
    assert eigenvalues.abs().max().item() == pytest.approx(3)
    judge = judge_of(layer)
    random = lab.generator(1001)
    x = 0.5 * torch.randn((1, 8, 5), generator=random, dtype=F64)
    loss = judge(x)[1].flatten() @ torch.randn(5, generator=random, dtype=F64)
    expected = torch.autograd.grad(loss, list(judge.parameters()))
    gradient = clipping.gradient_of(layer, 8, seed=1)
    expected = torch.cat([part.flatten() for part in expected])
    torch.testing.assert_close(gradient, expected, atol=1e-10, rtol=1e-10)


def test_cosines_are_those_of_the_definition():
    layer = clipping.exploding_layer(5, F64, clipping.EXPLODING_RADIUS, seed=2)
    gradient = clipping.gradient_of(layer, 12, seed=2)
    assert gradient.abs().max() > 1
    cut = gradient.clamp(-1, 1)
    expected = (cut @ gradient / cut.norm() / gradient.norm()).item()
    assert clipping.cosine(5, 12, 2, clipping.by_value) == pytest.approx(expected)
    assert clipping.cosine(5, 12, 2, clipping.by_norm) == pytest.approx(1)


def test_shares_do_not_change_with_the_limit():
    plain, clipped = (
        clipping.clipped(torch.tensor([3e-9, 4e-3]), clipping.by_norm, limit)
        for limit in (1.0, 1e-3)
    )
    assert torch.equal(plain, torch.tensor([3e-9, 4e-3]))
    torch.testing.assert_close(clipped[0] / clipped[1], plain[0] / plain[1])
    assert clipping.share_of_first_half(6, 4, 0, default=True) < 1
    orthogonal = clipping.share_of_first_half(6, 4, 0, default=False)
    assert orthogonal == pytest.approx(math.sqrt(0.5), abs=0.1)


@pytest.mark.parametrize("limit", [math.inf, 0.5])
def test_one_descent_step_is_that_of_torch(limit):
    draws = torch.rand((2, 1), generator=lab.generator(0), dtype=F64)
    w = 1.2 + 1.8 * draws[0, 0].item()
    b = -0.5 + draws[1, 0].item()
    layer = nn.RNN(1, 1, batch_first=True, dtype=F64)
    with torch.no_grad():
        layer.weight_hh_l0.fill_(w)
        layer.bias_hh_l0.fill_(b)
        layer.bias_ih_l0.zero_()
    layer.weight_ih_l0.requires_grad_(requires_grad=False)
    layer.bias_ih_l0.requires_grad_(requires_grad=False)
    loss = (layer(torch.zeros(1, clipping.STEPS, 1, dtype=F64))[1].sum() - 0.3) ** 2
    loss.backward()
    parameters = [layer.weight_hh_l0, layer.bias_hh_l0]
    norm = nn.utils.clip_grad_norm_(parameters, limit)
    descent = clipping.descend(limit, updates=1, runs=1, seed=0)
    expected = 0.03 * min(norm, limit)
    assert descent["largest_update"] == pytest.approx(expected.item(), rel=1e-5)


def test_a_skipped_update_leaves_the_network():
    config = experiment.experiment.small
    kept = experiment.one_update(config, torch.float32, 0, phi="tanh", skip=True)
    lost = experiment.one_update(config, torch.float32, 0, phi="tanh", skip=False)
    assert not kept["gradient_finite"]
    assert kept["loss_after_finite"]
    assert not lost["loss_after_finite"]
