"""The op: its definition, both backends, padding, gradients, judges, refusals."""

import numpy as np
import pytest
import torch
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual
from torch.func import jvp, vmap

from seqref.ops.additive_attention import BACKENDS, additive_attention, parallel
from seqref.ops.additive_attention import reference as definition
from seqref.testing import LiveBytes

F64 = torch.float64
LENGTHS = [[6, 0, 3], [0, 0, 0], [6, 6, 6], [1, 2, 5]]


def case(dtype=F64, seed=0, batch=3, time=4, source=6, hidden=5, value=2):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        drawn = torch.randn(shape, generator=generator, dtype=F64)
        return drawn.to(dtype).requires_grad_()

    return {
        "query": draw(batch, time, hidden),
        "keys": draw(batch, source, hidden),
        "values": draw(batch, source, value),
        "weight": draw(hidden),
    }


def with_gradients(made, lengths=None, backend=None):
    """Both outputs and the gradient of each argument."""
    outputs = additive_attention(**made, lengths=lengths, backend=backend)
    generator = torch.Generator().manual_seed(9)
    upstream = [
        torch.randn(y.shape, generator=generator, dtype=F64).to(y) for y in outputs
    ]
    grads = torch.autograd.grad(
        outputs, list(made.values()), upstream, materialize_grads=True
    )
    names = ("context", "weights", *(f"gradient of {name}" for name in made))
    return dict(zip(names, (*(y.detach() for y in outputs), *grads), strict=True))


def assert_same(got, expected, atol=1e-12, rtol=1e-12):
    for name, value in got.items():
        torch.testing.assert_close(
            value,
            expected[name],
            atol=atol,
            rtol=rtol,
            msg=lambda m, n=name: f"{n}: {m}",
        )


# The definition.


@pytest.mark.parametrize("backend", BACKENDS)
def test_contexts_and_weights_are_their_equations(backend):
    made = {name: tensor.detach() for name, tensor in case().items()}
    q, k, m, v = (tensor.numpy() for tensor in made.values())
    lengths = [6, 2, 3]
    context, weights = additive_attention(
        **made, lengths=torch.tensor(lengths), backend=backend
    )
    for row, length in enumerate(lengths):
        for t in range(4):
            e = [v @ np.tanh(q[row, t] + k[row, j]) for j in range(length)]
            alpha = np.exp(e) / np.exp(e).sum()
            np.testing.assert_allclose(weights[row, t, :length], alpha, rtol=1e-13)
            expected = alpha @ m[row, :length]
            np.testing.assert_allclose(context[row, t], expected, rtol=1e-12)


def test_additive_scores_are_those_of_one_query():
    made = case()
    scores = definition.additive_scores(
        made["query"][:, 1], made["keys"], made["weight"]
    )
    total = made["query"][2, 1] + made["keys"][2, 4]
    torch.testing.assert_close(scores[2, 4], made["weight"] @ total.tanh())


def test_equal_scores_give_the_mean():
    made = case()
    made["weight"] = torch.zeros(5, dtype=F64)
    context, weights = additive_attention(**made)
    torch.testing.assert_close(weights, torch.full((3, 4, 6), 1 / 6, dtype=F64))
    mean = made["values"].mean(1)[:, None].expand_as(context)
    torch.testing.assert_close(context, mean)


def test_equals_the_layer_of_keras(keras):
    made = case(torch.float32)
    layer = keras.layers.AdditiveAttention(use_scale=True)
    query, keys, values = (
        made[name].detach().numpy() for name in ("query", "keys", "values")
    )
    layer.build([query.shape, values.shape, keys.shape])
    layer.set_weights([made["weight"].detach().numpy()])
    lengths = torch.tensor([6, 2, 3])
    real = (torch.arange(6) < lengths[:, None]).numpy()
    context, weights = layer(
        [query, values, keys], mask=[None, real], return_attention_scores=True
    )
    mine = additive_attention(**made, lengths=lengths)
    for got, expected in zip(mine, (context, weights), strict=True):
        np.testing.assert_allclose(
            got.detach(), keras.ops.convert_to_numpy(expected), atol=2e-6
        )


# Backends beside each other.


@pytest.mark.parametrize("lengths", [None, *LENGTHS])
def test_backends_agree(lengths):
    made = case()
    given = None if lengths is None else torch.tensor(lengths)
    expected = with_gradients(made, given, "reference")
    assert_same(with_gradients(made, given, "parallel"), expected)
    assert_same(with_gradients(made, given), expected)


def test_the_adjoint_is_what_autograd_computes():
    made = {name: tensor.detach() for name, tensor in case().items()}
    leaves = [tensor.clone().requires_grad_() for tensor in made.values()]
    real = torch.ones(3, 6, dtype=torch.bool)
    context, weights = definition.attend(*leaves, real)
    upstream = torch.randn_like(context), torch.randn_like(weights)
    expected = torch.autograd.grad((context, weights), leaves, upstream)
    got = parallel.attention_backward(*made.values(), weights.detach(), *upstream)
    for mine, theirs in zip(got, expected, strict=True):
        assert theirs.abs().min() > 0
        torch.testing.assert_close(mine, theirs, atol=1e-10, rtol=1e-10)


