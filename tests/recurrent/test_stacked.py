"""Stacks beside torch.nn's layers, the contract, and what dropout and sums do."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import seqref
import seqref.interop
from seqref import GRU, LSTM, RNN, LSTMState, RNNState, Stacked
from seqref.models.language_model import LanguageModel
from seqref.recurrence import (
    Recurrent,
    detach_state,
    map_state,
    reset_rows,
    scan,
    select_rows,
)
from seqref.recurrent.bidirectional import Bidirectional, BidirectionalState
from seqref.testing import check_sequence_layer

F64 = torch.float64
TORCH_OWN_WARNING = "ignore:The .grad attribute of a Tensor that is not a leaf"


def leaves_of(state):
    """The tensors of nested states, in order."""
    if isinstance(state, torch.Tensor):
        return [state]
    return [tensor for part in state for tensor in leaves_of(part)]


def same(mine, theirs, tolerance=1e-12):
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


STACKS = {
    "one LSTM": lambda **o: Stacked([LSTM(3, 5, **o)]),
    "three RNNs": lambda **o: Stacked([RNN(3, 5, **o), RNN(5, 4, **o), RNN(4, 6, **o)]),
    "mixed": lambda **o: Stacked([LSTM(3, 4, **o), RNN(4, 5, **o)], dropout=0.5).eval(),
    "GRU on LSTM": lambda **o: Stacked([LSTM(3, 4, **o), GRU(4, 5, **o)]),
    "residual": lambda **o: Stacked([LSTM(3, 3, **o), RNN(3, 3, **o)], residual=True),
    "nested": lambda **o: Stacked(
        [LSTM(3, 5, **o), Stacked([LSTM(5, 5, **o), RNN(5, 5, **o)], residual=True)]
    ),
}


def build(name, **options):
    return STACKS[name](**options)


# The contract.


@pytest.mark.parametrize("time", [1, 13])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", STACKS)
def test_contract(name, bias, time):
    report = check_sequence_layer(build(name, bias=bias), torch.randn(2, time, 3))
    assert {"padding", "gradients", "empty"} <= set(report.checked)
    assert set(report.skipped) <= {"causality", "chunks"}


def test_contract_in_float32():
    stack, x = build("mixed"), torch.randn(2, 13, 3)
    report = check_sequence_layer(stack, x, atol=2e-5, rtol=2e-5, dtype=torch.float32)
    assert "gradients" in report.checked


def test_dropout_in_training_is_seen_by_the_contract():
    stack = Stacked([RNN(3, 5), RNN(5, 5)], dropout=0.5).train()
    with pytest.raises(AssertionError, match=r"^determinism: .*layer\.eval\(\) first"):
        check_sequence_layer(stack, torch.randn(2, 13, 3))
    assert check_sequence_layer(stack.eval(), torch.randn(2, 13, 3)).checked


# Judges.


def from_judge(kind, n_layers, bias=True, dropout=0.0):
    judge = getattr(nn, kind)(
        3, 5, n_layers, bias=bias, batch_first=True, dropout=dropout, dtype=F64
    )
    ours = getattr(seqref, kind)
    layers = [
        ours(3 if i == 0 else 5, 5, bias=bias, dtype=F64) for i in range(n_layers)
    ]
    for i, layer in enumerate(layers):
        end = f"_l{i}"
        weights = {
            n.removesuffix(end): v
            for n, v in judge.state_dict().items()
            if n.endswith(end)
        }
        layer.cell.load_state_dict(weights, strict=True)
    return Stacked(layers, dropout=dropout), judge


def by_judge(judge, x, state, lengths=None):
    """Outputs and the state's tensors; `state` is the tuple of ours."""
    fields = [torch.stack(each) for each in zip(*state, strict=True)]
    start = tuple(fields) if isinstance(judge, nn.LSTM) else fields[0]
    if lengths is not None:
        x = pack_padded_sequence(x, lengths, True, enforce_sorted=False)
    y, ends = judge(x, start)
    if lengths is not None:
        y, _ = pad_packed_sequence(y, batch_first=True, total_length=6)
    ends = ends if isinstance(judge, nn.LSTM) else (ends,)
    by_layer = zip(*(end.unbind(0) for end in ends), strict=True)
    return y, leaves_of(tuple(by_layer))


