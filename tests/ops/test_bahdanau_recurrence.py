"""The op: its definition, both backends, padding on both sides, gradients, refusals."""

import numpy as np
import pytest
import torch
from torch.func import jvp

from seqref.ops.bahdanau_recurrence import BACKENDS, bahdanau_recurrence
from seqref.ops.bahdanau_recurrence.parallel import (
    bahdanau_backward,
    bahdanau_forward,
)
from seqref.ops.bahdanau_recurrence.reference import Parameters, bahdanau_step
from seqref.testing import LiveBytes

F64 = torch.float64
PADDED = [([5, 0, 2], [6, 4, 1]), ([5, 5, 5], [6, 0, 3]), ([1, 2, 3], [1, 2, 0])]
NAMES = ("y", "h_n", "contexts", "weights")


def case(dtype=F64, seed=0, batch=3, time=5, source=6, hidden=4, bias=True):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        drawn = torch.randn(shape, generator=generator, dtype=F64)
        return drawn.to(dtype).requires_grad_()

    width, score, value, rows = 3, hidden + 1, 2, 3 * hidden
    made = {
        "x": draw(batch, time, width),
        "h_0": draw(batch, hidden),
        "keys": draw(batch, source, score),
        "values": draw(batch, source, value),
        "weight_query": draw(score, hidden),
        "weight_score": draw(score),
        "weight_ih": draw(rows, width + value),
        "weight_hh": draw(rows, hidden),
    }
    if bias:
        made |= {"bias_ih": draw(rows), "bias_hh": draw(rows)}
    return made


def lengths_of(padded):
    if padded is None:
        return {}
    target, source = map(torch.tensor, padded)
    return {"lengths": target, "source_lengths": source}


def with_gradients(made, backend=None, **options):
    """All outputs and the gradient of each argument, by name."""
    outputs = bahdanau_recurrence(**made, backend=backend, **options)
    generator = torch.Generator().manual_seed(9)
    upstream = [
        torch.randn(y.shape, generator=generator, dtype=F64).to(y) for y in outputs
    ]
    grads = torch.autograd.grad(
        outputs, list(made.values()), upstream, materialize_grads=True
    )
    names = (*NAMES, *(f"gradient of {name}" for name in made))
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


