"""Segment recurrence: contract, XLNet as judge, the memory, what a cut changes."""

import pytest
import torch
from torch import nn
from torch.nn.functional import gelu

from seqref import MultiHeadAttention, SegmentState, TransformerXLAttention
from seqref.attention import sinusoidal
from seqref.attention.segment_recurrence import relative_shift
from seqref.models import FeedForward, PostNormBlock, PreNormBlock, Transformer
from seqref.recurrence import grows, reset_rows, scan, select_rows
from seqref.testing import check_sequence_layer

F64 = torch.float64
KINDS = {
    "as in the paper": {"memory": 4},
    "memory of one": {"memory": 1},
    "memory beyond all": {"memory": 20},
    "as far as a step": {"memory": 4, "window": 5},
    "less than the memory": {"memory": 4, "window": 3},
    "narrow heads": {"memory": 3, "d_head": 3},
}


def build(d_model=8, n_heads=4, memory=4, **options):
    """A layer without a parameter that is zero."""
    torch.manual_seed(0)
    return stirred(
        TransformerXLAttention(d_model, n_heads, memory=memory, dtype=F64, **options)
    )


def stirred(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def draw(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=F64)


def in_segments(layer, x, sizes, state=None):
    outputs = []
    for part in x.split(sizes, dim=1):
        y, state = layer(part, state)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


# The contract.


@pytest.mark.parametrize("time", [1, 7])
@pytest.mark.parametrize("name", KINDS)
def test_contract(name, time):
    layer = build(**KINDS[name])
    report = check_sequence_layer(layer, draw(3, time, 8))
    assert ("chunks" in report.skipped) == (not layer.chunk_invariant or time == 1)
    assert "gradients of the state" in report.skipped
    options = {"atol": 2e-5, "rtol": 2e-5, "dtype": torch.float32}
    check_sequence_layer(layer, draw(3, time, 8), **options)


@pytest.mark.parametrize("window", [None, 4])
def test_contract_of_a_stack(window):
    """Blocks hand on what the attention declares; each layer has its memory."""
    blocks = [
        PreNormBlock(build(memory=3, window=window), FeedForward(8, 16, dtype=F64))
        for _ in range(2)
    ]
    stack = Transformer(blocks, last_norm=nn.LayerNorm(8, dtype=F64))
    assert not stack.differentiable_state
    assert stack.chunk_invariant == (window is not None)
    check_sequence_layer(stirred(stack), draw(3, 7, 8))


def test_what_is_declared():
    assert not build(memory=4).chunk_invariant
    assert build(memory=4, window=5).chunk_invariant
    assert not build(memory=4, window=6).chunk_invariant
    assert not any(build(window=w).differentiable_state for w in (None, 2))


# XLNet as judge: the same attention, memory and mask.


def xlnet(transformers, same_length, memory, n_layer=2):
    torch.manual_seed(1)
    config = transformers.XLNetConfig(
        vocab_size=11,
        d_model=8,
        n_head=4,
        d_inner=16,
        n_layer=n_layer,
        ff_activation="gelu",
        attn_type="uni",
        mem_len=memory,
        same_length=same_length,
        dropout=0.0,
        layer_norm_eps=1e-5,
    )
    model = transformers.XLNetModel(config).to(F64).eval()
    return stirred(model)


def rows(weight):
    """(model, heads, head) of XLNet as the rows of a linear map."""
    return weight.flatten(1).T


def translated(layer, of=lambda parameter: parameter.detach()):
    """Parameters of an XLNet layer, or what `of` makes of them, by names in a block."""
    attention, network = layer.rel_attn, layer.ff
    parts = [rows(of(getattr(attention, name))) for name in "qkv"]
    found = {
        "attention.qkv_net.weight": torch.cat(parts),
        "attention.r_net.weight": rows(of(attention.r)),
        "attention.o_net.weight": of(attention.o).flatten(1),
        "attention.r_w_bias": of(attention.r_w_bias),
        "attention.r_r_bias": of(attention.r_r_bias),
    }
    places = {
        "norm_attention": attention.layer_norm,
        "norm_feed_forward": network.layer_norm,
        "feed_forward.inward": network.layer_1,
        "feed_forward.outward": network.layer_2,
    }
    for place, module in places.items():
        for name, parameter in module.named_parameters():
            found[f"{place}.{name}"] = of(parameter)
    return found


def block_of(theirs, memory, window):
    attention = TransformerXLAttention(8, 4, memory=memory, window=window, dtype=F64)
    block = PostNormBlock(attention, FeedForward(8, 16, gelu, dtype=F64))
    block.load_state_dict(translated(theirs), strict=True)
    return block


@pytest.mark.parametrize("same_length", [False, True])
def test_equals_xlnet(same_length):
    """Two layers over four segments: outputs, memories, gradients of all weights."""
    transformers = pytest.importorskip("transformers")
    memory = 5
    theirs = xlnet(transformers, same_length, memory)
    window = memory + 1 if same_length else None
    mine = Transformer([block_of(layer, memory, window) for layer in theirs.layer])
    # Their frequencies are in float32.
    close = {"atol": 1e-5, "rtol": 1e-5}
    mems, state = None, None
    if same_length:
        # Their mask of equal length counts from the memory at hand, so it is full.
        mems = [draw(memory, 2, 8, seed=20 + i) for i in range(2)]
        full = torch.full((2,), memory)
        state = tuple(SegmentState(mem.transpose(0, 1), full) for mem in mems)
    for k, time in enumerate((3, 4, 6, 1)):
        x = draw(2, time, 8, seed=k).requires_grad_()
        copied = x.detach().clone().requires_grad_()
        output = theirs(inputs_embeds=copied, mems=mems, use_mems=True)
        expected, mems = output.last_hidden_state, output.mems
        y, state = mine(x, state)
        torch.testing.assert_close(y, expected, **close)
        for mem, kept in zip(mems, state, strict=True):
            assert kept.length.tolist() == [len(mem)] * 2
            held = kept.h[:, memory - len(mem) :]
            torch.testing.assert_close(held, mem.transpose(0, 1), **close)
        weight = draw(*y.shape, seed=10 + k)
        mine.zero_grad()
        theirs.zero_grad()
        (y * weight).sum().backward()
        (expected * weight).sum().backward()
        torch.testing.assert_close(x.grad, copied.grad, **close)
        for block, layer in zip(mine.layers, theirs.layer, strict=True):
            got = {name: p.grad for name, p in block.named_parameters()}
            wanted = translated(layer, lambda parameter: parameter.grad)
            torch.testing.assert_close(got, wanted, **close)


# Terms, positions, and the shift.


def test_scores_are_the_four_terms():
    """A head as its equations, with a memory that is not full."""
    layer = build(n_heads=1, d_head=3, memory=4)
    past, x = draw(1, 2, 8), draw(1, 3, 8, seed=2)
    _, state = layer(past)
    h = torch.cat([past, x], dim=1)[0]
    W_q, W_kE, W_v = layer.qkv_net.weight.chunk(3)
    W_kR, u, v = layer.r_net.weight, layer.r_w_bias[0], layer.r_r_bias[0]
    R = sinusoidal(torch.arange(5), 8, layout="half", dtype=F64)
    rows = []
    for i in range(2, 5):
        q_i, scores = W_q @ h[i], []
        for j in range(i + 1):
            k_j, r = W_kE @ h[j], W_kR @ R[i - j]
            scores.append(q_i @ k_j + q_i @ r + u @ k_j + v @ r)
        weights = (torch.stack(scores) / 3**0.5).softmax(0)
        rows.append(layer.o_net.weight @ (weights @ (h[: i + 1] @ W_v.T)))
    torch.testing.assert_close(layer(x, state)[0][0], torch.stack(rows))


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 6), (4, 4), (3, 7), (0, 5)])
def test_the_shift_puts_distances_at_their_keys(queries, keys):
    scores = draw(2, 3, queries, keys)
    shifted = relative_shift(scores)
    assert shifted.shape == scores.shape
    for t in range(queries):
        own = keys - queries + t
        for j in range(own + 1):
            by_distance = scores[:, :, t, keys - 1 - (own - j)]
            assert torch.equal(shifted[:, :, t, j], by_distance)


