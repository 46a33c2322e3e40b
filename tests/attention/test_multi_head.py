"""Multi-head attention: contract, torch as judge, the cache, heads, and a source."""

import copy
import math

import pytest
import torch
from torch import nn

from seqref import (
    CrossAttention,
    CrossSource,
    KVState,
    MultiHeadAttention,
    Rotary,
    Stacked,
)
from seqref.attention import alibi_slopes
from seqref.recurrence import (
    detach_state,
    grows,
    match_states,
    reset_rows,
    scan,
    select_rows,
)
from seqref.testing import check_sequence_layer

F64 = torch.float64
KINDS = {
    "as many": {},
    "grouped": {"n_kv_heads": 2},
    "one for all": {"n_kv_heads": 1, "d_head": 3, "bias": False},
    "window": {"window": 3},
    "rotary": {"positions": Rotary(2)},
    "bias by distance": {"positions": alibi_slopes(4)},
}


def build(d_model=8, n_heads=4, **options):
    """A layer without a parameter that is zero."""
    torch.manual_seed(0)
    layer = MultiHeadAttention(d_model, n_heads, dtype=F64, **options)
    return stirred(layer)


def stirred(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def draw(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=F64)


def gradients(loss, inputs, module):
    """Of the inputs and of all parameters, by name."""
    named = dict(module.named_parameters())
    leaves = [*inputs, *named.values()]
    grads = torch.autograd.grad(loss, leaves)
    return grads[: len(inputs)], dict(zip(named, grads[len(inputs) :], strict=True))


# The contract.


@pytest.mark.parametrize("time", [1, 7])
@pytest.mark.parametrize("name", KINDS)
def test_contract(name, time):
    layer = build(**KINDS[name])
    check_sequence_layer(layer, draw(3, time, 8))
    options = {"atol": 2e-5, "rtol": 2e-5, "dtype": torch.float32}
    check_sequence_layer(layer, draw(3, time, 8), **options)


def test_contract_of_a_stack():
    """The state is a tuple of caches, and each is brought to its size."""
    stack = Stacked([build(), build(n_kv_heads=1)])
    check_sequence_layer(stack, draw(3, 5, 8))


# torch as judge.


def causal_by_torch(theirs, x, lengths=None):
    """Outputs with zeros in the padding; hidden is True in torch's masks."""
    time = x.shape[1]
    later = torch.ones(time, time, dtype=torch.bool).triu(1)
    padding = None
    if lengths is not None:
        padding = torch.arange(time) >= lengths[:, None]
    y, _ = theirs(
        x, x, x, attn_mask=later, key_padding_mask=padding, need_weights=False
    )
    return y if padding is None else y.masked_fill(padding[..., None], 0)


@pytest.mark.parametrize("lengths", [None, torch.tensor([6, 1, 4])])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("n_heads", [1, 2, 8])
def test_equals_torch(n_heads, bias, lengths):
    theirs = nn.MultiheadAttention(8, n_heads, bias=bias, batch_first=True, dtype=F64)
    stirred(theirs)
    mine = MultiHeadAttention(8, n_heads, bias=bias, dtype=F64)
    mine.load_state_dict(theirs.state_dict(), strict=True)
    x = draw(3, 6, 8).requires_grad_()
    expected = causal_by_torch(theirs, x, lengths)
    y, state = mine(x, lengths=lengths)
    torch.testing.assert_close(y, expected)
    weight = draw(*y.shape, seed=2)
    got = gradients((y * weight).sum(), [x], mine)
    torch.testing.assert_close(got, gradients((expected * weight).sum(), [x], theirs))
    by_step, final = scan(mine, x, None, lengths)
    torch.testing.assert_close(by_step, expected)
    torch.testing.assert_close(final, state)


def test_initialisation_is_torchs():
    for bias in (True, False):
        torch.manual_seed(3)
        theirs = nn.MultiheadAttention(64, 4, bias=bias)
        mine = MultiHeadAttention(64, 4, bias=bias)
        bounds = (math.sqrt(6 / (4 * 64)), 1 / 8)
        for module in (theirs, mine):
            weights = module.in_proj_weight, module.out_proj.weight
            for weight, bound in zip(weights, bounds, strict=True):
                assert 0.99 * bound < weight.abs().max() <= bound
                assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
            if bias:
                assert not module.in_proj_bias.count_nonzero()
                assert not module.out_proj.bias.count_nonzero()
        assert {n: p.shape for n, p in mine.named_parameters()} == {
            n: p.shape for n, p in theirs.named_parameters()
        }


# Heads.


def test_shared_heads_are_heads_with_equal_keys():
    grouped = build(n_kv_heads=2)
    full = build()
    q, k, v = grouped.in_proj_weight.split([8, 4, 4])
    biases = grouped.in_proj_bias.split([8, 4, 4])

    def repeat(rows):
        return rows.unflatten(0, (2, 2)).repeat_interleave(2, dim=0).flatten(0, 1)

    with torch.no_grad():
        full.in_proj_weight.copy_(torch.cat([q, repeat(k), repeat(v)]))
        parts = [biases[0], repeat(biases[1]), repeat(biases[2])]
        full.in_proj_bias.copy_(torch.cat(parts))
        full.out_proj.load_state_dict(grouped.out_proj.state_dict())
    x = draw(2, 5, 8)
    (y, state), (expected, larger) = grouped(x), full(x)
    torch.testing.assert_close(y, expected)
    for small, large in zip(state[:2], larger[:2], strict=True):
        torch.testing.assert_close(small.repeat_interleave(2, dim=1), large)
        assert 2 * small.numel() == large.numel()


def test_heads_are_a_sum_of_attentions_of_one_head():
    """Each with its own part of the output projection; the bias counts once."""
    layer, x = build(), draw(2, 5, 8)
    q, k, v = (part.unflatten(0, (4, 2)) for part in layer.in_proj_weight.chunk(3))
    biases = [part.unflatten(0, (4, 2)) for part in layer.in_proj_bias.chunk(3)]
    total = layer.out_proj.bias
    for h in range(4):
        one = MultiHeadAttention(8, 1, d_head=2, dtype=F64)
        with torch.no_grad():
            one.in_proj_weight.copy_(torch.cat([q[h], k[h], v[h]]))
            one.in_proj_bias.copy_(torch.cat([b[h] for b in biases]))
            one.out_proj.weight.copy_(layer.out_proj.weight[:, 2 * h : 2 * h + 2])
            one.out_proj.bias.zero_()
        total = total + one(x)[0]
    torch.testing.assert_close(layer(x)[0], total)


def test_a_head_is_its_equations():
    layer, x = build(n_heads=2, n_kv_heads=1, d_head=3), draw(1, 4, 8)[0]
    projected = x @ layer.in_proj_weight.T + layer.in_proj_bias
    q, k, v = projected.split([6, 3, 3], dim=1)
    rows = []
    for t in range(4):
        heads = []
        for q_t in q[t].split(3):
            e_t = torch.stack([q_t @ k[j] / 3**0.5 for j in range(t + 1)])
            heads.append(e_t.softmax(0) @ v[: t + 1])
        rows.append(layer.out_proj(torch.cat(heads)))
    torch.testing.assert_close(layer(x[None])[0][0], torch.stack(rows))


def test_a_window_forgets_what_lies_behind_it():
    layer, x = build(window=3), draw(2, 7, 8)
    y, state = layer(x)
    assert state.k.shape[2] == 7
    whole = build()
    whole.load_state_dict(layer.state_dict())
    for t in range(7):
        part = x[:, max(0, t - 2) : t + 1]
        torch.testing.assert_close(y[:, t], whole(part)[0][:, -1])


def test_positions_reach_queries_and_keys():
    """Rotary scores depend on distances alone, and go on across calls."""
    layer, x = build(positions=Rotary(2)), draw(2, 6, 8)
    y, _ = layer(x)
    assert (y - build()(x)[0]).abs().max() > 1e-2
    projected = x @ layer.in_proj_weight.T + layer.in_proj_bias
    q, k, v = (
        part.unflatten(2, (4, 2)).transpose(1, 2) for part in projected.chunk(3, dim=2)
    )
    rotary = Rotary(2)
    scores = rotary(q, 100) @ rotary(k, 100).mT / 2**0.5
    later = torch.ones(6, 6, dtype=torch.bool).triu(1)
    o = scores.masked_fill(later, -torch.inf).softmax(-1) @ v
    torch.testing.assert_close(y, layer.out_proj(o.transpose(1, 2).flatten(2)))


# The cache.


def test_each_row_is_cached_at_its_own_end():
    layer, x, lengths = build(n_kv_heads=2), draw(3, 4, 8), torch.tensor([4, 0, 2])
    _, state = layer(x, lengths=lengths)
    assert isinstance(state, KVState)
    assert state.k.shape == state.v.shape == (3, 2, 4, 2)
    assert torch.equal(state.length, lengths)
    for row, length in enumerate(lengths.tolist()):
        assert not state.k[row, :, length:].count_nonzero()
        assert not state.v[row, :, length:].count_nonzero()
    further = draw(3, 2, 8, seed=5)
    y, final = layer(further, state)
    assert final.length.tolist() == [6, 2, 4]
    assert final.k.shape[2] == 6
    for row, length in enumerate(lengths.tolist()):
        joined = torch.cat([x[row, :length], further[row]])[None]
        whole, alone = layer(joined)
        torch.testing.assert_close(y[row], whole[0, length:])
        torch.testing.assert_close(final.k[row, :, : length + 2], alone.k[0])
        assert not final.k[row, :, length + 2 :].count_nonzero()


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
    assert not mixed.k[1].count_nonzero()
    y_t, after = layer.step(x_t, mixed)
    torch.testing.assert_close(y_t[1], layer(x_t[:, None])[0][1, 0])
    torch.testing.assert_close(
        y_t[0], layer(torch.cat([x, x_t[:, None]], dim=1))[0][0, -1]
    )
    # The other way: rows of a longer state into a shorter one.
    back = reset_rows(layer.initial_state(3), after, anew)
    assert back.length.tolist() == [0, 1, 0]
    assert back.k.shape == after.k.shape


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32])
def test_lengths_of_a_narrow_dtype_do_not_wrap(dtype):
    layer, x, more = build(), draw(2, 4, 8), draw(2, 300, 8, seed=2)
    _, state = layer(x, lengths=torch.tensor([4, 1]))
    narrow = state._replace(length=state.length.to(dtype))
    (y, after), (expected, final) = layer(more, narrow), layer(more, state)
    assert after.length.tolist() == [304, 301]
    assert after.length.dtype == torch.int64
    torch.testing.assert_close(y, expected)
    x_t = draw(2, 8, seed=3)
    torch.testing.assert_close(layer.step(x_t, after), layer.step(x_t, final))


