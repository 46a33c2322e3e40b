"""What all recurrent cells and layers share: checks, copies, dtypes, transforms."""

import copy
import io
import math
import pickle
import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jacrev, vmap

import seqref
from seqref.recurrence import (
    detach_state,
    map_state,
    output_width,
    reset_rows,
    select_rows,
)
from seqref.recurrent._looped import LoopedLayer
from tests.layers import LAYERS, OF_A_CELL

NAMES = OF_A_CELL
SILENT = [name for name in NAMES if not LAYERS[name].is_noisy]
TORCH_OWN_WARNING = "ignore:The .grad attribute of a Tensor that is not a leaf"


def build(name, **options):
    """In evaluation, where no layer draws a random number."""
    return LAYERS[name](**options).eval()


def cell_of(name):
    """The case of a layer's cell, which takes the same arguments."""
    case = LAYERS[name]
    return replace(case, kind=vars(case.kind)["__init__"].cell_type)


def state_of(layer, batch=2):
    return map_state(torch.randn_like, layer.initial_state(batch))


def width(layer, field):
    """The width of a field of the state, by what it stands for."""
    widths = {"h": output_width(layer), "mask_x": layer.input_size}
    return widths.get(field, layer.hidden_size)


def weight_of_past(module):
    """The matrix of the state, or that of the input where there is none."""
    return "weight_hh" if hasattr(module, "weight_hh") else "weight_ih"


def equal(one, other, tolerance=1e-6):
    """Compare pairs of output and state."""
    for mine, theirs in zip((one[0], *one[1]), (other[0], *other[1]), strict=True):
        torch.testing.assert_close(mine, theirs, atol=tolerance, rtol=tolerance)


# Parameters.


@pytest.mark.parametrize("hidden", [1, 4, 400])
@pytest.mark.parametrize("name", NAMES)
def test_initialisation_is_uniform_within_its_bound(name, hidden):
    case = cell_of(name)
    hidden = max(
        hidden, case.kind.least_hidden_size, 2 * ("proj_size" in case.arguments)
    )
    cell = case(300, hidden)
    sums_over = hidden if hasattr(cell, "weight_hh") else 300
    bound = 1 / math.sqrt(sums_over)
    for key, parameter in cell.named_parameters():
        assert parameter.requires_grad
        if key.startswith("norm"):
            assert torch.equal(parameter, torch.full_like(parameter, "weight" in key))
        else:
            # A vector that multiplies the state stands for itself, not for a sum.
            alone = key == "weight_hh" and parameter.dim() == 1
            assert parameter.abs().max() <= (1 if alone else bound)
    drawn = cell.weight_ih.detach() / bound
    assert drawn.max() > 0.95
    assert drawn.min() < -0.95
    # A uniform law on (-1, 1) has the standard deviation 1/√3.
    assert abs(drawn.std() - 1 / math.sqrt(3)) < 0.05
    assert abs(drawn.mean()) < 0.1


