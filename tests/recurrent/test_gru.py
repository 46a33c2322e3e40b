"""The GRU beside torch.nn and ONNX: two forms, what maps and what cannot."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seqref import GRU, LSTM, ChoGRU, ChoGRUCell, GRUCell, GRUState
from seqref.ops.fused_recurrence.reference import cho_gru_step, gru_step
from seqref.recurrence import scan

F64 = torch.float64
LAYERS = [GRU, ChoGRU]
CELLS = [GRUCell, ChoGRUCell]


def with_gradients(outputs, inputs, upstream):
    grads = torch.autograd.grad(outputs, inputs, upstream, materialize_grads=True)
    return [*(y.detach() for y in outputs), *grads]


def assert_same(got, expected, atol=1e-12, rtol=1e-12):
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=atol, rtol=rtol)


@pytest.mark.parametrize("bias", [True, False])
def test_cell_equals_torch(bias):
    judge = nn.GRUCell(3, 5, bias=bias, dtype=F64)
    cell = GRUCell(3, 5, bias=bias, dtype=F64)
    cell.load_state_dict(judge.state_dict(), strict=True)
    x_t, h_0 = torch.randn(4, 3, dtype=F64), torch.randn(4, 5, dtype=F64)
    upstream = [torch.randn(4, 5, dtype=F64)]
    results = []
    for module in (cell, judge):
        leaves = [t.clone().requires_grad_() for t in (x_t, h_0)]
        if module is cell:
            h_t, state = cell(leaves[0], GRUState(leaves[1]))
            assert torch.equal(h_t, state.h)
        else:
            h_t = judge(*leaves)
        inputs = [*leaves, *module.parameters()]
        results.append(with_gradients([h_t], inputs, upstream))
    assert_same(*results, atol=1e-13, rtol=1e-13)
    assert_same([cell(x_t)[0]], [judge(x_t)], atol=1e-14, rtol=1e-14)


def from_judge(bias):
    judge = nn.GRU(3, 5, bias=bias, batch_first=True, dtype=F64)
    layer = GRU(3, 5, bias=bias, dtype=F64)
    state = judge.state_dict()
    layer.cell.load_state_dict({n.removesuffix("_l0"): v for n, v in state.items()})
    return layer, judge


@pytest.mark.parametrize("given", [None, [2, 6, 1, 4]])
@pytest.mark.parametrize("bias", [True, False])
def test_layer_equals_torch(bias, given):
    layer, judge = from_judge(bias)
    x, h_0 = torch.randn(4, 6, 3, dtype=F64), torch.randn(4, 5, dtype=F64)
    lengths = None if given is None else torch.tensor(given)
    spoilt = x.clone()
    for row, length in enumerate(given or []):
        spoilt[row, length:] = torch.nan
    leaves = [spoilt.requires_grad_(), h_0.clone().requires_grad_()]
    y, state = layer(leaves[0], GRUState(leaves[1]), lengths)
    upstream = [torch.randn_like(y), torch.randn_like(state.h)]
    mine = with_gradients([y, state.h], [*leaves, *layer.parameters()], upstream)
    leaves = [x.clone().requires_grad_(), h_0.clone().requires_grad_()]
    inputs = leaves[0]
    if lengths is not None:
        inputs = pack_padded_sequence(inputs, lengths, True, enforce_sorted=False)
    y_judge, h_n = judge(inputs, leaves[1][None])
    if lengths is not None:
        y_judge, _ = pad_packed_sequence(y_judge, batch_first=True, total_length=6)
    parameters = list(judge.parameters())
    assert_same(
        mine, with_gradients([y_judge, h_n[0]], [*leaves, *parameters], upstream)
    )


def onnx_gru(layer, x, h_0, lengths, before_product):
    """The judge onnxruntime: outputs and final state, float32."""
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    hidden = layer.hidden_size
    # ONNX stacks the blocks z, r, h; ours are r, z, n.
    order = torch.arange(3 * hidden).view(3, hidden)[[1, 0, 2]].flatten()
    cell = layer.cell
    feeds = {"X": x.transpose(0, 1), "initial_h": h_0[None]}
    feeds["W"], feeds["R"] = cell.weight_ih[order][None], cell.weight_hh[order][None]
    if layer.bias:
        both = torch.cat([cell.bias_ih[order], cell.bias_hh[order]])
        feeds["B"] = both[None]
    if lengths is not None:
        feeds["sequence_lens"] = lengths.to(torch.int32)
    slots = ["X", "W", "R", "B", "sequence_lens", "initial_h"]
    helper, proto = onnx.helper, onnx.TensorProto
    node = helper.make_node(
        "GRU",
        [slot if slot in feeds else "" for slot in slots],
        ["Y", "Y_h"],
        hidden_size=hidden,
        linear_before_reset=0 if before_product else 1,
    )
    kinds = {torch.float32: proto.FLOAT, torch.int32: proto.INT32}
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "judge",
        [info(n, kinds[t.dtype], list(t.shape)) for n, t in feeds.items()],
        [info(n, proto.FLOAT, None) for n in ("Y", "Y_h")],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    arrays = {n: t.detach().contiguous().numpy() for n, t in feeds.items()}
    y, h_n = session.run(None, arrays)
    return torch.tensor(y)[:, 0].transpose(0, 1), torch.tensor(h_n)[0]


@pytest.mark.parametrize("given", [None, [2, 6, 1, 4]])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_layer_equals_onnxruntime(kind, bias, given):
    layer = kind(3, 5, bias=bias)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(3)
    x, h_0 = torch.randn(4, 6, 3), torch.randn(4, 5)
    lengths = None if given is None else torch.tensor(given)
    y, state = layer(x, GRUState(h_0), lengths)
    judged = onnx_gru(layer, x, h_0, lengths, before_product=kind is ChoGRU)
    assert_same([y, state.h], judged, atol=2e-6, rtol=2e-5)
    # The other setting of the judge is another model.
    other = onnx_gru(layer, x, h_0, lengths, before_product=kind is GRU)
    assert (y - other[0]).abs().max() > 1e-2


def by_hand(x_t, h_prev, weights, reset_first):
    """Both forms written on single vectors, block by block."""
    w_ih, w_hh, b_ih, b_hh = (part.chunk(3) for part in weights)
    rows = []
    for x, h in zip(x_t, h_prev, strict=True):
        r = (w_ih[0] @ x + b_ih[0] + w_hh[0] @ h + b_hh[0]).sigmoid()
        z = (w_ih[1] @ x + b_ih[1] + w_hh[1] @ h + b_hh[1]).sigmoid()
        if reset_first:
            n_pre = w_ih[2] @ x + b_ih[2] + w_hh[2] @ (r * h) + b_hh[2]
        else:
            n_pre = w_ih[2] @ x + b_ih[2] + r * (w_hh[2] @ h + b_hh[2])
        rows.append((1 - z) * n_pre.tanh() + z * h)
    return torch.stack(rows)


def random_weights(input_size=3, hidden=5):
    shapes = [(3 * hidden, input_size), (3 * hidden, hidden), 3 * hidden, 3 * hidden]
    return tuple(
        torch.randn(s if isinstance(s, tuple) else (s,), dtype=F64) for s in shapes
    )


@pytest.mark.parametrize(
    ("step", "reset_first"), [(gru_step, False), (cho_gru_step, True)]
)
def test_step_is_its_equations_and_their_gradient(step, reset_first):
    weights = random_weights()
    values = [torch.randn(4, 3, dtype=F64), torch.randn(4, 5, dtype=F64), *weights]
    upstream = [torch.randn(4, 5, dtype=F64)]
    results = []
    for compute in (step, lambda x, h, w: by_hand(x, h, w, reset_first)):
        leaves = [v.clone().requires_grad_() for v in values]
        h_t = compute(leaves[0], leaves[1], tuple(leaves[2:]))
        results.append(with_gradients([h_t], leaves, upstream))
    assert_same(*results)


# The update gate: which of z and 1 - z keeps.


def swapped_step(x_t, h_prev, weights):
    """`gru_step` with the other convention: h_t = (1 - z) h_prev + z n."""
    kept = gru_step(x_t, h_prev, weights)
    n_t = candidate(x_t, h_prev, weights)
    # (1 - z) n + z h and (1 - z) h + z n sum to n + h.
    return n_t + h_prev - kept


def candidate(x_t, h_prev, weights):
    w_ih, w_hh, b_ih, b_hh = (part.chunk(3) for part in weights)
    r_t = (x_t @ w_ih[0].T + b_ih[0] + h_prev @ w_hh[0].T + b_hh[0]).sigmoid()
    return (x_t @ w_ih[2].T + b_ih[2] + r_t * (h_prev @ w_hh[2].T + b_hh[2])).tanh()


def negate_update_gate(weights):
    """The map between the two conventions, in both directions."""
    converted = []
    for part in weights:
        r, z, n = part.chunk(3)
        converted.append(torch.cat([r, -z, n]))
    return tuple(converted)


def test_negating_the_update_gate_converts_in_both_directions():
    weights = random_weights()
    x_t, h_prev = torch.randn(9, 3, dtype=F64), torch.randn(9, 5, dtype=F64)
    ours, other = gru_step(x_t, h_prev, weights), swapped_step(x_t, h_prev, weights)
    assert (ours - other).abs().max() > 0.5
    negated = negate_update_gate(weights)
    there = swapped_step(x_t, h_prev, negated)
    back = gru_step(x_t, h_prev, negated)
    torch.testing.assert_close(there, ours, atol=1e-14, rtol=0)
    torch.testing.assert_close(back, other, atol=1e-14, rtol=0)
    for part, twice in zip(weights, negate_update_gate(negated), strict=True):
        assert torch.equal(part, twice)


@pytest.mark.parametrize("kind", LAYERS)
def test_an_update_gate_of_one_keeps_the_state(kind):
    layer = kind(3, 5, dtype=F64)
    start = GRUState(torch.randn(2, 5, dtype=F64))
    x = torch.randn(2, 50, 3, dtype=F64)
    with torch.no_grad():
        layer.cell.bias_ih[5:10] = 1e3
        _, state = layer(x, start)
        # Not to the last bit: torch computes n + z (h - n).
        torch.testing.assert_close(state.h, start.h, atol=1e-14, rtol=1e-14)
        layer.cell.bias_ih[5:10] = -1e3
        y, state = layer(x, start)
    # A gate of 0 writes the candidate: nothing of the old value is added.
    assert state.h.abs().max() <= 1
    weights = layer.cell.weights
    if kind is GRU:
        expected = candidate(x[:, -1], y[:, -2], weights)
        torch.testing.assert_close(state.h, expected, atol=1e-14, rtol=1e-14)


# The reset gate: after the product and before it.


def both_forms(weights, x_t=None, h_prev=None):
    width = weights[1].shape[1]
    x_t = torch.randn(9, weights[0].shape[1], dtype=F64) if x_t is None else x_t
    h_prev = torch.randn(9, width, dtype=F64) if h_prev is None else h_prev
    return gru_step(x_t, h_prev, weights), cho_gru_step(x_t, h_prev, weights)


def test_the_two_forms_differ_with_the_same_weights():
    after, before = both_forms(random_weights())
    assert (after - before).abs().max() > 0.1


def zero_hidden_candidate_bias(weights, width):
    weights[3][2 * width :] = 0
    return weights


def test_an_open_reset_gate_makes_them_one():
    weights = random_weights()
    weights[2][:5] = 1e3
    after, before = both_forms(weights)
    torch.testing.assert_close(after, before, atol=1e-14, rtol=0)


@pytest.mark.parametrize("width", [1, 5])
def test_a_diagonal_matrix_commutes_with_the_gate(width):
    weights = zero_hidden_candidate_bias(random_weights(3, width), width)
    diagonal = torch.diag(torch.randn(width, dtype=F64))
    weights[1][2 * width :] = diagonal
    after, before = both_forms(weights)
    torch.testing.assert_close(after, before, atol=1e-14, rtol=0)
    weights[3][2 * width :] = 1
    after, before = both_forms(weights)
    assert (after - before).abs().max() > 0.01


def test_the_first_step_from_zeros_cannot_tell_them_apart_without_that_bias():
    weights = zero_hidden_candidate_bias(random_weights(), 5)
    after, before = both_forms(weights, h_prev=torch.zeros(9, 5, dtype=F64))
    torch.testing.assert_close(after, before, atol=1e-14, rtol=0)
    weights = random_weights()
    after, before = both_forms(weights, h_prev=torch.zeros(9, 5, dtype=F64))
    assert (after - before).abs().max() > 0.01


def pre_activation(step, weights, h_prev):
    """The candidate's argument of tanh at x = 0, read off the output of a step.

    Only for cells whose update gate is 1/2 whatever they see.
    """
    x_t = torch.zeros(h_prev.shape[0], weights[0].shape[1], dtype=F64)
    return torch.atanh(2 * step(x_t, h_prev, weights) - h_prev)


def half_update(weights, width):
    for part in weights:
        part[width : 2 * width] = 0
    return weights


def turned(step, weights):
    """Determinant of two moves of the candidate, from zero to two multiples of e_1.

    Zero when both moves lie on one line.
    """
    probes = torch.tensor([[0.0, 0.0], [0.5, 0.0], [1.0, 0.0]], dtype=F64)
    pre = pre_activation(step, weights, probes)
    return torch.linalg.det(pre[1:] - pre[0]).item()


def after_that_no_before_can_be():
    """Reset gates that look at unit 1 and unit 2; all candidates at h_1 + h_2."""
    weights = tuple(torch.zeros_like(part) for part in random_weights(1, 2))
    weights[1][:2] = torch.eye(2, dtype=F64)
    weights[1][4:] = 1
    return weights


def test_before_the_product_one_unit_moves_the_candidate_along_one_line():
    for _ in range(200):
        weights = half_update(random_weights(1, 2), 2)
        assert abs(turned(cho_gru_step, weights)) < 1e-12
    assert abs(turned(gru_step, after_that_no_before_can_be())) > 0.01
    assert abs(turned(cho_gru_step, after_that_no_before_can_be())) < 1e-12


def test_after_the_product_no_candidate_rises_at_both_ends_of_a_line():
    # Reset gates that look at their own unit: f(h_1) + f(h_2) with f(s) = s sigmoid(s).
    ends = torch.tensor([[6.0, -6.0], [-6.0, 6.0]], dtype=F64)
    target = after_that_no_before_can_be()
    pre = argument(cho_gru_step, target, ends)
    torch.testing.assert_close(pre[:, 0], 6 * torch.full((2,), 3.0, dtype=F64).tanh())
    for _ in range(200):
        weights = random_weights(1, 2)
        # What is left when the reset gate is shut: the argument at r = 0.
        floor = weights[2][4:]
        far = argument(gru_step, weights, 1e3 * ends) - floor
        assert (far.min(dim=0).values <= 0).all()


def argument(step, weights, h_prev):
    """The candidate's argument of tanh at x = 0, from the equations."""
    w_hh, b_ih, b_hh = weights[1].chunk(3), weights[2].chunk(3), weights[3].chunk(3)
    r_t = (h_prev @ w_hh[0].T + b_ih[0] + b_hh[0]).sigmoid()
    if step is gru_step:
        return b_ih[2] + r_t * (h_prev @ w_hh[2].T + b_hh[2])
    return b_ih[2] + (r_t * h_prev) @ w_hh[2].T + b_hh[2]