def parameters_of(judge, stack):
    """Both lists in the order of the judge's."""
    ours = []
    for name, _ in judge.named_parameters():
        parameter, _, layer = name.rpartition("_l")
        ours.append(getattr(stack.layers[int(layer)].cell, parameter))
    return ours, list(judge.parameters())


def start_of(stack, batch, **options):
    state = stack.initial_state(batch)
    return map_state(lambda t: torch.randn(t.shape, dtype=t.dtype, **options), state)


@pytest.mark.parametrize("given", [None, [2, 6, 1, 4]])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_equals_torch(kind, n_layers, bias, given):
    stack, judge = from_judge(kind, n_layers, bias)
    lengths = None if given is None else torch.tensor(given)
    x = torch.randn(4, 6, 3, dtype=F64, requires_grad=True)
    state = map_state(lambda t: t.requires_grad_(), start_of(stack, 4))
    leaves = [x, *leaves_of(state)]
    y, ends = stack(x, state, lengths)
    results = [y, *leaves_of(ends)]
    y, ends = by_judge(judge, x, state, lengths)
    expected = [y, *ends]
    same(results, expected, 1e-13)
    upstream = [torch.randn_like(each) for each in results]
    ours, theirs = parameters_of(judge, stack)
    same(
        torch.autograd.grad(results, [*leaves, *ours], upstream),
        torch.autograd.grad(expected, [*leaves, *theirs], upstream),
    )


def test_padding_may_hold_anything():
    stack, judge = from_judge("LSTM", 2)
    x = torch.randn(4, 6, 3, dtype=F64)
    lengths = torch.tensor([2, 6, 1, 4])
    state = start_of(stack, 4)
    expected, ends = by_judge(judge, x, state, lengths)
    for row, length in enumerate(lengths):
        x[row, length:] = torch.nan
    y, after = stack(x, state, lengths)
    same([y, *leaves_of(after)], [expected, *ends], 1e-13)


# Both directions.


def bidirectional_pair(kind, n_layers, bias=True):
    judge = getattr(nn, kind)(
        3, 5, n_layers, bias=bias, batch_first=True, bidirectional=True, dtype=F64
    )
    ours = getattr(seqref, kind)
    layers = []
    for i in range(n_layers):
        pair = []
        for end in (f"_l{i}", f"_l{i}_reverse"):
            layer = ours(3 if i == 0 else 10, 5, bias=bias, dtype=F64)
            weights = {
                n.removesuffix(end): v
                for n, v in judge.state_dict().items()
                if n.endswith(end)
            }
            layer.cell.load_state_dict(weights, strict=True)
            pair.append(layer)
        layers.append(Bidirectional(*pair))
    return Stacked(layers), judge


@pytest.mark.parametrize("given", [None, [2, 6, 1, 4]])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("n_layers", [2, 3])
@pytest.mark.parametrize("kind", ["RNN", "LSTM"])
def test_both_directions_equal_torch(kind, n_layers, bias, given):
    stack, judge = bidirectional_pair(kind, n_layers, bias)
    lengths = None if given is None else torch.tensor(given)
    x = torch.randn(4, 6, 3, dtype=F64, requires_grad=True)
    state = map_state(lambda t: t.requires_grad_(), start_of(stack, 4))
    y, ends = stack(x, state, lengths)
    assert [type(end) for end in ends] == [BidirectionalState] * n_layers
    results = [y, *leaves_of(ends)]
    # In torch the directions of a layer stand one after the other: 2 l and 2 l + 1.
    flat = tuple(direction for layer in state for direction in layer)
    y, ends = by_judge(judge, x, flat, lengths)
    expected = [y, *ends]
    same(results, expected, 1e-13)
    upstream = [torch.randn_like(each) for each in results]
    ours = []
    for name, _ in judge.named_parameters():
        parameter, _, place = name.rpartition("_l")
        layer = stack.layers[int(place.removesuffix("_reverse"))]
        end = "backward" if place.endswith("_reverse") else "forward"
        ours.append(getattr(getattr(layer, f"{end}_layer").cell, parameter))
    leaves = [x, *leaves_of(state)]
    same(
        torch.autograd.grad(results, [*leaves, *ours], upstream),
        torch.autograd.grad(expected, [*leaves, *judge.parameters()], upstream),
    )


