"""Jacobians of a state, their products, and what is left of a gradient by lag."""

import math

import pytest
import torch
from torch import nn
from torch.func import jacrev

import seqref
from seqref.recurrence import map_state
from seqref.recurrent import gradients
from seqref.recurrent.gradients import (
    gradient_norm_by_lag,
    jacobian_log_norm,
    jacobian_product,
    state_jacobian,
)
from tests.layers import LAYERS, OF_A_CELL

F64 = torch.float64
EXACT = {"atol": 1e-11, "rtol": 1e-10}


def case(kind, *, bias=True, time=6):
    layer = LAYERS[kind](3, 4, bias=bias, dtype=F64).eval()
    x = torch.randn(3, time, 3, dtype=F64)
    state = map_state(torch.randn_like, layer.initial_state(3))
    return layer, x, state


def of_torch(kind, layer, x, state, row):
    """The final state of torch.nn by the first one, for one row."""
    judge = getattr(nn, kind)(3, 4, batch_first=True, bias=layer.cell.bias, dtype=F64)
    judge.load_state_dict({f"{n}_l0": v for n, v in layer.cell.state_dict().items()})

    def final(flat):
        parts = [part[None, None] for part in flat.split(4)]
        ends = judge(x[row : row + 1], tuple(parts) if len(parts) > 1 else parts[0])[1]
        return torch.cat([e.flatten() for e in (ends if len(parts) > 1 else [ends])])

    flat = torch.cat([s[row] for s in state])
    return torch.autograd.functional.jacobian(final, flat)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_step_and_product_are_those_of_torch(kind, bias):
    layer, x, state = case(kind, bias=bias)
    step = state_jacobian(layer, x[:, 0], state)
    product = jacobian_product(layer, x, state)
    for row in range(3):
        one = of_torch(kind, layer, x[:, :1], state, row)
        whole = of_torch(kind, layer, x, state, row)
        assert one.abs().max() > 0.1
        torch.testing.assert_close(step[row], one, **EXACT)
        torch.testing.assert_close(product[row], whole, **EXACT)
    assert not product.requires_grad


def test_step_is_the_formula_and_jacrev():
    layer, x, state = case("RNN")
    h_t = layer.step(x[:, 0], state)[0]
    formula = (1 - h_t.square())[:, :, None] * layer.cell.weight_hh
    jacobian = state_jacobian(layer, x[:, 0], state)
    torch.testing.assert_close(jacobian, formula.detach(), **EXACT)

    def step(h):
        return layer.step(x[:1, 0], seqref.RNNState(h[None]))[0][0]

    torch.testing.assert_close(jacobian[0], jacrev(step)(state.h[0]).detach(), **EXACT)


@pytest.mark.parametrize("kind", OF_A_CELL)
def test_the_logarithm_is_that_of_the_norm(kind):
    layer, x, state = case(kind)
    lengths = torch.tensor([6, 0, 2])
    product = jacobian_product(layer, x, state, lengths)
    expected = torch.linalg.matrix_norm(product, 2).log()
    # Masks in the state are handed on as they are: of those the norm is 1.
    has_masks = any(field.startswith("mask") for field in state._fields)
    assert has_masks or expected[0].abs() > 0.1
    assert expected[1] == 0
    logarithm = jacobian_log_norm(layer, x, state, lengths)
    torch.testing.assert_close(logarithm, expected, **EXACT)
    assert not logarithm.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("factor", [2.0, 0.5, -2.0])
def test_the_logarithm_of_a_product_that_leaves_the_range(factor, dtype):
    layer = seqref.RNN(2, 2, bias=False, dtype=dtype)
    with torch.no_grad():
        layer.cell.weight_hh.copy_(factor * torch.eye(2))
    x = torch.zeros(1, 400, 2, dtype=dtype)
    # At rest all slopes are 1.
    product = jacobian_product(layer, x).abs().max()
    assert product == 0 or not product.isfinite()
    logarithm = jacobian_log_norm(layer, x)
    assert logarithm.item() == pytest.approx(400 * math.log(abs(factor)), abs=1e-9)