def test_nan_of_a_later_step_and_an_earlier_output():
    """By `forward` it can get there, with the weight 0; by `step` it cannot."""
    layer, x = build(), draw(1, 4, 8)
    x[:, 3] = torch.nan
    assert layer(x)[0][:, :3].isnan().any()
    torch.testing.assert_close(scan(layer, x)[0][:, :3], layer(x[:, :3])[0])


def test_a_cut_off_state_has_no_history():
    layer, x = build(), draw(2, 3, 8).requires_grad_()
    _, state = layer(x)
    y, _ = layer(draw(2, 2, 8, seed=4), detach_state(state))
    assert torch.autograd.grad(y.sum(), x, allow_unused=True) == (None,)
    y, _ = layer(draw(2, 2, 8, seed=4), state)
    assert torch.autograd.grad(y.sum(), x)[0].count_nonzero()


def test_states_of_different_size_are_matched():
    layer = build()
    short, long = (layer(draw(2, time, 8))[1] for time in (2, 5))
    assert grows(short)
    assert grows((short, torch.zeros(2)))
    assert not grows((torch.zeros(2), torch.zeros(2)))
    one, two = match_states((short, torch.ones(2)), (long, torch.zeros(2)))
    assert one[0].k.shape == two[0].k.shape == long.k.shape
    assert torch.equal(one[0].k[:, :, :2], short.k)
    assert not one[0].v[:, :, 2:].count_nonzero()
    assert torch.equal(one[0].length, short.length)
    assert two[0].k is not long.k or torch.equal(two[0].k, long.k)
    with pytest.raises(TypeError, match="match_states: all states must have one"):
        match_states(short, tuple(long))
    for others in ((torch.zeros(2), (torch.zeros(2),)), ([short], [short])):
        with pytest.raises(TypeError, match=r"match_states: `state` must be"):
            match_states(*others)


