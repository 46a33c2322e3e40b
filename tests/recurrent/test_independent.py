"""IndRNN: judged by torch.nn.RNN with a diagonal matrix, and by what follows from u."""

import pytest
import torch
from torch import nn

from seqref import RNN, IndRNN, IndRNNCell, IndRNNState
from seqref.recurrent import jacobian_product
from seqref.recurrent.independent import limit_recurrent_

F64 = torch.float64


@pytest.mark.parametrize("lengths", [None, [6, 0, 3, 1]])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("nonlinearity", ["relu", "tanh"])
def test_equals_torch_with_a_diagonal_matrix(nonlinearity, bias, lengths):
    layer = IndRNN(3, 5, nonlinearity=nonlinearity, bias=bias, dtype=F64)
    judge = nn.RNN(3, 5, nonlinearity=nonlinearity, bias=bias, batch_first=True)
    judge = judge.to(F64)
    weights = {f"{name}_l0": value for name, value in layer.cell.state_dict().items()}
    weights["weight_hh_l0"] = layer.cell.weight_hh.detach().diag()
    judge.load_state_dict(weights)
    x, h_0 = torch.randn(4, 6, 3, dtype=F64), torch.randn(4, 5, dtype=F64)
    results = []
    for mine in (True, False):
        inputs = [x.clone().requires_grad_(), h_0.clone().requires_grad_()]
        if mine:
            given = None if lengths is None else torch.tensor(lengths)
            y, (h_n,) = layer(inputs[0], IndRNNState(inputs[1]), given)
            parameters = dict(layer.cell.named_parameters())
        else:
            y, h_n = by_torch(judge, *inputs, lengths)
            parameters = {n[:-3]: p for n, p in judge.named_parameters()}
        generator = torch.Generator().manual_seed(1)
        loss = sum(
            (out * torch.randn(out.shape, generator=generator, dtype=F64)).sum()
            for out in (y, h_n)
        )
        grads = torch.autograd.grad(loss, [*inputs, *parameters.values()])
        named = dict(zip(["x", "h_0", *parameters], grads, strict=True))
        if not mine:
            named["weight_hh"] = named["weight_hh"].diagonal()
        results.append({"y": y, "h_n": h_n, **named})
    for name, value in results[0].items():
        torch.testing.assert_close(value, results[1][name], msg=lambda m, n=name: n + m)


def by_torch(judge, x, h_0, lengths):
    """The judge, one row at a time where rows differ in length."""
    if lengths is None:
        y, h_n = judge(x, h_0[None])
        return y, h_n[0]
    outputs, states = [], []
    for row, length in enumerate(lengths):
        y, h_n = x.new_zeros(6, 5), h_0[row]
        if length:
            out, last = judge(x[row : row + 1, :length], h_0[None, row : row + 1])
            y = torch.cat([out[0], y[length:]])
            h_n = last[0, 0]
        outputs.append(y)
        states.append(h_n)
    return torch.stack(outputs), torch.stack(states)


def test_an_rnn_with_a_diagonal_matrix_is_one():
    layer = IndRNN(3, 5, nonlinearity="tanh", dtype=F64)
    other = RNN(3, 5, dtype=F64)
    weights = layer.cell.state_dict()
    weights["weight_hh"] = weights["weight_hh"].diag()
    other.cell.load_state_dict(weights)
    x = torch.randn(2, 9, 3, dtype=F64)
    torch.testing.assert_close(layer(x)[0], other(x)[0])


def test_a_unit_counts_alone():
    """u = 1 and a rectifier: a sum of its inputs for as long as it is positive."""
    layer = IndRNN(2, 2, bias=False, dtype=F64)
    layer.cell.load_state_dict(
        {"weight_ih": torch.eye(2), "weight_hh": torch.tensor([1.0, 0.5])}
    )
    x = torch.rand(3, 7, 2, dtype=F64)
    y, _ = layer(x)
    torch.testing.assert_close(y[..., 0], x[..., 0].cumsum(dim=1))
    powers = 0.5 ** torch.arange(7, dtype=F64).flip(0)
    torch.testing.assert_close(y[:, -1, 1], x[..., 1] @ powers)


def test_the_derivative_over_time_is_a_power_of_u():
    layer = IndRNN(3, 5, dtype=F64)
    with torch.no_grad():
        layer.cell.get_parameter("bias_ih").fill_(50.0)
    product = jacobian_product(layer, torch.randn(2, 8, 3, dtype=F64))
    expected = layer.cell.weight_hh.detach().pow(8).diag().expand_as(product)
    torch.testing.assert_close(product, expected)


def test_parameters_are_drawn_by_their_law():
    cell = IndRNNCell(100, 2500)
    bound = 1 / 50
    for name, parameter in cell.named_parameters():
        low, high = (0, 1) if name == "weight_hh" else (-bound, bound)
        assert low <= parameter.min() < parameter.max() <= high
        width = (high - low) / 12**0.5
        assert parameter.std().item() == pytest.approx(width, rel=0.05)
    assert cell.weight_hh.shape == (2500,)


@pytest.mark.parametrize("of_a_cell", [True, False])
def test_limited_weights_bound_the_gradient(of_a_cell):
    layer = IndRNN(3, 4, dtype=F64)
    with torch.no_grad():
        layer.cell.weight_hh.copy_(torch.tensor([3.0, -3.0, 0.5, 1.0]))
        layer.cell.get_parameter("bias_ih").fill_(500.0)
    limit_recurrent_(layer.cell if of_a_cell else layer, steps=10, largest=1.5)
    bound = 1.5**0.1
    expected = torch.tensor([bound, -bound, 0.5, 1.0], dtype=F64)
    torch.testing.assert_close(layer.cell.weight_hh.detach(), expected)
    assert layer.cell.weight_hh.requires_grad
    product = jacobian_product(layer, torch.rand(1, 10, 3, dtype=F64))
    assert 0 < product.abs().max() <= 1.5 + 1e-12


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str
)
@pytest.mark.parametrize("steps", [3, 100, 1000])
def test_the_bound_is_not_rounded_up(steps, dtype):
    layer = IndRNN(3, 4, dtype=dtype)
    with torch.no_grad():
        layer.cell.weight_hh.fill_(3.0)
    limit_recurrent_(layer, steps)
    assert layer.cell.weight_hh.min() > 0.9
    assert layer.cell.weight_hh.double().pow(steps).max() <= 2


@pytest.mark.errors
def test_bad_input_is_named():
    layer = IndRNN(3, 5)
    with pytest.raises(ValueError, match=r"IndRNN.forward: `state.h`.*hidden_size=5"):
        layer(torch.randn(2, 6, 3), IndRNNState(torch.zeros(2, 4)))
    with pytest.raises(ValueError, match=r"^IndRNN: `nonlinearity` must be one of"):
        IndRNN(3, 5, nonlinearity="gelu")
    with pytest.raises(TypeError, match=r"`layer` must be an IndRNN"):
        limit_recurrent_(RNN(3, 5), 5)
    with pytest.raises(ValueError, match=r"_: `steps` must be at least 1"):
        limit_recurrent_(layer, 0)
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="`largest` must be above 0"):
            limit_recurrent_(layer, 5, bad)
