"""Mamba: contract, judges, and what depends on the input."""

import math

import pytest
import torch
from torch.nn.functional import silu, softplus

from seqref import Mamba, MambaState
from seqref.ops.selective_scan import parallel
from seqref.recurrence import reset_rows, scan, select_rows
from seqref.testing import check_cached_continuation, check_sequence_layer

F64 = torch.float64
KINDS = {
    "as published": {},
    "biases": {"bias": True, "conv_bias": False},
    "one of each": {"d_state": 1, "d_conv": 1, "expand": 1, "dt_rank": 1},
    "wide": {"d_state": 3, "d_conv": 6, "expand": 3, "dt_rank": 5},
}
CHUNK = 4


def build(d_model=5, **options):
    """A layer in which the gates are wide open and shut."""
    torch.manual_seed(0)
    layer = Mamba(d_model, dtype=F64, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return layer


def draw(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=F64)


# The contract.


def hold(layer, x):
    """In double precision, and in that of the kernels that people run."""
    check_sequence_layer(layer, x)
    check_sequence_layer(layer, x, atol=2e-5, rtol=2e-5, dtype=torch.float32)


@pytest.mark.parametrize("name", KINDS)
def test_contract(name):
    hold(build(3, **KINDS[name]), draw(2, 5, 3))


@pytest.mark.parametrize("time", [1, 13])
def test_contract_of_other_lengths(time):
    hold(build(3, d_state=2), draw(2, time, 3))


@pytest.mark.parametrize("time", [CHUNK - 1, CHUNK, CHUNK + 1])
def test_contract_around_the_chunks_of_the_scan(monkeypatch, time):
    """Chunks are longer than a test would wait for."""
    monkeypatch.setattr(parallel, "SHORTEST", CHUNK)
    monkeypatch.setattr(parallel, "ELEMENTS", 1)
    hold(build(3, d_state=2), draw(2, time, 3))


def test_a_padded_prompt_is_gone_on_with_as_if_alone():
    x, lengths = draw(3, 9, 5), torch.tensor([6, 0, 3])
    assert check_cached_continuation(build(), x, lengths) is None


# Judges.


def by_the_paper(layer, x):
    """Algorithm 2 of the paper for one row, a step and a channel at a time."""
    p = dict(layer.named_parameters())
    inner, width = layer.d_inner, layer.d_conv
    past, outputs = [torch.zeros(inner, dtype=F64)] * (width - 1), []
    h = torch.zeros(inner, layer.d_state, dtype=F64)
    for x_t in x:
        u_t, z_t = (p["in_proj.weight"] @ x_t).split(inner)
        past = [*past, u_t][-width:]
        v_t = p["conv1d.bias"].clone()
        for k in range(width):
            v_t = v_t + p["conv1d.weight"][:, 0, k] * past[k]
        v_t = v_t * torch.sigmoid(v_t)
        selected = p["x_proj.weight"] @ v_t
        delta_t, B_t, C_t = selected.split([layer.dt_rank, *[layer.d_state] * 2])
        dt_t = torch.log1p(torch.exp(p["dt_proj.weight"] @ delta_t + p["dt_proj.bias"]))
        y_t = []
        for c in range(inner):
            A_bar = torch.exp(dt_t[c] * -torch.exp(p["A_log"][c]))
            h[c] = A_bar * h[c].clone() + dt_t[c] * B_t * v_t[c]
            y_t.append(C_t @ h[c] + p["D"][c] * v_t[c])
        gated = torch.stack(y_t) * z_t * torch.sigmoid(z_t)
        outputs.append(p["out_proj.weight"] @ gated)
    return torch.stack(outputs), h


def test_equals_the_paper_s_loop():
    layer = build(3, d_state=2).requires_grad_(False)
    x = draw(2, 7, 3)
    y, state = layer(x)
    by_step, _ = scan(layer, x)
    for r in range(2):
        expected, h = by_the_paper(layer, x[r])
        torch.testing.assert_close(y[r], expected)
        torch.testing.assert_close(by_step[r], expected)
        torch.testing.assert_close(state.h[r], h)


def mixer(bias=False, **sizes):
    transformers = pytest.importorskip("transformers")
    from transformers.models.mamba.modeling_mamba import MambaMixer

    torch.manual_seed(0)
    config = transformers.MambaConfig(
        hidden_size=8,
        num_hidden_layers=1,
        use_bias=bias,
        use_conv_bias=not bias,
        **sizes,
    )
    return MambaMixer(config, 0), config


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "sizes", [{}, {"state_size": 3, "conv_kernel": 2, "expand": 3}]
)
def test_equals_transformers(bias, sizes):
    """Outputs and gradients, all weights by their names."""
    theirs, config = mixer(bias, **sizes)
    given = config.state_size, config.conv_kernel, config.expand
    mine = Mamba(8, *given, bias=bias, conv_bias=not bias)
    mine.load_state_dict(theirs.state_dict(), strict=True)
    x = draw(3, 9, 8).float().requires_grad_()
    y, _ = mine(x)
    expected = theirs(x)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    upstream = draw(*y.shape, seed=2).float()
    named = dict(mine.named_parameters())
    other = dict(theirs.named_parameters())
    assert named.keys() == other.keys()
    got = torch.autograd.grad((y * upstream).sum(), [x, *named.values()])
    wanted = torch.autograd.grad(
        (expected * upstream).sum(), [x, *(other[name] for name in named)]
    )
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_equals_mamba_py():
    """Whole and step by step, with the state carried."""
    theirs = pytest.importorskip("mambapy.mamba")
    torch.manual_seed(0)
    block = theirs.MambaBlock(theirs.MambaConfig(d_model=6, n_layers=1, d_state=4))
    mine = Mamba(6, 4)
    mine.load_state_dict(block.state_dict(), strict=True)
    x = draw(2, 11, 6).float()
    y, state = mine(x)
    torch.testing.assert_close(y, block(x), rtol=1e-5, atol=1e-6)
    cache, mine_t = (None, torch.zeros(2, 12, 3)), mine.initial_state(2)
    for x_t in x.unbind(1):
        expected, cache = block.step(x_t, cache)
        y_t, mine_t = mine.step(x_t, mine_t)
        torch.testing.assert_close(y_t, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mine_t.h, cache[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mine_t.conv.mT, cache[1])
    torch.testing.assert_close(mine_t, state)


# What depends on the input, and what does not.


def test_step_sizes_and_maps_depend_on_the_input_and_rates_do_not():
    layer = build()
    v = draw(2, 3, layer.d_inner).requires_grad_()
    for selected in layer._selected(v):
        (grad,) = torch.autograd.grad(selected[:, 1].sum(), v, retain_graph=True)
        # On that of their own step, and on no other.
        assert grad[:, 1].abs().min() > 0
        assert not grad[:, [0, 2]].any()
    # Rates and passage are parameters, or made of nothing else.
    (grad,) = torch.autograd.grad(layer.A.sum(), layer.A_log)
    torch.testing.assert_close(grad, layer.A)
    assert any(p is layer.D for p in layer.parameters())


@pytest.mark.parametrize("d_model", [8, 32])
def test_parameters_are_counted(d_model):
    E, N, K, rank = 2, 16, 4, math.ceil(d_model / 16)
    inner = E * d_model
    counted = {
        "in_proj": 2 * inner * d_model,
        "conv1d": inner * K + inner,
        "x_proj": inner * (rank + 2 * N),
        "dt_proj": inner * rank + inner,
        "A_log": inner * N,
        "D": inner,
        "out_proj": inner * d_model,
    }
    got = dict.fromkeys(counted, 0)
    for name, parameter in Mamba(d_model).named_parameters():
        got[name.partition(".")[0]] += parameter.numel()
    assert got == counted


def test_a_step_of_size_zero_passes_by_and_a_large_one_starts_anew():
    layer = build().requires_grad_(False)
    x, state = draw(2, 4, 5), layer(draw(2, 6, 5, seed=2))[1]
    layer.dt_proj.weight.zero_()
    layer.dt_proj.bias.fill_(-800.0)
    torch.testing.assert_close(layer(x, state)[1].h, state.h)
    layer.dt_proj.bias.fill_(800.0)
    # e^(dt A) is 0: what was written last is all that there is.
    u, _ = layer._inward(x)
    v = silu(layer.conv1d(u.mT)[:, :, -1])
    _, B, _ = layer._selected(v)
    expected = 800 * v[..., None] * B[:, None]
    torch.testing.assert_close(layer(x, state)[1].h, expected)


def test_a_gate_is_what_a_softplus_makes_of_one_state():
    """Theorem 1 of the paper, and what is left of it with Euler's rule for B."""
    a = torch.linspace(-30, 30, 61, dtype=F64)
    dt, gate = softplus(a), torch.sigmoid(a)
    torch.testing.assert_close(torch.exp(-dt), 1 - gate)
    torch.testing.assert_close(-torch.expm1(-dt), gate)
    # What the input is multiplied by, which is above the gate and has no bound.
    assert (dt > gate).all()
    assert dt.max() > 29


def test_a_state_is_as_large_as_a_cache_of_few_positions():
    layer = Mamba(768, device="meta")
    held = sum(part[0].numel() for part in layer.initial_state(1))
    assert held == 2 * 768 * (16 + 4 - 1) == 29_184
    # Keys and values of one position have twice the width.
    assert held == 19 * 2 * 768


def test_no_kernel_gives_what_the_layer_gives():
    """The weight of a step's write in a later state depends on what lies between."""
    layer = build(d_state=3).requires_grad_(False)
    v = draw(1, 6, layer.d_inner)
    other = v.clone()
    other[:, 3] = draw(1, layer.d_inner, seed=2)
    decays = [
        torch.exp(layer._selected(x)[0][:, 1:].sum(dim=1)[..., None] * layer.A)
        for x in (v, other)
    ]
    assert (decays[0] - decays[1]).abs().min() > 0


def test_initialisation():
    torch.manual_seed(0)
    layer = Mamba(512, d_state=8)
    rates = -torch.arange(1.0, 9.0)
    torch.testing.assert_close(layer.A, rates.expand(1024, 8))
    assert torch.equal(layer.D, torch.ones(1024))
    dt = softplus(layer.dt_proj.bias)
    assert 0.001 <= dt.min() < 0.0011
    assert 0.09 < dt.max() <= 0.1001
    # Log-uniform: as many below 0.01 as above it.
    assert 0.45 < (dt < 0.01).float().mean() < 0.55
    assert 0.17 < layer.dt_proj.weight.abs().max() <= 32**-0.5
    drawn = [layer.in_proj.weight.clone(), layer.dt_proj.bias.clone()]
    layer.reset_parameters()
    assert not any(
        torch.equal(old, new)
        for old, new in zip(
            drawn, [layer.in_proj.weight, layer.dt_proj.bias], strict=True
        )
    )


def test_rows_of_a_state_are_chosen_and_begun_anew():
    layer = build()
    state = layer(draw(3, 6, 5))[1]
    rows = torch.tensor([2, 0, 2])
    x = draw(3, 4, 5, seed=3)
    y, _ = layer(x, select_rows(state, rows))
    alone = [
        layer(x[i : i + 1], select_rows(state, rows[i : i + 1]))[0] for i in range(3)
    ]
    torch.testing.assert_close(y, torch.cat(alone))
    mask = torch.tensor([False, True, False])
    fresh = reset_rows(state, layer.initial_state(3), mask)
    torch.testing.assert_close(layer(x, fresh)[0][1], layer(x)[0][1])


def test_half_precision_of_parameters_runs():
    layer = build().bfloat16()
    y, state = layer(draw(2, 5, 5).bfloat16())
    assert y.dtype == state.h.dtype == torch.bfloat16
    torch.testing.assert_close(
        y.float(), build()(draw(2, 5, 5))[0].float(), rtol=0, atol=0.2
    )


# What is refused.


@pytest.mark.errors
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Mamba(0), ValueError, "Mamba: `d_model` must be at least 1, got 0"),
        (lambda: Mamba(4, d_state=0), ValueError, "`d_state` must be at least 1"),
        (lambda: Mamba(4, d_conv=0), ValueError, "`d_conv` must be at least 1"),
        (lambda: Mamba(4, expand=0), ValueError, "`expand` must be at least 1"),
        (lambda: Mamba(4, dt_rank=0), ValueError, "`dt_rank` must be at least 1"),
        (lambda: Mamba(4, dt_rank="auto"), TypeError, "`dt_rank` must be an int"),
    ],
)
def test_bad_sizes(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.errors
def test_bad_inputs():
    layer = build()
    x, state = draw(2, 3, 5), layer.initial_state(2)
    with pytest.raises(
        ValueError, match=r"Mamba.forward: `x` must have shape \(batch,"
    ):
        layer(draw(2, 3, 4))
    with pytest.raises(ValueError, match=r"Mamba.step: `x_t` must have shape"):
        layer.step(x, state)
    with pytest.raises(ValueError, match=r"dtype torch.float64, got torch.float32"):
        layer(x.float())
    with pytest.raises(TypeError, match="`state` must be a MambaState, got tuple"):
        layer(x, tuple(state))
    with pytest.raises(
        ValueError, match=r"`state.h` must have shape \(batch=2, d_inner"
    ):
        layer(x, MambaState(state.conv, state.h[:, :2]))
    with pytest.raises(ValueError, match=r"`state.conv` must have shape"):
        layer.step(x[:, 0], MambaState(state.conv[:, 1:], state.h))
    with pytest.raises(ValueError, match=r"`state.h` must have the parameters' dtype"):
        layer(x, MambaState(state.conv, state.h.float()))
    with pytest.raises(ValueError, match="`lengths` must be at most time=3, got 4"):
        layer(x, lengths=torch.tensor([4, 1]))
    with pytest.raises(ValueError, match="`batch_size` must be at least 0"):
        layer.initial_state(-1)