def test_an_odd_width_has_vectors_too():
    layer = TransformerXLAttention(3, 3, memory=2, dtype=F64)
    even = sinusoidal(torch.arange(3, -1, -1), 4, layout="half", dtype=F64)
    wanted = (even[:, :3] @ layer.r_net.weight.T).T[None, :, :, None]
    torch.testing.assert_close(layer._distances(4), wanted)


def test_only_distances_count():
    """The same inputs further on in time: the same outputs."""
    layer, x = build(memory=3, window=4), draw(1, 9, 8)
    _, state = layer(draw(1, 50, 8, seed=4))
    _, state = layer(x[:, :3], state)
    late, _ = layer(x[:, 3:], state)
    torch.testing.assert_close(late, layer(x)[0][:, 3:])


# The memory.


def test_segments_equal_one_pass_where_the_memory_holds_all():
    layer, x = build(memory=8), draw(2, 12, 8)
    whole, final = layer(x)
    for sizes in ([4, 4, 4], [8, 4], [1, 7, 4]):
        y, state = in_segments(layer, x, sizes)
        torch.testing.assert_close(y, whole)
        torch.testing.assert_close(state, final)
    torch.testing.assert_close(scan(layer, x[:, :9])[0], whole[:, :9])


def test_a_short_memory_makes_results_depend_on_the_cuts():
    layer, x = build(memory=3), draw(2, 12, 8)
    whole, final = layer(x)
    y, state = in_segments(layer, x, [4, 4, 4])
    # The first query of the second segment misses the oldest input, the rest follow.
    torch.testing.assert_close(y[:, :4], whole[:, :4])
    assert ((y - whole)[:, 4:].abs().amax(dim=2) > 1e-3).all()
    assert (scan(layer, x)[0] - y).abs().max() > 1e-3
    # What one layer keeps does not depend on them.
    torch.testing.assert_close(state, final)


