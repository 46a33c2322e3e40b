"""The Elman network beside torch.nn, and what its equations imply."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seqref import RNN, RNNCell, RNNState
from seqref.recurrence import scan

F64 = torch.float64
PHI = ["tanh", "relu"]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("phi", PHI)
def test_cell_equals_torch(phi, bias):
    judge = nn.RNNCell(3, 5, nonlinearity=phi, bias=bias, dtype=F64)
    cell = RNNCell(3, 5, nonlinearity=phi, bias=bias, dtype=F64)
    cell.load_state_dict(judge.state_dict(), strict=True)
    x_t, h = torch.randn(4, 3, dtype=F64), torch.randn(4, 5, dtype=F64)
    upstream = torch.randn(4, 5, dtype=F64)
    results = []
    for module, step in (
        (cell, lambda x, h: cell(x, RNNState(h))[0]),
        (judge, judge),
    ):
        leaves = [x_t.clone().requires_grad_(), h.clone().requires_grad_()]
        h_t = step(*leaves)
        grads = torch.autograd.grad(h_t, [*leaves, *module.parameters()], upstream)
        results.append([h_t, *grads])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-13, rtol=1e-13)
    torch.testing.assert_close(cell(x_t)[0], judge(x_t), atol=1e-14, rtol=1e-14)
    y, state = cell(x_t)
    assert torch.equal(y, state.h)


def from_judge(phi, bias):
    judge = nn.RNN(3, 5, nonlinearity=phi, bias=bias, batch_first=True, dtype=F64)
    layer = RNN(3, 5, nonlinearity=phi, bias=bias, dtype=F64)
    state = judge.state_dict()
    layer.cell.load_state_dict({n.removesuffix("_l0"): v for n, v in state.items()})
    return layer, judge


@pytest.mark.parametrize("given", [None, [2, 6, 1, 4]])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("phi", PHI)
def test_layer_equals_torch(phi, bias, given):
    layer, judge = from_judge(phi, bias)
    x, h = torch.randn(4, 6, 3, dtype=F64), torch.randn(4, 5, dtype=F64)
    lengths = None if given is None else torch.tensor(given)
    leaves = [x.clone().requires_grad_(), h.clone().requires_grad_()]
    y, state = layer(leaves[0], RNNState(leaves[1]), lengths)
    upstream = [torch.randn_like(y), torch.randn_like(state.h)]
    mine = torch.autograd.grad([y, state.h], [*leaves, *layer.parameters()], upstream)
    theirs_leaves = [x.clone().requires_grad_(), h.clone().requires_grad_()]
    inputs = theirs_leaves[0]
    if lengths is not None:
        inputs = pack_padded_sequence(inputs, lengths, True, enforce_sorted=False)
    y_judge, h_judge = judge(inputs, theirs_leaves[1][None])
    if lengths is not None:
        y_judge, _ = pad_packed_sequence(y_judge, batch_first=True, total_length=6)
    theirs = torch.autograd.grad(
        [y_judge, h_judge],
        [*theirs_leaves, *judge.parameters()],
        [upstream[0], upstream[1][None]],
    )
    torch.testing.assert_close(y, y_judge, atol=1e-13, rtol=1e-13)
    torch.testing.assert_close(state.h, h_judge[0], atol=1e-13, rtol=1e-13)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("phi", PHI)
def test_without_recurrent_weights_it_is_a_feed_forward_layer(phi):
    layer = RNN(3, 5, nonlinearity=phi, dtype=F64)
    nn.init.zeros_(layer.cell.weight_hh)
    x = torch.randn(2, 7, 3, dtype=F64)
    pre = x @ layer.cell.weight_ih.T + layer.cell.bias_ih + layer.cell.bias_hh
    expected = pre.tanh() if phi == "tanh" else pre.relu()
    y, state = layer(x, RNNState(torch.randn(2, 5, dtype=F64)))
    torch.testing.assert_close(y, expected, atol=1e-14, rtol=1e-14)
    torch.testing.assert_close(state.h, expected[:, -1], atol=1e-14, rtol=1e-14)


def test_small_states_move_by_the_matrix_power():
    """Near zero tanh is the identity, so $h_T = W^T h_0$."""
    layer = RNN(1, 5, bias=False, dtype=F64)
    h_0 = 1e-6 * torch.randn(3, 5, dtype=F64)
    _, state = layer(torch.zeros(3, 4, 1, dtype=F64), RNNState(h_0))
    power = torch.linalg.matrix_power(layer.cell.weight_hh, 4)
    torch.testing.assert_close(state.h, h_0 @ power.T, atol=1e-17, rtol=1e-9)


def test_a_rectifier_with_the_identity_sums_positive_inputs():
    layer = RNN(5, 5, nonlinearity="relu", bias=False, dtype=F64)
    nn.init.eye_(layer.cell.weight_hh)
    nn.init.eye_(layer.cell.weight_ih)
    x = torch.rand(2, 7, 5, dtype=F64)
    y, _ = layer(x)
    torch.testing.assert_close(y, x.cumsum(1), atol=1e-14, rtol=1e-14)
    gradient = torch.autograd.functional.jacobian(lambda v: layer(v)[0][0, -1, 0], x)
    assert gradient[0, :, 0].tolist() == [1.0] * 7


def test_tanh_is_the_default_and_bounds_the_state():
    layer = RNN(3, 5)
    assert layer.cell.nonlinearity == "tanh"
    y, _ = layer(100 * torch.randn(2, 7, 3))
    assert y.abs().max() <= 1
    assert y.min() < 0


def test_step_scan_and_call_agree_with_the_cell():
    layer = RNN(3, 5, nonlinearity="relu", dtype=F64)
    x = torch.randn(2, 4, 3, dtype=F64)
    state = layer.initial_state(2)
    assert torch.equal(state.h, torch.zeros(2, 5, dtype=F64))
    outputs = []
    for x_t in x.unbind(1):
        from_cell, _ = layer.cell(x_t, state)
        y_t, state = layer.step(x_t, state)
        torch.testing.assert_close(y_t, from_cell, atol=0, rtol=0)
        outputs.append(y_t)
    y, final = layer(x)
    torch.testing.assert_close(y, torch.stack(outputs, 1), atol=1e-14, rtol=1e-14)
    torch.testing.assert_close(final.h, state.h, atol=1e-14, rtol=1e-14)
    y, final = scan(layer, x)
    torch.testing.assert_close(y, torch.stack(outputs, 1), atol=0, rtol=0)


@pytest.mark.parametrize("bias", [True, False])
def test_parameter_count(bias):
    count = sum(p.numel() for p in RNN(3, 5, bias=bias).parameters())
    assert count == 5 * 3 + 5 * 5 + (2 * 5 if bias else 0)
    judge = nn.RNN(3, 5, bias=bias)
    assert count == sum(p.numel() for p in judge.parameters())


@pytest.mark.errors
@pytest.mark.parametrize("kind", [RNN, RNNCell])
def test_unknown_nonlinearity(kind):
    message = r": `nonlinearity` must be one of 'tanh', 'relu', got 'sigmoid'$"
    with pytest.raises(ValueError, match="^" + kind.__name__ + message):
        kind(3, 5, nonlinearity="sigmoid")


@pytest.mark.errors
def test_plain_tensor_as_state_shows_the_mend():
    layer = RNN(3, 5)
    message = r"^RNN\.step: `state` must be RNNState\(h\), got Tensor \(pass RNNState"
    with pytest.raises(TypeError, match=message):
        layer.step(torch.zeros(2, 3), torch.zeros(2, 5))


def test_representation_names_what_was_chosen():
    text = repr(RNN(3, 5, nonlinearity="relu", bias=False))
    assert "RNNCell(3, 5, bias=False, nonlinearity='relu')" in text