def test_the_logarithm_of_a_default_lstm_over_300_steps():
    torch.manual_seed(0)
    layer, x = seqref.LSTM(2, 4), torch.randn(2, 300, 2)
    with torch.no_grad():
        layer.cell.weight_ih.mul_(0.1)
    # At the end of float32, where every digit is gone.
    assert jacobian_product(layer, x).abs().max() < 1e-43
    exact = jacobian_product(layer.double(), x.double())
    expected = torch.linalg.matrix_norm(exact, 2).log()
    logarithm = jacobian_log_norm(layer.float(), x)
    torch.testing.assert_close(logarithm, expected, atol=1e-3, rtol=1e-5)


def test_the_logarithm_where_there_is_none():
    layer, x, state = case("RNN")
    with torch.no_grad():
        layer.cell.weight_hh.zero_()
    assert jacobian_log_norm(layer, x, state).tolist() == [-math.inf] * 3
    x[1, 2] = math.nan
    logarithm = jacobian_log_norm(layer, x, state)
    assert logarithm[1].isnan()
    assert logarithm[[0, 2]].tolist() == [-math.inf] * 2
    # At or beyond a length nothing is read.
    lengths = torch.tensor([6, 2, 6])
    assert not jacobian_log_norm(layer, x, state, lengths).isnan().any()


@pytest.mark.parametrize("kind", OF_A_CELL)
def test_lag_norms_are_those_of_the_products(kind):
    layer, x, state = case(kind)
    bar = map_state(torch.randn_like, state)
    flat = torch.cat(list(bar), dim=1)
    norms = gradient_norm_by_lag(layer, x, bar, state)
    assert norms.shape == (3, 7)
    torch.testing.assert_close(norms[:, 0], flat.norm(dim=1), **EXACT)
    for lag in range(1, 7):
        before = layer(x[:, : 6 - lag], state)[1]
        product = jacobian_product(layer, x[:, 6 - lag :], before)
        carried = (product.mT @ flat[:, :, None]).squeeze(2)
        torch.testing.assert_close(norms[:, lag], carried.norm(dim=1), **EXACT)


@pytest.mark.parametrize("kind", OF_A_CELL)
def test_padding_is_ignored(kind):
    layer, x, state = case(kind)
    bar = map_state(torch.randn_like, state)
    lengths = torch.tensor([6, 2, 0])
    padded = x.clone()
    padded[1, 2:], padded[2] = float("nan"), float("inf")
    product = jacobian_product(layer, padded, state, lengths)
    norms = gradient_norm_by_lag(layer, padded, bar, state, lengths)
    for row, n in enumerate(lengths.tolist()):
        one = map_state(lambda s, r=row: s[r : r + 1], state)
        one_bar = map_state(lambda s, r=row: s[r : r + 1], bar)
        alone = x[row : row + 1, :n]
        wanted = jacobian_product(layer, alone, one)
        torch.testing.assert_close(product[row], wanted[0], **EXACT)
        wanted = gradient_norm_by_lag(layer, alone, one_bar, one)
        torch.testing.assert_close(norms[row, : n + 1], wanted[0], **EXACT)
        assert not norms[row, n + 1 :].any()
    assert torch.equal(product[2], torch.eye(product.shape[1], dtype=F64))


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_norms_whose_squares_leave_the_range_of_float32(weight):
    layer = seqref.RNN(3, 3, bias=False)
    with torch.no_grad():
        layer.cell.weight_hh.copy_(weight * torch.eye(3))
    bar = seqref.RNNState(torch.tensor([[1.0, 2.0, 2.0]]))
    norms = gradient_norm_by_lag(layer, torch.zeros(1, 120, 3), bar)[0]
    expected = 3 * weight ** torch.arange(121, dtype=F64)
    # Powers of two: exact, and far beyond the root of what float32 holds.
    assert torch.equal(norms.double(), expected)


def test_norms_of_a_gradient_that_is_not_finite():
    layer = seqref.RNN(2, 2, bias=False)
    with torch.no_grad():
        layer.cell.weight_hh.copy_(2 * torch.eye(2))
    bar = seqref.RNNState(torch.tensor([[1.0, 0.0], [float("nan"), 1.0]]))
    norms = gradient_norm_by_lag(layer, torch.zeros(2, 130, 2), bar)
    assert norms[0].isfinite().int().argmin() == 128
    assert norms[0, 128].isinf()
    assert norms[1].isnan().all()