@pytest.mark.parametrize("name", NAMES)
def test_reset_draws_anew_and_seeds_repeat(name):
    torch.manual_seed(3)
    layer = build(name)
    first = copy.deepcopy(layer.state_dict())
    torch.manual_seed(3)
    again = build(name).state_dict()
    layer.cell.reset_parameters()
    shared = [f"cell.{n}" for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    if layer.cell.bias_ih is None:
        shared = shared[:2]
    if not hasattr(layer.cell, "weight_hh"):
        shared = shared[::2]
    assert list(again)[: len(shared)] == shared
    for key, value in first.items():
        assert torch.equal(value, again[key])
        if "norm" not in key:
            assert not torch.equal(value, layer.state_dict()[key])


@pytest.mark.parametrize("name", NAMES)
def test_sizes_weights_and_factory_options(name):
    layer = build(name, bias=False, dtype=torch.float64, device="meta")
    assert (layer.input_size, layer.hidden_size, layer.bias) == (3, 5, False)
    assert build(name).bias is True
    weight_ih, bias_ih = layer.cell.weight_ih, layer.cell.bias_ih
    if hasattr(layer.cell, "weight_hh"):
        expected = weight_ih, layer.cell.weight_hh, bias_ih, layer.cell.bias_hh
        assert all(a is b for a, b in zip(layer.cell.weights, expected, strict=True))
        assert layer.cell.bias_hh is None
    assert bias_ih is None
    assert weight_ih.dtype == torch.float64
    assert weight_ih.device.type == "meta"
    state = layer.initial_state(4)
    assert all(t.device.type == "meta" and t.dtype == torch.float64 for t in state)
    for field, value in state._asdict().items():
        assert value.shape == (4, width(layer, field))
    for field, value in layer.cell.initial_state(0)._asdict().items():
        assert value.shape == (0, width(layer, field))


@pytest.mark.parametrize("name", NAMES)
def test_initial_states_do_not_share_memory(name):
    layer = build(name)
    for make in (layer.initial_state, layer.cell.initial_state):
        one, two = make(2), make(2)
        assert isinstance(one, layer.cell.state_type)
        tensors = [*one, *two]
        assert len({t.data_ptr() for t in tensors}) == len(tensors)
        for field, value in one._asdict().items():
            # A mask is one where it leaves all as it is.
            assert torch.equal(value, torch.full_like(value, field.startswith("mask")))


# Copies.


@pytest.mark.parametrize("name", NAMES)
def test_copies(name):
    layer = build(name)
    x, state = torch.randn(2, 4, 3), state_of(layer)
    expected = layer(x, state)
    stored = io.BytesIO()
    torch.save(layer.state_dict(), stored)
    stored.seek(0)
    loaded = build(name)
    loaded.load_state_dict(torch.load(stored, weights_only=True), strict=True)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded):
        equal(other(x, state), expected, 0)
        with torch.no_grad():
            getattr(other.cell, weight_of_past(other.cell)).add_(1)
        equal(layer(x, state), expected, 0)
    again = pickle.loads(pickle.dumps(state))
    assert type(again) is type(state)
    assert all(torch.equal(a, b) for a, b in zip(again, state, strict=True))


@pytest.mark.parametrize("name", SILENT)
def test_training_mode_changes_nothing(name):
    layer = build(name)
    x = torch.randn(2, 4, 3, requires_grad=True)
    results = []
    for mode in (True, False):
        layer.train(mode)
        y, _ = layer(x)
        gradients = torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])
        results.append([y, *gradients])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, atol=0, rtol=0)


# Kinds of numbers, memory and modes.


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_dtypes(name, dtype):
    layer = build(name, dtype=dtype)
    exact = copy.deepcopy(layer).double()
    x = torch.randn(2, 4, 3).to(dtype)
    tolerance = max(1e-12, 20 * torch.finfo(dtype).eps)
    y, state = layer(x)
    assert y.dtype == dtype
    assert all(t.dtype == dtype for t in state)
    y_exact, _ = exact(x.double())
    torch.testing.assert_close(y.double(), y_exact, atol=tolerance, rtol=tolerance)
    y_t, after = layer.step(x[:, 0], layer.initial_state(2))
    assert {y_t.dtype, *(t.dtype for t in after)} == {dtype}


@pytest.mark.parametrize("name", NAMES)
def test_autocast(name):
    layer = build(name)
    x, state = torch.randn(2, 4, 3), state_of(layer)
    expected = layer(x, state)
    expected_step = layer.step(x[:, 0], state)
    with torch.autocast("cpu", torch.bfloat16):
        got = layer(x, state)
        mixed = layer(x.bfloat16(), state)
        got_step = layer.step(x[:, 0].bfloat16(), state)
        got_cell = layer.cell(x[:, 0], state)
    for result in (got, mixed, got_step, got_cell):
        assert result[0].dtype == torch.float32
        assert all(t.dtype == torch.float32 for t in result[1])
    equal(got, expected, 0.05)
    equal(mixed, expected, 0.05)
    equal(got_step, expected_step, 0.05)
    equal(got_cell, expected_step, 0.05)
    assert (got[0] - expected[0]).abs().max() > 0


@pytest.mark.errors
@pytest.mark.parametrize("name", NAMES)
def test_autocast_does_not_convert_float64(name):
    layer, x = build(name), torch.randn(2, 4, 3)
    method = rf"^{type(layer).__name__}\."
    message = r"`x(_t)?` must have the parameters' dtype torch\.float32, got .*float64$"
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(ValueError, match=method + "forward: " + message):
            layer(x.double())
        with pytest.raises(ValueError, match=method + "step: " + message):
            layer.step(x[:, 0].double(), layer.initial_state(2))
        with pytest.raises(ValueError, match=r"dtype torch\.float64, got .*float32$"):
            layer.double()(x)