def test_a_stack_with_a_bidirectional_layer_has_no_step():
    stack = Stacked([RNN(3, 5), Bidirectional(LSTM(5, 4), RNN(5, 2)), LSTM(6, 4)])
    assert (stack.input_size, stack.hidden_size, stack.output_size) == (3, 4, 4)
    assert not stack.causal
    top = Stacked([Bidirectional(LSTM(3, 4), RNN(3, 2))])
    assert (top.hidden_size, top.output_size) == (None, 6)
    message = (
        r"^Stacked\.step: layers\[1\], Bidirectional, has no step, since its outputs "
        r"need inputs that are still to come; call the stack on whole sequences$"
    )
    with pytest.raises(TypeError, match=message):
        stack.step(torch.zeros(2, 3), stack.initial_state(2))
    with pytest.raises(TypeError, match=message):
        scan(stack, torch.zeros(2, 4, 3))
    # Inside another stack it is named there too.
    outer = Stacked([LSTM(3, 3), stack])
    message = r"^Stacked\.step: layers\[1\], Stacked, has no step"
    with pytest.raises(TypeError, match=message):
        outer.step(torch.zeros(2, 3), outer.initial_state(2))
    with pytest.raises(TypeError, match="Stacked declares causal = False"):
        check_sequence_layer(stack, torch.randn(2, 4, 3))


def test_rows_and_padding_with_a_bidirectional_layer():
    stack = Stacked(
        [Bidirectional(LSTM(3, 2), RNN(3, 1)), LSTM(3, 3)], residual=True
    ).to(F64)
    x = torch.randn(3, 6, 3, dtype=F64)
    lengths = torch.tensor([6, 3, 0])
    padded = x.clone()
    padded[1, 3:] = padded[2] = torch.nan
    y, ends = stack(padded, lengths=lengths)
    for row, length in enumerate(lengths):
        alone, its = stack(x[row : row + 1, :length])
        torch.testing.assert_close(y[row, :length], alone[0], atol=1e-14, rtol=0)
        assert not y[row, length:].count_nonzero()
        own = [t[row : row + 1] for t in leaves_of(ends)]
        same(own, leaves_of(its), 1e-14)


# Dropout.


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_dropout_equals_torch_under_one_seed(kind):
    """For one row both draw their masks in the same order, so all is equal."""
    stack, judge = from_judge(kind, 3, dropout=0.4)
    x = torch.randn(1, 6, 3, dtype=F64, requires_grad=True)
    state = start_of(stack, 1)
    results = []
    for run in (lambda: stack(x, state), lambda: by_judge(judge, x, state)):
        torch.manual_seed(3)
        y, ends = run()
        results.append([y, *leaves_of(ends)])
    same(*results)
    upstream = [torch.randn_like(each) for each in results[0]]
    ours, theirs = parameters_of(judge, stack)
    same(
        torch.autograd.grad(results[0], [x, *ours], upstream),
        torch.autograd.grad(results[1], [x, *theirs], upstream),
    )
    assert not torch.equal(results[0][0], stack.eval()(x, state)[0])


@pytest.mark.parametrize("residual", [False, True])
def test_dropout_is_between_layers_and_on_no_path_of_the_sum(residual):
    layers = [LSTM(3, 3, dtype=F64), RNN(3, 3, dtype=F64), RNN(3, 3, dtype=F64)]
    stack = Stacked(layers, dropout=0.4, residual=residual)
    x = torch.randn(4, 6, 3, dtype=F64)
    torch.manual_seed(5)
    y, state = stack(x)
    torch.manual_seed(5)
    u = x
    ends = []
    for i, layer in enumerate(layers):
        dropped = u if i == 0 else nn.Dropout(0.4)(u)
        out, end = layer(dropped)
        u = out + u if residual else out
        ends.append(end)
    same([y, *leaves_of(state)], [u, *leaves_of(tuple(ends))], 0)


class Recorder(nn.Module):
    """A causal layer that returns its input and keeps it for the test."""

    def initial_state(self, batch_size):
        return torch.zeros(batch_size, 1)

    def step(self, x_t, state):
        self.seen = x_t
        return x_t, state

    def forward(self, x, state=None, lengths=None):
        self.seen = x
        return x, self.initial_state(x.shape[0]) if state is None else state


