"""The op: its definition, its backends beside each other, foreign judges, refusals."""

import re
from inspect import getdoc, isfunction
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.autograd.forward_ad import make_dual, unpack_dual
from torch.func import functional_call, grad, jacrev, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from seqref.ops import fused_recurrence
from seqref.ops.fused_recurrence import (
    fused_cho_gru,
    fused_gru,
    fused_lstm,
    fused_rnn,
    parallel,
    reference,
    torch_kernels,
)
from seqref.ops.fused_recurrence.parallel import driver
from seqref.ops.fused_recurrence.reference import (
    cho_gru_step,
    gru_step,
    loop,
    lstm_step,
    rnn_step,
)

KINDS = ["tanh", "relu", "lstm", "gru", "cho_gru"]
BACKENDS = ["reference", "parallel", "torch"]
# torch has no GRU that resets before the product.
RUNS = [(k, b) for k in KINDS for b in BACKENDS if (k, b) != ("cho_gru", "torch")]
FAST = [(k, b) for k, b in RUNS if b != "reference"]
F64 = torch.float64
LENGTHS = [[5, 0, 7, 1], [0, 0, 0, 0], [6, 2, 3, 6], [7, 7, 7, 7]]


OPS = {"lstm": fused_lstm, "gru": fused_gru, "cho_gru": fused_cho_gru}
N_BLOCKS = {"tanh": 1, "relu": 1, "lstm": 4, "gru": 3, "cho_gru": 3}


def case(kind, dtype=F64, seed=0, bias=True, batch=4, steps=7, width=3, hidden=5):
    """Random arguments by name; weights wide enough that no gate is idle."""
    generator = torch.Generator().manual_seed(seed)
    rows = N_BLOCKS[kind] * hidden

    def draw(*shape):
        drawn = torch.randn(shape, generator=generator, dtype=F64)
        return drawn.to(dtype).requires_grad_()

    made = {"x": draw(batch, steps, width), "h_0": draw(batch, hidden)}
    if kind == "lstm":
        made["c_0"] = draw(batch, hidden)
    made["weight_ih"], made["weight_hh"] = draw(rows, width), draw(rows, hidden)
    with torch.no_grad():
        # Below the point where a rectified state grows with every step.
        made["weight_hh"] *= 0.3
    if bias:
        made["bias_ih"], made["bias_hh"] = draw(rows), draw(rows)
    return made


def call(kind, made, **options):
    if kind in OPS:
        return OPS[kind](**made, **options)
    return fused_rnn(**made, nonlinearity=kind, **options)


def upstream(outputs, seed=99):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(y.shape, generator=generator, dtype=F64).to(y) for y in outputs]


def with_gradients(kind, made, **options):
    """Outputs, final states and the gradient of each argument, by name."""
    outputs = call(kind, made, **options)
    grads = torch.autograd.grad(
        outputs, list(made.values()), upstream(outputs), materialize_grads=True
    )
    named = {f"output {i}": y.detach() for i, y in enumerate(outputs)}
    return named | {f"gradient of {n}": g for n, g in zip(made, grads, strict=True)}


def assert_same(got, expected, atol=1e-12, rtol=1e-12):
    assert list(got) == list(expected)
    for name, value in got.items():
        torch.testing.assert_close(
            value,
            expected[name],
            atol=atol,
            rtol=rtol,
            msg=lambda m, n=name: f"{n}: {m}",
        )


# The definition.