def test_bytes_of_the_cache():
    x = torch.randn(1, 10, 64)
    sizes = {}
    for n_kv_heads in (8, 2, 1):
        _, state = MultiHeadAttention(64, 8, n_kv_heads=n_kv_heads)(x)
        sizes[n_kv_heads] = state.k.nbytes + state.v.nbytes
        assert sizes[n_kv_heads] == 2 * 10 * n_kv_heads * 8 * 4
    assert sizes[8] == 8 * sizes[1]


def test_half_precision_and_slopes_that_follow_the_layer():
    layer = build(positions=alibi_slopes(4))
    assert "slopes" not in layer.state_dict()
    low = layer.to(torch.bfloat16)
    assert low.slopes.dtype == torch.bfloat16
    y, state = low(draw(2, 5, 8).bfloat16())
    assert {y.dtype, state.k.dtype} == {torch.bfloat16}


def test_slopes_are_copied_and_fixed():
    slopes = nn.Parameter(alibi_slopes(4))
    layer = MultiHeadAttention(8, 4, positions=slopes)
    assert not layer.slopes.requires_grad
    twin, x = copy.deepcopy(layer), draw(2, 5, 8).float()
    y, _ = layer(x)
    with torch.no_grad():
        slopes.mul_(2)
    for module in (layer, twin):
        torch.testing.assert_close(module(x)[0], y)


