"""Dropout and gradients of stacks: what is measured is what the names say."""

import pytest
import torch
from torch import nn

from experiments.lab.experiment import find
from experiments.lab.record import judgements, measure
from experiments.models import stacked as experiment
from experiments.models._stacked_reach import reach
from seqref import RNN, Stacked

F64 = torch.float64


@pytest.fixture(scope="module")
def record():
    return measure(find("stacked"))


def test_claims_hold_and_controls_fail(record):
    assert set(record["claims"]) == {"C109", "C110", "C111", "C112"}
    for identifier, claim in record["claims"].items():
        assert claim["holds"], identifier
        assert not claim["control_holds"], identifier
    assert judgements(find("stacked"), record["cases"]) == record["claims"]


def test_a_run_is_a_function_of_its_config(record):
    again = measure(find("stacked"))
    for part in ("numbers", "series", "cases"):
        assert again[part] == record[part], part


def test_the_copying_layers_show_the_mask():
    torch.manual_seed(0)
    masks = experiment.masks_of_torch(width=40, steps=30, batch_size=5, dropout=0.25)
    assert masks.shape == (30, 5, 40)
    assert set(masks.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    # Two independent masks agree where both drop or both keep.
    expected = 0.25**2 + 0.75**2
    assert experiment.repeats(masks) == pytest.approx(expected, abs=0.03)
    assert experiment.repeats(masks[:1].expand(30, 5, 40)) == 1


def test_the_gradient_through_layers_is_that_of_autograd_and_torch():
    config = experiment.SMALL
    stack = experiment.build("LSTM", config, 2, seed=0)
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
    found = experiment.kept_through_layers("LSTM", config, 2, 0, False)
    assert found == pytest.approx((gradient.norm() / upstream.norm()).item(), rel=1e-10)


def test_the_gradient_by_lag_of_a_known_stack():
    """Two linear unit layers with the weight w: (k + 1) w^k is left at lag k."""
    config = experiment.Config(
        **{**vars(experiment.SMALL), "hidden_size": 1, "lags": (0, 1, 2, 5)}
    )
    layers = [RNN(1, 1, nonlinearity="relu", dtype=F64) for _ in range(2)]
    for layer in layers:
        with torch.no_grad():
            layer.cell.weight_ih.fill_(1.0)
            layer.cell.weight_hh.fill_(0.5)
            # Large enough that no unit is ever shut.
            layer.cell.bias_ih.fill_(50.0)
            layer.cell.bias_hh.zero_()
    found = experiment.kept_by_lag(Stacked(layers), config, seed=0)
    assert found == pytest.approx([1, 2 * 0.5, 3 * 0.25, 6 * 0.5**5], rel=1e-12)


def test_the_forget_bias_goes_to_the_second_block_of_one_vector():
    stack = experiment.build("LSTM", experiment.SMALL, 2, seed=0)
    before = [layer.cell.bias_ih.clone() for layer in stack.layers]
    experiment.raise_forget_bias(stack, 5.0)
    for layer, old in zip(stack.layers, before, strict=True):
        assert (layer.cell.bias_ih[16:32] == 5).all()
        assert not layer.cell.bias_hh[16:32].count_nonzero()
        assert torch.equal(layer.cell.bias_ih[:16], old[:16])
        assert torch.equal(layer.cell.bias_ih[32:], old[32:])


def test_what_is_left_is_measured_from_the_largest():
    config = experiment.SMALL
    series = [{"median": -abs(lag - 3) / 10} for lag in config.lags]
    found = experiment.lag_case(config, series)
    assert found["largest_at"] == 3
    assert found["left_at_100"] == pytest.approx(-9.7)
    # Lag 0 is 0.3 below the largest; after 9, which is 0.6 below, comes 20.
    assert found["tenth_from"] == 20


def test_a_gradient_that_stays_has_no_end_of_its_reach():
    assert reach((0, 1, 2), (0.0, -0.4, -0.9)) == {}
    # What is small before the largest does not count.
    assert reach((0, 1, 2, 3), (-5.0, 0.0, -0.9, -1.1)) == {"tenth_from": 3}