def test_nested_state_no_grad_and_untouched_arguments():
    layer = seqref.Stacked([seqref.LSTM(3, 4, dtype=F64), seqref.RNN(4, 2, dtype=F64)])
    x = torch.randn(2, 5, 3, dtype=F64, requires_grad=True)
    with torch.no_grad():
        product = jacobian_product(layer, x)
        start = layer.initial_state(2)
        bar = map_state(torch.ones_like, start)
        norms = gradient_norm_by_lag(layer, x, bar)
    assert product.shape == (2, 10, 10)
    assert product.abs().max() > 0
    # The lower layer's final state does not depend on the upper one's first.
    assert not product[:, :8, 8:].any()
    carried = product.sum(1).norm(dim=1)
    torch.testing.assert_close(norms[:, -1], carried, **EXACT)
    assert x.grad is None
    assert all(p.grad is None for p in layer.parameters())


@pytest.mark.parametrize("lengths", [None, [5, 2]])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_under_inference_mode(kind, lengths):
    layer = getattr(seqref, kind)(3, 4, dtype=F64)

    def measure(x, bar, lengths):
        real = None if lengths is None else torch.tensor(lengths)
        state = layer(x)[1]
        return (
            state_jacobian(layer, x[:, 0], state),
            jacobian_product(layer, x, lengths=real),
            gradient_norm_by_lag(layer, x, bar, state, lengths=real),
        )

    x = torch.randn(2, 5, 3, dtype=F64)
    bar = map_state(torch.randn_like, layer.initial_state(2))
    expected = measure(x, bar, lengths)
    with torch.inference_mode():
        measured = measure(x.clone(), map_state(torch.clone, bar), lengths)
    for one, other in zip(measured, expected, strict=True):
        assert torch.equal(one, other)


def test_a_state_that_is_not_read_has_slope_zero():
    class Last:
        """Its state is the input of the step before."""

        def initial_state(self, batch_size):
            return seqref.RNNState(torch.zeros(batch_size, 2, dtype=F64))

        def step(self, x_t, state):
            return state.h, seqref.RNNState(x_t)

        def __call__(self, x, state=None, lengths=None):
            raise AssertionError("a test should not reach the call over a sequence")

    x = torch.randn(3, 4, 2, dtype=F64)
    assert not state_jacobian(Last(), x[:, 0], Last().initial_state(3)).any()
    norms = gradient_norm_by_lag(Last(), x, seqref.RNNState(torch.ones_like(x[:, 0])))
    assert torch.equal(norms[:, 1:], torch.zeros(3, 4, dtype=F64))
    assert (norms[:, 0] > 1).all()


def test_masks_are_part_of_the_state():
    layer = seqref.VariationalLSTM(3, 4, dropout_x=0.3, dropout_h=0.3, dtype=F64)
    x, state = torch.randn(2, 60, 3, dtype=F64), layer.initial_state(2)
    product = jacobian_product(layer, x, state)
    assert (torch.linalg.matrix_norm(product, 2) >= 1).all()
    torch.testing.assert_close(product[0, 8:, 8:], torch.eye(7, dtype=F64), **EXACT)
    assert not product[:, 8:, :8].any()

    def run(flat):
        start = state._replace(h=flat[None, :4], c=flat[None, 4:])
        masks = {"mask_x": state.mask_x[:1], "mask_h": state.mask_h[:1]}
        _, end = layer(x[:1], start._replace(**masks))
        return torch.cat([end.h[0], end.c[0]])

    expected = torch.autograd.functional.jacobian(run, torch.zeros(8, dtype=F64))
    torch.testing.assert_close(product[0, :8, :8], expected, **EXACT)
    assert torch.linalg.matrix_norm(expected, 2) < 1e-3
    bar = map_state(torch.zeros_like, state)._replace(h=torch.ones(2, 4, dtype=F64))
    assert (gradient_norm_by_lag(layer, x, bar, state)[:, -1] > 1e-3).all()
    layer.eval()
    block = jacobian_product(layer, x, state)[:, :8, :8]
    left = gradient_norm_by_lag(layer, x, bar, state)[:, -1]
    torch.testing.assert_close(left, block[:, :4].sum(1).norm(dim=1), **EXACT)


