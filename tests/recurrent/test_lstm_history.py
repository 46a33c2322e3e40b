"""The LSTM's older and coupled forms beside onnxruntime, the paper and closed forms."""

import pytest
import torch
from torch.func import functional_call
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import seqref
from seqref import (
    LSTM,
    LSTM1997,
    CoupledGateLSTM,
    CoupledGateLSTMCell,
    LSTM1997Cell,
    LSTMCell,
    LSTMState,
    PeepholeLSTM,
    PeepholeLSTMCell,
    Stacked,
)
from seqref.recurrence import scan
from seqref.testing import check_sequence_layer

F64 = torch.float64
LAYERS = [LSTM1997, PeepholeLSTM, CoupledGateLSTM]
CELLS = [LSTM1997Cell, PeepholeLSTMCell, CoupledGateLSTMCell]
# The blocks of each weight, in their order.
BLOCKS = {LSTM1997Cell: "igo", PeepholeLSTMCell: "ifgo", CoupledGateLSTMCell: "igo"}


def assert_same(got, expected, atol=1e-12, rtol=1e-12):
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=atol, rtol=rtol)


@pytest.mark.parametrize("bias", [True, False])
def test_contract_with_the_truncated_gradient(bias):
    layer = LSTM1997(3, 5, bias=bias, gradient="truncated")
    x = torch.randn(2, 13, 3)
    report = check_sequence_layer(layer, x, atol=2e-5, rtol=2e-5, dtype=torch.float32)
    assert {"gradients", "padding", "chunks"} <= set(report.checked)
    # It is not the gradient of the loss, and the contract sees it in float64.
    with pytest.raises(AssertionError, match="by central differences"):
        check_sequence_layer(layer, x)
    reason = {"gradients": "a learning rule, not the gradient of the loss"}
    report = check_sequence_layer(layer, x, expected_failures=reason)
    assert report.failed == reason
    assert {"forward", "chunks", "padding"} <= set(report.checked)


@pytest.mark.parametrize("kind", LAYERS)
def test_contract_inside_a_stack(kind):
    layer = Stacked([kind(3, 4), kind(4, 5)])
    report = check_sequence_layer(layer, torch.randn(2, 7, 3))
    assert "padding" in report.checked


# By the letters: single vectors, the order of the equations.


def parts(cell):
    names = BLOCKS[type(cell)]
    split = [p.chunk(len(names)) if p is not None else None for p in cell.weights]
    for k, name in enumerate(names):
        yield name, [p[k] if p is not None else 0.0 for p in split]


def by_letters(cell, x, h, c):
    """One step on single vectors, written with sigmoid and sum alone."""
    pre = {
        name: w_i @ x + b_i + w_h @ h + b_h
        for name, (w_i, w_h, b_i, b_h) in parts(cell)
    }
    sigmoid = torch.sigmoid
    if isinstance(cell, LSTM1997Cell):
        g = 4 * sigmoid(pre["g"]) - 2
        c = c + sigmoid(pre["i"]) * g
        return sigmoid(pre["o"]) * (2 * sigmoid(c) - 1), c
    g = 2 * sigmoid(2 * pre["g"]) - 1
    if isinstance(cell, CoupledGateLSTMCell):
        i = sigmoid(pre["i"])
        c = c - i * c + i * g
        o = sigmoid(pre["o"])
    else:
        size = len(c)
        p_i, p_f, p_o = (cell.weight_ch[k * size : (k + 1) * size] for k in range(3))
        c_prev = c
        c = sigmoid(pre["f"] + p_f * c_prev) * c_prev
        c = c + sigmoid(pre["i"] + p_i * c_prev) * g
        o = sigmoid(pre["o"] + p_o * c)
    return o * (2 * sigmoid(2 * c) - 1), c