@pytest.mark.parametrize("name", NAMES)
def test_lengths_that_cannot_be_read(name):
    layer, x = build(name), torch.randn(3, 4, 3)
    lengths = torch.tensor([0, 3, 4])
    expected = layer(x, lengths=lengths)

    def one(row, length):
        y, state = layer(row[None], lengths=length[None])
        return y[0], map_state(lambda t: t[0], state)

    equal(vmap(one)(x, lengths), expected)
    layer, there = layer.to("meta"), x.to("meta")
    y, state = layer(there, lengths=lengths.to("meta"))
    assert y.shape == expected[0].shape
    assert [t.shape for t in state] == [t.shape for t in expected[1]]


@pytest.mark.compile
@pytest.mark.parametrize("name", NAMES)
def test_export_with_lengths(name):
    class Program(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = build(name)

        def forward(self, x, lengths):
            return self.layer(x, None, lengths)

    program, x = Program(), torch.randn(3, 4, 3)
    exported = torch.export.export(program, (x, torch.tensor([4, 4, 1]))).module()
    for given in ([0, 3, 4], [1, 1, 1]):
        lengths = torch.tensor(given)
        equal(exported(x, lengths), program(x, lengths))


@pytest.mark.parametrize("name", NAMES)
def test_memory_layouts(name):
    layer = build(name)
    x = torch.randn(4, 2, 3).transpose(0, 1)
    state = map_state(lambda t: t[:1].expand(2, -1), state_of(layer))
    copied = map_state(torch.Tensor.contiguous, state)
    for given in (None, torch.tensor([3, 1], dtype=torch.int16)):
        equal(layer(x, state, given), layer(x.contiguous(), copied, given))
        wide = x[:, :, :1].expand(-1, -1, 3)
        equal(layer(wide, state, given), layer(wide.contiguous(), copied, given))
    equal(layer.step(x[:, 0], state), layer.step(x[:, 0].contiguous(), copied))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_do(name):
    layer = build(name)
    state = state_of(layer)
    y, after = layer(torch.zeros(2, 0, 3), state, torch.tensor([0, 0]))
    assert y.shape == (2, 0, output_width(layer))
    assert all(torch.equal(a, b) for a, b in zip(after, state, strict=True))
    y, after = layer(torch.zeros(0, 4, 3), lengths=torch.zeros(0, dtype=torch.int64))
    assert y.shape == (0, 4, output_width(layer))
    y_t, after = layer.step(torch.zeros(0, 3))
    assert y_t.shape == after[0].shape == (0, output_width(layer))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", NAMES)
def test_without_gradients(name, mode):
    layer = build(name)
    x = torch.randn(2, 4, 3)
    expected = layer(x)
    with mode():
        got = layer(x)
        streamed = layer.step(x[:, 0])
    assert not got[0].requires_grad
    assert not streamed[0].requires_grad
    equal(got, expected)


@pytest.mark.parametrize("name", NAMES)
def test_truncated_backpropagation_and_streams(name):
    """The helpers of `recurrence` on real states: cut, reorder, start anew."""
    layer = build(name)
    x = torch.randn(2, 8, 3)
    _, state = layer(x[:, :4])
    y, _ = layer(x[:, 4:], detach_state(state))
    assert not any(t.requires_grad for t in detach_state(state))
    equal((y, ()), (layer(x)[0][:, 4:], ()))
    swapped = select_rows(state, torch.tensor([1, 0]))
    equal((layer(x[:, 4:].flip(0), swapped)[0], ()), (y.flip(0), ()))
    fresh = layer.initial_state(2)
    mixed = reset_rows(state, fresh, torch.tensor([False, True]))
    y_mixed, _ = layer(x[:, 4:], mixed)
    equal((y_mixed[0], ()), (y[0], ()))
    equal((y_mixed[1], ()), (layer(x[:, 4:], fresh)[0][1], ()))


# Transforms.


@pytest.mark.parametrize("name", NAMES)
def test_torch_func_over_parameters(name):
    layer = build(name, dtype=torch.float64)
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    parameters = {n: p.detach() for n, p in layer.named_parameters()}
    stacked = {n: torch.stack([p, 2 * p]) for n, p in parameters.items()}

    def run(parameters):
        return functional_call(layer, parameters, (x,))[0]

    both = vmap(run)(stacked)
    torch.testing.assert_close(both[0], run(parameters))
    twice = {n: 2 * p for n, p in parameters.items()}
    torch.testing.assert_close(both[1], run(twice))
    gradients = grad(lambda p: run(p).square().sum())(parameters)
    expected = torch.autograd.grad(layer(x)[0].square().sum(), layer.parameters())
    for mine, theirs in zip(gradients.values(), expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    weight = weight_of_past(layer.cell)
    jacobian = jacrev(run)(parameters)[f"cell.{weight}"]
    upstream = torch.randn_like(both[0])
    (by_vjp,) = torch.autograd.grad(layer(x)[0], getattr(layer.cell, weight), upstream)
    torch.testing.assert_close(torch.tensordot(upstream, jacobian, 3), by_vjp)


@pytest.mark.parametrize("name", NAMES)
def test_torch_func_over_a_step(name):
    layer = build(name, dtype=torch.float64)
    x_t = torch.randn(4, 3, dtype=torch.float64)
    state = state_of(layer, 4)

    def one(x_row, state_row):
        y, after = layer.step(x_row[None], map_state(lambda t: t[None], state_row))
        return y[0], map_state(lambda t: t[0], after)

    equal(vmap(one)(x_t, state), layer.step(x_t, state), 1e-14)


@pytest.mark.compile
@pytest.mark.filterwarnings(TORCH_OWN_WARNING)
@pytest.mark.parametrize("name", NAMES)
def test_compiled_step_is_one_graph(name):
    torch._dynamo.reset()
    layer = build(name)
    step = torch.compile(layer.step, backend="aot_eager", fullgraph=True)
    x, state = torch.randn(2, 3), state_of(layer)
    equal(step(x, state), layer.step(x, state))
    equal(step(x, None), layer.step(x, None))


@pytest.mark.compile
@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
@pytest.mark.filterwarnings(TORCH_OWN_WARNING)
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
def test_compiled_step_of_the_default_compiler():
    torch._dynamo.reset()
    layer = build("LSTM")
    step = torch.compile(layer.step, fullgraph=True)
    x, state = torch.randn(2, 3), state_of(layer)
    equal(step(x, state), layer.step(x, state))


@pytest.mark.compile
@pytest.mark.filterwarnings(TORCH_OWN_WARNING)
@pytest.mark.parametrize("name", ["RNN", "LSTM"])
@pytest.mark.parametrize("given", [None, [4, 0]])
def test_compiled_layer(name, given):
    """The kernel stays outside the graph; values and gradients are the same."""
    torch._dynamo.reset()
    layer = build(name)
    compiled = torch.compile(layer, backend="aot_eager")
    x, state = torch.randn(2, 4, 3), state_of(layer)
    lengths = None if given is None else torch.tensor(given)
    results = []
    for run in (layer, compiled):
        y, after = run(x, state, lengths)
        loss = y.square().sum() + sum(t.sum() for t in after)
        results.append([y, *after, *torch.autograd.grad(loss, [*layer.parameters()])])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-6)


@pytest.mark.compile
@pytest.mark.filterwarnings(TORCH_OWN_WARNING)
def test_compiled_layer_checks_lengths():
    torch._dynamo.reset()
    compiled = torch.compile(build("LSTM"), backend="aot_eager")
    message = r"^LSTM\.forward: a value of `lengths` is out of range$"
    for wrong in ([9, 2], [4, -1]):
        with pytest.raises(RuntimeError, match=message):
            compiled(torch.randn(2, 4, 3), None, torch.tensor(wrong))


class Step(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x_t, state):
        return self.layer.step(x_t, state)


class FromNothing(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x, self.layer.initial_state(x.shape[0]))


@pytest.mark.compile
@pytest.mark.parametrize("name", ["RNN", "LSTM"])
def test_export_with_a_dynamic_batch(name):
    layer = build(name)
    kind = layer.cell.state_type
    batch = torch.export.Dim("batch", min=2, max=64)
    fields = kind(*({0: batch} for _ in layer.initial_state(1)))
    arguments = (torch.randn(2, 3), state_of(layer))
    program = torch.export.export(
        Step(layer), arguments, dynamic_shapes=({0: batch}, fields)
    )
    x_t, state = torch.randn(7, 3), state_of(layer, 7)
    got = program.module()(x_t, state)
    equal(got, layer.step(x_t, state))
    assert type(got[1]) is kind


@pytest.mark.compile
@pytest.mark.parametrize("name", ["RNN", "LSTM"])
def test_export_of_a_sequence_from_its_initial_state(name):
    layer = build(name).eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(
        FromNothing(layer), (torch.randn(2, 4, 3),), dynamic_shapes=({0: batch},)
    )
    x = torch.randn(5, 4, 3)
    equal(program.module()(x), layer(x))


# Bad arguments.


@pytest.mark.errors
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        ((0, 5), ValueError, r"`input_size` must be at least 1, got 0$"),
        ((3, -1), ValueError, r"`hidden_size` must be at least [12], got -1$"),
        ((3.0, 5), TypeError, r"`input_size` must be an int, got float$"),
        ((3, True), TypeError, r"`hidden_size` must be an int, got bool$"),
        (("3", 5), TypeError, r"`input_size` must be an int, got str$"),
    ],
)
def test_bad_sizes(name, sizes, error, message):
    # The message names the class that was called, not the one inside it.
    for called in (LAYERS[name], cell_of(name)):
        with pytest.raises(error, match=rf"^{called.kind.__name__}: {message}"):
            called(*sizes)


