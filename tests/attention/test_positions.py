"""Positions: closed forms, judges of transformers, cached steps, refusals."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

import seqref
from seqref.attention import (
    LearnedPositions,
    Rotary,
    alibi_bias,
    alibi_slopes,
    half_from_interleaved,
    interleaved_from_half,
    sinusoidal,
)
from seqref.ops.softmax_attention import softmax_attention

F64 = torch.float64
LAYOUTS = ["half", "interleaved"]
layouts = pytest.mark.parametrize("layout", LAYOUTS)


def pairs_of(layout, width):
    """Components that belong together, by the definition of the layout."""
    half = width // 2
    if layout == "half":
        return [(i, i + half) for i in range(half)]
    return [(2 * i, 2 * i + 1) for i in range(half)]


# Sinusoidal.


@layouts
def test_sinusoidal_is_its_formula(layout):
    positions = torch.tensor([[0, 1, 7], [3, 100, 5000]])
    vectors = sinusoidal(positions, 6, layout=layout, base=50.0, dtype=F64)
    assert vectors.shape == (2, 3, 6)
    for i, (a, b) in enumerate(pairs_of(layout, 6)):
        angle = positions.double() * 50.0 ** (-2 * i / 6)
        torch.testing.assert_close(vectors[..., a], angle.sin(), atol=1e-11, rtol=0)
        torch.testing.assert_close(vectors[..., b], angle.cos(), atol=1e-11, rtol=0)


def shift_by(steps, width, base=10000.0):
    """One rotation for each frequency, whatever the position."""
    matrix = torch.zeros(width, width, dtype=F64)
    for i, (a, b) in enumerate(pairs_of("interleaved", width)):
        angle = steps * base ** (-2 * i / width)
        matrix[a, a] = matrix[b, b] = math.cos(angle)
        matrix[a, b], matrix[b, a] = math.sin(angle), -math.sin(angle)
    return matrix


@pytest.mark.parametrize("steps", [1, -3, 200])
def test_a_shift_of_sinusoids_is_one_linear_map(steps):
    positions = torch.tensor([3, 10, 77, 4000])
    vectors = sinusoidal(positions, 8, dtype=F64)
    expected = sinusoidal(positions + steps, 8, dtype=F64)
    torch.testing.assert_close(
        vectors @ shift_by(steps, 8).T, expected, atol=1e-9, rtol=0
    )


def test_products_of_sinusoids_depend_on_the_distance_alone():
    vectors = sinusoidal(torch.arange(40), 16, dtype=F64)
    products = vectors @ vectors.T
    for distance in range(1, 40):
        diagonal = products.diagonal(distance)
        frequencies = [10000.0 ** (-2 * i / 16) for i in range(8)]
        expected = sum(math.cos(distance * w) for w in frequencies)
        torch.testing.assert_close(diagonal, torch.full_like(diagonal, expected))


def test_sinusoids_equal_those_of_transformers():
    distilbert = pytest.importorskip(
        "transformers.models.distilbert.modeling_distilbert"
    )
    marian = pytest.importorskip("transformers.models.marian.modeling_marian")
    steps = torch.arange(300)
    theirs = torch.empty(300, 32)
    distilbert.create_sinusoidal_embeddings(300, 32, theirs)
    near = {"atol": 1e-6, "rtol": 0, "check_dtype": False}
    torch.testing.assert_close(sinusoidal(steps, 32, dtype=F64), theirs, **near)
    theirs = marian.MarianSinusoidalPositionalEmbedding(300, 32).create_weight()
    mine = sinusoidal(steps, 32, layout="half", dtype=F64)
    torch.testing.assert_close(mine, theirs, **near)


def test_sinusoids_of_tensor2tensor_have_another_base():
    """What the docstring says: all sines first, and a longest wavelength of 10000."""
    m2m = pytest.importorskip("transformers.models.m2m_100.modeling_m2m_100")
    theirs = m2m.M2M100SinusoidalPositionalEmbedding.get_embedding(300, 32)
    base = 10000.0 ** (16 / 15)
    mine = sinusoidal(torch.arange(300), 32, layout="half", base=base)
    # Their frequencies are float32 numbers, ours are rounded from float64.
    torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=0)
    plain = sinusoidal(torch.arange(300), 32, layout="half")
    assert (plain - theirs).abs().max() > 0.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_at_the_end_alone(dtype):
    positions = torch.tensor([0, 255, 257, 4097, 30001])
    mine = sinusoidal(positions, 64, dtype=dtype)
    assert mine.dtype == dtype
    exact = sinusoidal(positions, 64, dtype=F64)
    worst = torch.finfo(dtype).eps / 2 + 4e-3
    assert (mine.double() - exact).abs().max() <= worst


# Learned.


def test_learned_positions_are_added():
    layer = LearnedPositions(10, 4, dtype=F64)
    x = torch.randn(3, 5, 4, dtype=F64)
    torch.testing.assert_close(layer(x), x + layer.weight[:5])
    torch.testing.assert_close(layer(x, 5), x + layer.weight[5:])
    offset = torch.tensor([5, 0, 2])
    rows = [layer.weight[n : n + 5] for n in (5, 0, 2)]
    torch.testing.assert_close(layer(x, offset), x + torch.stack(rows))
    table = nn.Embedding(10, 4, dtype=F64)
    layer.load_state_dict(table.state_dict())
    torch.testing.assert_close(layer(x, 3), x + table(torch.arange(3, 8)))


def test_gradients_of_learned_positions():
    layer = LearnedPositions(6, 4, dtype=F64)
    x = torch.randn(2, 3, 4, dtype=F64)
    upstream = torch.randn(2, 3, 4, dtype=F64)
    layer(x, torch.tensor([3, 1])).backward(upstream)
    expected = torch.zeros(6, 4, dtype=F64)
    expected[3:6] += upstream[0]
    expected[1:4] += upstream[1]
    torch.testing.assert_close(layer.weight.grad, expected)


@pytest.mark.parametrize("offset", [8, torch.tensor([0, 8])])
def test_beyond_the_last_learned_position(offset):
    layer = LearnedPositions(10, 4)
    message = "max_positions=10 positions, got 3 steps after an `offset` of 8"
    with pytest.raises(ValueError, match=message):
        layer(torch.zeros(2, 3, 4), offset)
    assert layer(torch.zeros(2, 0, 4), 10).shape == (2, 0, 4)
    assert layer(torch.zeros(2, 2, 4), 8).shape == (2, 2, 4)
    # Without rows, or under vmap, there is no offset to read: 11 steps are too many.
    none = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"max_positions=10 positions, got 11 steps$"):
        layer(torch.zeros(0, 11, 4), none)
    assert layer(torch.zeros(0, 10, 4), none).shape == (0, 10, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("inner", [torch.float32, torch.bfloat16])
def test_learned_positions_keep_the_dtype_under_autocast(inner, dtype):
    layer = LearnedPositions(10, 4, dtype=inner)
    x = torch.randn(2, 3, 4).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x, 2)
    assert y.dtype == dtype
    expected = (x.double() + layer.weight[2:5].double()).to(dtype)
    torch.testing.assert_close(y, expected)


# Rotary.


def turned_by_hand(x, layout, positions, base):
    """By complex numbers, pair by pair; x (batch, heads, time, head)."""
    result = torch.empty_like(x)
    for i, (a, b) in enumerate(pairs_of(layout, x.shape[-1])):
        angle = positions.double() * base ** (-2 * i / x.shape[-1])
        turn = torch.polar(torch.ones_like(angle), angle)
        if positions.dim() == 2:
            turn = turn[:, None]
        pair = torch.complex(x[..., a], x[..., b]) * turn
        result[..., a], result[..., b] = pair.real, pair.imag
    return result


@layouts
@pytest.mark.parametrize("base", [10000.0, 17.0])
def test_rotary_is_its_formula(layout, base):
    rotary = Rotary(6, base=base, layout=layout)
    x = torch.randn(2, 3, 5, 6, dtype=F64)
    expected = turned_by_hand(x, layout, torch.arange(5), base)
    torch.testing.assert_close(rotary(x), expected)
    expected = turned_by_hand(x, layout, torch.arange(5) + 40, base)
    torch.testing.assert_close(rotary(x, 40), expected)
    offset = torch.tensor([3, 700])
    positions = offset[:, None] + torch.arange(5)
    expected = turned_by_hand(x, layout, positions, base)
    torch.testing.assert_close(rotary(x, offset), expected)
    torch.testing.assert_close(rotary.rotate(x, positions), expected)
    some = torch.tensor([5, -2, 0, 0, 9])
    expected = turned_by_hand(x, layout, some, base)
    torch.testing.assert_close(rotary.rotate(x, some), expected)


@layouts
def test_scores_depend_on_the_difference_of_positions_alone(layout):
    rotary = Rotary(8, layout=layout)
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=F64)
    at = {
        (i, j): (rotary(q, i) * rotary(k, j)).sum().item()
        for i in range(0, 90, 30)
        for j in range(0, 90, 30)
    }
    for (i, j), score in at.items():
        assert score == pytest.approx(at[max(i - j, 0), max(j - i, 0)], abs=1e-10)
    assert at[30, 0] != pytest.approx(at[0, 30], abs=1e-3)
    assert at[30, 0] != pytest.approx(at[60, 0], abs=1e-3)
    assert at[0, 0] == pytest.approx((q * k).sum().item(), abs=1e-12)


@layouts
def test_rotary_adds_nothing_to_a_score(layout):
    """It is bilinear: a bias by distance would be there for a query of zeros too."""
    rotary = Rotary(8, layout=layout)
    q, other, k = torch.randn(3, 1, 1, 1, 8, dtype=F64)

    def score(q, k):
        return (rotary(q, 30) * rotary(k, 10)).sum()

    assert score(torch.zeros_like(q), k) == score(q, torch.zeros_like(k)) == 0
    torch.testing.assert_close(
        score(2 * q - other, k), 2 * score(q, k) - score(other, k)
    )
    torch.testing.assert_close(
        score(q, 2 * k - other), 2 * score(q, k) - score(q, other)
    )


@layouts
def test_rotary_keeps_every_norm(layout):
    rotary = Rotary(8, layout=layout)
    x = torch.randn(2, 3, 50, 8, dtype=F64)
    torch.testing.assert_close(rotary(x, 1000).norm(dim=-1), x.norm(dim=-1))


@layouts
def test_the_gradient_is_turned_back(layout):
    rotary = Rotary(8, layout=layout)
    x = torch.randn(2, 3, 5, 8, dtype=F64, requires_grad=True)
    upstream = torch.randn_like(x)
    (grad,) = torch.autograd.grad(rotary(x, 20), x, upstream)
    back = rotary.rotate(upstream, -torch.arange(20, 25))
    torch.testing.assert_close(grad, back, atol=1e-10, rtol=0)


@layouts
def test_steps_of_a_cache_go_on(layout):
    """Each step at the number of steps before it, and rows at numbers of their own."""
    rotary = Rotary(8, layout=layout)
    x = torch.randn(2, 3, 9, 8, dtype=F64)
    whole = rotary(x)
    steps = [rotary(x[:, :, t : t + 1], t) for t in range(9)]
    torch.testing.assert_close(torch.cat(steps, dim=2), whole)
    ragged = torch.stack([x[0, :, 2:5], x[1, :, 6:9]])
    wanted = torch.stack([whole[0, :, 2:5], whole[1, :, 6:9]])
    torch.testing.assert_close(rotary(ragged, torch.tensor([2, 6])), wanted)
    restarted = [rotary(x[:, :, t : t + 1]) for t in range(9)]
    assert (torch.cat(restarted, dim=2) - whole).abs().max() > 0.1


def test_rotary_equals_that_of_llama():
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    config = llama.LlamaConfig(
        hidden_size=64, num_attention_heads=4, max_position_embeddings=512
    )
    judge = llama.LlamaRotaryEmbedding(config)
    q, k = torch.randn(2, 2, 4, 7, 16)
    positions = torch.tensor([[0, 1, 2, 3, 4, 5, 6], [90, 91, 92, 93, 94, 95, 400]])
    cos, sin = judge(q, positions)
    theirs = llama.apply_rotary_pos_emb(q, k, cos, sin)
    rotary = Rotary(16)
    for x, expected in zip((q, k), theirs, strict=True):
        mine = rotary.rotate(x, positions)
        torch.testing.assert_close(mine, expected, atol=2e-4, rtol=0)
        exact = rotary.rotate(x.double(), positions)
        assert (mine - exact).abs().max() <= 2 * (expected - exact).abs().max() + 1e-6


def test_rotary_equals_that_of_gptj():
    gptj = pytest.importorskip("transformers.models.gptj.modeling_gptj")
    x = torch.randn(2, 7, 4, 16)
    table = gptj.create_sinusoidal_positions(64, 16)
    sin, cos = table[20:27].expand(2, 7, 16).chunk(2, dim=-1)
    expected = gptj.apply_rotary_pos_emb(x, sin, cos).transpose(1, 2)
    mine = Rotary(16, layout="interleaved")(x.transpose(1, 2), 20)
    torch.testing.assert_close(mine, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_turns_by_whole_angles(dtype):
    layer = nn.Sequential(Rotary(16)).to(dtype)
    x = torch.randn(2, 3, 4, 16).to(dtype)
    offset = torch.tensor([257, 30001])
    mine = layer[0](x, offset)
    assert mine.dtype == dtype
    # A new one: frequencies of the first may have been rounded with the layer.
    exact = Rotary(16)(x.double(), offset)
    size = x.double().abs().max() * 2**0.5
    assert (mine.double() - exact).abs().max() <= size * (
        torch.finfo(dtype).eps / 2 + 3e-3
    )


def test_there_is_nothing_to_load_or_to_train():
    rotary = Rotary(8)
    assert not rotary.state_dict()
    assert not list(rotary.parameters())
    x = torch.randn(1, 2, 3, 8)
    again = copy.deepcopy(rotary)
    torch.testing.assert_close(again(x, 4), rotary(x, 4))
    assert repr(rotary) == "Rotary(8, base=10000, layout='half')"
    assert repr(LearnedPositions(5, 8)) == "LearnedPositions(5, 8)"
    assert seqref.Rotary is Rotary


# The two layouts.


def scores(q_weight, k_weight, x, rotary, n_heads):
    heads = (
        rotary((x @ weight.T).unflatten(-1, (n_heads, -1)).transpose(1, 2), 3)
        for weight in (q_weight, k_weight)
    )
    q, k = heads
    return q @ k.mT


def test_the_map_makes_scores_of_the_other_layout():
    n_heads, d_head, d_model = 3, 8, 10
    weights = torch.randn(2, n_heads * d_head, d_model, dtype=F64)
    x = torch.randn(2, 6, d_model, dtype=F64)
    half, interleaved = Rotary(d_head), Rotary(d_head, layout="interleaved")
    expected = scores(*weights, x, interleaved, n_heads)
    mapped = [half_from_interleaved(weight, n_heads) for weight in weights]
    torch.testing.assert_close(scores(*mapped, x, half, n_heads), expected)
    # As they are, or mapped as one head, they are other scores.
    assert (scores(*weights, x, half, n_heads) - expected).abs().max() > 1
    flat = [half_from_interleaved(weight, 1) for weight in weights]
    assert (scores(*flat, x, half, n_heads) - expected).abs().max() > 1
    back = [interleaved_from_half(weight, n_heads) for weight in mapped]
    torch.testing.assert_close(torch.stack(back), weights, atol=0, rtol=0)


@pytest.mark.parametrize("shape", [(24, 10), (24,)])
def test_the_map_equals_that_of_transformers(shape):
    loading = pytest.importorskip("transformers.core_model_loading")

    class Config:
        num_attention_heads = 3

    weight = torch.randn(shape)
    for inverse, mine in (
        (False, half_from_interleaved),
        (True, interleaved_from_half),
    ):
        judge = loading.PermuteForRope(inverse=inverse)
        theirs = judge._permute_for_rope(weight, Config())
        torch.testing.assert_close(mine(weight, 3), theirs, atol=0, rtol=0)


# ALiBi.


def test_slopes():
    torch.testing.assert_close(alibi_slopes(8), 0.5 ** torch.arange(1.0, 9.0))
    torch.testing.assert_close(alibi_slopes(1), torch.tensor([2.0**-8]))
    # Four of 4 heads, then the first and the third of 8.
    expected = 2.0 ** -torch.tensor([2.0, 4, 6, 8, 1, 3])
    torch.testing.assert_close(alibi_slopes(6), expected)


def test_slopes_equal_those_of_bloom():
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    for n_heads in range(1, 41):
        mask = torch.ones(1, 2)
        theirs = bloom.build_alibi_tensor(mask, n_heads, torch.float32)[:, 0, 1]
        torch.testing.assert_close(alibi_slopes(n_heads), theirs, atol=0, rtol=1e-5)


def test_causal_weights_equal_those_of_bloom():
    """Bloom adds slope times position of the key: the same behind a causal mask."""
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    theirs = bloom.build_alibi_tensor(torch.ones(1, 9), 6, torch.float32)
    raw = torch.randn(6, 9, 9)
    future = torch.ones(9, 9, dtype=torch.bool).triu(1)
    mine = raw + alibi_bias(alibi_slopes(6), 9, 9)
    expected = (raw + theirs).masked_fill(future, -torch.inf).softmax(-1)
    torch.testing.assert_close(
        mine.masked_fill(future, -torch.inf).softmax(-1), expected
    )
    # And not without one.
    assert (mine.softmax(-1) - (raw + theirs).softmax(-1)).abs().max() > 0.1


def test_the_bias_is_minus_slope_times_distance():
    slopes = alibi_slopes(4)
    bias = alibi_bias(slopes, 5, 7, 2)
    assert bias.shape == (4, 5, 7)
    for i in range(5):
        for j in range(7):
            torch.testing.assert_close(bias[:, i, j], -slopes * abs(i + 2 - j))
    offset = torch.tensor([2, 0, 6])
    rows = alibi_bias(slopes, 5, 7, offset)
    assert rows.shape == (3, 4, 5, 7)
    for row, n in zip(rows, offset.tolist(), strict=True):
        torch.testing.assert_close(row, alibi_bias(slopes, 5, 7, n))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_bias_in_half_precision_is_rounded_at_the_end_alone(dtype):
    # Of 12 heads some slopes are no powers of two, whose products would be exact.
    slopes, keys = alibi_slopes(12).to(dtype), 70000
    mine = alibi_bias(slopes, 1, keys, keys - 1)
    assert mine.dtype == dtype
    exact = alibi_bias(slopes.double(), 1, keys, keys - 1)
    assert exact.dtype == F64
    # Half a unit in the last place, and the rounding of float32 before it.
    worst = torch.finfo(dtype).eps / 2 * 1.001 * exact.abs()
    assert ((mine.double() - exact).abs() <= worst).all()


@pytest.mark.parametrize("context", [300, 1024, 4096])
@pytest.mark.parametrize("part", [0.5, 0.95])
def test_reach_of_equal_scores_is_the_closed_form(context, part):
    """What the page says of 95 % of the weights: m n decides whether n matters."""
    slopes = alibi_slopes(8).double()
    bias = alibi_bias(slopes, 1, context, context - 1)[:, 0]
    held = bias.softmax(-1).flip(-1).cumsum(-1)
    reach = (held < part - 1e-12).sum(-1) + 1
    whole = 1 - (-slopes * context).exp()
    expected = (-(1 - part * whole).log() / slopes).ceil()
    assert reach.tolist() == expected.tolist()


@pytest.mark.parametrize("offset", [4, torch.tensor([4, 1])])
def test_the_op_adds_the_same_bias(offset):
    q, k, v = (torch.randn(2, 6, n, 8, dtype=F64) for n in (3, 7, 7))
    slopes = alibi_slopes(6).double()
    mine = (q @ k.mT / 8**0.5 + alibi_bias(slopes, 3, 7, offset)).softmax(-1) @ v
    theirs = softmax_attention(q, k, v, offset=offset, slopes=slopes)
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("positions", [Rotary(8), alibi_slopes(3)])
def test_a_layer_does_not_see_where_its_row_begins(positions):
    """Relative positions: the same steps behind more of a cache that is not seen."""
    layer = seqref.MultiHeadAttention(24, 3, positions=positions, window=4, dtype=F64)
    before, x = torch.randn(1, 9, 24, dtype=F64), torch.randn(1, 8, 24, dtype=F64)
    alone, _ = layer(x)
    behind, _ = layer(torch.cat([before, x], dim=1))
    # From the fourth on the window holds steps of `x` alone.
    torch.testing.assert_close(behind[:, 9 + 3 :], alone[:, 3:])


# Order, and attention without positions: what the page says.


def attention(x, weights, causal):
    q, k, v = (x @ weight.T for weight in weights)
    raw = q @ k.mT / x.shape[-1] ** 0.5
    if causal:
        future = torch.ones(raw.shape[-2:], dtype=torch.bool).triu(1)
        raw = raw.masked_fill(future, -torch.inf)
    return raw.softmax(-1) @ v


def test_full_attention_is_equivariant_and_causal_is_not():
    x, weights = torch.randn(9, 6, dtype=F64), torch.randn(3, 6, 6, dtype=F64)
    order = torch.randperm(9)
    for causal in (False, True):
        change = (
            attention(x[order], weights, causal) - attention(x, weights, causal)[order]
        )
        assert (change.abs().max() < 1e-12) == (not causal)


def test_one_causal_layer_sees_proportions_and_two_see_an_order():
    """Neither the order of the tokens before nor how many there are, nor only which."""
    weights = torch.randn(3, 6, 6, dtype=F64)
    a, b, c = torch.randn(3, 6, dtype=F64)

    def last(rows, depth):
        rows = torch.stack(rows)
        for _ in range(depth):
            rows = rows + attention(rows, weights, causal=True)
        return rows[-1]

    same = [[a, c, b], [c, a, b], [c, a, b, a, c, b]]
    for rows in same:
        torch.testing.assert_close(last(rows, 1), last(same[0], 1))
    assert (last([a, a, c, b], 1) - last(same[0], 1)).abs().max() > 1e-2
    assert (last(same[1], 2) - last(same[0], 2)).abs().max() > 1e-2


def test_equal_scores_weigh_a_first_token_by_the_number_of_keys():
    x = torch.ones(12, 2, dtype=F64)
    x[0, 0], x[0, 1] = 5.0, 0.0
    nothing = torch.zeros(2, 2, dtype=F64)
    only = torch.tensor([[0.0, 0.0], [0.0, 1.0]], dtype=F64)
    y = attention(x, (nothing, nothing, only), causal=True)[:, 1]
    torch.testing.assert_close(1 - y, 1 / torch.arange(1.0, 13.0, dtype=F64))
    # Without a token that differs there is nothing to count.
    same = attention(torch.ones(12, 2, dtype=F64), torch.randn(3, 2, 2).double(), True)
    torch.testing.assert_close(same, same[:1].expand_as(same))


# Transforms, and what is refused.


def test_offsets_under_vmap():
    rotary, learned = Rotary(4), LearnedPositions(9, 4)
    x = torch.randn(3, 2, 5, 4)
    offset = torch.tensor([[0], [2], [4]])
    each = vmap(lambda x, n: rotary(x[None], n)[0])(x, offset)
    torch.testing.assert_close(each, rotary(x, offset[:, 0]))
    given = dict(learned.named_parameters())
    each = vmap(lambda x, n: functional_call(learned, given, (x[None], n))[0])(
        x[:, 0], offset
    )
    torch.testing.assert_close(each, learned(x[:, 0], offset[:, 0]))


def test_positions_beyond_float32_are_turned_alike():
    """What the docstring says of `float32`; and `float64` has them."""
    x = torch.ones(1, 1, 1, 4)
    rotary = Rotary(4)
    torch.testing.assert_close(rotary(x, 2**24), rotary(x, 2**24 + 1), atol=0, rtol=0)
    assert (rotary(x.double(), 2**24) - rotary(x.double(), 2**24 + 1)).abs().max() > 0.1


@pytest.mark.compile
def test_compiled():
    rotary = Rotary(4)
    x, offset = torch.randn(2, 2, 5, 4), torch.tensor([0, 3])
    compiled = torch.compile(rotary, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, offset), rotary(x, offset))


REFUSED = {
    "odd": (lambda: sinusoidal(torch.arange(3), 5), ValueError, "must be even, got 5"),
    "float": (lambda: sinusoidal(torch.rand(3), 4), TypeError, "an integer dtype"),
    "negative": (lambda: sinusoidal(torch.tensor([-1]), 4), ValueError, "least 0"),
    "layout": (
        lambda: sinusoidal(torch.arange(3), 4, layout="both"),
        ValueError,
        "`layout` must be one of 'half', 'interleaved'",
    ),
    "base": (lambda: Rotary(4, base=1.0), ValueError, "`base`"),
    "head": (lambda: Rotary(7), ValueError, "`d_head` must be even, got 7"),
    "shape": (
        lambda: Rotary(4)(torch.zeros(2, 5, 4)),
        ValueError,
        r"shape \(batch, heads, time, d_head=4\), got \(2, 5, 4\)",
    ),
    "offset": (lambda: Rotary(4)(torch.zeros(1, 1, 2, 4), -1), ValueError, "least 0"),
    "kind": (lambda: Rotary(4)(torch.zeros(1, 1, 2, 4), 1.0), TypeError, "an int"),
    "rows": (
        lambda: Rotary(4)(torch.zeros(2, 1, 2, 4), torch.tensor([1, 2, 3])),
        ValueError,
        r"`offset` must have shape \(batch=2,\), got \(3,\)",
    ),
    "complex": (
        lambda: Rotary(4)(torch.zeros(1, 1, 2, 4, dtype=torch.complex64)),
        TypeError,
        "`x` must have a floating dtype, got torch.complex64",
    ),
    "whole": (
        lambda: Rotary(4).rotate(torch.ones(1, 1, 2, 4).int(), torch.arange(2)),
        TypeError,
        "`x` must have a floating dtype, got torch.int32",
    ),
    "far": (
        lambda: Rotary(4)(torch.zeros(1, 1, 2, 4), 2**63 - 1),
        ValueError,
        "`offset` must be at most 4611686018427387904, got 9223372036854775807",
    ),
    "farther": (
        lambda: Rotary(4)(torch.zeros(1, 1, 2, 4), 2**64),
        ValueError,
        "`offset` must be at most",
    ),
    "rows far": (
        lambda: Rotary(4)(torch.zeros(1, 1, 2, 4), torch.tensor([2**63 - 1])),
        ValueError,
        "`offset` must be at most",
    ),
    "bias far": (
        lambda: alibi_bias(alibi_slopes(2), 2, 3, 2**63),
        ValueError,
        "`offset` must be at most",
    ),
    "offset on meta": (
        lambda: Rotary(4)(
            torch.zeros(1, 1, 2, 4), torch.zeros(1, dtype=torch.int64, device="meta")
        ),
        ValueError,
        '`offset` must have values on cpu, got a tensor on "meta"',
    ),
    "learned on meta": (
        lambda: LearnedPositions(3, 4)(
            torch.zeros(1, 2, 4), torch.zeros(1, dtype=torch.int64, device="meta")
        ),
        ValueError,
        "`offset` must have values",
    ),
    "positions on meta": (
        lambda: Rotary(4).rotate(
            torch.zeros(1, 1, 2, 4), torch.arange(2, device="meta")
        ),
        ValueError,
        "`positions` must have values",
    ),
    "whole sinusoids": (
        lambda: sinusoidal(torch.arange(3), 4, dtype=torch.int64),
        TypeError,
        "`dtype` must be a floating dtype, got torch.int64",
    ),
    "complex sinusoids": (
        lambda: sinusoidal(torch.arange(3), 4, dtype=torch.complex128),
        TypeError,
        "`dtype` must be a floating dtype, got torch.complex128",
    ),
    "whole slopes": (
        lambda: alibi_bias(torch.ones(2).long(), 3, 3),
        TypeError,
        "`slopes` must have a floating dtype, got torch.int64",
    ),
    "below": (
        lambda: Rotary(4)(torch.zeros(2, 1, 2, 4), torch.tensor([1, -2])),
        ValueError,
        "`offset` must be at least 0, got -2",
    ),
    "places": (
        lambda: Rotary(4).rotate(torch.zeros(2, 1, 3, 4), torch.arange(4)),
        ValueError,
        r"`positions` must have shape \(time=3,\), got \(4,\)",
    ),
    "learned": (lambda: LearnedPositions(0, 4), ValueError, "`max_positions`"),
    "width": (
        lambda: LearnedPositions(3, 4)(torch.zeros(1, 2, 5)),
        ValueError,
        "d_model=4",
    ),
    "dtype": (
        lambda: LearnedPositions(3, 4)(torch.zeros(1, 2, 4, dtype=F64)),
        ValueError,
        "dtype torch.float32",
    ),
    "weight": (
        lambda: half_from_interleaved(torch.zeros(9, 2), 3),
        ValueError,
        r"a multiple of 2 \* n_heads=6 rows, got shape \(9, 2\)",
    ),
    "back": (lambda: interleaved_from_half(torch.zeros(4), 3), ValueError, "rows"),
    "heads": (lambda: alibi_slopes(0), ValueError, "`n_heads` must be at least 1"),
    "keys": (lambda: alibi_bias(alibi_slopes(2), 3, -1), ValueError, "`keys`"),
    "slopes": (lambda: alibi_bias(torch.ones(2, 2), 3, 3), ValueError, "`slopes`"),
}


@pytest.mark.errors
@pytest.mark.parametrize("name", REFUSED)
def test_bad_arguments(name):
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call()