def wide(module):
    """Weights large enough that no gate is idle and none is shut."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2)
    return module


def row_by_row(cell, x, state, lengths):
    """What a layer must return, one row and one step at a time."""
    time = x.shape[1]
    rows, ends = [], []
    for row, length in enumerate(lengths):
        h, c = state.h[row], state.c[row]
        outputs = []
        for t in range(length):
            h, c = by_letters(cell, x[row, t], h, c)
            outputs.append(h)
        outputs += [torch.zeros(5, dtype=F64)] * (time - length)
        rows.append(torch.stack(outputs))
        ends.append((h, c))
    return torch.stack(rows), *(torch.stack(e) for e in zip(*ends, strict=True))


@pytest.mark.parametrize("lengths", [[6, 6, 6, 6], [2, 6, 0, 4]])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_layer_is_its_equations_and_their_gradient(kind, bias, lengths):
    layer = wide(kind(3, 5, bias=bias, dtype=F64))
    x = torch.randn(4, 6, 3, dtype=F64)
    start = [torch.randn(4, 5, dtype=F64) for _ in "hc"]
    upstream = [torch.randn(4, 6, 5, dtype=F64), *(torch.randn_like(s) for s in start)]
    given = None if lengths == [6] * 4 else torch.tensor(lengths)
    results = []
    for mine in (True, False):
        padded = x.clone()
        if mine:
            for row, length in enumerate(lengths):
                padded[row, length:] = torch.nan
        leaves = [t.clone().requires_grad_() for t in (padded, *start)]
        state = LSTMState(*leaves[1:])
        if mine:
            y, final = layer(leaves[0], state, given)
            ends = [y, *final]
        else:
            ends = row_by_row(layer.cell, leaves[0], state, lengths)
        grads = torch.autograd.grad(ends, [*leaves, *layer.parameters()], upstream)
        results.append([*ends, *grads])
    assert_same(*results, atol=1e-12, rtol=1e-12)


# The judge from outside.


def onnx_lstm(cell, x, state, lengths, *, input_forget=0):
    """The operator LSTM of onnxruntime with this cell's weights, float32."""
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    names = BLOCKS[type(cell)]
    zeros = [torch.zeros_like(p.chunk(len(names))[0]) for p in cell.weights[:2]]

    def iofc(k, split):
        """Blocks of one parameter in ONNX's order; its c is our g."""
        blocks = dict(zip(names, split, strict=True))
        fill = zeros[k] if k < 2 else torch.zeros(cell.hidden_size)
        return torch.cat([blocks.get(name, fill) for name in "iofg"])

    laid = [
        iofc(k, p.chunk(len(names)))
        for k, p in enumerate(cell.weights)
        if p is not None
    ]
    feeds = {"X": x.transpose(0, 1), "W": laid[0][None], "R": laid[1][None]}
    if cell.bias:
        feeds["B"] = torch.cat(laid[2:])[None]
    if lengths is not None:
        feeds["sequence_lens"] = lengths.to(torch.int32)
    feeds["initial_h"], feeds["initial_c"] = state.h[None], state.c[None]
    if isinstance(cell, PeepholeLSTMCell):
        p_i, p_f, p_o = cell.weight_ch.chunk(3)
        feeds["P"] = torch.cat([p_i, p_o, p_f])[None]
    slots = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]
    helper, proto = onnx.helper, onnx.TensorProto
    node = helper.make_node(
        "LSTM",
        [slot if slot in feeds else "" for slot in slots],
        ["Y", "Y_h", "Y_c"],
        hidden_size=cell.hidden_size,
        input_forget=input_forget,
    )
    kinds = {torch.float32: proto.FLOAT, torch.int32: proto.INT32}
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "judge",
        [info(n, kinds[t.dtype], list(t.shape)) for n, t in feeds.items()],
        [info(n, proto.FLOAT, None) for n in ("Y", "Y_h", "Y_c")],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    arrays = {n: t.detach().contiguous().numpy() for n, t in feeds.items()}
    y, h_n, c_n = (torch.tensor(out) for out in session.run(None, arrays))
    return y[:, 0].transpose(0, 1), h_n[0], c_n[0]


@pytest.mark.parametrize("given", [None, [2, 6, 1, 4]])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [PeepholeLSTM, CoupledGateLSTM])
def test_layer_equals_onnxruntime(kind, bias, given):
    layer = wide(kind(3, 5, bias=bias))
    if kind is PeepholeLSTM:
        with torch.no_grad():
            layer.cell.weight_ch.normal_()
    x = torch.randn(4, 6, 3)
    start = LSTMState(torch.randn(4, 5), 2 * torch.randn(4, 5))
    lengths = None if given is None else torch.tensor(given)
    y, state = layer(x, start, lengths)
    coupled = int(kind is CoupledGateLSTM)
    judged = onnx_lstm(layer.cell, x, start, lengths, input_forget=coupled)
    assert_same([y, *state], judged, atol=2e-6, rtol=2e-5)
    # Without the attribute, or without the peepholes, the judge is another model.
    if kind is CoupledGateLSTM:
        other = onnx_lstm(layer.cell, x, start, lengths)
    else:
        with torch.no_grad():
            layer.cell.weight_ch.zero_()
        other = onnx_lstm(layer.cell, x, start, lengths)
    assert (y - other[0]).abs().max() > 1e-2