@pytest.mark.errors
@pytest.mark.parametrize("name", NAMES)
def test_bad_batch_sizes(name):
    layer = build(name)
    for module in (layer, layer.cell):
        where = rf"^{type(module).__name__}\.initial_state: `batch_size` must be "
        with pytest.raises(ValueError, match=where + "at least 0, got -1$"):
            module.initial_state(-1)
        with pytest.raises(TypeError, match=where + "an int, got float$"):
            module.initial_state(2.0)


BAD_INPUTS = [
    (
        torch.zeros(4, 3),
        ValueError,
        r"\(batch, time, input_size=3\), got \(4, 3\) \(one",
    ),
    (torch.zeros(2, 4, 5), ValueError, r"input_size=3\), got \(2, 4, 5\)$"),
    (torch.zeros(1, 2, 4, 3), ValueError, r"got \(1, 2, 4, 3\)$"),
    (
        torch.zeros(2, 4, 3).double(),
        ValueError,
        r"dtype torch\.float32, got .*float64$",
    ),
    (
        torch.zeros(2, 4, 3).long(),
        ValueError,
        r"dtype torch\.float32, got torch\.int64",
    ),
    (torch.zeros(2, 4, 3, device="meta"), ValueError, r"device cpu, got meta$"),
    ([[[0.0]]], TypeError, r"be a torch\.Tensor, got list$"),
]