def test_dropout_zeroes_the_right_share_and_scales_the_rest():
    below, above = Recorder(), Recorder()
    stack = Stacked([below, above], dropout=0.25)
    x = torch.ones(50, 40, 20)
    y, _ = stack(x)
    assert torch.equal(below.seen, x)
    assert torch.equal(y, above.seen)
    share = (y == 0).double().mean().item()
    # Four standard deviations of a mean of 40,000 draws.
    assert abs(share - 0.25) < 4 * (0.25 * 0.75 / y.numel()) ** 0.5
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    # A mask of its own for each step and row, not one for the sequence.
    assert not torch.equal(y[:, 0], y[:, 1])
    assert not torch.equal(y[0], y[1])
    assert torch.equal(stack.eval()(x)[0], x)


def test_dropout_in_steps():
    below, above = Recorder(), Recorder()
    stack = Stacked([below, above], dropout=0.5)
    x_t = torch.ones(8, 50)
    state = stack.initial_state(8)
    first, _ = stack.step(x_t, state)
    second, _ = stack.step(x_t, state)
    assert set(first.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(first, second)
    assert torch.equal(stack.eval().step(x_t, state)[0], x_t)
    torch.manual_seed(1)
    x = torch.ones(8, 1, 50)
    whole, _ = stack.train()(x)
    torch.manual_seed(1)
    assert torch.equal(stack.step(x[:, 0], state)[0], whole[:, 0])


def test_without_dropout_no_random_number_is_drawn():
    stack = Stacked([RNN(3, 5), RNN(5, 5)])
    before = torch.get_rng_state()
    stack.train()(torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), before)


def test_torch_ignores_dropout_on_one_layer_and_warns():
    """What this class refuses: the layer of torch in training drops nothing."""
    with pytest.warns(UserWarning, match="expects num_layers greater than 1"):
        judge = nn.LSTM(3, 5, dropout=0.9)
    x = torch.randn(4, 2, 3)
    assert judge.training
    assert torch.equal(judge(x)[0], judge(x)[0])
    two = nn.LSTM(3, 5, 2, dropout=0.9)
    assert not torch.equal(two(x)[0], two(x)[0])


# Residual connections.


def test_residual_adds_what_came_from_below_to_each_output():
    layers = [LSTM(3, 3, dtype=F64), RNN(3, 3, dtype=F64)]
    stack = Stacked(layers, residual=True)
    x = torch.randn(2, 7, 3, dtype=F64)
    state = start_of(stack, 2)
    m_1, first = layers[0](x, state[0])
    x_1 = m_1 + x
    m_2, second = layers[1](x_1, state[1])
    y, after = stack(x, state)
    # The states hold what the layers made, without the sum.
    same([y, *leaves_of(after)], [m_2 + x_1, *first, *second], 0)
    torch.testing.assert_close(scan(stack, x, state)[0], y, atol=1e-14, rtol=0)


def test_residual_stack_of_silent_layers_is_the_identity():
    layers = [LSTM(3, 3), LSTM(3, 3), LSTM(3, 3)]
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
    x = torch.randn(2, 7, 3, requires_grad=True)
    y, _ = Stacked(layers, residual=True)(x)
    assert torch.equal(y, x)
    upstream = torch.randn_like(y)
    (gradient,) = torch.autograd.grad(y, x, upstream)
    assert torch.equal(gradient, upstream)
    assert not Stacked(layers)(x)[0].count_nonzero()


def test_residual_blanks_the_padding():
    stack = Stacked([RNN(3, 3), RNN(3, 3)], residual=True)
    x = torch.randn(2, 5, 3)
    x[1, 2:] = torch.nan
    x.requires_grad_()
    y, _ = stack(x, lengths=torch.tensor([5, 2]))
    assert not y[1, 2:].count_nonzero()
    y.sum().backward()
    assert not x.grad[1, 2:].count_nonzero()
    assert x.grad.isfinite().all()


# As a layer among others.


def test_step_scan_and_call_agree_with_the_layers():
    stack = build("three RNNs", dtype=F64)
    x = torch.randn(2, 4, 3, dtype=F64)
    state = stack.initial_state(2)
    assert type(state) is tuple
    assert [type(each) for each in state] == [RNNState] * 3
    assert [each.h.shape for each in state] == [(2, 5), (2, 4), (2, 6)]
    y_t, after = stack.step(x[:, 0])
    below = x[:, 0]
    for layer, mine in zip(stack.layers, after, strict=True):
        below, its = layer.step(below, layer.initial_state(2))
        same(mine, its, 0)
    assert torch.equal(y_t, below)
    for y, final in (stack(x), scan(stack, x)):
        torch.testing.assert_close(y[:, 0], y_t, atol=1e-14, rtol=0)
        torch.testing.assert_close(y[:, -1], final[2].h, atol=0, rtol=0)