# How the forms hang together.


@pytest.mark.parametrize("bias", [True, False])
def test_without_peephole_weights_it_is_an_lstm(bias):
    plain = LSTM(3, 5, bias=bias, dtype=F64)
    layer = PeepholeLSTM(3, 5, bias=bias, dtype=F64)
    weights = plain.cell.state_dict() | {"weight_ch": torch.zeros(15, dtype=F64)}
    layer.cell.load_state_dict(weights, strict=True)
    x = torch.randn(2, 9, 3, dtype=F64)
    start = LSTMState(*torch.randn(2, 2, 5, dtype=F64))
    (y, state), (y_plain, state_plain) = layer(x, start), plain(x, start)
    assert_same([y, *state], [y_plain, *state_plain], atol=1e-14, rtol=1e-14)


def test_the_output_gate_sees_the_new_cell_state():
    cell = PeepholeLSTMCell(1, 1, dtype=F64)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        # Input gate open, forget gate shut, candidate near 1, and p_o = -100.
        cell.bias_ih.copy_(torch.tensor([50.0, -50.0, 50.0, 0.0]))
        cell.weight_ch[2] = -100
    zeros = cell.initial_state(1)
    h_t, state = cell(torch.zeros(1, 1, dtype=F64), zeros)
    assert state.c.item() == pytest.approx(1)
    # Were it the old state, o_t would be one half.
    assert h_t.item() < 1e-40
    with torch.no_grad():
        cell.weight_ch.copy_(torch.tensor([-100.0, 0, 0]))
    _, state = cell(torch.zeros(1, 1, dtype=F64), zeros)
    # The input gate reads the old state, which is 0: it is open.
    assert state.c.item() == pytest.approx(1)


def test_a_coupled_lstm_is_an_lstm_with_one_gate_the_other_way_round():
    layer = wide(CoupledGateLSTM(3, 5, dtype=F64))
    plain = LSTM(3, 5, dtype=F64)
    with torch.no_grad():
        for name, parameter in plain.cell.named_parameters():
            i, g, o = dict(layer.cell.named_parameters())[name].chunk(3)
            # sigmoid(-a) = 1 - sigmoid(a)
            parameter.copy_(torch.cat([i, -i, g, o]))
    x = torch.randn(2, 9, 3, dtype=F64)
    start = LSTMState(*torch.randn(2, 2, 5, dtype=F64))
    (y, state), (y_plain, state_plain) = layer(x, start), plain(x, start)
    assert_same([y, *state], [y_plain, *state_plain], atol=1e-14, rtol=1e-14)


def test_a_coupled_cell_state_stays_within_one():
    layer = CoupledGateLSTM(3, 5, dtype=F64)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(100)
    x = 100 * torch.randn(2, 200, 3, dtype=F64)
    start = LSTMState(torch.randn(2, 5, dtype=F64), 2 * torch.rand(2, 5, dtype=F64) - 1)
    _, state = layer(x, start)
    assert 0.9 < state.c.abs().max() <= 1 + 1e-12
    # The LSTM is not so bounded: with both gates open it adds.
    plain = LSTM(3, 5, dtype=F64)
    with torch.no_grad():
        plain.cell.bias_ih.fill_(1e3)
    assert plain(x[:, :9] / 100, start)[1].c.abs().max() > 2


# The cell of 1997.


def test_the_squashing_functions_are_those_of_the_paper():
    layer = LSTM1997(1, 1, dtype=F64)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.cell.bias_ih.copy_(torch.tensor([100.0, 0.7, 100.0], dtype=F64))
    y, state = layer(torch.zeros(1, 3, 1, dtype=F64))
    g = 4 / (1 + torch.exp(torch.tensor(-0.7, dtype=F64))) - 2
    assert state.c.item() == pytest.approx(3 * g.item(), abs=1e-14)
    expected = 2 / (1 + torch.exp(-3 * g)) - 1
    assert y[0, 2, 0].item() == pytest.approx(expected.item(), abs=1e-14)