@pytest.mark.parametrize("kind", ["tanh", "relu"])
def test_rnn_step_is_its_equation(kind):
    made = case(kind)
    weights = [made[n] for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    h_t = rnn_step(made["x"][:, 0], made["h_0"], tuple(weights), kind)
    for row in range(4):
        pre = weights[0] @ made["x"][row, 0] + weights[2]
        pre = pre + weights[1] @ made["h_0"][row] + weights[3]
        expected = pre.tanh() if kind == "tanh" else pre.clamp(min=0)
        torch.testing.assert_close(h_t[row], expected, atol=1e-14, rtol=1e-14)


def test_rnn_step_takes_tanh_unless_told():
    made = case("tanh")
    weights = tuple(made[n] for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    x_t, h_0 = made["x"][:, 0], made["h_0"]
    assert torch.equal(rnn_step(x_t, h_0, weights), rnn_step(x_t, h_0, weights, "tanh"))
    assert rnn_step(x_t, h_0, weights).min() < 0
    default, _ = fused_rnn(**made)
    assert torch.equal(default, call("tanh", made)[0])


def test_lstm_step_is_its_equations():
    made = case("lstm")
    w_i, w_h, b_i, b_h = (
        made[n].split(5) for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    weights = tuple(made[n] for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    h_t, c_t = lstm_step(made["x"][:, 0], made["h_0"], made["c_0"], weights)
    for row in range(4):
        x, h, c = made["x"][row, 0], made["h_0"][row], made["c_0"][row]
        i, f, g, o = (w_i[k] @ x + b_i[k] + w_h[k] @ h + b_h[k] for k in range(4))
        c_new = f.sigmoid() * c + i.sigmoid() * g.tanh()
        torch.testing.assert_close(c_t[row], c_new, atol=1e-14, rtol=1e-14)
        h_new = o.sigmoid() * c_new.tanh()
        torch.testing.assert_close(h_t[row], h_new, atol=1e-14, rtol=1e-14)


@pytest.mark.parametrize("step", ["rnn_step", "lstm_step"])
def test_a_step_keeps_the_dtypes_of_the_states(step):
    x = torch.randn(2, 3, dtype=torch.bfloat16)
    low = torch.randn(4, 3, dtype=torch.bfloat16)
    if step == "rnn_step":
        weights = (low, torch.randn(4, 4, dtype=torch.bfloat16), None, None)
        with torch.autocast("cpu", torch.bfloat16):
            h_t = rnn_step(x, torch.randn(2, 4), weights)
        assert h_t.dtype == torch.float32
    else:
        weights = (low, torch.randn(4, 1, dtype=torch.bfloat16), None, None)
        with torch.autocast("cpu", torch.bfloat16):
            h_t, c_t = lstm_step(x, torch.randn(2, 1), torch.randn(2, 1), weights)
        assert (h_t.dtype, c_t.dtype) == (torch.float32, torch.float32)


def test_loop_returns_the_first_state_as_output_and_holds_states_in_the_padding():
    def step(x_t, states):
        total, count = states
        return total + x_t, count + 1

    x = torch.ones(2, 4, 1)
    start = (torch.zeros(2, 1), torch.zeros(2, 1))
    y, (total, count) = loop(step, x, start, None)
    assert y[0, :, 0].tolist() == [1, 2, 3, 4]
    assert count.tolist() == [[4], [4]]
    y, (total, count) = loop(step, x, start, torch.tensor([2, 0]))
    assert y[..., 0].tolist() == [[1, 2, 0, 0], [0, 0, 0, 0]]
    assert total.tolist() == count.tolist() == [[2], [0]]


# Backends beside each other.


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_backends_agree(kind, bias):
    made = case(kind, bias=bias)
    expected = with_gradients(kind, made, backend="reference")
    for _, backend in [run for run in FAST if run[0] == kind]:
        assert_same(with_gradients(kind, made, backend=backend), expected)
    assert_same(with_gradients(kind, made), expected)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize(("kind", "backend"), RUNS)
def test_lengths_are_each_row_alone(kind, backend, lengths):
    made = case(kind)
    clean = with_gradients(
        kind, made, lengths=torch.tensor(lengths), backend="reference"
    )
    spoilt = dict(made)
    x = made["x"].detach().clone()
    for row, length in enumerate(lengths):
        x[row, length:] = torch.nan
    spoilt["x"] = x.requires_grad_()
    # A wide unsigned dtype cannot be compared with torch's own int64.
    dtype = torch.uint64 if backend == "torch" else torch.uint16
    got = with_gradients(
        kind, spoilt, lengths=torch.tensor(lengths, dtype=dtype), backend=backend
    )
    assert_same(got, clean)
    outputs = call(kind, made, lengths=torch.tensor(lengths), backend=backend)
    weights = {n: t for n, t in made.items() if "weight" in n or "bias" in n}
    states = [n for n in made if n in ("h_0", "c_0")]
    for row, length in enumerate(lengths):
        alone = {n: made[n][row : row + 1] for n in states}
        alone["x"] = made["x"][row : row + 1, :length]
        y, *final = call(kind, {**alone, **weights}, backend="reference")
        torch.testing.assert_close(outputs[0][row : row + 1, :length], y)
        assert not outputs[0][row, length:].count_nonzero()
        for end, expected in zip(outputs[1:], final, strict=True):
            torch.testing.assert_close(end[row : row + 1], expected)
        if not length:
            for end, name in zip(outputs[1:], states, strict=True):
                assert torch.equal(end[row], made[name][row])


def error(got, expected):
    return (got.double() - expected).abs().max().item()


def rule(got, loop_32, exact):
    """Twice the error of the loop in float32, and 8 eps of the largest value."""
    largest = exact.abs().max().item()
    slack = 8 * torch.finfo(torch.float32).eps * largest
    return error(got, exact), 2 * error(loop_32, exact) + slack


@pytest.mark.parametrize("lengths", [None, [20, 7, 0, 13]])
@pytest.mark.parametrize(("kind", "backend"), FAST)
def test_a_fast_form_is_as_exact_as_the_loop_in_float32(kind, backend, lengths):
    given = None if lengths is None else torch.tensor(lengths)
    for seed in range(5):
        low = case(kind, torch.float32, seed, steps=20, width=6, hidden=16)
        high = {n: t.detach().double().requires_grad_() for n, t in low.items()}
        exact = with_gradients(kind, high, lengths=given, backend="reference")
        slow = with_gradients(kind, low, lengths=given, backend="reference")
        fast = with_gradients(kind, low, lengths=given, backend=backend)
        for name, value in fast.items():
            assert value.dtype == torch.float32
            error, allowed = rule(value, slow[name], exact[name])
            assert error <= allowed, (kind, seed, name, error, allowed)


def test_the_rule_of_the_fast_form_can_fail():
    exact = torch.linspace(-1, 1, 50, dtype=F64)
    error, allowed = rule((exact + 3e-6).float(), exact.float(), exact)
    assert error > allowed


# The same rule for relative errors: over sizes of the input and of the layer.

SCALES = [1e-8, 1e-6, 1e-4, 1e-2, 0.1, 1.0, 10.0]


def scaled(kind, dtype, scale, batch, seed=0, hidden=256, steps=3):
    """Inputs, states and biases of a size, and weights as a layer draws them."""
    made = case(kind, F64, seed, batch=8, steps=steps, width=16, hidden=hidden)
    with torch.no_grad():
        for name, value in made.items():
            value *= hidden**-0.5 if name.startswith("weight") else scale
    rows = {n: t[:batch] if n in ("x", "h_0", "c_0") else t for n, t in made.items()}
    return {n: t.detach().to(dtype).requires_grad_() for n, t in rows.items()}


def distance(got, exact):
    return (got.double() - exact).norm().item()


def assert_relatively_exact(kind, dtype, scale, batch, backend):
    """Twice the error of the loop, and a few units of the root of the mean square.

    More for gradients, which are sums over hundreds of numbers, and for float64, where
    the measure is no more exact than what is measured.
    """
    units = 32 if dtype == F64 else 1
    low = scaled(kind, dtype, scale, batch)
    high = {n: t.detach().double().requires_grad_() for n, t in low.items()}
    exact = with_gradients(kind, high, backend="reference")
    slow = with_gradients(kind, low, backend="reference")
    fast = with_gradients(kind, low, backend=backend)
    for name, value in fast.items():
        is_gradient = name.startswith("gradient")
        if is_gradient and kind == "relu":
            # A rounding decides whether a unit counts.
            continue
        slack = (32 if is_gradient else 4) * units * torch.finfo(dtype).eps
        allowed = 2 * distance(slow[name], exact[name]) + slack * exact[name].norm()
        error = distance(value, exact[name])
        assert error <= allowed, (name, scale, batch, error, allowed)


@pytest.mark.parametrize(
    "dtype", [F64, torch.float32, torch.bfloat16, torch.float16], ids=str
)
@pytest.mark.parametrize(("kind", "backend"), FAST)
def test_a_fast_form_keeps_the_digits_of_small_numbers(kind, backend, dtype):
    """With few numbers in a step and with many."""
    for scale in SCALES:
        for batch in (1, 4, 5, 8):
            assert_relatively_exact(kind, dtype, scale, batch, backend)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_how_many_are_beside_it(kind, dtype):
    for scale in SCALES:
        whole = scaled(kind, dtype, scale, 8)
        high = {n: t.detach().double() for n, t in whole.items()}
        exact = call(kind, high, backend="reference")[0]
        slow = call(kind, whole, backend="reference")[0]
        y = call(kind, whole)[0].double()
        for batch in (1, 4, 5):
            part = call(kind, scaled(kind, dtype, scale, batch))[0]
            slack = 4 * torch.finfo(dtype).eps * exact[:batch].norm()
            allowed = 2 * distance(slow[:batch], exact[:batch]) + slack
            assert distance(part, y[:batch]) <= allowed, (scale, batch)


def test_the_rule_of_relative_errors_can_fail():
    """What this rule is for: a tanh made of a sigmoid."""
    a = 1e-4 * torch.linspace(-1, 1, 50)
    exact = a.double().tanh()
    by_sigmoid = 2 * (2 * a).sigmoid() - 1
    slack = 32 * torch.finfo(a.dtype).eps * exact.norm()
    allowed = 2 * distance(a.tanh(), exact) + slack
    assert distance(a.tanh(), exact) <= allowed
    assert distance(by_sigmoid, exact) > 100 * allowed


@pytest.mark.parametrize(("kind", "backend"), RUNS)
def test_gradients_of_both_orders(kind, backend):
    made = case(kind, batch=2, steps=2, width=1, hidden=2)
    lengths = torch.tensor([2, 1])
    for given in (None, lengths):

        def op(*tensors, given=given):
            named = dict(zip(made, tensors, strict=True))
            return call(kind, named, lengths=given, backend=backend)

        values = tuple(made.values())
        assert torch.autograd.gradcheck(op, values)
        assert torch.autograd.gradgradcheck(op, values)


@pytest.mark.parametrize("kind", KINDS)
def test_double_backward_without_biases(kind):
    made = case(kind, bias=False, batch=2, steps=2, width=1, hidden=2)

    def op(*tensors):
        named = dict(zip(made, tensors, strict=True))
        return call(kind, named, backend="parallel")

    assert torch.autograd.gradgradcheck(op, tuple(made.values()))


@pytest.mark.parametrize("kind", KINDS)
def test_many_numbers_in_a_step(kind):
    made = case(kind, batch=40, steps=3, hidden=30)
    expected = with_gradients(kind, made, backend="reference")
    assert_same(with_gradients(kind, made, backend="parallel"), expected, 1e-11, 1e-11)
    with torch.no_grad():
        for mine, theirs in zip(
            call(kind, made, backend="parallel"),
            call(kind, made, backend="reference"),
            strict=True,
        ):
            torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("given", [None, [7, 0, 3, 2]])
@pytest.mark.parametrize(("kind", "fast"), FAST)
def test_double_backward_in_float32(kind, fast, given):
    """oneDNN's kernel differentiates twice, and to the right values."""
    lengths = None if given is None else torch.tensor(given)
    made = case(kind, torch.float32)
    second = {}
    for backend in ("reference", fast):
        outputs = call(kind, made, lengths=lengths, backend=backend)
        first = torch.autograd.grad(
            outputs, list(made.values()), upstream(outputs), create_graph=True
        )
        penalty = sum(g.square().sum() for g in first)
        second[backend] = dict(
            zip(made, torch.autograd.grad(penalty, list(made.values())), strict=True)
        )
    assert_same(second[fast], second["reference"], atol=2e-3, rtol=2e-4)


# The adjoints by themselves.


def separate(kind, made):
    """The forward and the backward function of a kind, and their arguments."""
    name = "rnn" if kind in ("tanh", "relu") else kind
    options = {"nonlinearity": kind} if name == "rnn" else {}
    states = [made[n].detach() for n in ("h_0", "c_0") if n in made]
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    weights = tuple(made[n].detach() if n in made else None for n in names)
    forward = getattr(parallel, f"{name}_forward")
    backward = getattr(parallel, f"{name}_backward")
    saved = forward(made["x"].detach().transpose(0, 1), *states, weights, **options)
    return saved, weights, backward, options


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_an_adjoint_is_what_autograd_finds(kind, bias):
    made = case(kind, bias=bias)
    saved, weights, backward, options = separate(kind, made)
    kept = [tensor.clone() for tensor in saved]
    outputs = call(kind, made, backend="reference")
    torch.testing.assert_close(saved.h[1:].transpose(0, 1), outputs[0])
    grads = upstream(outputs)
    expected = torch.autograd.grad(outputs, list(made.values()), grads)
    given = [grads[0].transpose(0, 1), *grads[1:]]
    adjoint = backward(saved, weights, *given, **options)
    for name, value in zip(made, expected, strict=True):
        assert value.abs().min() > 0 or kind == "relu"
        mine = getattr(adjoint, name)
        mine = mine.transpose(0, 1) if name == "x" else mine
        torch.testing.assert_close(mine, value, atol=1e-12, rtol=1e-12)
    for tensor, before in zip(saved, kept, strict=True):
        assert torch.equal(tensor, before)
    assert torch.equal(given[0], upstream(outputs)[0].transpose(0, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_an_adjoint_leaves_out_what_is_not_wanted(kind):
    saved, weights, backward, options = separate(kind, case(kind))
    y = saved.h[1:]
    given = [torch.ones_like(y)] + [torch.ones_like(y[0])] * (1 + (kind == "lstm"))
    whole = backward(saved, weights, *given, **options)._asdict()
    for name in ("x", "weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        part = backward(saved, weights, *given, **options, skip={name})._asdict()
        assert part.pop(name) is None
        assert_same(part, {n: t for n, t in whole.items() if n != name}, 0, 0)


@pytest.mark.errors
@pytest.mark.parametrize("kind", KINDS)
def test_forms_by_hand_refuse_what_would_be_broadcast(kind):
    made = {n: t.detach() for n, t in case(kind).items()}
    saved, weights, backward, options = separate(kind, made)
    forward = getattr(parallel, backward.__name__.replace("backward", "forward"))
    x = made["x"].transpose(0, 1)
    h_0 = [made["h_0"]] * (1 + (kind == "lstm"))
    where = f"^{forward.__name__}: "
    with pytest.raises(
        ValueError, match=where + r"`h_0` .*\(batch=4, hidden=5\), got .1"
    ):
        forward(x, h_0[0][:1], *h_0[1:], weights, **options)
    with pytest.raises(ValueError, match=where + r"`h_0` .* \(time first in x\)$"):
        forward(made["x"], *h_0, weights, **options)
    with pytest.raises(ValueError, match=where + r"`bias_hh` must have shape \(rows="):
        forward(x, *h_0, (*weights[:3], weights[3][:1]), **options)
    with pytest.raises(
        TypeError, match=where + r"`x` must have a real dtype, got .*128"
    ):
        forward(x.to(torch.complex128), *h_0, weights, **options)
    y, h_n = torch.ones_like(saved.h[1:]), [torch.ones_like(each) for each in h_0]
    where = f"^{backward.__name__}: "
    with pytest.raises(
        ValueError, match=where + r"`grad_y` .*\(time=7, batch=4, hidden"
    ):
        backward(saved, weights, y[:, :1], *h_n, **options)
    with pytest.raises(ValueError, match=where + r"`grad_h_n` .*=5\), got \(1, 5\)$"):
        backward(saved, weights, y, h_n[0][:1], *h_n[1:], **options)


@pytest.mark.errors
def test_an_unknown_nonlinearity_is_not_the_rectifier():
    saved, weights, *_ = separate("tanh", case("tanh"))
    message = r"^rnn_{}: `nonlinearity` must be one of 'tanh', 'relu', got 'thanh'$"
    with pytest.raises(ValueError, match=message.format("forward")):
        parallel.rnn_forward(saved.x, saved.h[0], weights, "thanh")
    with pytest.raises(ValueError, match=message.format("backward")):
        parallel.rnn_backward(saved, weights, saved.h[1:], saved.h[0], "thanh")


# The op by hand as a function of autograd.


@pytest.mark.parametrize("kind", KINDS)
def test_each_gradient_alone(kind):
    made = case(kind)
    whole = with_gradients(kind, made, backend="parallel")
    for name in made:
        one = {n: t.detach().requires_grad_(n == name) for n, t in made.items()}
        outputs = call(kind, one, backend="parallel")
        (alone,) = torch.autograd.grad(outputs, [one[name]], upstream(outputs))
        torch.testing.assert_close(alone, whole[f"gradient of {name}"])


@pytest.mark.parametrize("given", [None, [5, 0, 7, 1]])
@pytest.mark.parametrize("kind", KINDS)
def test_each_output_alone(kind, given):
    """A loss of the final state, or of the outputs, and nothing else."""
    made = case(kind)
    lengths = None if given is None else torch.tensor(given)
    for k in range(3 if kind == "lstm" else 2):
        by_backend = {}
        for backend in ("reference", "parallel"):
            y = call(kind, made, lengths=lengths, backend=backend)[k]
            grads = torch.autograd.grad(
                y.square().sum(), list(made.values()), materialize_grads=True
            )
            by_backend[backend] = dict(zip(made, grads, strict=True))
        assert_same(by_backend["parallel"], by_backend["reference"])


@pytest.mark.parametrize(("kind", "backend"), RUNS)
def test_two_backward_passes(kind, backend):
    made = case(kind)
    total = sum(y.square().sum() for y in call(kind, made, backend=backend))
    first = torch.autograd.grad(total, list(made.values()), retain_graph=True)
    second = torch.autograd.grad(total, list(made.values()))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(total, list(made.values()))


@pytest.mark.parametrize("kind", KINDS)
def test_an_argument_changed_after_the_forward_pass_is_noticed(kind):
    for name in case(kind):
        made = {n: t.detach().requires_grad_(n != name) for n, t in case(kind).items()}
        outputs = call(kind, made, backend="parallel")
        made[name].add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.backward(outputs, upstream(outputs))


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_lengths_may_be_changed(kind):
    """What the caller writes into afterwards is a copy of what the gradient needs."""
    made = case(kind)
    lengths = torch.tensor([5, 0, 7, 1])
    expected = with_gradients(kind, made, lengths=lengths, backend="parallel")
    outputs = call(kind, made, lengths=lengths, backend="parallel")
    grads = upstream(outputs)
    for y in outputs:
        y.add_(1)
    lengths -= 1
    gradients = torch.autograd.grad(
        outputs, list(made.values()), grads, materialize_grads=True
    )
    for name, value in zip(made, gradients, strict=True):
        torch.testing.assert_close(value, expected[f"gradient of {name}"])


@pytest.mark.parametrize("kind", KINDS)
def test_second_derivatives_where_arguments_hang_together(kind):
    """The loop of the second pass must not follow what made its own arguments."""

    def loss(weight, backend):
        made = case(kind)
        mixed = {n: t.detach() for n, t in made.items()}
        mixed["h_0"] = made["h_0"] + weight
        mixed["x"] = made["x"] * mixed["h_0"].sum() * weight
        mixed["weight_ih"] = made["weight_ih"] * weight
        mixed["weight_hh"] = mixed["weight_hh"] * mixed["weight_ih"].sum().tanh()
        total = sum(y.square().sum() for y in call(kind, mixed, backend=backend))
        (first,) = torch.autograd.grad(total, weight, create_graph=True)
        return first, *torch.autograd.grad(first, weight)

    weight = torch.tensor(0.7, dtype=F64, requires_grad=True)
    for mine, expected in zip(
        loss(weight, "parallel"), loss(weight, "reference"), strict=True
    ):
        torch.testing.assert_close(mine, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_and_saved_tensors_hooks(kind):
    made = case(kind)
    expected = with_gradients(kind, made, backend="parallel")
    seen = []
    made["weight_hh"].register_hook(seen.append)
    packed = []

    def pack(tensor):
        packed.append(tensor.shape)
        return tensor.clone()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = call(kind, made, backend="parallel")
    assert packed
    torch.autograd.backward(outputs, upstream(outputs))
    for name, tensor in made.items():
        torch.testing.assert_close(tensor.grad, expected[f"gradient of {name}"])
    assert len(seen) == 1
    torch.testing.assert_close(seen[0], expected["gradient of weight_hh"])


@pytest.mark.parametrize("given", [None, [13, 0, 4, 9]])
@pytest.mark.parametrize("kind", KINDS)
def test_parts_without_gradients_are_one_whole(kind, given, monkeypatch):
    made = case(kind, steps=13)
    lengths = None if given is None else torch.tensor(given)
    expected = call(kind, made, lengths=lengths, backend="reference")
    for part in (1, 4 * N_BLOCKS[kind] * 5 * 5):
        monkeypatch.setattr(driver, "_PART", part)
        with torch.no_grad():
            got = call(kind, made, lengths=lengths, backend="parallel")
        for mine, theirs in zip(got, expected, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-13, rtol=1e-13)


def test_a_rectified_state_that_overflows_in_the_padding_harms_nothing():
    made = case("relu", steps=40)
    with torch.no_grad():
        made["weight_hh"].fill_(1e20)
    lengths = torch.tensor([1, 1, 0, 1])
    results = with_gradients("relu", made, lengths=lengths, backend="parallel")
    expected = with_gradients("relu", made, lengths=lengths, backend="reference")
    assert all(value.isfinite().all() for value in results.values())
    assert_same(results, expected)


# torch loads its own rules by `torch.jit.script`, which warns.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize(("kind", "backend"), RUNS)
def test_forward_mode_differentiation_by_default(kind, backend):
    made = {n: t.detach() for n, t in case(kind).items()}
    tangents = {n: torch.ones_like(t) for n, t in made.items()}
    with torch.autograd.forward_ad.dual_level():
        dual = {n: make_dual(t, tangents[n]) for n, t in made.items()}
        y = unpack_dual(call(kind, dual)[0])
        if backend != "reference":
            with pytest.raises(RuntimeError, match="no rule for forward-mode"):
                call(kind, dual, backend=backend)
        # One dual tensor among the arguments is enough, be it a bias.
        for name in made:
            y_one = call(kind, made | {name: dual[name]})[0]
            assert unpack_dual(y_one).tangent is not None, name
    step = 1e-6
    low, high = (
        call(kind, {n: t + sign * step for n, t in made.items()})[0] for sign in (-1, 1)
    )
    torch.testing.assert_close(
        y.tangent, (high - low) / (2 * step), atol=1e-6, rtol=1e-6
    )


# torch 2.13's compiler looks at the `.grad` of what crosses the border of a graph.
@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_torch_compile_leaves_its_graph_for_the_default(kind):
    made = case(kind, torch.float32)
    expected = with_gradients(kind, made)

    def model(**made):
        return tuple(2 * y for y in call(kind, made))

    outputs = torch.compile(model, backend="eager")(**made)
    grads = torch.autograd.grad(outputs, list(made.values()), upstream(outputs))
    for name, value in zip(made, grads, strict=True):
        torch.testing.assert_close(value, 2 * expected[f"gradient of {name}"])


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:`torch.jit.trace` is deprecated")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("kind", ["tanh", "gru"])
def test_a_trace_holds_one_kernel(kind):
    """Not the steps that it saw: another number of steps must work."""
    made = {n: t.detach() for n, t in case(kind).items()}
    rest = {n: t for n, t in made.items() if n != "x"}
    traced = torch.jit.trace(
        lambda x: call(kind, {"x": x, **rest}), made["x"], check_trace=False
    )
    longer = torch.cat([made["x"], made["x"]], dim=1)
    expected = call(kind, {"x": longer, **rest})
    for mine, theirs in zip(traced(longer), expected, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:`torch.jit.trace` is deprecated")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_of_what_has_no_kernel_holds_the_loop():
    made = case("cho_gru")
    tensors = tuple(made.values())

    def op(*tensors, backend=None):
        named = dict(zip(made, tensors, strict=True))
        return call("cho_gru", named, backend=backend)

    traced = torch.jit.trace(op, tensors, check_trace=False)
    outputs, expected = traced(*tensors), op(*tensors)
    grads = torch.autograd.grad(outputs, list(made.values()), upstream(outputs))
    wanted = torch.autograd.grad(expected, list(made.values()), upstream(expected))
    for mine, theirs in zip((*outputs, *grads), (*expected, *wanted), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=1e-12)
    by_hand = lambda *given: op(*given, backend="parallel")  # noqa: E731
    with pytest.raises(RuntimeError, match=r"backend 'parallel' .* torch\.jit\.trace"):
        torch.jit.trace(by_hand, tensors, check_trace=False)


# Foreign judges.


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kind", "backend"), RUNS)
@pytest.mark.parametrize("given", [None, [5, 0, 7, 1]])
def test_onnxruntime_agrees(kind, backend, bias, given):
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    made = {n: t.detach() for n, t in case(kind, torch.float32, bias=bias).items()}
    # ONNX stacks the blocks i, o, f, c and z, r, h; ours are i, f, g, o and r, z, n.
    order = {1: [0], 3: [1, 0, 2], 4: [0, 3, 1, 2]}[N_BLOCKS[kind]]
    order = torch.arange(5 * len(order)).view(-1, 5)[order].flatten()
    feeds = {"X": made["x"].transpose(0, 1), "initial_h": made["h_0"][None]}
    feeds["W"], feeds["R"] = (
        made["weight_ih"][order][None],
        made["weight_hh"][order][None],
    )
    if bias:
        both = torch.cat([made["bias_ih"][order], made["bias_hh"][order]])
        feeds["B"] = both[None]
    if kind == "lstm":
        feeds["initial_c"] = made["c_0"][None]
    lengths = None if given is None else torch.tensor(given)
    if given is not None:
        feeds["sequence_lens"] = lengths.to(torch.int32)
    slots = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c"]
    inputs = [slot if slot in feeds else "" for slot in slots]
    inputs = inputs if kind == "lstm" else inputs[:-1]
    outputs = ["Y", "Y_h", "Y_c"] if kind == "lstm" else ["Y", "Y_h"]
    helper = onnx.helper
    name, options = {
        "tanh": ("RNN", {"activations": ["Tanh"]}),
        "relu": ("RNN", {"activations": ["Relu"]}),
        "lstm": ("LSTM", {}),
        "gru": ("GRU", {"linear_before_reset": 1}),
        "cho_gru": ("GRU", {"linear_before_reset": 0}),
    }[kind]
    node = helper.make_node(name, inputs, outputs, hidden_size=5, **options)
    kinds = {torch.float32: onnx.TensorProto.FLOAT, torch.int32: onnx.TensorProto.INT32}
    graph = helper.make_graph(
        [node],
        "judge",
        [
            helper.make_tensor_value_info(n, kinds[t.dtype], list(t.shape))
            for n, t in feeds.items()
        ],
        [
            helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None)
            for n in outputs
        ],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    y, *final = session.run(None, {n: t.numpy() for n, t in feeds.items()})
    ours = call(kind, made, lengths=lengths, backend=backend)
    judged = [
        torch.tensor(y)[:, 0].transpose(0, 1),
        *(torch.tensor(f)[0] for f in final),
    ]
    for row in range(4):
        if given is not None and given[row] == 0:
            # onnxruntime gives zeros as the final state of a row without steps.
            continue
        for mine, theirs in zip(ours, judged, strict=True):
            torch.testing.assert_close(mine[row], theirs[row], atol=2e-6, rtol=2e-5)


# Shapes, memory, modes.


@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize(("batch", "steps"), [(4, 0), (0, 7), (0, 0)])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_do(kind, batch, steps, backend):
    made = case(kind, batch=batch, steps=steps)
    lengths = torch.zeros(batch, dtype=torch.int64)
    for given in (None, lengths):
        y, *final = call(kind, made, lengths=given, backend=backend)
        assert y.shape == (batch, steps, 5)
        assert y.dtype == F64
        for end, name in zip(final, ("h_0", "c_0"), strict=False):
            assert torch.equal(end, made[name])


@pytest.mark.parametrize(("kind", "backend"), RUNS)
def test_memory_layouts(kind, backend):
    """Transposed, strided and expanded arguments give what their copies give."""
    base = case(kind)
    odd = {n: t.detach() for n, t in base.items()}
    odd["x"] = odd["x"].transpose(0, 1).contiguous().transpose(0, 1)
    odd["h_0"] = odd["h_0"][:1].expand(4, -1)
    odd["weight_ih"] = odd["weight_ih"].T.contiguous().T
    odd["weight_hh"] = torch.stack([odd["weight_hh"]] * 2, dim=-1)[..., 0]
    odd["bias_ih"] = odd["bias_ih"][:1].expand_as(odd["bias_ih"])
    assert not any(odd[n].is_contiguous() for n in ("x", "h_0", "weight_ih"))
    for x in (odd["x"], odd["x"][:, :1].expand(-1, 7, -1)):
        odd["x"] = x
        copies = {n: t.contiguous() for n, t in odd.items()}
        for given in (None, torch.tensor([5, 0, 7, 1])):
            got = call(kind, odd, lengths=given, backend=backend)
            expected = call(kind, copies, lengths=given, backend=backend)
            for mine, theirs in zip(got, expected, strict=True):
                torch.testing.assert_close(mine, theirs, atol=1e-14, rtol=1e-14)


@pytest.mark.parametrize(("kind", "backend"), RUNS)
def test_arguments_stay_as_they_are(kind, backend):
    made = case(kind)
    lengths = torch.tensor([5, 0, 7, 1])
    given = {**made, "lengths": lengths}
    kept = {n: (t.detach().clone(), t._version) for n, t in given.items()}
    with_gradients(kind, made, lengths=lengths, backend=backend)
    for name, tensor in given.items():
        assert torch.equal(tensor, kept[name][0])
        assert tensor._version == kept[name][1]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("kind", KINDS)
def test_without_gradients(kind, mode):
    made = case(kind, torch.float32)
    expected = call(kind, made)
    with mode():
        got = call(kind, made)
    for mine, theirs in zip(got, expected, strict=True):
        assert not mine.requires_grad
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_deterministic_algorithms(kind):
    made = case(kind, torch.float32)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (with_gradients(kind, made) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(before)
    assert_same(first, second, atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("kind", "backend"), RUNS)
def test_half_precision(kind, backend, dtype):
    made = case(kind, dtype)
    exact = call(kind, {n: t.double() for n, t in made.items()}, backend="reference")
    for given in (None, torch.tensor([7] * 4)):
        got = call(kind, made, lengths=given, backend=backend)
        for mine, theirs in zip(got, exact, strict=True):
            assert mine.dtype == dtype
            tolerance = 40 * torch.finfo(dtype).eps
            torch.testing.assert_close(
                mine.double(), theirs, atol=tolerance, rtol=tolerance
            )


@pytest.mark.parametrize("low_input", [False, True])
@pytest.mark.parametrize(
    ("kind", "backend"),
    [(k, b) for k, b in RUNS if b != "parallel"] + [(k, None) for k in KINDS],
)
def test_autocast_keeps_the_dtype_of_the_state(kind, backend, low_input):
    made = case(kind, torch.float32)
    exact = call(kind, made, backend="reference")
    used = dict(made)
    if low_input:
        used["x"] = made["x"].bfloat16()
    if (kind, backend, low_input) == ("lstm", "torch", False):
        with torch.autocast("cpu", torch.bfloat16):
            why_not = torch_kernels.why_not_lstm_under_autocast(used["x"])
        if why_not:
            pytest.skip(why_not)
    for given in (None, torch.tensor([7] * 4)):
        with torch.autocast("cpu", torch.bfloat16):
            got = call(kind, used, lengths=given, backend=backend)
            empty = call(kind, {**used, "x": used["x"][:, :0]})
        for mine, theirs in zip(got, exact, strict=True):
            assert mine.dtype == torch.float32
            torch.testing.assert_close(mine, theirs, atol=0.2, rtol=0.1)
        assert empty[0].dtype == torch.float32


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("supported", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_takes_torch_where_onednn_has_an_lstm(
    dtype, supported, training, monkeypatch
):
    """The processor's answer replaced, in both directions."""
    ran = []

    def kernel(_, x, states, *rest):
        ran.append("torch")
        return x.new_zeros(*x.shape[:2], states[0].shape[1]), states

    def counted(*arguments):
        ran.append("loop")
        return loop(*arguments)

    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch_kernels, "onednn_supports", lambda asked: supported)
    monkeypatch.setattr(torch_kernels, "run", kernel)
    monkeypatch.setattr(fused_recurrence, "loop", counted)
    made = case("lstm", torch.float32)
    low = made | {"x": made["x"].to(dtype)}
    with torch.set_grad_enabled(training):
        with torch.autocast("cpu", dtype):
            for lengths in (None, torch.tensor([7, 7, 7, 7])):
                call("lstm", made, lengths=lengths)
            call("lstm", low)
        call("lstm", made)
        has_lstm = supported and not (training and dtype == torch.float16)
        # torch asks the same question of an input in a low precision by itself.
        assert ran == ["torch" if has_lstm else "loop"] * 2 + ["torch"] * 2
        if not has_lstm:
            message = (
                r"^fused_lstm: backend 'torch' cannot run here: oneDNN has no LSTM"
            )
            with (
                torch.autocast("cpu", dtype),
                pytest.raises(RuntimeError, match=message),
            ):
                call("lstm", made, backend="torch")


@pytest.mark.parametrize("answer", [True, False])
def test_onednn_is_asked_once(answer, monkeypatch):
    asked = []
    question = "_is_mkldnn_bf16_supported"
    monkeypatch.setattr(torch_kernels, "_answers", {})
    monkeypatch.setattr(
        torch.ops.mkldnn, question, lambda: asked.append(1) or answer, raising=False
    )
    assert [torch_kernels.onednn_supports(torch.bfloat16) for _ in range(3)] == [
        answer
    ] * 3
    assert asked == [1]
    assert not torch_kernels.onednn_supports(torch.float64)


# Function transforms.


@pytest.mark.parametrize("kind", KINDS)
def test_vmap_over_parameters(kind):
    many = [case(kind, seed=seed) for seed in range(3)]
    weights = [n for n in many[0] if "weight" in n or "bias" in n]
    x = {n: t for n, t in many[0].items() if n not in weights}
    stacked = [torch.stack([one[n] for one in many]) for n in weights]

    def one(*values):
        return call(kind, {**x, **dict(zip(weights, values, strict=True))})

    got = vmap(one)(*stacked)
    for k, made in enumerate(many):
        expected = one(*(made[n] for n in weights))
        for mine, theirs in zip(got, expected, strict=True):
            torch.testing.assert_close(mine[k], theirs, atol=1e-13, rtol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_grad_and_jacrev_of_torch_func(kind):
    made = {n: t.detach() for n, t in case(kind).items()}

    def total(x):
        return call(kind, {**made, "x": x})[0].square().sum()

    x = made["x"].clone().requires_grad_()
    (expected,) = torch.autograd.grad(total(x), x)
    torch.testing.assert_close(grad(total)(made["x"]), expected)

    def final(h_0):
        return call(kind, {**made, "h_0": h_0})[1][0]

    jacobian = jacrev(final)(made["h_0"])
    columns = torch.autograd.functional.jacobian(final, made["h_0"])
    torch.testing.assert_close(jacobian, columns)
    assert jacobian[:, 0].abs().max() > 0
    assert not jacobian[:, 1:].count_nonzero()


def test_per_sample_gradients_of_a_layer_inside_a_model():
    import seqref

    layer = seqref.LSTM(3, 5, dtype=F64)
    head = nn.Linear(5, 1, dtype=F64)
    x = torch.randn(4, 6, 3, dtype=F64)

    def loss(parameters, one):
        y, _ = functional_call(layer, parameters, (one[None],))
        return head(y[:, -1]).square().sum()

    parameters = dict(layer.named_parameters())
    gradients = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    for row in range(4):
        value = loss(parameters, x[row])
        expected = torch.autograd.grad(value, list(parameters.values()))
        for mine, theirs in zip(gradients.values(), expected, strict=True):
            torch.testing.assert_close(mine[row], theirs)


@pytest.mark.errors
@pytest.mark.parametrize("kind", KINDS)
def test_a_backend_that_cannot_run_is_refused(kind):
    made = {n: t.detach() for n, t in case(kind, torch.float32).items()}
    meta = {n: t.to("meta") for n, t in made.items()}
    where = rf"^fused_{'rnn' if kind in ('tanh', 'relu') else kind}: backend 'parallel'"
    with pytest.raises(RuntimeError, match=where + ".*: the input is empty$"):
        call(kind, made | {"x": made["x"][:, :0]}, backend="parallel")
    with pytest.raises(RuntimeError, match=where + r".*: torch\.func cannot"):
        vmap(lambda x: call(kind, made | {"x": x}, backend="parallel"))(made["x"][None])
    with pytest.raises(RuntimeError, match=where + ".*: it is not tested on meta$"):
        call(kind, meta, backend="parallel")
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(RuntimeError, match=where + ".*: autocast would change"),
    ):
        call(kind, made, backend="parallel")
    if kind == "cho_gru":
        with pytest.raises(RuntimeError, match=r"torch has no such recurrence$"):
            call(kind, made, backend="torch")


@pytest.mark.errors
def test_torch_backend_is_refused_under_torch_func_and_for_nothing():
    made = {n: t.detach() for n, t in case("lstm").items()}

    def total(x):
        return call("lstm", {**made, "x": x}, backend="torch")[0].sum()

    message = r"^fused_lstm: backend 'torch' cannot run here: torch\.func cannot tra"
    with pytest.raises(RuntimeError, match=message):
        grad(total)(made["x"])
    with pytest.raises(RuntimeError, match=r"cannot run here: the input is empty$"):
        total(made["x"][:, :0])
    meta = {n: t.to("meta") for n, t in made.items()}
    with pytest.raises(RuntimeError, match=r"torch has no fused recurrence on meta$"):
        call("lstm", meta, backend="torch")


def test_other_devices_take_the_loop():
    meta = {n: t.detach().to("meta") for n, t in case("lstm").items()}
    y, h_n, c_n = call("lstm", meta)
    assert y.shape == (4, 7, 5)
    assert (h_n.shape, c_n.device.type) == ((4, 5), "meta")


def test_the_default_on_a_cpu_is_never_the_loop(monkeypatch):
    def no_loop(*_):
        raise AssertionError("the loop was taken")

    monkeypatch.setattr(fused_recurrence, "loop", no_loop)
    ran = []
    kernels, by_hand = fused_recurrence.torch_kernels, fused_recurrence.parallel

    def noted(name, run):
        return lambda *arguments: ran.append(name) or run(*arguments)

    monkeypatch.setattr(kernels, "run", noted("torch", kernels.run))
    monkeypatch.setattr(by_hand, "run", noted("parallel", by_hand.run))
    for kind in KINDS:
        made = case(kind)
        assert call(kind, made)[0].shape == (4, 7, 5)
        with pytest.raises(AssertionError, match="the loop was taken"):
            call(kind, made, backend="reference")
    assert ran == ["torch" if kind == "lstm" else "parallel" for kind in KINDS]


# What stands in for a tensor on a GPU is none.
@pytest.mark.errors
@pytest.mark.parametrize("device", ["CPU", "CUDA"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_table_of_backends_names_the_default(kind, device):
    row = re.compile(r'^ *\| `"(\w+)"` \| [^|]* \| ([^|]*) \|$', re.MULTILINE)
    table = dict(row.findall(getdoc(OPS.get(kind, fused_rnn))))
    assert set(table) == set(BACKENDS)
    form = f"rnn_{kind}" if kind in ("tanh", "relu") else kind
    order = fused_recurrence._order(form, SimpleNamespace(is_cuda=device == "CUDA"))
    has_kernel = form in fused_recurrence._KERNELS
    default = next(name for name in order if name != "torch" or has_kernel)
    named = [b for b, where in table.items() if device in re.split("[,;] ", where)]
    assert named == [default]


# The annotations say floating: their checker would stop here.
@pytest.mark.errors
@pytest.mark.parametrize("kind", ["tanh", "lstm", "gru", "cho_gru"])
@pytest.mark.parametrize("lengths", [None, [5, 0, 7, 1]])
def test_gradients_of_complex_numbers(kind, lengths):
    real, imaginary = case(kind), case(kind, seed=1)
    made = {n: torch.complex(t, imaginary[n]).detach() / 4 for n, t in real.items()}
    made = {n: t.requires_grad_() for n, t in made.items()}
    given = {} if lengths is None else {"lengths": torch.tensor(lengths)}
    expected = with_gradients(kind, made, backend="reference", **given)
    assert_same(with_gradients(kind, made, **given), expected, 1e-10, 1e-10)
    with pytest.raises(RuntimeError, match=r"'parallel' .*: .* for real numbers$"):
        call(kind, made, backend="parallel", **given)
    if given and kind != "cho_gru":
        with pytest.raises(RuntimeError, match=r"'torch' .*: .* complex numbers$"):
            call(kind, made, backend="torch", **given)


# Bad arguments.


@pytest.mark.errors
@pytest.mark.parametrize("backend", [None, "reference"])
def test_whole_numbers_are_refused(backend):
    made = {n: t.detach().to(torch.int32) for n, t in case("gru").items()}
    message = (
        r"^fused_gru: `weight_ih` must have a floating or complex dtype, got .*32$"
    )
    with pytest.raises(TypeError, match=message):
        call("gru", made, backend=backend)


def changed(kind, **changes):
    made = {n: t.detach() for n, t in case(kind).items()}
    return made | changes


LOW, META = torch.zeros(4, 5), torch.zeros(4, 5, dtype=F64, device="meta")
BAD_TENSORS = [
    ("tanh", "x", torch.zeros(4, 3), r"\(batch, time, input=3\), got \(4, 3\)$"),
    ("lstm", "x", torch.zeros(4, 7, 2), r"input=3\), got \(4, 7, 2\)$"),
    ("lstm", "x", torch.zeros(4, 7, 3), r"parameters' dtype torch\.float64, got .*32$"),
    ("tanh", "h_0", torch.zeros(3, 5), r"\(batch=4, hidden=5\), got \(3, 5\)$"),
    ("tanh", "h_0", META, r"on the parameters' device cpu, got meta$"),
    ("lstm", "c_0", torch.zeros(4, 6), r"\(batch=4, hidden=5\), got \(4, 6\)$"),
    ("lstm", "c_0", LOW, r"dtype torch\.float64, got torch\.float32$"),
    ("lstm", "weight_hh", LOW[0], r"\(rows, hidden\), got \(5,\)$"),
    ("lstm", "weight_hh", torch.zeros(5, 5), r"\(rows=20, hidden=5\), got \(5, 5\)$"),
    ("lstm", "weight_hh", torch.zeros(20, 5), r"dtype torch\.float64, got .*float32$"),
    ("lstm", "weight_ih", LOW[0], r"\(rows, input\), got \(5,\)$"),
    ("lstm", "weight_ih", torch.zeros(5, 3), r"\(rows=20, input\), got \(5, 3\)$"),
    ("tanh", "bias_ih", torch.zeros(6), r"\(rows=5,\), got \(6,\)$"),
    ("tanh", "bias_hh", torch.zeros(4), r"\(rows=5,\), got \(4,\)$"),
    ("lstm", "bias_ih", torch.zeros(20), r"dtype torch\.float64, got torch\.float32$"),
    ("lstm", "bias_hh", torch.zeros(20), r"dtype torch\.float64, got torch\.float32$"),
]


@pytest.mark.errors
@pytest.mark.parametrize(("kind", "name", "value", "message"), BAD_TENSORS)
def test_bad_tensors(kind, name, value, message):
    where = "fused_lstm" if kind == "lstm" else "fused_rnn"
    with pytest.raises(ValueError, match=rf"^{where}: `{name}` must .*{message}"):
        call(kind, changed(kind, **{name: value}))


@pytest.mark.errors
@pytest.mark.parametrize("name", ["x", "h_0", "c_0", "weight_ih", "weight_hh"])
def test_no_tensor(name):
    message = rf"^fused_lstm: `{name}` must be a torch\.Tensor, got list$"
    with pytest.raises(TypeError, match=message):
        call("lstm", changed("lstm", **{name: [1.0]}))


@pytest.mark.errors
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["bias_ih", "bias_hh"])
def test_one_bias_alone(kind, name):
    message = r"`bias_ih` and `bias_hh` must both be given or both be None$"
    with pytest.raises(ValueError, match=message):
        call(kind, changed(kind, **{name: None}))


@pytest.mark.errors
@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        (
            [1, 2, 3, 4],
            TypeError,
            r"^fused_lstm: `lengths` must be a tensor .* got list",
        ),
        (torch.ones(4), TypeError, r"integer dtype, got torch\.float32$"),
        (torch.ones(4) > 0, TypeError, r"integer dtype, got torch\.bool$"),
        (torch.ones(3).long(), ValueError, r"shape \(batch=4,\), got \(3,\)$"),
        (torch.tensor([1, 2, -1, 0]), ValueError, r"must be at least 0, got -1$"),
        (torch.tensor([1, 2, 8, 0]), ValueError, r"must be at most time=7, got 8$"),
    ],
)
def test_bad_lengths(lengths, error, message):
    for backend in BACKENDS:
        with pytest.raises(error, match=message):
            call("lstm", changed("lstm"), lengths=lengths, backend=backend)


@pytest.mark.errors
def test_unknown_names():
    assert list(fused_recurrence.BACKENDS) == BACKENDS
    known = "'reference', 'parallel', 'torch'"
    message = rf"^fused_rnn: `backend` must be one of {known}, got 'cuda'$"
    with pytest.raises(ValueError, match=message):
        call("tanh", changed("tanh"), backend="cuda")
    message = r"^fused_rnn: `nonlinearity` must be one of 'tanh', 'relu', got 'gelu'$"
    with pytest.raises(ValueError, match=message):
        fused_rnn(**changed("tanh"), nonlinearity="gelu")


# Growth with time.


class Work(TorchDispatchMode):
    """Counts the numbers that the kernels of torch write."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        tensors = out if isinstance(out, tuple | list) else [out]
        self.numbers += sum(t.numel() for t in tensors if isinstance(t, torch.Tensor))
        return out


def growth(kind, run):
    """How much more is written in both passes over four times the steps."""
    written = []
    for steps in (96, 384):
        made = case(kind, batch=2, steps=steps, width=64, hidden=4)
        with Work() as work:
            run(made)
        written.append(work.numbers)
    return written[1] / written[0]


@pytest.mark.parametrize(("kind", "backend"), RUNS)
def test_work_grows_as_the_sequence(kind, backend):
    def run(made):
        outputs = call(kind, made, backend=backend)
        torch.autograd.backward(outputs, upstream(outputs))

    assert growth(kind, run) <= 4.01


def test_an_index_in_the_loop_would_make_the_backward_pass_quadratic():
    def run(made):
        h_t = made["h_0"]
        for t in range(made["x"].shape[1]):
            h_t = torch.tanh(made["x"][:, t] @ made["weight_ih"].T + h_t)
        h_t.sum().backward()

    assert growth("tanh", run) > 8


def test_every_function_of_the_reference_is_named_here():
    named = {rnn_step, lstm_step, gru_step, cho_gru_step, loop}
    functions = {f for f in vars(reference).values() if isfunction(f)}
    own = {f for f in functions if f.__module__ == reference.__name__}
    assert own == named


# On a GPU, and the same on a CPU.


def moved(made, device, dtype=F64):
    return {n: t.detach().to(device, dtype).requires_grad_() for n, t in made.items()}


@pytest.mark.parametrize("given", [None, [5, 0, 7, 1]])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kind", "backend"), FAST)
def test_fast_forms_beside_the_loop_on_a_device(kind, backend, bias, given, device):
    """No warning escapes: pytest makes errors of them."""
    made = moved(case(kind, bias=bias), device)
    made["h_0"] = made["h_0"].detach()[:1].expand(4, -1).requires_grad_()
    lengths = None if given is None else torch.tensor(given, device=device)
    fast = with_gradients(kind, made, lengths=lengths, backend=backend)
    slow = with_gradients(kind, made, lengths=lengths, backend="reference")
    assert_same(fast, slow, atol=1e-10, rtol=1e-10)
    if lengths is not None:
        again = with_gradients(kind, made, lengths=lengths.cpu(), backend=backend)
        assert_same(again, fast)


@pytest.mark.parametrize("kind", KINDS)
def test_the_default_on_a_device(kind, monkeypatch, device):
    def no_loop(*_):
        raise AssertionError("the loop was taken")

    ran = []
    run = parallel.run
    monkeypatch.setattr(fused_recurrence, "loop", no_loop)
    monkeypatch.setattr(parallel, "run", lambda *a: ran.append(1) or run(*a))
    assert call(kind, moved(case(kind), device))[0].device.type == device
    # By hand where torch has no such cell, and on a CPU also where it is faster.
    by_hand = kind == "cho_gru" if device == "cuda" else kind != "lstm"
    assert bool(ran) == by_hand


@pytest.mark.parametrize(("kind", "backend"), FAST)
def test_double_backward_on_a_device(kind, backend, device):
    made = moved(case(kind), device)
    y = call(kind, made, backend=backend)[0]
    (first,) = torch.autograd.grad(y.square().sum(), made["x"], create_graph=True)
    if backend == "torch" and device == "cuda":
        with pytest.raises(
            (RuntimeError, NotImplementedError), match=r"[Dd]ouble backward"
        ):
            torch.autograd.grad(first.square().sum(), made["x"])
        return
    (second,) = torch.autograd.grad(first.square().sum(), made["x"])
    y = call(kind, made, backend="reference")[0]
    (first,) = torch.autograd.grad(y.square().sum(), made["x"], create_graph=True)
    (expected,) = torch.autograd.grad(first.square().sum(), made["x"])
    torch.testing.assert_close(second, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(("kind", "backend"), FAST)
def test_fast_forms_in_float32_on_a_device(kind, backend, device):
    made = moved(case(kind), device, torch.float32)
    results = with_gradients(kind, made, backend=backend)
    exact = with_gradients(kind, moved(made, device), backend="reference")
    for name, value in results.items():
        torch.testing.assert_close(value.double(), exact[name], atol=1e-2, rtol=1e-2)