def test_a_window_of_memory_and_itself_does_not_depend_on_the_cuts():
    layer, x = build(memory=3, window=4), draw(2, 12, 8)
    whole = layer(x)
    for sizes in ([4, 4, 4], [1, 11], [11, 1]):
        torch.testing.assert_close(in_segments(layer, x, sizes), whole)
    torch.testing.assert_close(scan(layer, x), whole)


def test_no_gradient_passes_into_the_memory():
    layer, x = build(memory=4), draw(1, 8, 8).requires_grad_()
    y, state = in_segments(layer, x, [4, 4])
    assert not state.h.requires_grad
    (gradient,) = torch.autograd.grad(y[:, 4:].sum(), x)
    assert not gradient[:, :4].count_nonzero()
    assert gradient[:, 4:].count_nonzero()

    # Weights learn from the memory all the same: keys and values are made anew.
    def loss(state):
        return layer(x[:, 4:].detach(), state)[0].square().sum()

    _, state = layer(x[:, :4])
    weight = layer.qkv_net.weight
    (carried,) = torch.autograd.grad(loss(state), weight)
    (fresh,) = torch.autograd.grad(loss(layer.initial_state(1)), weight)
    assert (carried - fresh).abs().max() > 1e-3


def test_a_state_with_a_graph_is_cut_off_too():
    layer = build(memory=2)
    h = draw(1, 2, 8).requires_grad_()
    y, _ = layer(draw(1, 3, 8), SegmentState(h, torch.tensor([2])))
    assert torch.autograd.grad(y.sum(), h, allow_unused=True) == (None,)


def test_the_state_is_the_last_inputs():
    layer, x = build(memory=4), draw(3, 6, 8)
    lengths = torch.tensor([6, 2, 0])
    state = layer(x, lengths=lengths)[1]
    assert state.length.tolist() == [4, 2, 0]
    assert torch.equal(state.h[0], x[0, 2:])
    assert torch.equal(state.h[1, 2:], x[1, :2])
    assert not state.h[1, :2].count_nonzero()
    assert not state.h[2].count_nonzero()
    assert not grows(state)
    # It keeps no more alive than itself.
    assert state.h.untyped_storage().nbytes() == 3 * 4 * 8 * 8
    full = layer(x)[1]
    assert full.h.untyped_storage().nbytes() == 3 * 4 * 8 * 8


def test_rows_go_on_each_from_its_own_end():
    layer, x, more = build(memory=4), draw(3, 6, 8), draw(3, 3, 8, seed=2)
    lengths = torch.tensor([6, 2, 0])
    y, _ = layer(more, layer(x, lengths=lengths)[1])
    for row, length in enumerate(lengths.tolist()):
        _, alone = layer(x[row : row + 1, :length])
        torch.testing.assert_close(
            y[row : row + 1], layer(more[row : row + 1], alone)[0]
        )


def test_rows_are_chosen_and_start_anew():
    layer, x, more = build(memory=4), draw(3, 6, 8), draw(3, 3, 8, seed=2)
    y, state = layer(x)
    chosen = select_rows(state, torch.tensor([2, 2, 0]))
    torch.testing.assert_close(chosen.h, state.h[[2, 2, 0]])
    mask = torch.tensor([False, True, False])
    again = reset_rows(state, layer.initial_state(3), mask)
    y, _ = layer(more, again)
    torch.testing.assert_close(y[1:2], layer(more[1:2])[0])
    torch.testing.assert_close(y[::2], layer(more, state)[0][::2])