@pytest.mark.parametrize("given", [None, [2, 6, 1, 4]])
@pytest.mark.parametrize("bias", [True, False])
def test_layer_equals_torch_with_its_forget_gate_held_open(bias, given):
    """torch's LSTM computes the cell of 1997: halved candidate, f = 1, state c / 2."""
    layer = wide(LSTM1997(3, 5, bias=bias, dtype=F64))
    judge = torch.nn.LSTM(3, 5, batch_first=True, dtype=F64)
    ours = dict(layer.cell.named_parameters())
    weights = {}
    for name, theirs in judge.named_parameters():
        short = name.removesuffix("_l0")
        mine = ours.get(short, torch.zeros(3 * 5, dtype=F64))
        i, g, o = mine.chunk(3)
        # A sigmoid of 1000 is 1 to the last bit.
        f = torch.full_like(i, 1e3 if short == "bias_ih" else 0.0)
        weights[name] = torch.cat([i, f, g / 2, o])
        assert weights[name].shape == theirs.shape
    x, lengths = torch.randn(4, 6, 3, dtype=F64), None
    h_0, c_0 = torch.randn(2, 4, 5, dtype=F64)
    leaves = [t.requires_grad_() for t in (x, h_0, c_0)]
    packed = x
    if given is not None:
        lengths = torch.tensor(given)
        packed = pack_padded_sequence(x, lengths, True, enforce_sorted=False)
    states = (h_0[None], c_0[None] / 2)
    y_judge, (h_n, c_n) = functional_call(judge, weights, (packed, states))
    if given is not None:
        y_judge, _ = pad_packed_sequence(y_judge, batch_first=True, total_length=6)
    y, state = layer(x, LSTMState(h_0, c_0), lengths)
    ends, judged = [y, *state], [y_judge, h_n[0], 2 * c_n[0]]
    assert_same(ends, judged)
    upstream = [torch.randn_like(t) for t in ends]
    inputs = [*leaves, *layer.parameters()]
    gradients = torch.autograd.grad(ends, inputs, upstream)
    assert_same(gradients, torch.autograd.grad(judged, inputs, upstream))


def test_open_gates_count_by_twos_without_end():
    layer = LSTM1997(1, 1, dtype=F64)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.cell.bias_ih.fill_(1e3)
    _, state = layer(torch.zeros(1, 500, 1, dtype=F64))
    assert state.c.item() == 1000


def test_a_shut_input_gate_keeps_the_cell_state_to_the_bit():
    layer = LSTM1997(3, 5, dtype=F64)
    with torch.no_grad():
        layer.cell.bias_ih[:5] = -1e3
    start = LSTMState(*torch.randn(2, 2, 5, dtype=F64))
    _, state = layer(torch.randn(2, 200, 3, dtype=F64), start)
    assert torch.equal(state.c, start.c)


def learning_rule(cell, x, state, y_bar, ends_bar):
    """The truncated gradient as the paper computes it: sums carried forwards.

    Equations 21 to 28 for one row: `s_w` holds the derivatives of the internal states
    with respect to the weights of input gates and cells. Nothing is kept in time.
    """
    h, c = (field[0] for field in state)
    size, w_ih, w_hh, b_ih, b_hh = cell.hidden_size, *cell.weights
    columns = x.shape[2] + size + 1
    s_w = torch.zeros(2, size, columns, dtype=F64)
    total = torch.zeros(3, size, columns, dtype=F64)
    c_0_bar = torch.zeros(size, dtype=F64)
    last = x.shape[1] - 1
    for t in range(last + 1):
        source = torch.cat([x[0, t], h, torch.ones(1, dtype=F64)])
        i_pre, g_pre, o_pre = (w_ih @ x[0, t] + b_ih + w_hh @ h + b_hh).chunk(3)
        i, o = i_pre.sigmoid(), o_pre.sigmoid()
        g = 4 * g_pre.sigmoid() - 2
        g_slope = 4 * g_pre.sigmoid() * (1 - g_pre.sigmoid())
        c = c + i * g
        squashed = 2 * c.sigmoid() - 1
        slope = 2 * c.sigmoid() * (1 - c.sigmoid())
        h = o * squashed
        # eqs. 25 and 27
        s_w[0] += torch.outer(g * i * (1 - i), source)
        s_w[1] += torch.outer(g_slope * i, source)
        error = y_bar[0, t] + (ends_bar[0][0] if t == last else 0)
        # eqs. 21 and 22
        total[2] += torch.outer(o * (1 - o) * squashed * error, source)
        # eq. 23, and what arrives at the last cell state itself
        s_error = o * slope * error + (ends_bar[1][0] if t == last else 0)
        # eqs. 26 and 28
        total[:2] += s_error[:, None] * s_w
        c_0_bar += s_error
    both = total.flatten(0, 1)
    width = x.shape[2]
    bias = both[:, -1]
    return c_0_bar[None], both[:, :width], both[:, width:-1], bias, bias