@pytest.mark.errors
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("x", "error", "message"), BAD_INPUTS)
def test_bad_sequences(name, x, error, message):
    layer = build(name)
    where = rf"^{type(layer).__name__}\.forward: `x` must .*{message}"
    with pytest.raises(error, match=where):
        layer(x)


BAD_STEPS = [
    (torch.zeros(3), ValueError, r"\(batch, input_size=3\), got \(3,\)$"),
    (
        torch.zeros(2, 4, 3),
        ValueError,
        r"\(2, 4, 3\) \(a whole sequence\? call the lay",
    ),
    (torch.zeros(2, 5), ValueError, r"input_size=3\), got \(2, 5\)$"),
    (
        torch.zeros(2, 3).double(),
        ValueError,
        r"dtype torch\.float32, got torch\.float64",
    ),
    (torch.zeros(2, 3, device="meta"), ValueError, r"device cpu, got meta$"),
    (None, TypeError, r"be a torch\.Tensor, got NoneType$"),
]


@pytest.mark.errors
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("x_t", "error", "message"), BAD_STEPS)
def test_bad_steps(name, x_t, error, message):
    layer = build(name)
    for where, step in (
        (f"{type(layer).__name__}.step", layer.step),
        (f"{type(layer.cell).__name__}.forward", layer.cell),
    ):
        with pytest.raises(error, match=rf"^{where}: `x_t` must .*{message}"):
            step(x_t)


BAD_FIELDS = [
    (torch.zeros(3, 5), ValueError, r"shape \(batch=2, \w+_size=\d\), got \(3, 5\)$"),
    (torch.zeros(2, 6), ValueError, r"_size=\d\), got \(2, 6\)$"),
    (torch.zeros(1, 2, 5), ValueError, r"got \(1, 2, 5\)$"),
    (
        torch.zeros(2, 5).double(),
        ValueError,
        r"dtype torch\.float32, got torch\.float64",
    ),
    (torch.zeros(2, 5, device="meta"), ValueError, r"device cpu, got meta$"),
    (0.0, TypeError, r"be a torch\.Tensor, got float$"),
]