def test_helpers_for_states():
    stack = build("nested")
    x = torch.randn(2, 8, 3)
    _, state = stack(x[:, :4])
    y, _ = stack(x[:, 4:], detach_state(state))
    torch.testing.assert_close(y, stack(x)[0][:, 4:])
    assert not any(t.requires_grad for t in leaves_of(detach_state(state)))
    swapped = select_rows(state, torch.tensor([1, 0]))
    torch.testing.assert_close(stack(x[:, 4:].flip(0), swapped)[0], y.flip(0))
    fresh = stack.initial_state(2)
    mixed = reset_rows(state, fresh, torch.tensor([False, True]))
    y_mixed, _ = stack(x[:, 4:], mixed)
    torch.testing.assert_close(y_mixed[0], y[0])
    torch.testing.assert_close(y_mixed[1], stack(x[:, 4:], fresh)[0][1])


def test_sizes_and_representation():
    stack = Stacked([LSTM(3, 4), RNN(4, 5)], dropout=0.5)
    assert (stack.input_size, stack.hidden_size, stack.output_size) == (3, 5, 5)
    assert isinstance(stack, Recurrent)
    assert stack.causal
    assert "dropout=0.5, residual=False" in repr(stack)
    unknown = Stacked([Recorder(), RNN(4, 5)])
    assert (unknown.input_size, unknown.output_size) == (None, 5)
    assert Stacked([Recorder()]).output_size is None
    assert list(Stacked([RNN(3, 5)]).state_dict()) == [
        f"layers.0.cell.{n}" for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]


def test_declarations_are_those_of_the_layers():
    names = ("causal", "chunk_invariant", "differentiable_state", "supports_lengths")
    for name in names:
        layer = Recorder()
        assert getattr(Stacked([layer, Recorder()]), name) is True
        setattr(layer, name, False)
        stack = Stacked([Recorder(), layer])
        declared = {other: getattr(stack, other) for other in names}
        assert declared == {other: other != name for other in names}


def test_a_stack_in_a_language_model():
    model = LanguageModel(7, Stacked([LSTM(3, 4), RNN(4, 5)]).eval())
    tokens = torch.randint(7, (2, 6))
    logits, _ = model(tokens)
    state = model.initial_state(2)
    for t in range(6):
        scores, state = model.step(tokens[:, t], state)
        torch.testing.assert_close(scores, logits[:, t], atol=1e-6, rtol=1e-6)


def test_no_time_and_no_rows():
    stack = build("residual")
    state = start_of(stack, 2)
    y, after = stack(torch.zeros(2, 0, 3), state, torch.tensor([0, 0]))
    assert y.shape == (2, 0, 3)
    same(leaves_of(after), leaves_of(state), 0)
    assert stack(torch.zeros(0, 4, 3))[0].shape == (0, 4, 3)
    assert stack.step(torch.zeros(0, 3))[0].shape == (0, 3)


def test_copies_and_files():
    stack = Stacked([LSTM(3, 5), RNN(5, 4)], dropout=0.5).eval()
    x = torch.randn(2, 6, 3)
    expected = stack(x)[0]
    file = io.BytesIO()
    torch.save(stack.state_dict(), file)
    file.seek(0)
    other = Stacked([LSTM(3, 5), RNN(5, 4)]).eval()
    assert not torch.equal(other(x)[0], expected)
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    for again in (other, copy.deepcopy(stack), pickle.loads(pickle.dumps(stack))):
        assert torch.equal(again(x)[0], expected)
    twin = copy.deepcopy(stack)
    assert twin.dropout == 0.5
    nn.init.zeros_(twin.layers[0].cell.weight_ih)
    assert torch.equal(stack(x)[0], expected)


def test_two_layers_may_share_a_cell():
    layers = [LSTM(3, 3), LSTM(3, 3)]
    layers[1].cell = layers[0].cell
    stack = Stacked(layers)
    assert len(list(stack.parameters())) == 4
    x = torch.randn(2, 7, 3)
    below, first = layers[0](x)
    y, second = layers[0](below)
    together, state = stack(x)
    same([together, *leaves_of(state)], [y, *first, *second], 0)
    tied = copy.deepcopy(stack)
    assert tied.layers[0].cell is tied.layers[1].cell
    assert "gradients" in check_sequence_layer(stack, x).checked