@pytest.mark.errors
def test_bad_arguments():
    layer, x, state = case("RNN")
    with pytest.raises(TypeError, match="state_jacobian: `layer` must have"):
        state_jacobian(nn.Linear(3, 3), x[:, 0], state)
    with pytest.raises(TypeError, match="jacobian_product: `layer` must have"):
        jacobian_product(nn.Linear(3, 3), x)
    with pytest.raises(TypeError, match="state_jacobian: `x_t` must be a torch"):
        state_jacobian(layer, "x", state)
    with pytest.raises(TypeError, match="jacobian_product: `x`"):
        jacobian_product(layer, "x")
    with pytest.raises(TypeError, match="jacobian_log_norm: `layer` must have"):
        jacobian_log_norm(nn.Linear(3, 3), x)
    with pytest.raises(ValueError, match="jacobian_log_norm: `lengths`"):
        jacobian_log_norm(layer, x, lengths=torch.tensor([1, 2, 7]))
    with pytest.raises(ValueError, match=r"jacobian_product: `x` must have shape"):
        jacobian_product(layer, x[0, 0])
    with pytest.raises(ValueError, match="`lengths`"):
        jacobian_product(layer, x, lengths=torch.tensor([1, 2, 7]))
    with pytest.raises(ValueError, match="gradient_norm_by_lag: `state_bar`"):
        gradient_norm_by_lag(layer, x, seqref.RNNState(torch.ones(3, 5, dtype=F64)))
    with pytest.raises(TypeError, match=r"norm_by_lag: `state_bar` .* RNNState, got T"):
        gradient_norm_by_lag(layer, x, torch.ones(3, 4, dtype=F64))
    for other in ({"dtype": torch.float32}, {"device": "meta"}):
        bar = map_state(lambda s, other=other: s.to(**other), state)
        with pytest.raises(ValueError, match=r"`state_bar` must .* got torch\.float"):
            gradient_norm_by_lag(layer, x, bar)
    with pytest.raises(ValueError, match="state_jacobian: `x_t` must have shape"):
        state_jacobian(layer, x[0, 0, 0])


def test_the_default_device_is_not_asked():
    layer, x, _ = case("GRU")
    expected = jacobian_product(layer, x)
    with torch.device("meta"):
        product = jacobian_product(layer, x)
    assert torch.equal(product, expected)


def test_no_state_is_the_initial_one():
    layer, x, _ = case("LSTM")
    jacobian = state_jacobian(layer, x[:, 0])
    assert torch.equal(jacobian, state_jacobian(layer, x[:, 0], layer.initial_state(3)))


class Doubled(torch.autograd.Function):
    """Its backward pass asks for a number, which a batch of gradients cannot give."""

    @staticmethod
    def forward(ctx, h):
        return 2 * h

    @staticmethod
    def backward(ctx, h_bar):
        return 2 * h_bar if h_bar.abs().sum().item() > 0 else h_bar


def test_a_function_without_a_rule_for_batches_gives_the_same(monkeypatch):
    layer, x, state = case("LSTM")
    plain = layer.step

    def step(x_t, before, double):
        y_t, after = plain(x_t, before)
        return y_t, after._replace(h=double(after.h))

    monkeypatch.setattr(layer, "step", lambda *a: step(*a, double=lambda h: 2 * h))
    batched = state_jacobian(layer, x[:, 0], state)
    monkeypatch.setattr(layer, "step", lambda *a: step(*a, double=Doubled.apply))
    with monkeypatch.context() as patch:
        patch.setattr(gradients, "_row_by_row", None)
        with pytest.raises(TypeError):
            state_jacobian(layer, x[:, 0], state)
    one_by_one = state_jacobian(layer, x[:, 0], state)
    torch.testing.assert_close(one_by_one, batched, **EXACT)


def test_all_rows_come_of_one_backward_pass(monkeypatch):
    layer, x, state = case("GRU")
    calls = []
    grad = torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *a, **k: calls.append(1) or grad(*a, **k)
    )
    state_jacobian(layer, x[:, 0], state)
    assert len(calls) == 1