@pytest.mark.errors
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("value", "error", "message"), BAD_FIELDS)
def test_bad_states(name, value, error, message):
    layer = build(name)
    for field in layer.initial_state(1)._fields:
        given = value
        if isinstance(value, torch.Tensor) and value.shape == (2, 5):
            given = value[:, : width(layer, field)]
        state = layer.initial_state(2)._replace(**{field: given})
        where = rf": `state\.{field}` must .*{message}"
        kind = type(layer).__name__
        with pytest.raises(error, match=rf"^{kind}\.forward{where}"):
            layer(torch.zeros(2, 4, 3), state)
        with pytest.raises(error, match=rf"^{kind}\.step{where}"):
            layer.step(torch.zeros(2, 3), state)
        with pytest.raises(error, match=rf"^{kind}Cell\.forward{where}"):
            layer.cell(torch.zeros(2, 3), state)


@pytest.mark.errors
def test_state_of_another_layer():
    state = seqref.RNN(3, 5).initial_state(2)
    message = r"^LSTM\.forward: `state` must be LSTMState\(h, c\), got RNNState \(pass"
    with pytest.raises(TypeError, match=message):
        seqref.LSTM(3, 5)(torch.zeros(2, 4, 3), state)


@pytest.mark.errors
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ([1, 2], TypeError, r"a tensor of integers .* got list \(pass torch\.tensor"),
        (torch.tensor([1.0, 2.0]), TypeError, r"an integer dtype, got torch\.float32$"),
        (torch.tensor([True, True]), TypeError, r"an integer dtype, got torch\.bool$"),
        (torch.tensor([1, 2, 3]), ValueError, r"shape \(batch=2,\), got \(3,\)$"),
        (torch.tensor([1, -2]), ValueError, r"be at least 0, got -2$"),
        (torch.tensor([1, 5]), ValueError, r"be at most time=4, got 5$"),
    ],
)
def test_bad_lengths(name, lengths, error, message):
    layer = build(name)
    where = rf"^{type(layer).__name__}\.forward: `lengths` must .*{message}"
    with pytest.raises(error, match=where):
        layer(torch.zeros(2, 4, 3), lengths=lengths)


@pytest.mark.errors
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("judge", [nn.LSTM, nn.RNN])
def test_weights_of_a_torch_layer_are_refused_with_the_mend(judge, strict):
    layer = getattr(seqref, judge.__name__)(3, 5)
    weights = judge(3, 5).state_dict()
    message = (
        rf"^{judge.__name__}\.load_state_dict: these are the weights of a torch\.nn\."
        rf"{judge.__name__}, .* rename: layer\.cell\.load_state_dict\("
    )
    with pytest.raises(RuntimeError, match=message):
        layer.load_state_dict(weights, strict=strict)
    model = nn.ModuleDict({"rnn": layer})
    with pytest.raises(RuntimeError, match=message):
        model.load_state_dict({f"rnn.{n}": v for n, v in weights.items()})
    layer.cell.load_state_dict(
        {key.removesuffix("_l0"): value for key, value in weights.items()}
    )
    assert torch.equal(layer.cell.bias_hh, weights["bias_hh_l0"])


@pytest.mark.errors
@pytest.mark.parametrize("name", NAMES)
def test_state_dicts_are_checked_at_every_level(name):
    layer = build(name)
    good = layer.state_dict()
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) .*"surplus"'):
        layer.load_state_dict({**good, "surplus": torch.zeros(1)})
    lost = f"cell.{weight_of_past(layer.cell)}"
    with pytest.raises(RuntimeError, match=rf'Missing key\(s\) .*"{lost}"'):
        layer.load_state_dict({k: v for k, v in good.items() if k != lost})


# On a GPU, and the same on a CPU.


@pytest.mark.parametrize("name", NAMES)
def test_layers_on_a_device(name, device):
    layer = build(name, device=device, dtype=torch.float64)
    x = torch.randn(2, 4, 3, dtype=torch.float64, device=device)
    from seqref.testing import check_sequence_layer

    assert "padding" in check_sequence_layer(layer, x).checked
    y, _ = layer(x, lengths=torch.tensor([3, 0], device=device))
    assert not y[1].count_nonzero()