def test_the_list_of_layers_is_copied():
    layers = [RNN(3, 3)]
    stack = Stacked(layers)
    layers.append(RNN(3, 3))
    assert len(stack.layers) == 1
    assert len(Stacked(nn.ModuleList(layers)).layers) == 2
    assert len(Stacked(RNN(3, 3) for _ in range(3)).layers) == 3


# Transforms.


def test_torch_func():
    stack = build("nested", dtype=F64)
    x = torch.randn(4, 5, 3, dtype=F64)
    parameters = {n: p.detach() for n, p in stack.named_parameters()}

    def run(parameters):
        return functional_call(stack, parameters, (x,))[0]

    stacked = {n: torch.stack([p, 2 * p]) for n, p in parameters.items()}
    both = vmap(run)(stacked)
    torch.testing.assert_close(both[0], run(parameters))
    torch.testing.assert_close(both[1], run({n: 2 * p for n, p in parameters.items()}))
    gradients = grad(lambda p: run(p).square().sum())(parameters)
    expected = torch.autograd.grad(
        run(parameters := dict(stack.named_parameters())).square().sum(),
        list(parameters.values()),
    )
    same(gradients.values(), expected)

    def one(x_row, state_row):
        y, after = stack.step(x_row[None], map_state(lambda t: t[None], state_row))
        return y[0], map_state(lambda t: t[0], after)

    state = start_of(stack, 4)
    y_t, after = stack.step(x[:, 0], state)
    by_row, after_by_row = vmap(one)(x[:, 0], state)
    same([by_row, *leaves_of(after_by_row)], [y_t, *leaves_of(after)], 1e-14)


@pytest.mark.compile
@pytest.mark.filterwarnings(TORCH_OWN_WARNING)
@pytest.mark.parametrize("name", ["nested", "residual"])
def test_compiled_step_is_one_graph(name):
    torch._dynamo.reset()
    stack = build(name)
    step = torch.compile(stack.step, backend="aot_eager", fullgraph=True)
    x_t, state = torch.randn(2, 3), start_of(stack, 2)
    for given in (state, None):
        y, after = stack.step(x_t, given)
        compiled_y, compiled_after = step(x_t, given)
        same([compiled_y, *leaves_of(compiled_after)], [y, *leaves_of(after)], 1e-6)


@pytest.mark.compile
@pytest.mark.filterwarnings(TORCH_OWN_WARNING)
@pytest.mark.parametrize("given", [None, [4, 0]])
def test_compiled_stack(given):
    torch._dynamo.reset()
    stack = build("residual")
    compiled = torch.compile(stack, backend="aot_eager")
    x, state = torch.randn(2, 4, 3), start_of(stack, 2)
    lengths = None if given is None else torch.tensor(given)
    results = []
    for run in (stack, compiled):
        y, after = run(x, state, lengths)
        loss = y.square().sum() + sum(t.sum() for t in leaves_of(after))
        grads = torch.autograd.grad(loss, [*stack.parameters()])
        results.append([y, *leaves_of(after), *grads])
    same(*results, 1e-6)


class Step(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x_t, state):
        return self.layer.step(x_t, state)


@pytest.mark.compile
@pytest.mark.parametrize("name", ["mixed", "nested"])
def test_export_of_a_step_with_a_dynamic_batch(name):
    stack = build(name).eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    state = start_of(stack, 2)
    axes = map_state(lambda t: t, state)
    program = torch.export.export(
        Step(stack),
        (torch.randn(2, 3), state),
        dynamic_shapes=({0: batch}, _like(axes, {0: batch})),
    )
    x_t, state = torch.randn(7, 3), start_of(stack, 7)
    y, after = program.module()(x_t, state)
    expected, end = stack.step(x_t, state)
    same([y, *leaves_of(after)], [expected, *leaves_of(end)], 1e-6)
    assert type(after) is tuple
    assert type(after[0]) is LSTMState


def _like(state, axes):
    if isinstance(state, torch.Tensor):
        return axes
    parts = [_like(part, axes) for part in state]
    return getattr(type(state), "_make", tuple)(parts)


# Bad arguments.


class NoStep(nn.Module):
    def initial_state(self, batch_size):
        return torch.zeros(batch_size, 1)

    def forward(self, x, state=None):
        return x, state


