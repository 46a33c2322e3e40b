"""What layer norm does: the measurements beside autograd and closed forms."""

import dataclasses
import math

import pytest
import torch

from experiments.lab.experiment import find
from experiments.lab.seeding import generator
from experiments.models import lstm_variants as variants
from seqref import LSTM, LayerNormLSTM, LSTMState

F64 = torch.float64
SMALL = variants.experiment.small
TINY = dataclasses.replace(
    SMALL, width=4, lags=100, warm_up=2, scales=(1.0,), seeds=(3,)
)


def test_matrices_are_scaled_and_nothing_else():
    for kind, layer_type in (("plain", LSTM), ("layer_norm", LayerNormLSTM)):
        one, four = (variants.scaled(kind, 5, scale, 2) for scale in (1.0, 4.0))
        assert type(one) is layer_type
        for (name, a), b in zip(
            one.cell.named_parameters(), four.cell.parameters(), strict=True
        ):
            factor = 4 if name in ("weight_ih", "weight_hh") else 1
            assert torch.equal(factor * a, b), name


@pytest.mark.parametrize("kind", variants.KINDS)
def test_what_is_kept_is_the_gradient_by_the_state_before(kind):
    kept_by_lag = variants.by_lag(TINY, kind, 2.0)
    layer = variants.scaled(kind, 4, 2.0, 3)
    random = generator(1003)
    x = torch.randn(1, 102, 4, generator=random, dtype=F64)
    h_bar = torch.randn(1, 4, generator=random, dtype=F64)
    with torch.no_grad():
        _, state = layer(x[:, :95])
    leaves = [part.detach().requires_grad_() for part in state]
    _, final = layer(x[:, 95:], LSTMState(*leaves))
    gradients = torch.autograd.grad(final.h, leaves, h_bar)
    kept = torch.cat(gradients, 1).norm() / h_bar.norm()
    assert len(kept_by_lag) == 101
    assert kept_by_lag[7]["median"] == pytest.approx(math.log10(kept), abs=1e-8)
    assert kept_by_lag[0]["median"] == 0


def test_targets_are_standardized_means():
    config = dataclasses.replace(SMALL, series_steps=6)
    x, target = variants.batch(config, 20_000, False, generator(0))
    assert x.shape == (20_000, 6, 1)
    assert 0 <= x.min() < x.max() < 1
    expected = (x.mean(1) - 0.5) / math.sqrt(1 / 12 / 6)
    torch.testing.assert_close(target, expected)
    assert target.mean() == pytest.approx(0, abs=0.03)
    assert target.std() == pytest.approx(1, abs=0.03)
    both, _ = variants.batch(config, 5, True, generator(0))
    assert both.shape == (5, 6, 2)
    assert both[..., 1].eq(1).all()


def test_nothing_is_explained_without_training():
    config = dataclasses.replace(SMALL, updates=0)
    assert variants.explained(config, "plain_series", 0) < 0.5


def test_an_open_layer_adds_to_its_cell_state():
    layer = variants.open_layer(5, 0)
    x, c_0 = torch.randn(6, 5, dtype=F64), torch.randn(5, dtype=F64)
    from_zero = variants.final_cell_state(layer, x, torch.zeros(5, dtype=F64), False)
    c_last = variants.final_cell_state(layer, x, c_0, False)
    torch.testing.assert_close(c_last, from_zero + c_0, atol=1e-12, rtol=0)
    _, state = layer(x[None], layer.initial_state(1)._replace(c=c_0[None]))
    torch.testing.assert_close(c_last, state.c[0], atol=1e-12, rtol=0)


def test_a_normed_state_is_the_norm_after_each_step():
    layer = variants.open_layer(5, 0)
    x, c_t = torch.randn(3, 5, dtype=F64), torch.randn(5, dtype=F64)
    c_last = variants.final_cell_state(layer, x, c_t, True)
    for x_t in x:
        c_t = variants.final_cell_state(layer, x_t[None], c_t, False)
        c_t = (c_t - c_t.mean()) / (c_t.var(correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(c_last, c_t, atol=1e-12, rtol=0)


def test_the_raw_state_keeps_all():
    assert variants.jacobian_norm(5, 20, False, 1) == pytest.approx(1, abs=1e-12)
    assert variants.jacobian_norm(5, 20, True, 1) < 0.9


def test_with_gates_that_forget_the_normed_state_keeps_more(monkeypatch):
    for bias in (0.0, 2.0):
        monkeypatch.setattr(variants, "OPEN", bias)
        raw, normed = (variants.jacobian_norm(32, 50, n, 1) for n in (False, True))
        assert normed > 10 * raw


@pytest.fixture(scope="module")
def small(small_run):
    return small_run("lstm_variants").record


def test_the_narrow_layer_is_another_width_of_the_same(small):
    config = dataclasses.replace(SMALL, width=8)
    expected = variants.by_lag(config, "layer_norm", 1.0)[100]
    narrow, wide = small["series"]["narrow"], small["series"]["by_lag"]["layer_norm"][0]
    assert narrow[100] == pytest.approx(expected, abs=1e-5)
    assert abs(narrow[100]["median"] - wide[100]["median"]) > 1
    last = find("lstm_variants").rendered(small)["lags"].splitlines()[-1]
    assert "layer norm, weights × 1, width 8" in last


def test_the_plain_layer_sees_what_the_normed_one_does_not(small):
    assert small["cases"]["plain_series"]["explained"]["low"] > 0.8
    assert small["cases"]["layer_norm_series_with_1"]["explained"]["low"] > 0.8