@pytest.mark.parametrize("case_of", [LAYERS.get, cell_of])
@pytest.mark.parametrize("name", NAMES)
def test_biases_are_there_unless_refused(name, case_of):
    module = case_of(name)()
    names = {key.rpartition(".")[2] for key, _ in module.named_parameters()}
    norms = any(isinstance(part, nn.LayerNorm) for part in module.modules())
    cell = getattr(module, "cell", module)
    both = {"bias_ih", "bias_hh"} if hasattr(cell, "weight_hh") else {"bias_ih"}
    assert {key for key in names if "bias" in key} == ({"bias"} if norms else both)
    assert {"weight_ih", weight_of_past(cell)} <= names
    without = dict(case_of(name)(bias=False).named_parameters())
    assert not any("bias" in key for key in without)


# torch.jit.trace.

TRACED = {
    **{name: lambda name=name: build(name, dtype=torch.float64) for name in LAYERS},
    "stacked": lambda: seqref.Stacked(
        [seqref.LSTM(3, 5), seqref.GRU(5, 5), seqref.RNN(5, 5)]
    ).double(),
    "residual": lambda: seqref.Stacked([seqref.GRU(3, 3)], residual=True).double(),
    "bidirectional": lambda: seqref.Bidirectional(
        seqref.LSTM(3, 5), seqref.GRU(3, 4)
    ).double(),
}
# Each step is an operation of its own in the trace.
LOOPS = (
    LoopedLayer
    | seqref.ChoGRU
    | seqref.LRU
    | seqref.LTI
    | seqref.Mamba
    | seqref.MinGRU
    | seqref.MinLSTM
)
UNROLLED = [name for name in LAYERS if issubclass(LAYERS[name].kind, LOOPS)]


class Outputs(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, lengths=None):
        y, state = self.layer(x, None, lengths)
        states = []
        map_state(lambda t: states.append(t) or t, state)
        return y, *states


# torch's own: it is deprecated, and checks in Python are no part of a trace.
TRACE_WARNINGS = (
    pytest.mark.filterwarnings("ignore:`torch.jit.trace"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
)


def trace_marks(test):
    for mark in (*TRACE_WARNINGS, pytest.mark.compile):
        test = mark(test)
    return test


@trace_marks
@pytest.mark.parametrize("given", [None, [4, 2]])
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
@pytest.mark.parametrize("name", TRACED)
def test_a_trace_passes_torchs_own_check_and_runs_at_other_sizes(name, mode, given):
    module = Outputs(TRACED[name]())
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    arguments = (x,) if given is None else (x, torch.tensor(given))
    with mode():
        traced = torch.jit.trace(module, arguments)
    times = (4,) if name in UNROLLED else (1, 4, 9)
    for batch, time in ((b, t) for b in (1, 2, 3) for t in times):
        more = torch.randn(batch, time, 3, dtype=torch.float64)
        arguments = (more,)
        if given is not None:
            arguments = more, torch.tensor([time, 0, 1][:batch])
        results = []
        for run in (traced, module):
            y, *ends = run(*arguments)
            loss = y.sin().sum() + sum(t.abs().square().sum() for t in ends)
            grads = torch.autograd.grad(loss, [*run.parameters()])
            results.append([y, *ends, *grads])
        for mine, theirs in zip(*results, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=1e-12)
            assert mine.shape == theirs.shape


@trace_marks
@pytest.mark.parametrize("name", UNROLLED)
def test_a_trace_of_a_loop_refuses_another_time(name):
    module = Outputs(TRACED[name]())
    traced = torch.jit.trace(module, torch.randn(2, 4, 3, dtype=torch.float64))
    for time in (1, 3, 5, 9):
        with pytest.raises(RuntimeError, match=rf"Expected 4 elements .* found {time}"):
            traced(torch.randn(2, time, 3, dtype=torch.float64))


@trace_marks
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_a_trace_under_autocast(name, dtype):
    module, x = Outputs(build(name)), torch.randn(2, 4, 3)
    with torch.autocast("cpu", dtype, cache_enabled=False):
        traced = torch.jit.trace(module, x)
        for mine, theirs in zip(traced(2 * x), module(2 * x), strict=True):
            torch.testing.assert_close(mine, theirs, atol=0.05, rtol=0.05)