# What else the page states.


@pytest.mark.parametrize("kind", LAYERS)
def test_outputs_stay_between_start_and_one(kind):
    layer = kind(3, 5, dtype=F64)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(20)
    x = 100 * torch.randn(2, 30, 3, dtype=F64)
    y, _ = layer(x)
    assert y.abs().max() <= 1
    start = GRUState(torch.full((2, 5), 4.0, dtype=F64))
    y, _ = layer(x, start)
    assert y.abs().max() <= 4


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_parameter_count_is_three_quarters_of_an_lstm(kind, bias):
    count = sum(p.numel() for p in kind(3, 5, bias=bias).parameters())
    assert count == 3 * (5 * 3 + 5 * 5 + (2 * 5 if bias else 0))
    lstm = sum(p.numel() for p in LSTM(3, 5, bias=bias).parameters())
    assert 4 * count == 3 * lstm
    judge = nn.GRU(3, 5, bias=bias)
    assert count == sum(p.numel() for p in judge.parameters())


@pytest.mark.parametrize("kind", LAYERS)
def test_step_scan_and_call_agree_with_the_cell(kind):
    layer = kind(3, 5, dtype=F64)
    x = torch.randn(2, 4, 3, dtype=F64)
    state = layer.initial_state(2)
    assert torch.equal(state.h, torch.zeros(2, 5, dtype=F64))
    outputs = []
    for x_t in x.unbind(1):
        from_cell, _ = layer.cell(x_t, state)
        y_t, state = layer.step(x_t, state)
        torch.testing.assert_close(y_t, from_cell, atol=0, rtol=0)
        outputs.append(y_t)
    for y, final in (layer(x), scan(layer, x)):
        torch.testing.assert_close(y, torch.stack(outputs, 1), atol=1e-14, rtol=1e-14)
        torch.testing.assert_close(final.h, state.h, atol=1e-14, rtol=1e-14)


