"""The adjoints beside autograd, and the chunks of truncated BPTT."""

import math

import pytest
import torch
from torch import nn

import seqref
from seqref.ops.fused_recurrence import parallel
from seqref.recurrence import detach_state, scan
from seqref.recurrent import bptt
from seqref.recurrent.bptt import truncated_chunks

F64 = torch.float64
LAYERS = {
    "rnn": seqref.RNN,
    "gru": seqref.GRU,
    "cho_gru": seqref.ChoGRU,
    "lstm": seqref.LSTM,
}


def case(name, *, bias=True, time=7):
    """A layer, an input, a state, and gradients at every output and final state."""
    layer = LAYERS[name](3, 5, bias=bias, dtype=F64)
    x = torch.randn(2, time, 3, dtype=F64, requires_grad=True)
    state = layer.initial_state(2)
    state = state._make(torch.randn_like(s).requires_grad_() for s in state)
    upstream = [torch.randn(2, time, 5, dtype=F64), *map(torch.randn_like, state)]
    return layer, x, state, upstream


def by_hand(name, layer, x, state, upstream):
    """The adjoint's gradients by name; time stands first there."""
    weights = layer.cell.weights
    y_bar, *end_bars = upstream
    with torch.no_grad():
        saved = getattr(parallel, f"{name}_forward")(x.transpose(0, 1), *state, weights)
        backward = getattr(bptt, f"{name}_backward")
        gradients = backward(saved, weights, y_bar.transpose(0, 1), *end_bars)
    return gradients._asdict() | {"x": gradients.x.transpose(0, 1)}


@pytest.mark.parametrize("time", [1, 7])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_adjoint_is_autograd_through_the_loop(name, bias, time):
    layer, x, state, upstream = case(name, bias=bias, time=time)
    y, final = scan(layer, x, state)
    wanted = {"x": x, "h_0": state.h, **dict(layer.cell.named_parameters())}
    if name == "lstm":
        wanted["c_0"] = state.c
    expected = torch.autograd.grad([y, *final], list(wanted.values()), upstream)
    gradients = by_hand(name, layer, x, state, upstream)
    for key, autograd in zip(wanted, expected, strict=True):
        assert autograd.abs().min() > 0, key
        torch.testing.assert_close(gradients[key], autograd, atol=1e-10, rtol=1e-10)
    if not bias:
        assert not any(key.startswith("bias") for key in wanted)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_adjoint_is_the_gradient_of_torch(kind):
    name = kind.lower()
    layer, x, state, upstream = case(name)
    judge = getattr(nn, kind)(3, 5, batch_first=True, dtype=F64)
    judge.load_state_dict({f"{n}_l0": v for n, v in layer.cell.state_dict().items()})
    start = [s[None] for s in state]
    y, ends = judge(x, tuple(start) if kind == "LSTM" else start[0])
    ends = ends if isinstance(ends, tuple) else (ends,)
    outputs = [y, *(end[0] for end in ends)]
    inputs = [x, state.h, *judge.parameters()]
    expected = torch.autograd.grad(outputs, inputs, upstream)
    gradients = by_hand(name, layer, x, state, upstream)
    names = ["x", "h_0", "weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    for key, judged in zip(names, expected, strict=True):
        torch.testing.assert_close(gradients[key], judged, atol=1e-10, rtol=1e-10)


def test_the_adjoints_are_those_of_the_op():
    for name in LAYERS:
        op = getattr(parallel, f"{name}_backward")
        assert getattr(bptt, f"{name}_backward") is op


@pytest.mark.parametrize(("time", "size"), [(12, 4), (13, 4), (3, 4), (4, 4), (5, 1)])
def test_chunks_are_views_that_cover_the_sequence(time, size):
    x = torch.randn(2, time, 3)
    chunks = truncated_chunks(x, size)
    assert len(chunks) == math.ceil(time / size)
    assert [c.x.shape[1] for c in chunks[:-1]] == [size] * (len(chunks) - 1)
    assert torch.equal(torch.cat([c.x for c in chunks], dim=1), x)
    assert all(c.lengths is None for c in chunks)
    for index, chunk in enumerate(chunks):
        assert chunk.x.data_ptr() == x[:, index * size].data_ptr()


@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.bfloat16])
def test_targets_of_any_rank_and_dtype(shape, dtype):
    x = torch.ones(shape).to(dtype)
    chunks = truncated_chunks(x, 4)
    assert [tuple(c.x.shape) for c in chunks] == [
        (2, 4, *shape[2:]),
        (2, 2, *shape[2:]),
    ]
    assert all(c.x.dtype == dtype for c in chunks)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_lengths_count_the_real_steps_of_each_chunk(dtype):
    lengths = torch.tensor([0, 1, 4, 5, 10], dtype=dtype)
    before = lengths.clone()
    chunks = truncated_chunks(torch.zeros(5, 10, 1), 4, lengths)
    assert [c.lengths.tolist() for c in chunks] == [
        [0, 1, 4, 4, 4],
        [0, 0, 0, 1, 4],
        [0, 0, 0, 0, 2],
    ]
    assert all(c.lengths.dtype == torch.int64 for c in chunks)
    assert torch.equal(lengths, before)


