"""Two directions beside torch.nn, and that nothing but the row itself is read."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import seqref
import seqref.interop
from seqref import Bidirectional, BidirectionalState
from seqref._contract.padding import length_vectors
from seqref.models.language_model import LanguageModel
from seqref.ops._padding import reverse_rows
from seqref.recurrence import detach_state, map_state, scan, select_rows
from seqref.testing import check_sequence_layer

F64 = torch.float64
KINDS = {
    "tanh": (seqref.RNN, nn.RNN, {}),
    "relu": (seqref.RNN, nn.RNN, {"nonlinearity": "relu"}),
    "lstm": (seqref.LSTM, nn.LSTM, {}),
}
if hasattr(seqref, "GRU"):
    KINDS["gru"] = (seqref.GRU, nn.GRU, {})
NAMES = list(KINDS)


def build(name="lstm", input_size=3, hidden_size=5, dtype=F64, **options):
    kind, _, chosen = KINDS[name]
    return Bidirectional(
        *(kind(input_size, hidden_size, dtype=dtype, **chosen, **options) for _ in "fb")
    )


def mixed(dtype=F64):
    """Two kinds and two widths."""
    return Bidirectional(
        seqref.LSTM(3, 5, dtype=dtype), seqref.RNN(3, 4, nonlinearity="relu")
    ).to(dtype)


def random_state(layer, batch):
    return map_state(torch.randn_like, layer.initial_state(batch))


def tensors(state):
    parts = []
    map_state(lambda tensor: parts.append(tensor) or tensor, state)
    return parts


def same(mine, theirs, tolerance=1e-12):
    torch.testing.assert_close(mine, theirs, atol=tolerance, rtol=tolerance)


def equal(one, other, tolerance=1e-12):
    """Compare pairs of output and state."""
    both = zip([one[0], *tensors(one[1])], [other[0], *tensors(other[1])], strict=True)
    for mine, theirs in both:
        same(mine, theirs, tolerance)


def slopes(run, x, state, parameters):
    """Outputs, final states and all gradients of a random linear function of them."""
    x = x.detach().clone().requires_grad_()
    state = map_state(lambda t: t.detach().clone().requires_grad_(), state)
    y, after = run(x, state)
    ends = [y, *tensors(after)]
    generator = torch.Generator().manual_seed(7)
    weights = [torch.randn(e.shape, generator=generator, dtype=F64) for e in ends]
    leaves = [x, *tensors(state), *parameters]
    # With every length 0 an output has no graph, and torch refuses to give zeros.
    anchor = 0 * x.masked_fill(~x.isfinite(), 0).sum()
    loss = anchor + sum((e * w).sum() for e, w in zip(ends, weights, strict=True))
    grads = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
    return [e.detach() for e in ends], grads


# Beside torch.


def judged(name, bias):
    _, judge_kind, options = KINDS[name]
    judge = judge_kind(
        3, 5, bias=bias, batch_first=True, bidirectional=True, dtype=F64, **options
    )
    layer = build(name, bias=bias)
    weights = judge.state_dict()
    for suffix, part in (
        ("_l0", layer.forward_layer),
        ("_l0_reverse", layer.backward_layer),
    ):
        own = {n: v for n, v in weights.items() if n.endswith(suffix)}
        part.cell.load_state_dict({n.removesuffix(suffix): v for n, v in own.items()})
    names = [f"{n}{s}" for s in ("_l0", "_l0_reverse") for n in _names(layer)]
    return layer, judge, [dict(judge.named_parameters())[n] for n in names]


def _names(layer):
    return [n for n, _ in layer.forward_layer.cell.named_parameters()]


def judge_run(judge, lengths, time, state_kind):
    def run(x, state):
        # (direction, batch, hidden) for each field of the layers' states
        fields = [
            torch.stack(pair)
            for pair in zip(state.forward, state.backward, strict=True)
        ]
        hx = fields[0] if len(fields) == 1 else tuple(fields)
        inputs = x
        if lengths is not None:
            inputs = pack_padded_sequence(x, lengths, True, enforce_sorted=False)
        y, ends = judge(inputs, hx)
        if lengths is not None:
            y, _ = pad_packed_sequence(y, batch_first=True, total_length=time)
        ends = (ends,) if len(fields) == 1 else ends
        forward, backward = (state_kind(*(e[i] for e in ends)) for i in (0, 1))
        return y, BidirectionalState(forward, backward)

    return run


@pytest.mark.parametrize("given", [None, [2, 6, 1, 4], [3, 3, 5, 2]])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_equals_torch(name, bias, given):
    """Outputs, final states and all gradients, from a random initial state."""
    layer, judge, theirs = judged(name, bias)
    x, state = torch.randn(4, 6, 3, dtype=F64), random_state(layer, 4)
    lengths = None if given is None else torch.tensor(given)
    kind = type(state.forward)
    got = slopes(lambda x, s: layer(x, s, lengths), x, state, list(layer.parameters()))
    expected = slopes(judge_run(judge, lengths, 6, kind), x, state, theirs)
    both = zip([*got[0], *got[1]], [*expected[0], *expected[1]], strict=True)
    for mine, other in both:
        same(mine, other)


@pytest.mark.parametrize("name", NAMES)
def test_without_a_state_it_starts_from_zeros_as_torch_does(name):
    layer, judge, _ = judged(name, bias=True)
    x = torch.randn(4, 6, 3, dtype=F64)
    y, state = layer(x)
    y_judge, ends = judge(x)
    same(y, y_judge)
    ends = ends if isinstance(ends, tuple) else (ends,)
    for i, own in enumerate(state):
        for mine, end in zip(own, ends, strict=True):
            same(mine, end[i])


@pytest.mark.parametrize("given", [None, [2, 6, 1]])
def test_equals_onnxruntime(given):
    """A third implementation, with its own order of gates and its own lengths."""
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    layer = build("lstm", dtype=torch.float32)
    order = [0, 3, 1, 2]  # i, o, f, c from i, f, g, o

    def block(value):
        return torch.cat([value.detach().chunk(4)[i] for i in order])

    halves = [layer.forward_layer.cell, layer.backward_layer.cell]
    weights = {
        "W": torch.stack([block(c.weight_ih) for c in halves]),
        "R": torch.stack([block(c.weight_hh) for c in halves]),
        "B": torch.stack(
            [torch.cat([block(c.bias_ih), block(c.bias_hh)]) for c in halves]
        ),
    }
    x = torch.randn(3, 6, 3)
    state = random_state(layer, 3)
    lengths = torch.tensor([6, 6, 6] if given is None else given)
    feeds = {
        "X": x.transpose(0, 1),
        "lens": lengths.to(torch.int32),
        "h": torch.stack([state.forward.h, state.backward.h]),
        "c": torch.stack([state.forward.c, state.backward.c]),
    }
    helper, kinds = onnx.helper, onnx.TensorProto
    node = helper.make_node(
        "LSTM",
        ["X", "W", "R", "B", "lens", "h", "c"],
        ["Y", "Y_h", "Y_c"],
        hidden_size=5,
        direction="bidirectional",
    )
    inputs = [
        helper.make_tensor_value_info(
            n, kinds.INT32 if n == "lens" else kinds.FLOAT, list(v.shape)
        )
        for n, v in feeds.items()
    ]
    graph = helper.make_graph(
        [node],
        "bidirectional",
        inputs,
        [helper.make_tensor_value_info(n, kinds.FLOAT, None) for n in node.output],
        [onnx.numpy_helper.from_array(v.numpy(), n) for n, v in weights.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8
    )
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    answers = session.run(None, {n: v.contiguous().numpy() for n, v in feeds.items()})
    y_judge, h_n, c_n = map(torch.from_numpy, answers)
    # (time, direction, batch, hidden) to (batch, time, both)
    y_judge = y_judge.permute(2, 0, 1, 3).flatten(2)
    y, after = layer(x, state, lengths if given else None)
    same(y, y_judge, 2e-6)
    for i, own in enumerate(after):
        same(own.h, h_n[i], 2e-6)
        same(own.c, c_n[i], 2e-6)


# Two directions.


def layers():
    return {**{name: build(name) for name in NAMES}, "mixed": mixed()}


@pytest.mark.parametrize("name", [*NAMES, "mixed"])
def test_each_half_is_its_layer_read_from_its_own_end(name):
    layer = layers()[name]
    x, state = torch.randn(2, 7, 3, dtype=F64), random_state(layer, 2)
    y, after = layer(x, state)
    ahead, last = layer.forward_layer(x, state.forward)
    behind, earliest = layer.backward_layer(x.flip(1), state.backward)
    width = ahead.shape[-1]
    assert layer.output_size == y.shape[-1] == width + behind.shape[-1]
    assert torch.equal(y[..., :width], ahead)
    assert torch.equal(y[..., width:], behind.flip(1))
    equal((y, after), (y, BidirectionalState(last, earliest)), 0)
    # The definition, step by step from the right.
    stepwise = state.backward
    for t in reversed(range(7)):
        y_t, stepwise = layer.backward_layer.step(x[:, t], stepwise)
        same(y[:, t, width:], y_t)
    equal((y, after.backward), (y, stepwise))


def test_the_final_states_are_outputs_at_opposite_ends():
    layer = build("tanh")
    y, state = layer(torch.randn(2, 7, 3, dtype=F64))
    assert torch.equal(state.forward.h, y[:, -1, :5])
    assert torch.equal(state.backward.h, y[:, 0, 5:])
    assert not torch.allclose(state.backward.h, y[:, -1, 5:])


def test_every_output_sees_every_input():
    layer = build("lstm")
    x = torch.randn(1, 6, 3, dtype=F64)
    jacobian = torch.autograd.functional.jacobian(lambda v: layer(v)[0][0], x)[:, :, 0]
    reach = jacobian.abs().sum(dim=(1, 3))
    assert (reach > 0).all()
    ahead = jacobian[:, :5].abs().sum(dim=(1, 3))
    assert torch.equal(ahead > 0, torch.ones(6, 6).tril().bool())
    behind = jacobian[:, 5:].abs().sum(dim=(1, 3))
    assert torch.equal(behind > 0, torch.ones(6, 6).triu().bool())


@pytest.mark.parametrize("given", [None, [7, 3]])
def test_one_module_for_both_directions_ties_the_weights(given):
    """Reading the mirrored input then swaps and mirrors the halves."""
    shared = seqref.LSTM(3, 5, dtype=F64)
    layer = Bidirectional(shared, shared)
    assert len(list(layer.parameters())) == len(list(shared.parameters()))
    lengths = None if given is None else torch.tensor(given)
    x = torch.randn(2, 7, 3, dtype=F64)
    y, state = layer(x, lengths=lengths)
    mirrored, turned = layer(reverse_rows(x, lengths), lengths=lengths)
    ahead, behind = reverse_rows(mirrored, lengths).chunk(2, dim=-1)
    same(y, torch.cat([behind, ahead], dim=-1))
    equal((y, state), (y, BidirectionalState(turned.backward, turned.forward)))
    # The gradients of both directions add up.
    untied = Bidirectional(copy.deepcopy(shared), copy.deepcopy(shared))
    upstream = torch.randn_like(y)
    tied = torch.autograd.grad(y, list(shared.parameters()), upstream)
    parts = torch.autograd.grad(
        untied(x, lengths=lengths)[0], list(untied.parameters()), upstream
    )
    half = len(tied)
    for got, one, two in zip(tied, parts[:half], parts[half:], strict=True):
        same(got, one + two)
    assert copy.deepcopy(layer).forward_layer is not layer.forward_layer
    copied = copy.deepcopy(layer)
    assert copied.forward_layer is copied.backward_layer


def test_chunks_carry_one_direction_each():
    """Forward states go to the next chunk, backward states to the one before."""
    layer = build("lstm")
    x = torch.randn(2, 9, 3, dtype=F64)
    y, whole = layer(x)
    start = layer.initial_state(2)
    _, late = layer(x[:, 4:])
    first, early = layer(x[:, :4], BidirectionalState(start.forward, late.backward))
    second, late = layer(x[:, 4:], BidirectionalState(early.forward, start.backward))
    same(torch.cat([first, second], dim=1), y)
    same(list(late.forward), list(whole.forward))
    same(list(early.backward), list(whole.backward))
    # What one does with a causal layer: right for one half, wrong for the other.
    carried, _ = layer(x[:, 4:], layer(x[:, :4])[1])
    same(carried[..., :5], y[:, 4:, :5])
    assert (carried - y[:, 4:])[..., 5:].abs().max() > 1e-2


# The parts of the contract that do not speak of a step.


@pytest.mark.parametrize("name", [*NAMES, "mixed"])
def test_padding_changes_nothing(name):
    """Values, final states and all gradients beside each row alone, NaN as padding."""
    layer = layers()[name]
    x, state = torch.randn(3, 6, 3, dtype=F64), random_state(layer, 3)
    parameters = list(layer.parameters())
    for given in [*length_vectors(3, 6), [2, 6, 3], [5, 1, 0]]:
        lengths = torch.tensor(given)

        def alone(x, state, given=given):
            ys, ends = [], []
            for row, length in enumerate(given):
                part = map_state(lambda t, row=row: t[row : row + 1], state)
                y, end = layer(x[row : row + 1, :length], part)
                ys.append(torch.cat([y, y.new_zeros(1, 6 - length, y.shape[2])], 1))
                ends.append(end)
            return torch.cat(ys), map_state(lambda *t: torch.cat(t), *ends)

        expected = slopes(alone, x, state, parameters)
        for fill in (torch.nan, torch.inf, 1.0):
            padded = x.clone()
            for row, length in enumerate(given):
                padded[row, length:] = fill
            got = slopes(
                lambda x, s, lengths=lengths: layer(x, s, lengths),
                padded,
                state,
                parameters,
            )
            for mine, theirs in zip(
                [*got[0], *got[1]], [*expected[0], *expected[1]], strict=True
            ):
                same(mine, theirs)
            for row, length in enumerate(given):
                assert not got[0][0][row, length:].count_nonzero()
                assert not got[1][0][row, length:].count_nonzero()


@pytest.mark.parametrize("name", [*NAMES, "mixed"])
def test_rows_are_independent_and_arguments_untouched(name):
    layer = layers()[name]
    x, state = torch.randn(3, 6, 3, dtype=F64), random_state(layer, 3)
    lengths = torch.tensor([6, 2, 4])
    kept = [t.clone() for t in (x, lengths, *tensors(state), *layer.parameters())]
    got = layer(x, state, lengths)
    equal(layer(x, state, lengths), got, 0)
    now = (x, lengths, *tensors(state), *layer.parameters())
    assert all(torch.equal(a, b) for a, b in zip(kept, now, strict=True))
    order = torch.tensor([2, 0, 1])
    turned = layer(x[order], select_rows(state, order), lengths[order])
    equal(turned, (got[0][order], select_rows(got[1], order)))
    leaf = x.clone().requires_grad_()
    y, after = layer(leaf, state, lengths)
    loss = y[1].square().sum() + sum(t[1].sum() for t in tensors(after))
    (gradient,) = torch.autograd.grad(loss, leaf)
    assert not gradient[[0, 2]].count_nonzero()
    assert gradient[1, :2].count_nonzero() == 2 * 3


@pytest.mark.parametrize("name", [*NAMES, "mixed"])
def test_the_state_matters_and_none_is_the_initial_state(name):
    layer = layers()[name]
    x = torch.randn(2, 6, 3, dtype=F64)
    start = layer.initial_state(2)
    assert type(start) is BidirectionalState
    for lengths in (None, torch.tensor([6, 3])):
        equal(layer(x, None, lengths), layer(x, start, lengths), 0)
        y, _ = layer(x, start, lengths)
        width = layer.forward_layer.hidden_size
        other = random_state(layer, 2)
        moved, _ = layer(x, BidirectionalState(other.forward, start.backward), lengths)
        assert not torch.allclose(moved[..., :width], y[..., :width])
        assert torch.equal(moved[..., width:], y[..., width:])
        moved, _ = layer(x, BidirectionalState(start.forward, other.backward), lengths)
        assert torch.equal(moved[..., :width], y[..., :width])
        # The backward state comes in at each row's last real step.
        last = 5 if lengths is None else 2
        difference = (moved - y)[1, last, width:]
        assert difference.abs().max() > 1e-3


@pytest.mark.parametrize("name", ["tanh", "lstm", "mixed"])
@pytest.mark.parametrize("given", [None, [4, 2]])
def test_gradients_by_central_differences(name, given):
    layer = layers()[name]
    lengths = None if given is None else torch.tensor(given)
    names = [n for n, _ in layer.named_parameters()]
    values = [p.detach().requires_grad_() for p in layer.parameters()]
    x = torch.randn(2, 4, 3, dtype=F64, requires_grad=True)
    state = random_state(layer, 2)
    flat = [t.requires_grad_() for t in tensors(state)]

    def run(x, *rest):
        leaves = iter(rest)
        given_state = map_state(lambda _: next(leaves), state)
        parameters = dict(zip(names, leaves, strict=True))
        y, after = functional_call(layer, parameters, (x, given_state, lengths))
        return y, *tensors(after)

    assert torch.autograd.gradcheck(run, (x, *flat, *values), fast_mode=True)


@pytest.mark.parametrize("name", [*NAMES, "mixed"])
def test_nothing_to_do(name):
    layer = layers()[name]
    state = random_state(layer, 2)
    width = layer.output_size
    for lengths in (None, torch.tensor([0, 0])):
        y, after = layer(torch.zeros(2, 0, 3, dtype=F64), state, lengths)
        assert y.shape == (2, 0, width)
        equal((y, after), (y, state), 0)
    y, after = layer(
        torch.full((2, 3, 3), torch.nan, dtype=F64), state, torch.tensor([0, 0])
    )
    assert not y.count_nonzero()
    equal((y, after), (y, state), 0)
    empty = torch.zeros(0, dtype=torch.int64)
    y, _ = layer(torch.zeros(0, 4, 3, dtype=F64), lengths=empty)
    assert y.shape == (0, 4, width)


def test_float32_kernels_agree_with_float64():
    exact = mixed()
    layer = copy.deepcopy(exact).float()
    x = torch.randn(3, 6, 3)
    lengths = torch.tensor([6, 0, 4])
    y, state = layer(x, lengths=lengths)
    assert y.dtype == torch.float32
    y_exact, state_exact = exact(x.double(), lengths=lengths)
    equal(
        (y.double(), map_state(torch.Tensor.double, state)),
        (y_exact, state_exact),
        2e-6,
    )


# What the helpers and transforms of torch make of it.


def test_nested_states_work_with_the_helpers():
    layer = mixed()
    x = torch.randn(2, 6, 3, dtype=F64)
    _, state = layer(x)
    assert all(t.requires_grad for t in tensors(state))
    cut = detach_state(state)
    assert type(cut) is BidirectionalState
    assert type(cut.forward) is seqref.LSTMState
    assert type(cut.backward) is seqref.RNNState
    assert not any(t.requires_grad for t in tensors(cut))
    again = pickle.loads(pickle.dumps(cut))
    equal((x, again), (x, cut), 0)


def test_copies_and_stored_weights():
    layer = mixed()
    x, lengths = torch.randn(2, 6, 3, dtype=F64), torch.tensor([6, 2])
    expected = layer(x, lengths=lengths)
    names = list(layer.state_dict())
    assert names[0] == "forward_layer.cell.weight_ih"
    assert names[-1] == "backward_layer.cell.bias_hh"
    stored = io.BytesIO()
    torch.save(layer.state_dict(), stored)
    stored.seek(0)
    loaded = mixed()
    loaded.load_state_dict(torch.load(stored, weights_only=True), strict=True)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded):
        equal(other(x, lengths=lengths), expected, 0)


def test_vmap_over_rows_and_lengths():
    layer = mixed()
    x, lengths = torch.randn(3, 4, 3, dtype=F64), torch.tensor([0, 3, 4])

    def one(row, length):
        y, state = layer(row[None], lengths=length[None])
        return y[0], map_state(lambda t: t[0], state)

    equal(vmap(one)(x, lengths), layer(x, lengths=lengths))


def test_lengths_of_any_integer_dtype_and_memory_layout():
    layer = mixed()
    x = torch.randn(4, 3, 3, dtype=F64).transpose(0, 1)
    expected = layer(x.contiguous(), lengths=torch.tensor([4, 0, 2]))
    for dtype in (torch.int8, torch.uint8, torch.int32, torch.uint16, torch.uint64):
        equal(layer(x, lengths=torch.tensor([4, 0, 2], dtype=dtype)), expected)


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("given", [None, [4, 0]])
def test_compiled(given):
    torch._dynamo.reset()
    layer = mixed(torch.float32)
    compiled = torch.compile(layer, backend="aot_eager")
    x, state = torch.randn(2, 4, 3), random_state(layer, 2)
    lengths = None if given is None else torch.tensor(given)
    results = []
    for run in (layer, compiled):
        y, after = run(x, state, lengths)
        loss = y.square().sum() + sum(t.sum() for t in tensors(after))
        gradients = torch.autograd.grad(loss, list(layer.parameters()))
        results.append([y, *tensors(after), *gradients])
    for mine, theirs in zip(*results, strict=True):
        same(mine, theirs, 1e-6)


@pytest.mark.compile
def test_reversal_compiles_to_one_graph():
    torch._dynamo.reset()
    compiled = torch.compile(reverse_rows, backend="aot_eager", fullgraph=True)
    x, lengths = torch.randn(3, 5, 2), torch.tensor([5, 0, 2])
    assert torch.equal(compiled(x, lengths), reverse_rows(x, lengths))


@pytest.mark.compile
def test_export_with_lengths():
    class Program(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = mixed(torch.float32)

        def forward(self, x, lengths):
            return self.layer(x, None, lengths)

    program, x = Program(), torch.randn(3, 4, 3)
    exported = torch.export.export(program, (x, torch.tensor([4, 4, 1]))).module()
    for given in ([0, 3, 4], [1, 1, 1]):
        lengths = torch.tensor(given)
        equal(exported(x, lengths), program(x, lengths), 1e-6)


def test_on_a_device(device):
    layer = mixed().to(device)
    x, lengths = torch.randn(3, 6, 3, dtype=F64), torch.tensor([6, 0, 4])
    expected = copy.deepcopy(layer).cpu()(x, lengths=lengths)
    y, state = layer(x.to(device), lengths=lengths)
    equal((y.cpu(), map_state(torch.Tensor.cpu, state)), expected, 1e-10)


# The reversal.


def test_reversal_by_hand():
    x = torch.arange(10.0).view(2, 5)
    got = reverse_rows(x, torch.tensor([3, 5]))
    assert got.tolist() == [[2, 1, 0, 3, 4], [9, 8, 7, 6, 5]]
    assert reverse_rows(x).tolist() == [[4, 3, 2, 1, 0], [9, 8, 7, 6, 5]]
    assert torch.equal(reverse_rows(got, torch.tensor([3, 5])), x)


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 2), (3, 4, 2, 5), (3, 0, 2)])
def test_reversal_is_its_own_inverse_and_its_own_gradient(shape):
    x = torch.randn(shape, dtype=F64, requires_grad=True)
    lengths = torch.tensor([min(n, shape[1]) for n in (0, 3, 4)])
    turned = reverse_rows(x, lengths)
    assert torch.equal(reverse_rows(turned, lengths), x)
    upstream = torch.randn_like(turned)
    (gradient,) = torch.autograd.grad(turned, x, upstream)
    assert torch.equal(gradient, reverse_rows(upstream, lengths))


# What is refused.


@pytest.mark.errors
def test_no_step():
    message = r"^Bidirectional\.step: a bidirectional layer has no step, since its back"
    layer, x = build(), torch.randn(2, 4, 3, dtype=F64)
    with pytest.raises(TypeError, match=message):
        layer.step(x[:, 0], layer.initial_state(2))
    for time in (4, 0):
        with pytest.raises(TypeError, match=message):
            scan(layer, x[:, :time])
        with pytest.raises(TypeError, match=message):
            scan(layer, x[:, :time], lengths=torch.tensor([0, time]))


@pytest.mark.errors
def test_the_contract_of_causal_layers_refuses_it():
    message = (
        r"^check_sequence_layer: `layer` must be causal, and Bidirectional declares "
        r"causal = False: its outputs depend on later inputs$"
    )
    with pytest.raises(TypeError, match=message):
        check_sequence_layer(build(), torch.randn(2, 4, 3))


@pytest.mark.errors
def test_the_language_model_refuses_it():
    with pytest.raises(TypeError, match="`layer` must be causal, and Bidirectional"):
        LanguageModel(7, build(dtype=torch.float32))


@pytest.mark.errors
@pytest.mark.parametrize(
    ("pair", "error", "message"),
    [
        (
            lambda: (seqref.LSTM(3, 5), seqref.RNN(4, 5)),
            ValueError,
            r"`forward_layer` and `backward_layer` must have one input_size, got LSTM "
            r"with 3 and RNN with 4$",
        ),
        (
            lambda: (nn.LSTM(3, 5), seqref.LSTM(3, 5)),
            TypeError,
            r"`forward_layer` must be a layer with `initial_state` and `step`, such as "
            r"seqref\.LSTM, got torch\.nn\.modules\.rnn\.LSTM$",
        ),
        (
            lambda: (seqref.LSTM(3, 5), seqref.LSTMCell(3, 5)),
            TypeError,
            r"`backward_layer` must be a layer .*, got seqref\.recurrent\.lstm\.LSTM"
            r"Cell$",
        ),
        (
            lambda: (seqref.LSTM, seqref.LSTM),
            TypeError,
            r"`forward_layer` must be a la",
        ),
    ],
)
def test_bad_layers(pair, error, message):
    with pytest.raises(error, match="^Bidirectional: " + message):
        Bidirectional(*pair())


@pytest.mark.errors
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0],), TypeError, r"`x` must be a torch\.Tensor, got list"),
        (
            (torch.zeros(2, 4, 5),),
            ValueError,
            r"`x` must have shape \(batch, time, input_size=3\), got \(2, 4, 5\)",
        ),
        (
            (torch.zeros(2, 3),),
            ValueError,
            r"`x` must have shape \(batch, time, input_size=3\), got \(2, 3\)",
        ),
        (
            (torch.zeros(2, 4, 3), (1, 2)),
            TypeError,
            r"`state` must be BidirectionalState\(forward, backward\), got tuple "
            r"\(pass BidirectionalState\(forward, backward\)\)",
        ),
        (
            (torch.zeros(2, 4, 3), None, torch.tensor([5, 1])),
            ValueError,
            r"`lengths` must be at most time=4, got 5",
        ),
        (
            (torch.zeros(2, 4, 3), None, torch.tensor([1.0, 1.0])),
            TypeError,
            r"`lengths` must have an integer dtype",
        ),
        (
            (torch.zeros(2, 4, 3), None, torch.tensor([-1, 1])),
            ValueError,
            r"`lengths` must be at least 0, got -1",
        ),
        (
            (torch.zeros(2, 4, 3), None, torch.tensor([1])),
            ValueError,
            r"`lengths` must have shape \(batch=2,\), got \(1,\)",
        ),
    ],
)
def test_bad_arguments(arguments, error, message):
    layer = build(dtype=torch.float32)
    with pytest.raises(error, match=r"^Bidirectional\.forward: " + message):
        layer(*arguments)


@pytest.mark.errors
def test_bad_states_are_named_by_the_layer_that_meets_them():
    layer = mixed(torch.float32)
    state = layer.initial_state(2)
    swapped = BidirectionalState(state.backward, state.forward)
    with pytest.raises(TypeError, match=r"^LSTM\.forward: `state` must be LSTMState"):
        layer(torch.zeros(2, 4, 3), swapped)
    with pytest.raises(ValueError, match=r"^LSTM\.forward: `state\.h` must have shape"):
        layer(torch.zeros(2, 4, 3), layer.initial_state(3))


@pytest.mark.errors
def test_layers_that_were_moved_apart():
    layer = build(dtype=torch.float32)
    layer.backward_layer.double()
    message = (
        r"^Bidirectional\.forward: both layers must be on one device and of one dtype, "
        r"got `forward_layer` on cpu with torch\.float32 and `backward_layer` on cpu "
        r"with torch\.float64$"
    )
    with pytest.raises(ValueError, match=message):
        layer(torch.zeros(2, 4, 3))
    layer.double()
    layer.forward_layer.to("meta")
    with pytest.raises(
        ValueError, match=r"`forward_layer` on meta with torch\.float64"
    ):
        layer(torch.zeros(2, 4, 3, dtype=F64))


# Layers of other makers.


class Sum(nn.Module):
    """A causal layer without parameters, sizes or lengths: running sums."""

    def initial_state(self, batch_size):
        return (torch.zeros(batch_size, 3, dtype=F64),)

    def step(self, x_t, state):
        return x_t + state[0], (x_t + state[0],)

    def forward(self, x, state=None):
        before = state[0] if state is not None else x.new_zeros(x.shape[0], x.shape[2])
        y = x.cumsum(1) + before[:, None]
        return y, (before + x.sum(1),)


def test_any_layer_of_the_protocol():
    x = torch.randn(2, 4, 3, dtype=F64)
    layer = Bidirectional(Sum(), Sum())
    assert (layer.input_size, layer.output_size) == (None, None)
    y, state = layer(x)
    same(y[..., :3], x.cumsum(1))
    same(y[..., 3:], x.flip(1).cumsum(1).flip(1))
    same(state.forward[0], x.sum(1))
    equal((y, state), layer(x, layer.initial_state(2)))
    half = Bidirectional(Sum(), seqref.RNN(3, 5, dtype=F64))
    assert (half.input_size, half.output_size) == (3, None)
    assert half(x)[0].shape == (2, 4, 8)


@pytest.mark.errors
def test_what_layers_of_other_makers_refuse():
    layer = Bidirectional(Sum(), Sum())
    x = torch.randn(2, 4, 3, dtype=F64)
    with pytest.raises(TypeError, match="takes from 2 to 3 positional arguments"):
        layer(x, None, torch.tensor([4, 2]))
    with pytest.raises(
        ValueError, match=r"`x` must have shape \(batch, time, \.\.\.\)"
    ):
        layer(x[0, 0])


@pytest.mark.parametrize("given", [None, [2, 6, 1, 4]])
def test_two_on_top_of_each_other_equal_two_layers_of_torch(given):
    judge = nn.LSTM(3, 5, num_layers=2, bidirectional=True, batch_first=True, dtype=F64)
    lower, upper = build("lstm"), build("lstm", input_size=10)
    for i, layer in enumerate((lower, upper)):
        for part, suffix in (
            (layer.forward_layer, f"_l{i}"),
            (layer.backward_layer, f"_l{i}_reverse"),
        ):
            own = {n: v for n, v in judge.state_dict().items() if n.endswith(suffix)}
            renamed = {n.removesuffix(suffix): v for n, v in own.items()}
            part.cell.load_state_dict(renamed)
    x = torch.randn(4, 6, 3, dtype=F64)
    lengths = None if given is None else torch.tensor(given)
    middle, first = lower(x, lengths=lengths)
    y, second = upper(middle, lengths=lengths)
    inputs = x
    if given is not None:
        inputs = pack_padded_sequence(x, lengths, True, enforce_sorted=False)
    y_judge, (h_n, c_n) = judge(inputs)
    if given is not None:
        y_judge, _ = pad_packed_sequence(y_judge, batch_first=True, total_length=6)
    same(y, y_judge)
    # torch's order: layer by layer, forward before backward.
    own = [first.forward, first.backward, second.forward, second.backward]
    same(torch.stack([s.h for s in own]), h_n)
    same(torch.stack([s.c for s in own]), c_n)


@pytest.mark.errors
@pytest.mark.parametrize("strict", [True, False])
def test_weights_of_a_torch_layer_are_refused_with_the_mend(strict):
    layer, judge = build("lstm"), nn.LSTM(3, 5, bidirectional=True, dtype=F64)
    weights = judge.state_dict()
    message = (
        r"^Bidirectional\.load_state_dict: these are the weights of a torch\.nn layer, "
        r".* seqref\.interop\.from_torch\(module\)$"
    )
    with pytest.raises(RuntimeError, match=message):
        layer.load_state_dict(weights, strict=strict)
    model = nn.ModuleDict({"rnn": layer})
    with pytest.raises(RuntimeError, match=message):
        model.load_state_dict({f"rnn.{n}": v for n, v in weights.items()})
    made = seqref.interop.from_torch(judge)
    layer.load_state_dict(made.state_dict())
    x = torch.randn(2, 6, 3, dtype=F64)
    same(layer(x)[0].transpose(0, 1), judge(x.transpose(0, 1))[0])
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) .*"backward_layer\.cell'):
        layer.load_state_dict(
            {n: v for n, v in layer.state_dict().items() if "ba" not in n}
        )


def test_a_strict_load_refuses_a_weight_that_has_no_place():
    layer = build("lstm")
    weights = layer.state_dict() | {"stray": torch.zeros(1)}
    with pytest.raises(
        RuntimeError, match=r'Unexpected key\(s\) in state_dict: "stray"'
    ):
        layer.load_state_dict(weights)


class Odd(Sum):
    """Sizes that are no numbers, or that differ from one another."""

    def __init__(self, **sizes):
        super().__init__()
        for name, size in sizes.items():
            setattr(self, name, size)


@pytest.mark.parametrize(
    ("layer", "input_size", "width"),
    [
        (Odd(input_size=3, hidden_size=3), 3, 3),
        (Odd(input_size="three", hidden_size="three"), None, None),
        # An output can be narrower than the state behind it.
        (Odd(input_size=3, hidden_size=9, output_size=3), 3, 3),
    ],
)
def test_the_widths_are_what_the_layers_tell(layer, input_size, width):
    pair = Bidirectional(layer, layer)
    assert pair.input_size == input_size
    assert pair.output_size == (None if width is None else 2 * width)
    # One layer that tells is enough for the input; the first has the first word.
    assert Bidirectional(Odd(), layer).input_size == input_size
    assert Bidirectional(layer, Odd()).input_size == input_size
    assert Bidirectional(layer, Odd()).output_size is None


def test_where_no_width_is_known_two_axes_are_enough():
    class Steps(Sum):
        def initial_state(self, batch_size):
            return (torch.zeros(batch_size, dtype=F64),)

        def forward(self, x, state=None):
            return x.cumsum(1)[..., None], (x.sum(1),)

    x = torch.randn(2, 4, dtype=F64)
    y, _ = Bidirectional(Steps(), Steps())(x)
    same(y, torch.stack([x.cumsum(1), x.flip(1).cumsum(1).flip(1)], -1))


@pytest.mark.errors
def test_what_is_no_tensor_is_refused_also_where_no_width_is_known():
    with pytest.raises(TypeError, match=r"`x` must be a torch\.Tensor, got list"):
        Bidirectional(Sum(), Sum())([1.0])