# A source.


def cross_of(theirs, memory_size=None):
    """The same weights, whichever of torch's two ways to hold them."""
    mine = CrossAttention(
        theirs.embed_dim, theirs.num_heads, memory_size=memory_size, dtype=F64
    )
    weights = dict(theirs.state_dict())
    packed = weights.pop("in_proj_weight", None)
    if packed is not None:
        names = [f"{letter}_proj_weight" for letter in "qkv"]
        weights |= dict(zip(names, packed.chunk(3), strict=True))
    mine.load_state_dict(weights, strict=True)
    return mine


@pytest.mark.parametrize("lengths", [None, torch.tensor([5, 1, 3])])
@pytest.mark.parametrize("memory_size", [None, 6])
def test_cross_attention_equals_torch(memory_size, lengths):
    options = {"batch_first": True, "dtype": F64}
    theirs = nn.MultiheadAttention(8, 4, kdim=memory_size, vdim=memory_size, **options)
    mine = cross_of(stirred(theirs), memory_size)
    query = draw(3, 2, 8).requires_grad_()
    memory = draw(3, 5, memory_size or 8, seed=2).requires_grad_()
    padding = None if lengths is None else torch.arange(5) >= lengths[:, None]
    expected, weights = theirs(
        query, memory, memory, key_padding_mask=padding, average_attn_weights=False
    )
    source = mine.prepare(memory, lengths)
    context = mine(query, memory, lengths)
    torch.testing.assert_close(context, expected)
    torch.testing.assert_close(mine.attend(query, source), expected)
    torch.testing.assert_close(mine.weights(query, source), weights)
    weight = draw(*context.shape, seed=7)
    got = torch.autograd.grad((context * weight).sum(), [query, memory])
    want = torch.autograd.grad((expected * weight).sum(), [query, memory])
    torch.testing.assert_close(got, want)