@pytest.mark.errors
@pytest.mark.parametrize(
    ("layers", "options", "error", "message"),
    [
        ([], {}, ValueError, r"`layers` must hold at least 1 layer, got 0$"),
        (RNN(3, 5), {}, TypeError, r"a sequence of layers, got RNN \(pass \[layer\]\)"),
        (
            [RNN(3, 5), nn.LSTM(5, 5)],
            {},
            TypeError,
            r"`layers\[1\]` must be a layer .* got torch\.nn\.modules\.rnn\.LSTM$",
        ),
        ([RNN], {}, TypeError, r"`layers\[0\]` must be a layer with `initial_state`"),
        (
            [RNN(3, 5), LSTM(4, 5)],
            {},
            ValueError,
            r"`layers\[1\]`, LSTM, must have input_size=5, the width of what "
            r"layers\[0\] returns, got 4$",
        ),
        (
            [RNN(3, 3), LSTM(3, 5)],
            {"residual": True},
            ValueError,
            r"with `residual`, `layers\[1\]`, LSTM, must return its input's width 3, "
            r"got 5 \(leave it outside",
        ),
        (
            [RNN(3, 5)],
            {"dropout": 0.5},
            ValueError,
            r"`dropout` must be 0 for one layer, since it acts between .*, got 0\.5",
        ),
        (
            [RNN(3, 3)],
            {"residual": 2},
            TypeError,
            r"`residual` must be a bool, got int$",
        ),
        (
            [RNN(3, 3), *[RNN(3, 3)] * 2],
            {},
            ValueError,
            r"`layers\[2\]` must be a module of its own, got layers\[1\] again "
            r"\(\[layer\] \* n\? make a layer for each place;",
        ),
    ],
)
def test_bad_layers(layers, options, error, message):
    with pytest.raises(error, match=rf"^Stacked: .*{message}"):
        Stacked(layers, **options)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("dropout", "error", "message"),
    [
        (1, ValueError, r"at least 0 and below 1, got 1$"),
        (-0.1, ValueError, r"at least 0 and below 1, got -0\.1$"),
        (float("nan"), ValueError, r"at least 0 and below 1, got nan$"),
        (True, TypeError, r"a number, got bool$"),
        ("0.5", TypeError, r"a number, got str$"),
    ],
)
def test_bad_dropout(dropout, error, message):
    with pytest.raises(error, match=rf"^Stacked: `dropout` must be {message}"):
        Stacked([RNN(3, 3), RNN(3, 3)], dropout=dropout)


@pytest.mark.errors
@pytest.mark.parametrize("form", ["forward", "step"])
def test_bad_states(form):
    stack = Stacked([LSTM(3, 5), RNN(5, 4)])
    x = torch.zeros(2, 3) if form == "step" else torch.zeros(2, 4, 3)
    call = stack.step if form == "step" else stack
    good = stack.initial_state(2)
    where = rf"^Stacked\.{form}: `state` must be a tuple of 2 states, one for each "
    for state, error, message in (
        (good[0], TypeError, where + r"layer, got LSTMState$"),
        (list(good), TypeError, where + r"layer, got list$"),
        (good[:1], ValueError, where + r"layer, got 1$"),
        ((*good, good[1]), ValueError, where + r"layer, got 3$"),
        ((good[0], None), TypeError, r"`state\[1\]` must be a state, got NoneType$"),
    ):
        with pytest.raises(error, match=message):
            call(x, state)
    # The layer says what is wrong, the note says which layer.
    with pytest.raises(TypeError, match=rf"^RNN\.{form}: `state` must be ") as caught:
        call(x, (good[0], good[0]))
    assert caught.value.__notes__ == [f"Stacked.{form}: in layers[1], RNN"]


@pytest.mark.errors
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (
            torch.zeros(2, 3),
            ValueError,
            r"got \(2, 3\) \(one step\? call step; one seq",
        ),
        (torch.zeros(2, 4, 5), ValueError, r"input_size=3\), got \(2, 4, 5\)$"),
        ([[[0.0]]], TypeError, r"be a torch\.Tensor, got list$"),
    ],
)
def test_bad_sequences(x, error, message):
    with pytest.raises(error, match=rf"^Stacked\.forward: `x` must .*{message}"):
        Stacked([LSTM(3, 5), RNN(5, 4)])(x)


