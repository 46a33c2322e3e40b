"""`torch.func` over rows, lengths and tokens, and their checks in a compiled graph."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

import seqref
from seqref.models import LanguageModel, SequenceClassifier
from seqref.recurrence import map_state, reset_rows, scan, select_rows
from seqref.recurrent import (
    bucket_batches,
    last_state,
    lengths_to_mask,
    pack,
    padding_fraction,
    token_batches,
    truncated_chunks,
)
from seqref.recurrent._looped import LoopedLayer
from tests.layers import LAYERS, OF_A_CELL

# torch's own, the first time that it differentiates forwards.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")

X, H = 2, 3
EXACT = {"atol": 1e-10, "rtol": 1e-10}
COMPOSITIONS = {
    "looped": lambda: seqref.Stacked([seqref.GRU(X, H), seqref.PeepholeLSTM(H, H)]),
    "residual": lambda: seqref.Stacked([seqref.LSTM(X, X)], residual=True),
    "deep": lambda: seqref.Stacked(
        [seqref.Bidirectional(seqref.RNN(X, 2), seqref.RNN(X, 2)), seqref.RNN(4, H)]
    ),
}


def build(name):
    torch.manual_seed(1)
    module = LAYERS[name](X, H) if name in LAYERS else COMPOSITIONS[name]()
    return module.double().eval()


def flat(y, state):
    parts = [y.flatten()]
    map_state(lambda t: parts.append(t.flatten()) or t, state)
    return torch.cat(parts)


def parameters_of(module):
    return {name: p.detach() for name, p in module.named_parameters()}


def drawn(batch=3, time=4):
    torch.manual_seed(2)
    x = torch.randn(batch, time, X, dtype=torch.float64)
    return x, torch.tensor([4, 1, 3, 0, 2][:batch])


def row_of(module):
    """Outputs and final state of one row, as a function of parameters and inputs."""

    def outputs(parameters, x_row, length):
        arguments = (x_row[None], None, length[None])
        return flat(*functional_call(module, parameters, arguments))

    return outputs


def looped(function, in_dims, *arguments):
    """What `vmap` promises, without it."""
    rows = next(len(a) for a, d in zip(arguments, in_dims, strict=True) if d == 0)
    made = []
    for i in range(rows):
        picked = [
            a if d is None else map_state(lambda t, i=i: t[i], a)
            for a, d in zip(arguments, in_dims, strict=True)
        ]
        made.append(function(*picked))
    return made


def check(function, in_dims, *arguments):
    got = vmap(function, in_dims)(*arguments)
    for i, want in enumerate(looped(function, in_dims, *arguments)):
        mine = torch.utils._pytree.tree_map(lambda t, i=i: t[i], got)
        torch.testing.assert_close(mine, want, **EXACT)


def by_autograd(function, of, *others):
    """The gradient by autograd alone, without `torch.func`."""
    leaves = {name: p.clone().requires_grad_() for name, p in of.items()}
    gradients = torch.autograd.grad(function(leaves, *others), [*leaves.values()])
    return dict(zip(leaves, gradients, strict=True))


@pytest.mark.parametrize("name", [*LAYERS, *COMPOSITIONS])
def test_gradients_of_each_row(name):
    layer, (x, lengths) = build(name), drawn(batch=5)
    parameters = parameters_of(layer)
    row = row_of(layer)

    def loss(parameters, x_row, length):
        made = row(parameters, x_row, length)
        return (made * torch.arange(1, len(made) + 1)).sin().sum()

    got = vmap(grad(loss), (None, 0, 0))(parameters, x, lengths)
    for i in range(len(x)):
        want = by_autograd(loss, parameters, x[i], lengths[i])
        assert any(g.abs().max() > 0 for g in want.values()) or lengths[i] == 0
        mine = {key: g[i] for key, g in got.items()}
        torch.testing.assert_close(mine, want, **EXACT)
    # One row, its length mapped alone.
    check(grad(loss), (None, None, 0), parameters, x[0], lengths)
    check(grad(loss, argnums=1), (None, 0, 0), parameters, x, lengths)


@pytest.mark.parametrize("jacobian", [jacrev, jacfwd])
@pytest.mark.parametrize("name", [*LAYERS, *COMPOSITIONS])
def test_jacobians_of_each_row(name, jacobian):
    layer, (x, lengths) = build(name), drawn()
    parameters, row = parameters_of(layer), row_of(layer)
    check(jacobian(row, argnums=1), (None, 0, 0), parameters, x, lengths)
    got = vmap(jacobian(row, argnums=1), (None, 0, 0))(parameters, x, lengths)
    for i in range(len(x)):
        want = torch.autograd.functional.jacobian(
            lambda x_row, i=i: row(parameters, x_row, lengths[i]), x[i]
        )
        torch.testing.assert_close(got[i], want, **EXACT)


@pytest.mark.parametrize("name", [*LAYERS, *COMPOSITIONS])
def test_nested_transforms(name):
    layer, (x, lengths) = build(name), drawn()
    parameters, row = parameters_of(layer), row_of(layer)

    def loss(x_row, length):
        return row(parameters, x_row, length).sin().sum()

    def steepness(x, lengths):
        return vmap(grad(loss))(x, lengths).square().sum()

    leaf = x.clone().requires_grad_()
    total = 0
    # Of torch's kernels of attention this one has a second derivative.
    with sdpa_kernel(SDPBackend.MATH):
        for i in range(len(x)):
            (slope,) = torch.autograd.grad(
                loss(leaf[i], lengths[i]), leaf, create_graph=True
            )
            total = total + slope.square().sum()
        (want,) = torch.autograd.grad(total, leaf)
    torch.testing.assert_close(grad(steepness)(x, lengths), want, **EXACT)
    # Over groups of rows, and the slope along one direction inside.
    check(steepness, (0, 0), torch.stack([x, 2 * x]), torch.stack([lengths, lengths]))
    check(
        lambda x_row, length: jvp(lambda r: loss(r, length), (x_row,), (x_row.cos(),)),
        (0, 0),
        x,
        lengths,
    )
    pairs = vmap(vmap(loss, (0, None)), (None, 0))(x, lengths)
    for i, length in enumerate(lengths):
        for j, x_row in enumerate(x):
            torch.testing.assert_close(pairs[i, j], loss(x_row, length), **EXACT)


@pytest.mark.parametrize("name", ["GRU", "LSTM", "PeepholeLSTM"])
def test_scan(name):
    layer, (x, lengths) = build(name), drawn(batch=5)

    def loss(x_row, length):
        return flat(*scan(layer, x_row[None], None, length[None])).sin().sum()

    check(grad(loss), (0, 0), x, lengths)
    check(jacfwd(grad(loss)), (0, 0), x, lengths)


@pytest.mark.parametrize("name", ["Stacked", "looped", "Bidirectional", "deep"])
def test_classifier(name):
    torch.manual_seed(3)
    model = SequenceClassifier(build(name), 3).double().eval()
    (x, _), lengths = drawn(), torch.tensor([4, 1, 3])
    parameters = parameters_of(model)

    def loss(parameters, x_row, length):
        scores = functional_call(model, parameters, (x_row[None], length[None]))
        return nn.functional.cross_entropy(scores, torch.tensor([1]))

    check(grad(loss), (None, 0, 0), parameters, x, lengths)
    check(jacrev(loss, argnums=1), (None, 0, 0), parameters, x, lengths)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "PeepholeLSTM", "Stacked", "looped"])
def test_language_model(name):
    torch.manual_seed(3)
    model = LanguageModel(6, build(name)).double().eval()
    tokens = torch.randint(6, (3, 5))
    parameters = parameters_of(model)

    def loss(parameters, row):
        scores, _ = functional_call(model, parameters, (row[None, :-1],))
        return nn.functional.cross_entropy(scores[0], row[1:])

    check(grad(loss), (None, 0), parameters, tokens)
    check(jacfwd(loss), (None, 0), parameters, tokens)

    def next_scores(parameters, token):
        return functional_call(Step(model), named(parameters), (token[None],))[0]

    check(jacrev(next_scores), (None, 0), parameters, tokens[:, 0])


class Step(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, token):
        return self.model.step(token, self.model.initial_state(1))[0]


def named(parameters):
    return {f"model.{name}": p for name, p in parameters.items()}


def test_functions_of_lengths():
    torch.manual_seed(4)
    y = torch.randn(3, 2, 4, 6, dtype=torch.float64)
    lengths = torch.tensor([[4, 1], [2, 2], [3, 4]])

    def summary(y, lengths):
        return last_state(y, lengths, backward_width=2).sin().sum()

    def masked(y, lengths):
        return (y.square() * lengths_to_mask(lengths, 4)[..., None]).sum()

    def chunked(y, lengths):
        chunks = truncated_chunks(y, 3, lengths)
        return sum((c.x.sin().sum((1, 2)) * c.lengths).sum() for c in chunks)

    for function in (summary, masked, chunked):
        check(grad(function), (0, 0), y, lengths)
        check(jacfwd(grad(function)), (0, 0), y, lengths)
        check(grad(function), (None, 0), y[0], lengths)


@pytest.mark.errors
def test_what_needs_the_numbers_themselves_refuses():
    y, many = torch.randn(3, 2, 4, 2), torch.tensor([[4, 1], [2, 2], [3, 4]])
    refused = {
        "pack": lambda lengths: pack(y[0], lengths).data,
        "padding_fraction": lambda lengths: padding_fraction(lengths, [[0, 1]]),
        "bucket_batches": lambda lengths: bucket_batches(lengths, 1),
        "token_batches": lambda lengths: token_batches(lengths, 9),
    }
    for name, function in refused.items():
        message = rf"^{name}: `lengths` must have values that can be read"
        with pytest.raises(ValueError, match=message):
            vmap(function)(many)
        # The values are under two wrappers here.
        with pytest.raises(ValueError, match=message):
            vmap(grad(lambda _, n, f=function: f(n)), (None, 0))(y, many)


@pytest.mark.errors
def test_values_that_can_be_read_are_checked_under_a_gradient():
    """Nothing is mapped here, so that a wrong value is an error as always."""
    x, bad = torch.randn(2, 4, X), torch.tensor([9, 1])
    layer = build("LSTM").float()
    message = r"^LSTM\.forward: `lengths` must be at most time=4, got 9$"
    for transform in (grad, jacrev, jacfwd):
        with pytest.raises(ValueError, match=message):
            transform(lambda x, n: layer(x, None, n)[0].sum())(x, bad)
    # The rows of x are mapped, the lengths are the same for all.
    with pytest.raises(ValueError, match=message):
        vmap(grad(lambda x, n: layer(x, None, n)[0].sum()), (0, None))(x[None], bad)
    message = r"^select_rows: `rows` must be from 0 to 1, got 1 to 9$"
    with pytest.raises(ValueError, match=message):
        grad(lambda h, rows: select_rows(h, rows).sum())(x, bad)
    model = LanguageModel(6, layer)
    message = r"^LanguageModel\.forward: `tokens` must lie in 0 to 5, got 1 to 9$"
    parameters = parameters_of(model)
    with pytest.raises(ValueError, match=message):
        grad(lambda p, t: functional_call(model, p, (t[None],))[0].sum())(
            parameters, bad
        )


def test_functions_of_states():
    torch.manual_seed(5)
    h, c = torch.randn(2, 3, 4, 2, dtype=torch.float64)
    rows = torch.tensor([[3, 0], [1, 1], [2, 3]])
    mask = torch.tensor([[True, False, True, True]] * 2 + [[False] * 4])

    def selected(h, rows):
        state = select_rows(seqref.LSTMState(h, h.cos()), rows)
        return (state.h.sin() * state.c).sum()

    def restarted(h, c, mask):
        state = reset_rows(seqref.LSTMState(h, c), seqref.LSTMState(c, h), mask)
        return (state.h.sin() * state.c).sum()

    check(selected, (0, 0), h, rows)
    check(selected, (None, 0), h[0], rows)
    check(selected, (0, None), h, rows[0].int())
    check(grad(selected), (0, 0), h, rows)
    check(jacfwd(grad(selected)), (0, 0), h, rows)
    check(restarted, (0, 0, 0), h, c, mask)
    check(restarted, (None, None, 0), h[0], c[0], mask)
    check(grad(restarted), (0, 0, 0), h, c, mask)


# torch.compile: one graph, and the checks of values are in it.


def one_graph(function):
    torch._dynamo.reset()
    return torch.compile(function, backend="aot_eager", fullgraph=True)


# These have no kernel that a graph must be left for.
GRAPHS = [name for name in OF_A_CELL if issubclass(LAYERS[name].kind, LoopedLayer)]


@pytest.mark.compile
@pytest.mark.parametrize("name", GRAPHS)
def test_lengths_of_a_layer_in_one_graph(name):
    layer, (x, lengths) = build(name), drawn()
    compiled = one_graph(layer)
    for given in (lengths, lengths.flip(0)):
        got, want = flat(*compiled(x, None, given)), flat(*layer(x, None, given))
        torch.testing.assert_close(got, want, **EXACT)
    message = (
        rf"^{type(layer).__name__}\.forward: a value of `lengths` is out of range$"
    )
    for wrong in ([5, 1, 1], [1, 1, -1]):
        with pytest.raises(RuntimeError, match=message):
            compiled(x, None, torch.tensor(wrong))


@pytest.mark.compile
def test_compositions_in_one_graph():
    x, lengths = drawn()
    both = seqref.Bidirectional(*(seqref.PeepholeLSTM(X, H) for _ in "fb"))
    stack = seqref.Stacked([both, seqref.LayerNormLSTM(2 * H, H)]).double()
    model = SequenceClassifier(stack, 3).double()
    compiled = one_graph(model)
    lengths = lengths.clamp(min=1)
    torch.testing.assert_close(compiled(x, lengths), model(x, lengths), **EXACT)
    message = r"^SequenceClassifier\.forward: a value of `lengths` is out of range$"
    with pytest.raises(RuntimeError, match=message):
        compiled(x, torch.tensor([4, 0, 3]))

    model = LanguageModel(6, build("PeepholeLSTM")).double()
    compiled = one_graph(model)
    tokens = torch.randint(6, (2, 4))
    torch.testing.assert_close(compiled(tokens)[0], model(tokens)[0], **EXACT)
    message = r"^LanguageModel\.forward: a value of `tokens` is out of range$"
    for wrong in (6, -1):
        with pytest.raises(RuntimeError, match=message):
            compiled(torch.full((2, 4), wrong))


@pytest.mark.compile
def test_functions_in_one_graph():
    h, lengths = torch.randn(3, 4, 2), torch.tensor([4, 1, 3])
    cases = {
        "select_rows": (lambda n: select_rows(h, n), [2, 0, 2], [3, 0, 0]),
        "lengths_to_mask": (lambda n: lengths_to_mask(n, 4), [4, 0, 3], [5, 0, 0]),
        "last_state": (lambda n: last_state(h, n), [4, 1, 3], [4, 0, 3]),
    }
    for name, (function, good, wrong) in cases.items():
        compiled = one_graph(function)
        assert torch.equal(compiled(torch.tensor(good)), function(torch.tensor(good)))
        with pytest.raises(RuntimeError, match=f"^{name}: a value of .* out of range$"):
            compiled(torch.tensor(wrong))
    layer = build("PeepholeLSTM").float()
    one = scan(layer, h, None, lengths)
    two = one_graph(lambda h, n: scan(layer, h, None, n))(h, lengths)
    torch.testing.assert_close(flat(*two), flat(*one))


@pytest.mark.compile
def test_gradients_of_each_row_in_one_graph():
    layer, (x, lengths) = build("PeepholeLSTM"), drawn()

    def loss(x_row, length):
        return layer(x_row[None], None, length[None])[0].sin().sum()

    rows = vmap(grad(loss))
    torch.testing.assert_close(one_graph(rows)(x, lengths), rows(x, lengths), **EXACT)