def test_padding_and_empty_sources():
    attention = stirred(CrossAttention(8, 4, n_kv_heads=2, memory_size=6, dtype=F64))
    query, memory, lengths = draw(3, 2, 8), draw(3, 5, 6), torch.tensor([5, 0, 3])
    spoilt = memory.clone()
    for row, length in enumerate(lengths):
        spoilt[row, length:] = torch.nan
    spoilt.requires_grad_()
    context = attention(query, spoilt, lengths)
    torch.testing.assert_close(context, attention(query, memory, lengths))
    alone = attention(query[2:], memory[2:, :3])
    torch.testing.assert_close(context[2:], alone)
    bias = attention.out_proj.bias.expand(2, -1)
    torch.testing.assert_close(context[1], bias)
    (grad,) = torch.autograd.grad(context.sum(), spoilt)
    assert grad.isfinite().all()
    assert not grad[1].count_nonzero()
    assert not grad[2, 3:].count_nonzero()
    source = attention.prepare(memory, lengths)
    weights = attention.weights(query, source)
    assert weights.shape == (3, 4, 2, 5)
    total = (lengths > 0).to(F64)[:, None, None].expand(3, 4, 2)
    torch.testing.assert_close(weights.sum(-1), total)
    rows = select_rows(source, torch.tensor([2, 2]))
    torch.testing.assert_close(attention.attend(query[[2, 2]], rows)[1], context[2])


@pytest.mark.parametrize(("batch", "time", "size"), [(2, 3, 0), (2, 0, 4), (0, 3, 4)])
def test_nothing_to_read_or_to_ask(batch, time, size):
    attention = stirred(CrossAttention(8, 4, dtype=F64))
    query, memory = draw(batch, time, 8), draw(batch, size, 8)
    source = attention.prepare(memory)
    assert source.lengths.tolist() == [size] * batch
    for context in (attention.attend(query, source), attention(query, memory)):
        bias = attention.out_proj.bias.expand(batch, time, -1)
        torch.testing.assert_close(context, bias)
    assert attention.weights(query, source).shape == (batch, 4, time, size)


def test_weights_are_those_of_the_contexts():
    attention = stirred(CrossAttention(8, 4, n_kv_heads=2, dtype=F64))
    query, memory = draw(2, 3, 8), draw(2, 5, 8, seed=3)
    source = attention.prepare(memory)
    weights = attention.weights(query, source)
    o = weights @ source.values.repeat_interleave(2, dim=1)
    expected = attention.out_proj(o.transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention.attend(query, source), expected)