def test_truncated_gradient_is_the_learning_rule_of_the_paper():
    layer = wide(LSTM1997(3, 5, gradient="truncated", dtype=F64))
    x = torch.randn(1, 9, 3, dtype=F64)
    h_0 = torch.randn(1, 5, dtype=F64)
    c_0 = torch.randn(1, 5, dtype=F64, requires_grad=True)
    y, state = layer(x, LSTMState(h_0, c_0))
    upstream = [torch.randn_like(t) for t in (y, *state)]
    inputs = [c_0, *layer.cell.weights]
    gradients = torch.autograd.grad([y, *state], inputs, upstream)
    with torch.no_grad():
        rule = learning_rule(
            layer.cell, x, LSTMState(h_0, c_0), upstream[0], upstream[1:]
        )
    for mine, papers in zip(gradients, rule, strict=True):
        assert papers.abs().min() > 0
        torch.testing.assert_close(mine, papers, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("given", [None, [2, 6, 1, 4]])
@pytest.mark.parametrize("bias", [True, False])
def test_truncation_changes_gradients_and_nothing_else(bias, given):
    cut = wide(LSTM1997(3, 5, bias=bias, gradient="truncated", dtype=F64))
    whole = LSTM1997(3, 5, bias=bias, dtype=F64)
    whole.load_state_dict(cut.state_dict())
    x = torch.randn(4, 6, 3, dtype=F64)
    start = LSTMState(*torch.randn(2, 4, 5, dtype=F64))
    lengths = None if given is None else torch.tensor(given)
    (y, state), (y_whole, ends) = cut(x, start, lengths), whole(x, start, lengths)
    assert_same([y, *state], [y_whole, *ends], atol=0, rtol=0)
    upstream = torch.randn_like(y)
    gradients = torch.autograd.grad(y, cut.parameters(), upstream)
    other = torch.autograd.grad(y_whole, whole.parameters(), upstream)
    for one, two in zip(gradients, other, strict=True):
        assert (one - two).abs().max() > 1e-3
    # Of one step, both are the derivative.
    y, y_whole = cut(x[:, :1], start)[0], whole(x[:, :1], start)[0]
    gradients = torch.autograd.grad(y.sum(), cut.parameters())
    other = torch.autograd.grad(y_whole.sum(), whole.parameters())
    assert_same(gradients, other, atol=1e-14, rtol=1e-14)


def test_the_carousel_is_the_identity_only_when_truncated():
    cut = LSTM1997(3, 5, gradient="truncated", dtype=F64)
    whole = LSTM1997(3, 5, dtype=F64)
    whole.load_state_dict(cut.state_dict())
    x, h_0 = torch.randn(1, 100, 3, dtype=F64), torch.randn(1, 5, dtype=F64)

    def jacobian(layer):
        return torch.autograd.functional.jacobian(
            lambda c: layer(x, LSTMState(h_0, c[None]))[1].c[0],
            torch.zeros(5, dtype=F64),
        )

    eye = torch.eye(5, dtype=F64)
    assert torch.equal(jacobian(cut), eye)
    assert (jacobian(whole) - eye).abs().max() > 0.1


def test_no_truncated_gradient_reaches_the_old_hidden_state():
    layer = LSTM1997(3, 5, gradient="truncated", dtype=F64)
    x = torch.randn(2, 4, 3, dtype=F64, requires_grad=True)
    h_0 = torch.randn(2, 5, dtype=F64, requires_grad=True)
    y, _ = layer(x, LSTMState(h_0, torch.zeros(2, 5, dtype=F64)))
    to_x, to_h = torch.autograd.grad(y[:, -1].sum(), [x, h_0], allow_unused=True)
    assert to_h is None
    # A layer below still learns, through the carousel also from later errors.
    assert to_x[:, 0].abs().min() > 0


# All three as modules.


@pytest.mark.parametrize("kind", LAYERS)
def test_step_scan_and_call_agree_with_the_cell(kind):
    layer = kind(3, 5, dtype=F64)
    x = torch.randn(2, 4, 3, dtype=F64)
    state = layer.initial_state(2)
    assert [field.shape for field in state] == [(2, 5), (2, 5)]
    assert not any(field.any() for field in state)
    outputs = []
    for x_t in x.unbind(1):
        from_cell, _ = layer.cell(x_t, state)
        y_t, state = layer.step(x_t, state)
        assert torch.equal(y_t, from_cell)
        outputs.append(y_t)
    for y, final in (layer(x), scan(layer, x)):
        assert torch.equal(y, torch.stack(outputs, 1))
        assert_same(final, state, atol=0, rtol=0)


@pytest.mark.parametrize("kind", LAYERS)
def test_dtypes_under_autocast_are_those_of_the_state(kind):
    layer = kind(3, 5)
    x = torch.randn(2, 4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = layer(x)
        half = LSTMState(*(torch.zeros(2, 5, dtype=torch.bfloat16) for _ in "hc"))
        y_half, half = layer(x, half)
    assert {y.dtype, *(field.dtype for field in state)} == {torch.float32}
    assert {y_half.dtype, *(field.dtype for field in half)} == {torch.bfloat16}
    torch.testing.assert_close(y, layer(x)[0], atol=0.05, rtol=0.05)
    torch.testing.assert_close(y_half.float(), y, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("bias", [True, False])
def test_parameter_counts(bias):
    biases = 2 * 5 if bias else 0
    for kind, blocks, more in [
        (LSTM1997, 3, 0),
        (PeepholeLSTM, 4, 15),
        (CoupledGateLSTM, 3, 0),
    ]:
        count = sum(p.numel() for p in kind(3, 5, bias=bias).parameters())
        assert count == blocks * (5 * 3 + 5 * 5 + biases) + more


@pytest.mark.parametrize("kind", CELLS)
def test_initialisation_is_uniform_within_one_over_root_width(kind):
    cell = kind(64, 64)
    for parameter in cell.parameters():
        assert 0.9 / 8 < parameter.abs().max() <= 1 / 8
        assert parameter.mean().abs() < 1 / 32


@pytest.mark.parametrize("kind", LAYERS)
def test_weights_of_the_lstm_are_refused(kind):
    name = kind.__name__
    message = rf"{name}\.load_state_dict: .* torch\.nn has no {name}"
    with pytest.raises(RuntimeError, match=message):
        kind(3, 5).load_state_dict(torch.nn.LSTM(3, 5).state_dict())


def test_an_lstm_does_not_take_weights_with_peepholes():
    with pytest.raises(RuntimeError, match="weight_ch"):
        LSTMCell(3, 5).load_state_dict(PeepholeLSTMCell(3, 5).state_dict())


@pytest.mark.errors
@pytest.mark.parametrize("kind", LAYERS)
def test_bad_input_is_named(kind):
    layer, name = kind(3, 5), kind.__name__
    with pytest.raises(ValueError, match=rf"^{name}\.forward: `x` must have shape"):
        layer(torch.zeros(2, 4, 4))
    with pytest.raises(ValueError, match=rf"^{name}\.step: `x_t` must have shape"):
        layer.step(torch.zeros(2, 4))
    with pytest.raises(ValueError, match=rf"^{name}Cell\.forward: `x_t` must have sh"):
        layer.cell(torch.zeros(2, 4))
    with pytest.raises(
        TypeError, match=rf"^{name}\.forward: `state` must be LSTMState\(h, c\), got tu"
    ):
        layer(torch.zeros(2, 4, 3), (torch.zeros(2, 5), torch.zeros(2, 5)))
    with pytest.raises(ValueError, match=r"`lengths` must be at most time=4, got 5"):
        layer(torch.zeros(2, 4, 3), None, torch.tensor([5, 1]))
    with pytest.raises(ValueError, match=rf"^{name}: `hidden_size` must be at least 1"):
        kind(3, 0)
    with pytest.raises(TypeError, match=rf"^{name}Cell: `input_size` must be an int"):
        type(layer.cell)(3.0, 5)


@pytest.mark.errors
@pytest.mark.parametrize("kind", [LSTM1997, LSTM1997Cell])
def test_an_unknown_gradient_is_named(kind):
    message = (
        rf"^{kind.__name__}: `gradient` must be one of 'whole', 'truncated', got 'full'"
    )
    with pytest.raises(ValueError, match=message):
        kind(3, 5, gradient="full")
    assert "gradient='truncated'" in repr(kind(3, 5, gradient="truncated"))


@pytest.mark.errors
def test_there_is_no_module_of_torch_to_make_of_them():
    interop = pytest.importorskip("seqref.interop")
    for kind in LAYERS:
        with pytest.raises(TypeError, match=kind.__name__):
            interop.to_torch(kind(3, 5))
    assert not hasattr(seqref, "GRADIENTS")