@pytest.mark.parametrize("kind", LAYERS)
def test_initialisation_is_that_of_torch(kind):
    layer = kind(64, 100)
    for parameter in layer.parameters():
        assert parameter.abs().max() <= 0.1
        assert parameter.abs().max() > 0.09
        assert abs(parameter.mean()) < 0.02


@pytest.mark.errors
@pytest.mark.parametrize(
    "call",
    [
        lambda layer, state: layer(torch.zeros(2, 4, 3), state),
        lambda layer, state: layer.step(torch.zeros(2, 3), state),
        lambda layer, state: layer.cell(torch.zeros(2, 3), state),
    ],
)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_bare_tensor_as_state_shows_the_mend(kind, call):
    message = (
        rf"^{kind.__name__}(Cell)?\.(forward|step): `state` must be GRUState\(h\), "
        r"got Tensor \(pass GRUState\(h\)\)$"
    )
    with pytest.raises(TypeError, match=message):
        call(kind(3, 5), torch.zeros(2, 5))


@pytest.mark.errors
@pytest.mark.parametrize("kind", LAYERS)
def test_wrong_shapes_are_named(kind):
    name, layer = kind.__name__, kind(3, 5)
    with pytest.raises(ValueError, match=rf"^{name}\.forward: `x` must have shape"):
        layer(torch.zeros(2, 7, 4))
    with pytest.raises(ValueError, match=rf"^{name}\.step: `x_t` must have shape"):
        layer.step(torch.zeros(2, 4))
    with pytest.raises(ValueError, match=rf"^{name}\.forward: `state.h` must have"):
        layer(torch.zeros(2, 7, 3), GRUState(torch.zeros(2, 4)))
    with pytest.raises(ValueError, match=rf"^{name}: `hidden_size` must be"):
        kind(3, 0)


@pytest.mark.parametrize(("kind", "cell"), list(zip(LAYERS, CELLS, strict=True)))
def test_representation_names_what_was_chosen(kind, cell):
    assert f"{cell.__name__}(3, 5, bias=False)" in repr(kind(3, 5, bias=False))