@pytest.mark.errors
def test_bad_steps():
    stack = Stacked([LSTM(3, 5), RNN(5, 4)])
    message = r"^Stacked\.step: `x_t` must .* \(a whole sequence\? call the layer, not"
    with pytest.raises(ValueError, match=message):
        stack.step(torch.zeros(2, 4, 3))
    message = (
        r"^Stacked\.forward: `x` must have shape \(batch, time, \.\.\.\), got \(2,"
    )
    with pytest.raises(ValueError, match=message):
        Stacked([Recorder()])(torch.zeros(2))
    message = r"^Stacked\.step: layers\[1\], NoStep, has no method step; call the stack"
    with pytest.raises(TypeError, match=message):
        Stacked([RNN(3, 5), NoStep()]).step(torch.zeros(2, 3))


@pytest.mark.errors
def test_bad_batch_sizes():
    stack = Stacked([RNN(3, 5)])
    where = r"^Stacked\.initial_state: `batch_size` must be "
    with pytest.raises(ValueError, match=where + r"at least 0, got -1$"):
        stack.initial_state(-1)
    with pytest.raises(TypeError, match=where + r"an int, got float$"):
        stack.initial_state(2.0)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        ([1, 2], TypeError, r"a tensor of integers .* got list"),
        (torch.tensor([1.0, 2.0]), TypeError, r"an integer dtype, got torch\.float32$"),
        (torch.tensor([1, 5]), ValueError, r"be at most time=4, got 5$"),
    ],
)
def test_bad_lengths(lengths, error, message):
    stack = Stacked([RNN(3, 3), RNN(3, 3)], residual=True)
    with pytest.raises(error, match=rf"^Stacked\.forward: `lengths` must .*{message}"):
        stack(torch.zeros(2, 4, 3), lengths=lengths)


@pytest.mark.errors
def test_a_layer_that_does_not_support_lengths_is_named():
    layer = Recorder()
    layer.supports_lengths = False
    stack = Stacked([Recorder(), layer])
    message = r"^Stacked\.forward: `lengths` must be None, since layers\[1\], Recorder,"
    with pytest.raises(TypeError, match=message):
        stack(torch.zeros(2, 4, 3), lengths=torch.tensor([4, 2]))
    assert stack(torch.ones(2, 4, 3))[0].sum() == 24


class Widens(Recorder):
    def forward(self, x, state=None, lengths=None):
        return x.expand(*x.shape[:-1], 5), state


@pytest.mark.errors
def test_a_sum_of_two_widths_is_refused_at_the_call():
    message = (
        r"^Stacked\.forward: with `residual`, the output of layers\[1\] must have its "
        r"input's shape \(2, 4, 1\), got \(2, 4, 5\)$"
    )
    with pytest.raises(ValueError, match=message):
        Stacked([Recorder(), Widens()], residual=True)(torch.zeros(2, 4, 1))


@pytest.mark.errors
def test_weights_of_a_torch_layer_are_refused_with_the_mend():
    stack, judge = Stacked([LSTM(3, 5), LSTM(5, 5)]), nn.LSTM(3, 5, 2)
    weights = judge.state_dict()
    message = (
        r"^Stacked\.load_state_dict: these are the weights of a torch\.nn layer, .* "
        r"seqref\.interop\.from_torch\(module\)$"
    )
    with pytest.raises(RuntimeError, match=message):
        stack.load_state_dict(weights)
    x = torch.randn(6, 2, 3)
    made = seqref.interop.from_torch(judge)
    torch.testing.assert_close(made(x.transpose(0, 1))[0], judge(x)[0].transpose(0, 1))
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) .*"layers\.1\.cell'):
        stack.load_state_dict(Stacked([LSTM(3, 5)]).state_dict())


def test_a_strict_load_refuses_a_weight_that_has_no_place():
    stack = Stacked([LSTM(3, 5), LSTM(5, 5)])
    weights = stack.state_dict() | {"stray": torch.zeros(1)}
    with pytest.raises(
        RuntimeError, match=r'Unexpected key\(s\) in state_dict: "stray"'
    ):
        stack.load_state_dict(weights)


def test_a_width_that_is_no_number_counts_as_unknown():
    layer = Recorder()
    layer.input_size = layer.hidden_size = "many"
    stack = Stacked([layer, LSTM(3, 5)])
    assert (stack.input_size, stack.hidden_size) == (None, 5)