def test_what_an_empty_place_of_the_memory_holds_is_not_read():
    layer, x = build(memory=4), draw(1, 3, 8)
    _, state = layer(draw(1, 2, 8, seed=3))
    other = state._replace(h=state.h.clone())
    other.h[:, :2] = 7.0
    torch.testing.assert_close(layer(x, other)[0], layer(x, state)[0])


def test_an_empty_place_of_the_memory_may_hold_nan():
    """Zero times NaN is NaN: hidden scores alone would not keep it out."""
    layer, x = build(memory=4), draw(2, 3, 8)
    _, state = layer(draw(2, 2, 8, seed=3), lengths=torch.tensor([2, 0]))
    other = state._replace(h=state.h.clone())
    other.h[0, :2], other.h[1] = torch.nan, torch.inf
    torch.testing.assert_close(layer(x, other), layer(x, state))


def test_autocast_does_not_lead_back_to_float16():
    torch.manual_seed(0)
    layer = TransformerXLAttention(64, 4, memory=4)
    x = 200 * torch.randn(2, 8, 64)
    expected, _ = in_segments(layer, x, [4, 4])
    q, k, _ = layer._projected(torch.cat([x[:, :4], x[:, 4:]], dim=1))
    assert (q @ k.mT).abs().max() > torch.finfo(torch.float16).max
    with torch.autocast("cpu", torch.float16):
        y, _ = in_segments(layer, x, [4, 4])
    assert y.isfinite().all()
    assert (y - expected).abs().median() < 0.01 * expected.abs().median()


def test_weights_serve_any_memory():
    layer, longer = build(memory=3), build(memory=20)
    longer.load_state_dict(layer.state_dict())
    x = draw(1, 12, 8)
    y, state = in_segments(longer, x, [4, 4, 4])
    torch.testing.assert_close(y, layer(x)[0])
    assert state.h.shape == (1, 20, 8)


def test_without_positions_it_is_plain_attention_to_the_memory():
    """With u, v and r_net at zero: the formula of multi-head attention."""
    layer = build(memory=20)
    plain = MultiHeadAttention(8, 4, bias=False, dtype=F64)
    with torch.no_grad():
        for parameter in (layer.r_w_bias, layer.r_r_bias, layer.r_net.weight):
            parameter.zero_()
        plain.in_proj_weight.copy_(layer.qkv_net.weight)
        plain.out_proj.weight.copy_(layer.o_net.weight)
    x = draw(2, 12, 8)
    y, _ = in_segments(layer, x, [5, 4, 3])
    torch.testing.assert_close(y, plain(x)[0])


def test_initialisation():
    torch.manual_seed(3)
    layer = TransformerXLAttention(64, 4, memory=2)
    bounds = {
        "qkv_net.weight": (6 / (4 * 64)) ** 0.5,
        "r_net.weight": (6 / (2 * 64)) ** 0.5,
        "o_net.weight": 1 / 8,
    }
    parameters = dict(layer.named_parameters())
    for name, bound in bounds.items():
        weight = parameters.pop(name)
        assert 0.99 * bound < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert set(parameters) == {"r_w_bias", "r_r_bias"}
    assert not any(p.count_nonzero() for p in parameters.values())


# Bad input.


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: TransformerXLAttention(8, 3, memory=2),
            ValueError,
            r"`d_model` must be a multiple of n_heads=3",
        ),
        (lambda: build(memory=0), ValueError, r"`memory` must be at least 1, got 0"),
        (lambda: build(memory=2.0), TypeError, r"`memory` must be an int"),
        (lambda: build(window=0), ValueError, r"`window` must be at least 1"),
        (lambda: build()(draw(2, 3, 7)), ValueError, r"forward: `x`.*d_model=8"),
        (lambda: build()(draw(2, 3, 8).float()), ValueError, r"`x`.*dtype"),
        (lambda: build().step(draw(2, 3, 8), None), ValueError, r"step: `x_t`"),
        (
            lambda: build().step(draw(2, 8), (1, 2)),
            TypeError,
            r"`state` must be SegmentState\(h, length\), got tuple",
        ),
        (
            lambda: build()(draw(2, 3, 8), build().initial_state(3)),
            ValueError,
            r"`state.h`.*batch=2",
        ),
        (
            lambda: build()(draw(2, 3, 8), build(memory=3).initial_state(2)),
            ValueError,
            r"`state.h`.*memory=4",
        ),
        (
            lambda: build()(
                draw(1, 3, 8), SegmentState(draw(1, 4, 8), torch.tensor([5]))
            ),
            ValueError,
            r"`state.length` must be at most memory=4, got 5",
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
    with pytest.raises(kind, match=f"^TransformerXLAttention.*{message}"):
        call()