# Bad input.


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: MultiHeadAttention(8, 3), ValueError, r"multiple of n_heads=3 where"),
        (lambda: MultiHeadAttention(8, 4, n_kv_heads=3), ValueError, r"n_kv_heads=3"),
        (lambda: MultiHeadAttention(8, 0), ValueError, r"`n_heads` must be at least 1"),
        (lambda: MultiHeadAttention(8, 4, d_head=0), ValueError, r"`d_head`"),
        (lambda: MultiHeadAttention(8, 4, window=0), ValueError, r"`window`"),
        (
            lambda: MultiHeadAttention(8, 4, positions=Rotary(4)),
            ValueError,
            r"`positions` must have d_head=2, got 4",
        ),
        (
            lambda: MultiHeadAttention(8, 4, positions="rotary"),
            TypeError,
            r"`positions` must be a Rotary, a tensor of slopes or None, got str",
        ),
        (
            lambda: MultiHeadAttention(8, 4, positions=torch.ones(3)),
            ValueError,
            r"`positions`.*n_heads=4",
        ),
        (lambda: build()(draw(2, 3, 7)), ValueError, r"forward: `x`.*d_model=8"),
        (lambda: build()(draw(2, 3, 8).float()), ValueError, r"`x`.*dtype"),
        (lambda: build().step(draw(2, 3, 8), None), ValueError, r"step: `x_t`"),
        (
            lambda: build().step(draw(2, 8), (1, 2, 3)),
            TypeError,
            r"`state` must be KVState\(k, v, length\), got tuple",
        ),
        (
            lambda: build()(draw(2, 3, 8), build().initial_state(3)),
            ValueError,
            r"`state.k`.*batch=2",
        ),
        (
            lambda: build()(draw(2, 3, 8), build(n_kv_heads=2).initial_state(2)),
            ValueError,
            r"`state.k`.*kv_heads=4",
        ),
        (
            lambda: build()(
                draw(1, 3, 8),
                KVState(*torch.zeros(2, 1, 4, 2, 2, dtype=F64), torch.tensor([3])),
            ),
            ValueError,
            r"`state.length` must be at most cached=2, got 3",
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
    with pytest.raises(kind, match=f"^MultiHeadAttention.*{message}"):
        call()


@pytest.mark.errors
def test_bad_sources():
    attention = CrossAttention(8, 4, memory_size=6, dtype=F64)
    source = attention.prepare(draw(2, 5, 6))
    assert isinstance(source, CrossSource)
    with pytest.raises(TypeError, match=r"attend: `source` must be a CrossSource"):
        attention.attend(draw(2, 3, 8), draw(2, 5, 6))
    with pytest.raises(ValueError, match=r"one step\? pass query\[:, None\]"):
        attention.attend(draw(2, 8), source)
    with pytest.raises(ValueError, match=r"forward: `memory`.*memory_size=6"):
        attention(draw(2, 3, 8), draw(2, 5, 8))
    with pytest.raises(ValueError, match=r"prepare: `lengths` must be at most source"):
        attention.prepare(draw(2, 5, 6), torch.tensor([6, 1]))
    other = CrossAttention(8, 4, n_kv_heads=2, memory_size=6, dtype=F64)
    with pytest.raises(ValueError, match=r"weights: `source.keys`.*kv_heads=4"):
        attention.weights(draw(2, 3, 8), other.prepare(draw(2, 5, 6)))


@pytest.mark.errors
@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"lengths": torch.tensor([6, 1])}, ValueError, r"at most source=5, got 6"),
        ({"lengths": torch.tensor([-1, 1])}, ValueError, r"at least 0, got -1"),
        ({"lengths": torch.tensor([5.0, 1])}, TypeError, r"integer dtype"),
        ({"lengths": torch.tensor([5])}, ValueError, r"`source.lengths`.*batch=2"),
        ({"lengths": [5, 1]}, TypeError, r"`source.lengths` must be a tensor"),
        ({"keys": torch.zeros(2, 4, 5, 2)}, ValueError, r"`source.keys`.*dtype"),
        ({"values": torch.zeros(2, 4, 5, 2)}, ValueError, r"`source.values`.*dtype"),
        (
            {"keys": torch.zeros(2, 4, 5, 2, device="meta", dtype=F64)},
            ValueError,
            r"`source.keys`.*device",
        ),
    ],
)
def test_bad_prepared_sources(change, kind, message):
    attention = CrossAttention(8, 4, dtype=F64)
    source = attention.prepare(draw(2, 5, 8))._replace(**change)
    for call in (attention.attend, attention.weights):
        with pytest.raises(kind, match=f"^CrossAttention.*{message}"):
            call(draw(2, 3, 8), source)
