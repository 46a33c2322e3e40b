"""The LSTM beside torch.nn, and what its equations imply."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seqref import LSTM, LSTMCell, LSTMState
from seqref.recurrence import scan

F64 = torch.float64


@pytest.mark.parametrize("bias", [True, False])
def test_cell_equals_torch(bias):
    judge = nn.LSTMCell(3, 5, bias=bias, dtype=F64)
    cell = LSTMCell(3, 5, bias=bias, dtype=F64)
    cell.load_state_dict(judge.state_dict(), strict=True)
    x_t = torch.randn(4, 3, dtype=F64)
    start = [torch.randn(4, 5, dtype=F64) for _ in "hc"]
    upstream = [torch.randn(4, 5, dtype=F64) for _ in "hc"]

    def ours(x, h, c):
        h_t, state = cell(x, LSTMState(h, c))
        assert torch.equal(h_t, state.h)
        return state

    results = []
    for module, step in (
        (cell, ours),
        (judge, lambda x, h, c: judge(x, (h, c))),
    ):
        leaves = [t.clone().requires_grad_() for t in (x_t, *start)]
        ends = step(*leaves)
        grads = torch.autograd.grad(ends, [*leaves, *module.parameters()], upstream)
        results.append([*ends, *grads])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-13, rtol=1e-13)
    torch.testing.assert_close(tuple(cell(x_t)[1]), judge(x_t), atol=1e-14, rtol=1e-14)


def from_judge(bias):
    judge = nn.LSTM(3, 5, bias=bias, batch_first=True, dtype=F64)
    layer = LSTM(3, 5, bias=bias, dtype=F64)
    state = judge.state_dict()
    layer.cell.load_state_dict({n.removesuffix("_l0"): v for n, v in state.items()})
    return layer, judge


@pytest.mark.parametrize("given", [None, [2, 6, 1, 4]])
@pytest.mark.parametrize("bias", [True, False])
def test_layer_equals_torch(bias, given):
    layer, judge = from_judge(bias)
    values = [torch.randn(4, 6, 3, dtype=F64)]
    values += [torch.randn(4, 5, dtype=F64) for _ in "hc"]
    lengths = None if given is None else torch.tensor(given)
    leaves = [v.clone().requires_grad_() for v in values]
    y, state = layer(leaves[0], LSTMState(*leaves[1:]), lengths)
    upstream = [torch.randn_like(y), *(torch.randn_like(s) for s in state)]
    mine = torch.autograd.grad([y, *state], [*leaves, *layer.parameters()], upstream)
    leaves = [v.clone().requires_grad_() for v in values]
    inputs = leaves[0]
    if lengths is not None:
        inputs = pack_padded_sequence(inputs, lengths, True, enforce_sorted=False)
    y_judge, ends = judge(inputs, (leaves[1][None], leaves[2][None]))
    if lengths is not None:
        y_judge, _ = pad_packed_sequence(y_judge, batch_first=True, total_length=6)
    theirs = torch.autograd.grad(
        [y_judge, *ends],
        [*leaves, *judge.parameters()],
        [upstream[0], upstream[1][None], upstream[2][None]],
    )
    torch.testing.assert_close(y, y_judge, atol=1e-13, rtol=1e-13)
    for end, judged in zip(state, ends, strict=True):
        torch.testing.assert_close(end, judged[0], atol=1e-13, rtol=1e-13)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


def gated(i=-1e3, f=-1e3, g=0.0, o=-1e3, width=5):
    """A layer whose gates do not look at anything but these biases."""
    layer = LSTM(3, width, dtype=F64)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        for block, value in enumerate((i, f, g, o)):
            layer.cell.bias_ih[block * width : (block + 1) * width] = value
    return layer


def test_saturated_gates_carry_the_cell_state_exactly():
    layer = gated(f=1e3, o=1e3)
    start = LSTMState(torch.randn(2, 5, dtype=F64), torch.randn(2, 5, dtype=F64))
    y, state = layer(torch.randn(2, 50, 3, dtype=F64), start)
    assert torch.equal(state.c, start.c)
    torch.testing.assert_close(y, start.c.tanh()[:, None].expand(-1, 50, -1))


def test_a_closed_forget_gate_forgets_at_once():
    layer = gated(i=1e3, g=0.5, o=1e3)
    start = LSTMState(torch.randn(2, 5, dtype=F64), torch.randn(2, 5, dtype=F64))
    _, state = layer(torch.randn(2, 1, 3, dtype=F64), start)
    expected = torch.full((2, 5), math.tanh(0.5), dtype=F64)
    torch.testing.assert_close(state.c, expected, atol=1e-15, rtol=1e-15)


def test_open_gates_count_steps():
    layer = gated(i=1e3, f=1e3, g=1e3, o=1e3)
    y, state = layer(torch.randn(2, 7, 3, dtype=F64))
    assert state.c.tolist() == [[7.0] * 5] * 2
    expected = torch.arange(1, 8, dtype=F64).tanh()
    torch.testing.assert_close(y[0, :, 0], expected, atol=1e-15, rtol=1e-15)


def test_a_closed_output_gate_hides_what_the_cell_holds():
    y, state = gated(i=1e3, f=1e3, g=1e3)(torch.randn(2, 7, 3, dtype=F64))
    assert not y.count_nonzero()
    assert state.c[0, 0] == 7


@pytest.mark.parametrize("f_bias", [-1.0, 0.0, 1.0, 3.0])
def test_with_fixed_gates_the_cell_state_decays_as_a_power(f_bias):
    layer = gated(f=f_bias)
    start = LSTMState(torch.zeros(2, 5, dtype=F64), torch.ones(2, 5, dtype=F64))
    _, state = layer(torch.randn(2, 9, 3, dtype=F64), start)
    decay = (1 / (1 + math.exp(-f_bias))) ** 9
    torch.testing.assert_close(
        state.c, torch.full_like(state.c, decay), atol=0, rtol=1e-13
    )


def test_outputs_are_bounded_and_the_cell_state_by_the_time():
    y, state = LSTM(3, 5)(100 * torch.randn(2, 7, 3))
    assert y.abs().max() <= 1
    assert state.c.abs().max() <= 7


def test_step_scan_and_call_agree_with_the_cell():
    layer = LSTM(3, 5, dtype=F64)
    x = torch.randn(2, 4, 3, dtype=F64)
    state = layer.initial_state(2)
    zeros = torch.zeros(2, 5, dtype=F64)
    assert torch.equal(state.h, zeros)
    assert torch.equal(state.c, zeros)
    outputs = []
    for x_t in x.unbind(1):
        from_cell, _ = layer.cell(x_t, state)
        y_t, state = layer.step(x_t, state)
        torch.testing.assert_close(y_t, from_cell, atol=0, rtol=0)
        outputs.append(y_t)
    for y, final in (layer(x), scan(layer, x)):
        torch.testing.assert_close(y, torch.stack(outputs, 1), atol=1e-14, rtol=1e-14)
        torch.testing.assert_close(final.h, state.h, atol=1e-14, rtol=1e-14)
        torch.testing.assert_close(final.c, state.c, atol=1e-14, rtol=1e-14)


@pytest.mark.parametrize("bias", [True, False])
def test_parameter_count(bias):
    count = sum(p.numel() for p in LSTM(3, 5, bias=bias).parameters())
    assert count == 4 * (5 * 3 + 5 * 5 + (2 * 5 if bias else 0))
    judge = nn.LSTM(3, 5, bias=bias)
    assert count == sum(p.numel() for p in judge.parameters())


@pytest.mark.errors
@pytest.mark.parametrize(
    "call",
    [
        lambda layer, state: layer(torch.zeros(2, 4, 3), state),
        lambda layer, state: layer.step(torch.zeros(2, 3), state),
        lambda layer, state: layer.cell(torch.zeros(2, 3), state),
    ],
)
def test_plain_pair_as_state_shows_the_mend(call):
    message = (
        r"^LSTM(Cell)?\.(forward|step): `state` must be LSTMState\(h, c\), got tuple "
        r"\(pass LSTMState\(h, c\)\)$"
    )
    with pytest.raises(TypeError, match=message):
        call(LSTM(3, 5), (torch.zeros(2, 5), torch.zeros(2, 5)))


def test_representation_names_what_was_chosen():
    assert "LSTMCell(3, 5, bias=False)" in repr(LSTM(3, 5, bias=False))
