"""Sliding-window attention: contract, judges, and a state that does not grow."""

import pytest
import torch
from torch import nn

from seqref import MultiHeadAttention, Rotary, SlidingWindowAttention, WindowState
from seqref.attention import alibi_slopes
from seqref.recurrence import detach_state, grows, reset_rows, scan, select_rows
from seqref.testing import check_sequence_layer

F64 = torch.float64
KINDS = {
    "as many": {},
    "grouped": {"n_kv_heads": 2},
    "one for all": {"n_kv_heads": 1, "d_head": 3, "bias": False},
    "rotary": {"positions": Rotary(2)},
    "bias by distance": {"positions": alibi_slopes(4)},
}


def build(window=3, **options):
    """A layer without a parameter that is zero."""
    torch.manual_seed(0)
    return stirred(SlidingWindowAttention(8, 4, window, dtype=F64, **options))


def stirred(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def with_cache(layer, **options):
    """The same as `MultiHeadAttention`, whose cache keeps all."""
    whole = MultiHeadAttention(8, 4, window=layer.window, dtype=F64, **options)
    whole.load_state_dict(layer.state_dict(), strict=True)
    return whole


def draw(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=F64)


def gradients(loss, x, module):
    """Of the input and of all parameters, by name."""
    named = dict(module.named_parameters())
    x_grad, *grads = torch.autograd.grad(loss, [x, *named.values()])
    return x_grad, dict(zip(named, grads, strict=True))


# The contract.


@pytest.mark.parametrize("time", [1, 2, 3, 4, 13])
@pytest.mark.parametrize("name", KINDS)
def test_contract(name, time):
    layer = build(**KINDS[name])
    check_sequence_layer(layer, draw(3, time, 8))
    options = {"atol": 2e-5, "rtol": 2e-5, "dtype": torch.float32}
    check_sequence_layer(layer, draw(3, time, 8), **options)


@pytest.mark.parametrize("window", [2, 40])
def test_contract_of_other_windows(window):
    check_sequence_layer(build(window, positions=Rotary(2)), draw(3, 7, 8))


def test_contract_over_several_blocks(monkeypatch):
    """Blocks are longer than a test would wait for."""
    monkeypatch.setattr("seqref.attention.sliding_window.BLOCK", 2)
    for time in (2, 3, 4, 6, 7, 13):
        check_sequence_layer(build(n_kv_heads=2, **KINDS["rotary"]), draw(2, time, 8))


# Judges.


@pytest.mark.parametrize("lengths", [None, torch.tensor([150, 1, 64])])
@pytest.mark.parametrize("window", [1, 3, 64, 100, 200])
def test_equals_torch(window, lengths):
    theirs = nn.MultiheadAttention(8, 4, batch_first=True, dtype=F64)
    stirred(theirs)
    mine = SlidingWindowAttention(8, 4, window, dtype=F64)
    mine.load_state_dict(theirs.state_dict(), strict=True)
    x = draw(3, 150, 8).requires_grad_()
    steps = torch.arange(150)
    behind = steps[:, None] - steps
    # True is hidden in torch's masks.
    hidden = (behind < 0) | (behind >= window)
    expected = theirs(x, x, x, attn_mask=hidden, need_weights=False)[0]
    if lengths is not None:
        expected = expected.masked_fill((steps >= lengths[:, None])[..., None], 0)
    y, state = mine(x, lengths=lengths)
    torch.testing.assert_close(y, expected)
    weight = draw(*y.shape, seed=2)
    got = gradients((y * weight).sum(), x, mine)
    torch.testing.assert_close(got, gradients((expected * weight).sum(), x, theirs))
    by_step, final = scan(mine, x, None, lengths)
    torch.testing.assert_close(by_step, expected)
    torch.testing.assert_close(final, state)


def weights_of(theirs, layer):
    """Those of a Mistral layer of transformers, stacked as ours."""
    parts = [getattr(theirs, f"{name}_proj").weight for name in "qkv"]
    layer.load_state_dict(
        {"in_proj_weight": torch.cat(parts), "out_proj.weight": theirs.o_proj.weight}
    )


@pytest.mark.parametrize("chunks", [(12,), (5, 1, 1, 5), (1,) * 12, (3, 9)])
@pytest.mark.parametrize("window", [2, 3, 5])
def test_equals_transformers_mistral(window, chunks):
    """Grouped heads, rotary positions, and their cache of the window."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.MistralConfig(
        vocab_size=4,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=window,
    )
    config._attn_implementation = "eager"
    model = transformers.MistralModel(config).double().eval()
    theirs, block = model.layers[0].self_attn, model.layers[0]
    options = {"n_kv_heads": 2, "bias": False, "positions": Rotary(2)}
    mine = SlidingWindowAttention(8, 4, window, dtype=F64, **options)
    weights_of(theirs, mine)
    x = draw(2, 12, 8)
    seen = []
    block.self_attn.register_forward_hook(lambda _m, _i, out: seen.append(out[0]))
    cache, state, outputs = transformers.DynamicCache(config=config), None, []
    for chunk in x.split(chunks, dim=1):
        model(inputs_embeds=chunk, cache=cache)
        y, state = mine(block.input_layernorm(chunk), state)
        outputs.append(y)
    # Their rotary angles are made in float32.
    close = {"atol": 1e-6, "rtol": 1e-6}
    torch.testing.assert_close(torch.cat(outputs, 1), torch.cat(seen, 1), **close)
    torch.testing.assert_close(state.k, cache.layers[0].keys, **close)
    torch.testing.assert_close(state.v, cache.layers[0].values)
    assert state.length.tolist() == [12, 12]


@pytest.mark.parametrize("name", KINDS)
def test_equals_a_window_over_a_cache_that_keeps_all(name):
    """Outputs, gradients, and the last of the keys, in chunks of any size."""
    layer = build(70, **KINDS[name])
    whole = with_cache(layer, **KINDS[name])
    x = draw(2, 300, 8).requires_grad_()
    lengths = [torch.tensor(pair) for pair in ([60, 5], [1, 0], [150, 150], [89, 3])]
    chunks = x.split([60, 1, 150, 89], dim=1)
    results = []
    for each in (layer, whole):
        state, outputs = None, []
        for chunk, length in zip(chunks, lengths, strict=True):
            y, state = each(chunk, state, length)
            outputs.append(y)
        y = torch.cat(outputs, dim=1)
        loss = (y * draw(*y.shape, seed=2)).sum()
        results.append((y, gradients(loss, x, each), state))
    (y, grads, state), (expected, expected_grads, cache) = results
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(grads, expected_grads)
    assert state.length.tolist() == cache.length.tolist() == [300, 158]
    for row, length in enumerate(cache.length.tolist()):
        kept = slice(length - 69, length)
        torch.testing.assert_close(state.k[row], cache.k[row, :, kept])
        torch.testing.assert_close(state.v[row], cache.v[row, :, kept])


def test_a_step_sees_the_last_positions_alone():
    layer, x = build(), draw(2, 7, 8)
    full = MultiHeadAttention(8, 4, dtype=F64)
    full.load_state_dict(layer.state_dict())
    y, _ = layer(x)
    for t in range(7):
        part = x[:, max(0, t - 2) : t + 1]
        torch.testing.assert_close(y[:, t], full(part)[0][:, -1])


def test_a_window_of_one_is_a_linear_map():
    layer, x = build(1), draw(2, 5, 8)
    _, _, weight = layer.in_proj_weight.chunk(3)
    bias = layer.in_proj_bias.chunk(3)[2]
    expected = layer.out_proj(x @ weight.T + bias)
    y, state = layer(x)
    torch.testing.assert_close(y, expected)
    assert state.k.shape == (2, 4, 0, 2)
    assert state.length.tolist() == [5, 5]
    torch.testing.assert_close(scan(layer, x)[0], expected)


# The receptive field.


@pytest.mark.parametrize(("depth", "window"), [(1, 1), (1, 4), (2, 4), (3, 3), (5, 2)])
def test_reach_of_a_stack(depth, window):
    """N layers see N (w - 1) + 1 positions, by the support of a gradient."""
    x = draw(1, 20, 8).requires_grad_()
    y = x
    for _ in range(depth):
        y = y + build(window)(y)[0]
    (grad,) = torch.autograd.grad(y[0, -1].sum(), x)
    seen = grad[0].abs().sum(dim=1) > 0
    reach = depth * (window - 1) + 1
    assert seen.tolist() == [False] * (20 - reach) + [True] * reach


# The state.


def test_the_state_does_not_grow():
    layer = build(5, n_kv_heads=2)
    state = layer.initial_state(3)
    shapes = [field.shape for field in state]
    assert not grows(state)
    for time in (0, 1, 2, 3, 9, 300):
        _, state = layer(draw(3, time, 8), state)
        assert isinstance(state, WindowState)
        assert [field.shape for field in state] == shapes
        # Nor does it hold on to the memory of all keys.
        for field in (state.k, state.v):
            assert field.untyped_storage().nbytes() == 3 * 2 * 4 * 2 * 8
    assert state.length.tolist() == [315] * 3


@pytest.mark.parametrize(("batch", "time"), [(0, 5), (0, 200), (2, 0)])
def test_nothing_to_read(batch, time):
    layer = build()
    state = layer.initial_state(batch)
    for given in (None, state):
        y, after = layer(draw(batch, time, 8), given)
        assert y.shape == (batch, time, 8)
        assert [field.shape for field in after] == [field.shape for field in state]


def test_each_row_is_kept_at_its_own_end():
    layer, x, lengths = build(4), draw(3, 6, 8), torch.tensor([6, 0, 2])
    _, state = layer(x, lengths=lengths)
    assert torch.equal(state.length, lengths)
    for row, length in enumerate(lengths.tolist()):
        kept = min(length, 3)
        assert state.k[row, :, :kept].count_nonzero() == 4 * kept * 2
        assert not state.k[row, :, kept:].count_nonzero()
        assert not state.v[row, :, kept:].count_nonzero()
    further = draw(3, 2, 8, seed=5)
    y, _ = layer(further, state)
    for row, length in enumerate(lengths.tolist()):
        joined = torch.cat([x[row, :length], further[row]])[None]
        torch.testing.assert_close(y[row], layer(joined)[0][0, length:])


def test_rows_are_selected_and_start_anew():
    layer, x = build(positions=Rotary(2)), draw(3, 4, 8)
    _, state = layer(x)
    picked = select_rows(state, torch.tensor([2, 0, 2]))
    x_t = draw(3, 8, seed=6)
    y_t, _ = layer.step(x_t, picked)
    whole = torch.cat([x[[2, 0, 2]], x_t[:, None]], dim=1)
    torch.testing.assert_close(y_t, layer(whole)[0][:, -1])
    anew = torch.tensor([False, True, False])
    mixed = reset_rows(state, layer.initial_state(3), anew)
    assert mixed.length.tolist() == [4, 0, 4]
    y_t, _ = layer.step(x_t, mixed)
    torch.testing.assert_close(y_t[1], layer(x_t[:, None])[0][1, 0])
    torch.testing.assert_close(
        y_t[0], layer(torch.cat([x, x_t[:, None]], dim=1))[0][0, -1]
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32])
def test_lengths_of_a_narrow_dtype_do_not_wrap(dtype):
    layer, x, more = build(positions=Rotary(2)), draw(2, 4, 8), draw(2, 300, 8, seed=2)
    _, state = layer(x, lengths=torch.tensor([4, 1]))
    narrow = state._replace(length=state.length.to(dtype))
    torch.testing.assert_close(layer(more, narrow), layer(more, state))
    assert layer(more, narrow)[1].length.tolist() == [304, 301]


def nan_steps(y):
    """The steps at which an output is NaN."""
    return y.isnan().any(dim=2)[0].nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("place", "first", "last"),
    [(0, 0, 63), (70, 64, 127), (127, 64, 191), (150, 128, 191), (199, 192, 199)],
)
def test_nan_stays_in_the_blocks_that_read_it(place, first, last):
    """Before it, and behind the window; by steps it is in its window alone."""
    layer, x = build(), draw(1, 200, 8)
    clean, _ = layer(x)
    x[:, place] = torch.nan
    by_step, _ = scan(layer, x)
    window = list(range(place, min(place + 3, 200)))
    assert nan_steps(by_step) == window
    y, _ = layer(x)
    assert set(window) < set(nan_steps(y)) <= set(range(first, last + 1))
    for part in (slice(first), slice(last + 1, None)):
        torch.testing.assert_close(y[:, part], clean[:, part])


def test_nan_of_a_state_is_in_the_block_that_meets_it():
    layer, x = build(), draw(1, 202, 8)
    x[:, 1] = torch.nan
    _, state = layer(x[:, :2])
    assert nan_steps(scan(layer, x[:, 2:], state)[0]) == [0, 1]
    assert {0, 1} < set(nan_steps(layer(x[:, 2:], state)[0])) <= set(range(64))


def test_a_cut_off_state_has_no_history():
    layer, x = build(), draw(2, 3, 8).requires_grad_()
    _, state = layer(x)
    y, _ = layer(draw(2, 2, 8, seed=4), detach_state(state))
    assert torch.autograd.grad(y.sum(), x, allow_unused=True) == (None,)
    y, _ = layer(draw(2, 2, 8, seed=4), state)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert grad.abs().sum(dim=2).gt(0).tolist() == 2 * [[False, True, True]]


def test_one_graph_serves_a_stream():
    """A state of fixed shapes is one signature for every step."""
    layer = build(positions=Rotary(2)).eval()
    x = draw(2, 9, 8)

    class Step(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x_t, k, v, length):
            y_t, state = self.layer.step(x_t, WindowState(k, v, length))
            return y_t, *state

    program = torch.export.export(Step(), (x[:, 0], *layer.initial_state(2)))
    run, state, outputs = program.module(), layer.initial_state(2), []
    for x_t in x.unbind(1):
        y_t, *state = run(x_t, *state)
        outputs.append(y_t)
    torch.testing.assert_close(torch.stack(outputs, 1), layer(x)[0])


# Precision.


@pytest.mark.parametrize("seed", range(5))
def test_blocks_are_as_exact_as_steps(seed):
    """In float32, beside steps in float64: outputs, state and all gradients."""
    torch.manual_seed(seed)
    exact = SlidingWindowAttention(8, 4, 20, positions=Rotary(2), dtype=F64)
    low = SlidingWindowAttention(8, 4, 20, positions=Rotary(2))
    low.load_state_dict({n: p.float() for n, p in exact.state_dict().items()})
    exact.load_state_dict({n: p.double() for n, p in low.state_dict().items()})
    x = draw(2, 200, 8, seed=seed + 10).float()
    weight = draw(2, 200, 8, seed=seed + 20)

    def everything(layer, form):
        dtype = layer.in_proj_weight.dtype
        given = x.to(dtype).requires_grad_()
        y, state = form(layer, given)
        x_grad, grads = gradients((y * weight.to(dtype)).sum(), given, layer)
        return [y, state.k, state.v, x_grad, *grads.values()]

    wanted = everything(exact, scan)
    by_step = everything(low, scan)
    blocks = everything(low, lambda layer, given: layer(given))
    eps = torch.finfo(torch.float32).eps
    for want, step, block in zip(wanted, by_step, blocks, strict=True):
        bound = 2 * (step - want).abs().max() + 8 * eps * want.abs().max()
        assert (block - want).abs().max() <= bound


def test_slopes_are_no_parameters():
    assert "slopes" not in build(positions=alibi_slopes(4)).state_dict()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("form", [scan, lambda layer, x: layer(x)])
def test_half_precision(form, name):
    """Over blocks and over steps, beside float64 with the rounded parameters."""
    low = build(**KINDS[name]).to(torch.bfloat16)
    exact = build(**KINDS[name])
    exact.load_state_dict(low.state_dict())
    x = draw(2, 200, 8).bfloat16()
    y, state = form(low, x)
    assert {y.dtype, state.k.dtype, state.v.dtype} == {torch.bfloat16}
    expected, kept = exact(x.double())
    for got, want in ((y, expected), (state.k, kept.k), (state.v, kept.v)):
        bound = 4 * torch.finfo(torch.bfloat16).eps * want.abs().max()
        assert (got.double() - want).abs().max() <= bound


# Bad input.


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: build(0), ValueError, r"`window` must be at least 1, got 0"),
        (lambda: build(2.0), TypeError, r"`window` must be an int, got float"),
        (lambda: SlidingWindowAttention(8, 3, 2), ValueError, r"multiple of n_heads=3"),
        (lambda: build(positions=Rotary(4)), ValueError, r"d_head=2, got 4"),
        (lambda: build()(draw(2, 3, 7)), ValueError, r"forward: `x`.*d_model=8"),
        (lambda: build().step(draw(2, 3, 8), None), ValueError, r"step: `x_t`"),
        (
            lambda: build().step(draw(2, 8), with_cache(build()).initial_state(2)),
            TypeError,
            r"step: `state` must be WindowState\(k, v, length\), got KVState",
        ),
        (
            lambda: build()(draw(2, 3, 8), build(4).initial_state(2)),
            ValueError,
            r"`state.k` must have shape \(batch=2, kv_heads=4, kept=2, head=2\), got "
            r"\(2, 4, 3, 2\)",
        ),
        (
            lambda: build()(draw(2, 3, 8), build().initial_state(3)),
            ValueError,
            r"`state.k`.*batch=2",
        ),
        (
            lambda: build()(
                draw(1, 3, 8),
                WindowState(*torch.zeros(2, 1, 4, 2, 2, dtype=F64), torch.tensor([-1])),
            ),
            ValueError,
            r"`state.length` must be at least 0, got -1",
        ),
        (
            lambda: build()(draw(2, 3, 8), lengths=torch.tensor([4, 1])),
            ValueError,
            r"`lengths` must be at most time=3, got 4",
        ),
        (lambda: build().initial_state(-1), ValueError, r"`batch_size`"),
    ],
)
def test_bad_input(call, kind, message):
    with pytest.raises(kind, match=f"^SlidingWindowAttention.*{message}"):
        call()