def test_no_time_gives_no_chunk():
    assert truncated_chunks(torch.zeros(2, 0, 3), 4) == []
    none = truncated_chunks(torch.zeros(2, 0, 3), 4, torch.tensor([0, 0]))
    assert none == []
    (only,) = truncated_chunks(torch.zeros(0, 3, 1), 4, torch.zeros(0, dtype=int))
    assert only.x.shape == (0, 3, 1)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("size", [1, 3, 7, 9])
def test_chunks_with_their_graph_are_the_whole(name, size):
    layer, x, start, upstream = case(name)
    lengths = torch.tensor([7, 4])
    padded = x.detach().clone()
    padded[1, 4:] = torch.nan

    def gradients(parts):
        state, outputs, leaf = start, [], padded.clone().requires_grad_()
        for chunk, real in truncated_chunks(leaf, parts, lengths):
            y, state = layer(chunk, state, real)
            outputs.append(y)
        results = [torch.cat(outputs, dim=1), *state]
        inputs = [leaf, *start, *layer.parameters()]
        return [*results, *torch.autograd.grad(results, inputs, upstream)]

    for part, whole in zip(gradients(size), gradients(7), strict=True):
        assert not part.isnan().any()
        torch.testing.assert_close(part, whole, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("size", [1, 2, 5, 7])
def test_a_cut_graph_ends_at_the_first_step_of_the_chunk(size):
    layer, x, start, _ = case("lstm")
    state, outputs = start, []
    for chunk, _ in truncated_chunks(x, size):
        y, state = layer(chunk, detach_state(state))
        outputs.append(y)
    whole, final = layer(x, start)
    outputs = torch.cat(outputs, dim=1)
    torch.testing.assert_close(outputs, whole, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(tuple(state), tuple(final), atol=1e-12, rtol=1e-12)
    for t in range(7):
        (grad,) = torch.autograd.grad(outputs[:, t].sum(), x, retain_graph=True)
        reached = grad.abs().sum((0, 2)) > 0
        first = t - t % size
        assert reached.tolist() == [first <= s <= t for s in range(7)]


def test_a_row_that_has_ended_keeps_its_state():
    layer, x, start, _ = case("gru")
    lengths = torch.tensor([7, 2])
    state = start
    for chunk, real in truncated_chunks(x, 3, lengths):
        _, state = layer(chunk, state, real)
    _, alone = layer(x[1:, :2], seqref.GRUState(start.h[1:]))
    torch.testing.assert_close(state.h[1:], alone.h, atol=1e-12, rtol=1e-12)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (([1, 2], 3), TypeError, r"`x` must be a torch.Tensor, got list"),
        (
            (torch.zeros(3), 3),
            ValueError,
            r"`x` must have shape \(batch, time, \.\.\.\), got \(3,\)",
        ),
        ((torch.zeros(2, 3), 0), ValueError, r"`size` must be at least 1, got 0"),
        ((torch.zeros(2, 3), -1), ValueError, r"`size` must be at least 1, got -1"),
        ((torch.zeros(2, 3), 2.0), TypeError, r"`size` must be an int, got float"),
        ((torch.zeros(2, 3), True), TypeError, r"`size` must be an int, got bool"),
        (
            (torch.zeros(2, 3), 2, [3, 3]),
            TypeError,
            r"`lengths` must be a tensor of integers",
        ),
        (
            (torch.zeros(2, 3), 2, torch.tensor([3.0, 3.0])),
            TypeError,
            r"`lengths` must have an integer dtype",
        ),
        (
            (torch.zeros(2, 3), 2, torch.tensor([3, 4])),
            ValueError,
            r"`lengths` must be at most time=3, got 4",
        ),
        (
            (torch.zeros(2, 3), 2, torch.tensor([3])),
            ValueError,
            r"`lengths` must have shape \(batch=2,\), got \(1,\)",
        ),
    ],
)
def test_bad_arguments_are_named(arguments, kind, message):
    with pytest.raises(kind, match=rf"^truncated_chunks: {message}"):
        truncated_chunks(*arguments)