def test_a_step_is_its_equations():
    made = {name: tensor.detach().numpy() for name, tensor in case().items()}
    x, h = made["x"][:, 0], made["h_0"]
    keys, values = made["keys"], made["values"]
    lengths = [6, 2, 3]
    real = torch.arange(6) < torch.tensor(lengths)[:, None]
    weights = Parameters(*map(torch.tensor, list(made.values())[4:]))
    tensors = map(torch.tensor, (x, h, keys, values))
    h_t, c_t, alpha_t = bahdanau_step(*tensors, real, weights)

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    w_i, w_h = np.split(made["weight_ih"], 3), np.split(made["weight_hh"], 3)
    b = np.split(made["bias_ih"] + made["bias_hh"], 3)
    for row, length in enumerate(lengths):
        query = made["weight_query"] @ h[row]
        e = np.array(
            [made["weight_score"] @ np.tanh(query + k) for k in keys[row, :length]]
        )
        alpha = np.exp(e) / np.exp(e).sum()
        c = alpha @ values[row, :length]
        u = np.concatenate([x[row], c])
        r, z = (sigmoid(w_i[i] @ u + w_h[i] @ h[row] + b[i]) for i in (0, 1))
        n = np.tanh(w_i[2] @ u + w_h[2] @ (r * h[row]) + b[2])
        np.testing.assert_allclose(alpha_t[row, :length], alpha, rtol=1e-12)
        np.testing.assert_allclose(c_t[row], c, rtol=1e-12)
        np.testing.assert_allclose(h_t[row], (1 - z) * n + z * h[row], rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_op_loops_the_step(backend):
    made = case()
    y, h_n, contexts, weights = bahdanau_recurrence(**made, backend=backend)
    parameters = Parameters(*list(made.values())[4:])
    real, h_t = torch.ones(3, 6, dtype=torch.bool), made["h_0"]
    for t in range(5):
        h_t, c_t, alpha_t = bahdanau_step(
            made["x"][:, t], h_t, made["keys"], made["values"], real, parameters
        )
        for whole, one in ((y, h_t), (contexts, c_t), (weights, alpha_t)):
            torch.testing.assert_close(whole[:, t], one)
    torch.testing.assert_close(h_n, h_t)


def test_equals_the_layers_of_keras(keras):
    """Its AdditiveAttention and its GRU cell that resets before the product."""
    made = {name: tensor.detach() for name, tensor in case(torch.float32).items()}
    attention = keras.layers.AdditiveAttention(use_scale=True)
    cell = keras.layers.GRUCell(4, reset_after=False)
    query_shape, value_shape = (3, 1, 5), (3, 6, 2)
    attention.build([query_shape, value_shape, (3, 6, 5)])
    attention.set_weights([made["weight_score"].numpy()])
    cell.build((3, 5))

    def z_first(rows):
        r, z, n = rows.chunk(3)
        return torch.cat([z, r, n])

    bias = made["bias_ih"] + made["bias_hh"]
    kernels = [z_first(made[name]).T for name in ("weight_ih", "weight_hh")]
    cell.set_weights([w.numpy() for w in (*kernels, z_first(bias))])
    h_t, states = made["h_0"], []
    for x_t in made["x"].unbind(1):
        query = (h_t @ made["weight_query"].T)[:, None]
        c_t = attention([query, made["values"], made["keys"]])
        h_t, _ = cell(torch.cat([x_t, c_t[:, 0]], dim=1), [h_t])
        states.append(h_t)
    y, h_n, *_ = bahdanau_recurrence(**made)
    torch.testing.assert_close(y, torch.stack(states, 1), atol=5e-6, rtol=1e-5)
    torch.testing.assert_close(h_n, h_t, atol=5e-6, rtol=1e-5)


def test_the_state_before_the_step_asks():
    """What comes at a step changes its state, and the weights of the next step only."""
    made = case()
    x = made["x"].detach().clone()
    x[:, 2] += 1
    before, after = (
        bahdanau_recurrence(**{**made, "x": value}) for value in (made["x"], x)
    )
    assert torch.equal(before[3][:, :3], after[3][:, :3])
    assert (before[0][:, 2] - after[0][:, 2]).abs().min() > 0
    assert (before[3][:, 3] - after[3][:, 3]).abs().max() > 0


# Backends beside each other.


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("padded", [None, *PADDED])
def test_backends_agree(padded, bias):
    made, options = case(bias=bias), lengths_of(padded)
    expected = with_gradients(made, "reference", **options)
    assert_same(with_gradients(made, "parallel", **options), expected)
    assert_same(with_gradients(made, **options), expected)


def test_the_adjoint_is_what_autograd_computes():
    made = case()
    outputs = bahdanau_recurrence(**made, backend="reference")
    generator = torch.Generator().manual_seed(2)
    upstream = [torch.randn(y.shape, generator=generator, dtype=F64) for y in outputs]
    expected = torch.autograd.grad(outputs, list(made.values()), upstream)
    with torch.no_grad():
        x, h_0, keys, values, *weights = made.values()
        real, weights = torch.ones(3, 6, dtype=torch.bool), Parameters(*weights)
        x = x.transpose(0, 1)
        saved = bahdanau_forward(x, h_0, keys, values, real, weights)
        grad_y, grad_h_n, *others = (g.transpose(0, 1) for g in upstream)
        grad_y = grad_y.clone()
        grad_y[-1] += grad_h_n.T
        got = bahdanau_backward(x, keys, values, weights, saved, grad_y, *others)
    got = (got[0].transpose(0, 1), *got[1:])
    for name, mine, theirs in zip(made, got, expected, strict=True):
        assert theirs.abs().min() > 0
        torch.testing.assert_close(mine, theirs, atol=1e-10, rtol=1e-10, msg=name)


def error(got, expected):
    return (got.double() - expected).abs().max().item()


@pytest.mark.parametrize("padded", [None, ([12, 0, 7], [20, 3, 0])])
def test_the_fast_form_is_as_exact_as_the_loop_in_float32(padded):
    options = lengths_of(padded)
    for seed in range(5):
        low = case(torch.float32, seed, time=12, source=20, hidden=16)
        with torch.no_grad():
            for name, value in low.items():
                value *= 0.3 if name.startswith("weight_") else 1.0
        high = {n: t.detach().double().requires_grad_() for n, t in low.items()}
        exact = with_gradients(high, "reference", **options)
        slow = with_gradients(low, "reference", **options)
        for name, value in with_gradients(low, "parallel", **options).items():
            slack = 8 * torch.finfo(torch.float32).eps * exact[name].abs().max().item()
            allowed = 2 * error(slow[name], exact[name]) + slack
            assert error(value, exact[name]) <= allowed, (seed, name)


@pytest.mark.parametrize("padded", [None, ([2, 0], [2, 3])])
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_of_both_orders(backend, padded):
    made = case(batch=2, time=2, source=3, hidden=2)
    options = lengths_of(padded)

    def op(*tensors):
        named = dict(zip(made, tensors, strict=True))
        return bahdanau_recurrence(**named, backend=backend, **options)

    assert torch.autograd.gradcheck(op, tuple(made.values()))
    assert torch.autograd.gradgradcheck(op, tuple(made.values()))


@pytest.mark.parametrize("name", case())
def test_each_gradient_alone(name):
    made, options = case(), lengths_of(PADDED[0])
    expected = with_gradients(made, "reference", **options)[f"gradient of {name}"]
    alone = {n: t.detach().requires_grad_(n == name) for n, t in made.items()}
    outputs = bahdanau_recurrence(**alone, backend="parallel", **options)
    generator = torch.Generator().manual_seed(9)
    upstream = [torch.randn(y.shape, generator=generator, dtype=F64) for y in outputs]
    (mine,) = torch.autograd.grad(outputs, alone[name], upstream)
    torch.testing.assert_close(mine, expected)


@pytest.mark.parametrize("place", range(4), ids=NAMES)
def test_each_output_alone(place):
    made, options = case(), lengths_of(PADDED[0])
    grads = []
    for backend in BACKENDS:
        y = bahdanau_recurrence(**made, backend=backend, **options)[place]
        loss = y.square().sum()
        grads.append(
            torch.autograd.grad(loss, list(made.values()), materialize_grads=True)
        )
    for mine, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_two_backward_passes_and_outputs_that_are_written_to():
    made = case()
    outputs = bahdanau_recurrence(**made, backend="parallel")
    loss = sum(y.sum() for y in outputs)
    first = torch.autograd.grad(loss, list(made.values()), retain_graph=True)
    for y in outputs:
        y.detach().zero_()
    second = torch.autograd.grad(loss, list(made.values()))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_what_is_kept_for_the_backward_pass():
    """Vectors for each step, and no tanh of every step and source position."""
    made = case(torch.float32, batch=2, time=20, source=30, hidden=64)
    kept = {}
    for backend in BACKENDS:
        with LiveBytes(made.values()) as live:
            outputs = bahdanau_recurrence(**made, backend=backend)
            kept[backend] = live.now
        assert outputs
    tanh = 2 * 20 * 30 * 65 * 4
    assert kept["reference"] > tanh
    assert kept["parallel"] < tanh / 2


# Padding.


@pytest.mark.parametrize("padded", PADDED)
@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_changes_nothing_and_gets_no_gradient(backend, padded):
    made, options = case(), lengths_of(padded)
    spoilt = dict(made)
    for name, lengths in zip(
        ("x", "keys", "values"), (*padded, padded[1]), strict=True
    ):
        tensor = made[name].detach().clone()
        for row, length in enumerate(lengths):
            tensor[row, length:] = torch.nan
        spoilt[name] = tensor.requires_grad_()
    got = with_gradients(spoilt, backend, **options)
    assert_same(got, with_gradients(made, backend, **options))
    for row, (target, source) in enumerate(zip(*padded, strict=True)):
        for name in ("y", "contexts", "weights", "gradient of x"):
            assert not got[name][row, target:].count_nonzero()
        for name in ("gradient of keys", "gradient of values"):
            assert not got[name][row, source:].count_nonzero()
        assert not got["weights"][row, :, source:].count_nonzero()
        total = got["weights"][row, :target].sum(-1)
        torch.testing.assert_close(total, torch.full_like(total, float(source > 0)))
        if target == 0:
            assert torch.equal(got["h_n"][row], made["h_0"][row])
        else:
            assert torch.equal(got["h_n"][row], got["y"][row, target - 1])


def test_a_row_is_that_row_alone():
    made, (targets, sources) = case(), PADDED[0]
    whole = bahdanau_recurrence(**made, **lengths_of(PADDED[0]))
    for row, (target, source) in enumerate(zip(targets, sources, strict=True)):
        alone = {n: t for n, t in made.items() if n.startswith(("weight", "bias"))}
        alone["x"] = made["x"][row : row + 1, :target]
        alone["h_0"] = made["h_0"][row : row + 1]
        for name in ("keys", "values"):
            alone[name] = made[name][row : row + 1, :source]
        y, h_n, contexts, weights = bahdanau_recurrence(**alone)
        torch.testing.assert_close(whole[0][row : row + 1, :target], y)
        torch.testing.assert_close(whole[1][row : row + 1], h_n)
        torch.testing.assert_close(whole[2][row : row + 1, :target], contexts)
        torch.testing.assert_close(whole[3][row : row + 1, :target, :source], weights)


@pytest.mark.parametrize("empty", ["batch", "time", "source"])
def test_nothing_to_do(empty):
    made = case(**{empty: 0})
    y, h_n, contexts, weights = bahdanau_recurrence(**made)
    sizes = {"batch": 3, "time": 5, "source": 6} | {empty: 0}
    batch, time, source = sizes.values()
    assert y.shape == (batch, time, 4)
    assert contexts.shape == (batch, time, 2)
    assert weights.shape == (batch, time, source)
    assert not contexts.count_nonzero()
    if empty == "time":
        assert torch.equal(h_n, made["h_0"])
        with pytest.raises(RuntimeError, match="'parallel' cannot run here: the input"):
            bahdanau_recurrence(**made, backend="parallel")


# Where the form by hand cannot run.


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_forward_mode_and_autocast_take_the_definition():
    made = {name: tensor.detach() for name, tensor in case().items()}
    tangent = torch.randn_like(made["h_0"])

    def of_state(h_0):
        return bahdanau_recurrence(**{**made, "h_0": h_0})[0]

    _, derivative = jvp(of_state, (made["h_0"],), (tangent,))
    step = 1e-6 * tangent
    ahead, behind = of_state(made["h_0"] + step), of_state(made["h_0"] - step)
    torch.testing.assert_close(derivative, (ahead - behind) / 2e-6, atol=1e-8, rtol=0)
    low = {name: tensor.float() for name, tensor in made.items()}
    expected = bahdanau_recurrence(**low)[0]
    with torch.autocast("cpu", torch.bfloat16):
        got = bahdanau_recurrence(**low)[0]
        with pytest.raises(RuntimeError, match="autocast"):
            bahdanau_recurrence(**low, backend="parallel")
    torch.testing.assert_close(got.float(), expected, atol=0.1, rtol=0)


@pytest.mark.compile
def test_compiles_to_one_graph():
    torch._dynamo.reset()
    made = {name: tensor.detach() for name, tensor in case(time=2).items()}
    expected = bahdanau_recurrence(**made)
    compiled = torch.compile(bahdanau_recurrence, backend="aot_eager", fullgraph=True)
    for mine, theirs in zip(compiled(**made), expected, strict=True):
        torch.testing.assert_close(mine, theirs)


# Bad input.


@pytest.mark.errors
@pytest.mark.parametrize(
    ("name", "value", "kind", "message"),
    [
        ("x", torch.zeros(3, 3), ValueError, "`x` must have shape"),
        ("x", torch.zeros(3, 5, 4), ValueError, r"`weight_ih`.*input_and_value=6"),
        ("h_0", torch.zeros(2, 4), ValueError, "`h_0`.*batch=3"),
        ("keys", torch.zeros(3, 6, 4), ValueError, "`keys`.*score=5"),
        ("values", torch.zeros(3, 5, 2), ValueError, "`values`.*source=6"),
        ("weight_query", torch.zeros(5, 5), ValueError, "`weight_query`.*hidden=4"),
        ("weight_score", torch.zeros(4), ValueError, "`weight_score`.*score=5"),
        ("weight_hh", torch.zeros(8, 4), ValueError, "`weight_hh`.*rows=12"),
        ("bias_ih", torch.zeros(4), ValueError, "`bias_ih`.*rows=12"),
        ("bias_hh", None, ValueError, "both be given or both be None"),
        ("h_0", torch.zeros(3, 4).double(), ValueError, "`h_0`.*dtype"),
        ("weight_ih", torch.zeros(12, 5).int(), TypeError, "a floating dtype"),
        (
            "lengths",
            torch.tensor([6, 0, 1]),
            ValueError,
            "`lengths` must.* time=5, got 6",
        ),
        (
            "source_lengths",
            torch.tensor([7, 0, 1]),
            ValueError,
            "`source_lengths` must.* source=6",
        ),
        ("source_lengths", [1, 2, 3], TypeError, "`source_lengths` must be a tensor"),
        ("backend", "triton", ValueError, "`backend` must be one of"),
        ("keys", 1, TypeError, "`keys` must be a"),
    ],
)
def test_bad_arguments(name, value, kind, message):
    made = {n: tensor.detach() for n, tensor in case(torch.float32).items()}
    with pytest.raises(kind, match=f"^bahdanau_recurrence: .*{message}"):
        bahdanau_recurrence(**{**made, name: value})