def error(got, expected):
    return (got.double() - expected).abs().max().item()


@pytest.mark.parametrize("lengths", [None, [20, 7, 0, 13]])
def test_the_fast_form_is_as_exact_as_the_loop_in_float32(lengths):
    given = None if lengths is None else torch.tensor(lengths)
    sizes = {"batch": 4, "time": 9, "source": 20, "hidden": 16, "value": 8}
    for seed in range(5):
        low = case(torch.float32, seed, **sizes)
        high = {n: t.detach().double().requires_grad_() for n, t in low.items()}
        exact = with_gradients(high, given, "reference")
        slow = with_gradients(low, given, "reference")
        for name, value in with_gradients(low, given, "parallel").items():
            slack = 8 * torch.finfo(torch.float32).eps * exact[name].abs().max().item()
            allowed = 2 * error(slow[name], exact[name]) + slack
            assert error(value, exact[name]) <= allowed, (seed, name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_of_both_orders(backend):
    made = case(batch=3, time=2, source=3, hidden=2, value=2)
    lengths = torch.tensor([3, 0, 2])

    def op(*tensors):
        return additive_attention(*tensors, lengths, backend=backend)

    assert torch.autograd.gradcheck(op, tuple(made.values()))
    assert torch.autograd.gradgradcheck(op, tuple(made.values()))


@pytest.mark.parametrize("name", ["query", "keys", "values", "weight"])
def test_each_gradient_alone(name):
    made = case()
    expected = with_gradients(made, backend="reference")[f"gradient of {name}"]
    alone = {n: t.detach().requires_grad_(n == name) for n, t in made.items()}
    context, weights = additive_attention(**alone, backend="parallel")
    generator = torch.Generator().manual_seed(9)
    upstream = [
        torch.randn(y.shape, generator=generator, dtype=F64) for y in (context, weights)
    ]
    (mine,) = torch.autograd.grad((context, weights), alone[name], upstream)
    torch.testing.assert_close(mine, expected)


@pytest.mark.parametrize("output", [0, 1])
def test_each_output_alone(output):
    made = case()
    grads = {}
    for backend in BACKENDS:
        y = additive_attention(**made, backend=backend)[output]
        grads[backend] = torch.autograd.grad(
            y.square().sum(), list(made.values()), materialize_grads=True
        )
    for mine, theirs in zip(*grads.values(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_two_backward_passes_and_outputs_that_are_written_to():
    made = case()
    context, weights = additive_attention(**made, backend="parallel")
    first = torch.autograd.grad(context.sum(), made["keys"], retain_graph=True)
    context.detach().zero_()
    weights.detach().zero_()
    second = torch.autograd.grad(context.sum(), made["keys"])
    assert torch.equal(first[0], second[0])


def test_what_is_kept_for_the_backward_pass():
    """The weights, and not tanh of every query and source position."""
    time, source, hidden = 20, 30, 128
    made = case(torch.float32, batch=2, time=time, source=source, hidden=hidden)
    kept = {}
    for backend in BACKENDS:
        with LiveBytes() as live:
            outputs = additive_attention(**made, backend=backend)
            kept[backend] = live.now
        assert outputs
    scores = 2 * time * source * 4
    assert kept["reference"] > hidden * scores
    assert kept["parallel"] < 8 * scores


# Padding.


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_has_no_weight_and_no_gradient(backend, lengths):
    made = case()
    spoilt = dict(made)
    for name in ("keys", "values"):
        tensor = made[name].detach().clone()
        for row, length in enumerate(lengths):
            tensor[row, length:] = torch.nan
        spoilt[name] = tensor.requires_grad_()
    given = torch.tensor(lengths, dtype=torch.uint8)
    got = with_gradients(spoilt, given, backend)
    assert_same(got, with_gradients(made, given, backend))
    for row, length in enumerate(lengths):
        for name in ("gradient of keys", "gradient of values"):
            assert not got[name][row, length:].count_nonzero()
        assert not got["weights"][row, :, length:].count_nonzero()
        total = got["weights"][row].sum(-1)
        torch.testing.assert_close(total, torch.full_like(total, float(length > 0)))
        if length == 0:
            assert not got["context"][row].count_nonzero()
            assert not got["gradient of query"][row].count_nonzero()


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize("backend", BACKENDS)
def test_no_nan_passes_through_the_graph(backend):
    """Nor one that a mask stops later: whoever hunts for a NaN would stop here."""
    made = case()
    with torch.autograd.detect_anomaly():
        outputs = additive_attention(
            **made, lengths=torch.tensor([6, 0, 2]), backend=backend
        )
        sum(y.sum() for y in outputs).backward()
    assert made["query"].grad.isfinite().all()


def test_a_row_is_that_row_alone():
    made = case()
    lengths = torch.tensor([6, 2, 4])
    context, weights = additive_attention(**made, lengths=lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = {
            "query": made["query"][row : row + 1],
            "keys": made["keys"][row : row + 1, :length],
            "values": made["values"][row : row + 1, :length],
            "weight": made["weight"],
        }
        one, others = additive_attention(**alone)
        torch.testing.assert_close(context[row : row + 1], one)
        torch.testing.assert_close(weights[row : row + 1, :, :length], others)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("empty", ["batch", "time", "source"])
def test_nothing_to_do(backend, empty):
    made = case(**{empty: 0})
    sizes = {"batch": 3, "time": 4, "source": 6} | {empty: 0}
    got = with_gradients(made, backend=backend)
    batch, time, source = sizes.values()
    assert got["context"].shape == (batch, time, 2)
    assert got["weights"].shape == (batch, time, source)
    assert not any(value.count_nonzero() for value in got.values())


@pytest.mark.parametrize("backend", BACKENDS)
def test_scores_of_any_size(backend):
    made = case(torch.float32)
    made["weight"] = (made["weight"].detach() * 1e30).requires_grad_()
    got = with_gradients(made, torch.tensor([6, 0, 3]), backend)
    assert got["weights"].isfinite().all()
    assert set(got["weights"].unique().tolist()) == {0.0, 1.0}
    assert all(value.isfinite().all() for value in got.values())


# Where the form by hand cannot run.


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_forward_mode_vmap_and_autocast_take_the_definition():
    made = {name: tensor.detach() for name, tensor in case().items()}
    expected = additive_attention(**made)
    tangent = torch.randn_like(made["keys"])

    def of_keys(keys):
        return additive_attention(**{**made, "keys": keys})[0]

    _, derivative = jvp(of_keys, (made["keys"],), (tangent,))
    step = 1e-6 * tangent
    ahead, behind = of_keys(made["keys"] + step), of_keys(made["keys"] - step)
    torch.testing.assert_close(derivative, (ahead - behind) / 2e-6, atol=1e-8, rtol=0)
    with dual_level():
        dual = of_keys(make_dual(made["keys"], tangent))
        torch.testing.assert_close(unpack_dual(dual).tangent, derivative)
        with pytest.raises(RuntimeError, match="forward-mode"):
            additive_attention(
                **{**made, "keys": make_dual(made["keys"], tangent)},
                backend="parallel",
            )

    def row(query, keys, values):
        one = additive_attention(query[None], keys[None], values[None], made["weight"])
        return one[0][0], one[1][0]

    rows = vmap(row)(made["query"], made["keys"], made["values"])
    for mine, theirs in zip(rows, expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    low = {name: tensor.float() for name, tensor in made.items()}
    with torch.autocast("cpu", torch.bfloat16):
        context, _ = additive_attention(**low)
        with pytest.raises(RuntimeError, match="autocast"):
            additive_attention(**low, backend="parallel")
    torch.testing.assert_close(context.double(), expected[0], atol=0.05, rtol=0)


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
def test_compiles_to_one_graph_and_exports():
    torch._dynamo.reset()
    made = {name: tensor.detach() for name, tensor in case().items()}
    lengths = torch.tensor([6, 0, 3])
    expected = additive_attention(**made, lengths=lengths)
    compiled = torch.compile(additive_attention, backend="aot_eager", fullgraph=True)
    for mine, theirs in zip(compiled(**made, lengths=lengths), expected, strict=True):
        torch.testing.assert_close(mine, theirs)


# Bad input.


@pytest.mark.errors
@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"query": torch.zeros(3, 5)}, ValueError, r"`query` must have shape"),
        ({"query": torch.zeros(3, 4, 6)}, ValueError, r"hidden=5\), got \(3, 4, 6\)"),
        ({"keys": torch.zeros(2, 6, 5)}, ValueError, r"`keys`.*batch=3, source"),
        ({"values": torch.zeros(3, 5, 2)}, ValueError, r"`values`.*source=6"),
        ({"weight": torch.zeros(1, 5)}, ValueError, r"`weight` must have shape"),
        ({"keys": torch.zeros(3, 6, 5).double()}, ValueError, r"`keys`.*dtype"),
        ({"lengths": [6, 1, 2]}, TypeError, r"`lengths` must be a tensor"),
        ({"lengths": torch.tensor([6, 7, 2])}, ValueError, r"at most source=6, got 7"),
        ({"lengths": torch.tensor([6, -1, 2])}, ValueError, r"at least 0, got -1"),
        ({"lengths": torch.tensor([6, 2])}, ValueError, r"`lengths` must have shape"),
        ({"backend": "triton"}, ValueError, r"`backend` must be one of"),
        ({"query": None}, TypeError, r"`query` must be a torch.Tensor"),
        ({"weight": torch.zeros(5).int()}, TypeError, r"`weight` must have a floating"),
        ({"weight": torch.zeros(5) * 1j}, TypeError, r"`weight` must have a floating"),
    ],
)
def test_bad_arguments(change, kind, message):
    made = {name: tensor.detach() for name, tensor in case(torch.float32).items()}
    with pytest.raises(kind, match=f"^additive_attention: .*{message}"):
        additive_attention(**{**made, **change})
