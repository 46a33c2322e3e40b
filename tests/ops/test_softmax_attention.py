"""The op: definition, backends, masks, padding, gradients, judges, refusals."""

import itertools

import numpy as np
import pytest
import torch
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual
from torch.func import grad, jvp, vmap
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from seqref.ops import softmax_attention as op
from seqref.ops.softmax_attention import BACKENDS, _blocks, parallel, softmax_attention
from seqref.ops.softmax_attention import reference as definition
from seqref.ops.softmax_attention.reference import Sight
from seqref.testing import LiveBytes

F64 = torch.float64
HALF = (torch.bfloat16, torch.float16)
# What limits sight: seven keys, three rows.
SIGHTS = {
    "all": {},
    "causal": {"causal": True},
    "lengths": {"lengths": torch.tensor([7, 0, 3])},
    "causal and lengths": {"causal": True, "lengths": torch.tensor([7, 0, 3])},
    "window": {"causal": True, "window": 3},
    "window to both sides": {"window": 2},
    "last queries": {"causal": True, "offset": 4, "queries": 3},
    "offset past the keys": {"causal": True, "offset": 5, "window": 3},
    "offset by row": {
        "causal": True,
        "offset": torch.tensor([4, 0, 2]),
        "queries": 3,
        "lengths": torch.tensor([7, 3, 5]),
    },
    "offset by row, window": {
        "causal": True,
        "offset": torch.tensor([4, 0, 9]),
        "window": 2,
        "queries": 3,
    },
    "one query": {"causal": True, "offset": 6, "queries": 1},
    "more queries than keys": {"causal": True, "offset": 0, "queries": 11},
}


@pytest.fixture(params=[128, 3, 2])
def blocks(request, monkeypatch):
    """Sizes of blocks: one for all, and several with a rest."""
    for name in ("QUERIES", "KEYS"):
        monkeypatch.setattr(_blocks, name, request.param)
    return request.param


def case(dtype=F64, seed=0, heads=(4, 2), queries=7, keys=7, slopes=False, batch=3):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        drawn = torch.randn(shape, generator=generator, dtype=F64)
        return drawn.to(dtype).requires_grad_()

    made = {
        "q": draw(batch, heads[0], queries, 5),
        "k": draw(batch, heads[1], keys, 5),
        "v": draw(batch, heads[1], keys, 6),
    }
    return made | ({"slopes": draw(heads[0])} if slopes else {})


def of_sight(name, **sizes):
    """Tensors and options of one of the sights."""
    options = dict(SIGHTS[name])
    return case(queries=options.pop("queries", 7), **sizes), options


def with_gradients(made, backend=None, **options):
    """The output and the gradient of each tensor."""
    out = softmax_attention(**made, **options, backend=backend)
    generator = torch.Generator().manual_seed(9)
    upstream = torch.randn(out.shape, generator=generator, dtype=F64).to(out)
    grads = torch.autograd.grad(
        out, list(made.values()), upstream, materialize_grads=True
    )
    names = ("output", *(f"gradient of {name}" for name in made))
    return dict(zip(names, (out.detach(), *grads), strict=True))


def assert_same(got, expected, atol=1e-12, rtol=1e-12):
    for name, value in got.items():
        torch.testing.assert_close(
            value,
            expected[name],
            atol=atol,
            rtol=rtol,
            msg=lambda m, n=name: f"{n}: {m}",
        )


def mask_of(made, causal=False, lengths=None, window=None, offset=0):
    """Sight cell by cell, in Python: (batch, queries, keys)."""
    batch, _, queries, _ = made["q"].shape
    keys = made["k"].shape[2]
    seen = torch.zeros(batch, queries, keys, dtype=torch.bool)
    for row, i, j in itertools.product(range(batch), range(queries), range(keys)):
        first = offset if isinstance(offset, int) else offset[row].item()
        behind = first + i - j
        seen[row, i, j] = (
            (not causal or behind >= 0)
            and (window is None or abs(behind) < window)
            and (lengths is None or j < lengths[row])
        )
    return seen


# The definition, and the judge.


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("slopes", [False, True])
@pytest.mark.parametrize("name", SIGHTS)
def test_outputs_are_their_equations(name, slopes, backend):
    made, options = of_sight(name, slopes=slopes)
    out = softmax_attention(**made, **options, scale=0.3, backend=backend)
    q, k, v = (made[x].detach().numpy() for x in "qkv")
    seen = mask_of(made, **options).numpy()
    first = torch.as_tensor(options.get("offset", 0)).expand(3)
    for row, head, i in itertools.product(range(3), range(4), range(q.shape[2])):
        js = np.flatnonzero(seen[row, i])
        e = np.array([0.3 * q[row, head, i] @ k[row, head // 2, j] for j in js])
        if slopes:
            e = e - made["slopes"][head].item() * abs(first[row].item() + i - js)
        weights = np.exp(e) / np.exp(e).sum()
        expected = weights @ v[row, head // 2, js] if len(js) else np.zeros(6)
        got = out[row, head, i].detach().numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("name", SIGHTS)
def test_equals_torch_with_a_mask_and_repeated_keys(name, heads, backend):
    made, options = of_sight(name, heads=heads)
    got = with_gradients(made, backend, **options)
    times = heads[0] // heads[1]
    k, v = (made[x].repeat_interleave(times, dim=1) for x in "kv")
    mask = mask_of(made, **options)[:, None]
    out = scaled_dot_product_attention(made["q"], k, v, attn_mask=mask)
    generator = torch.Generator().manual_seed(9)
    upstream = torch.randn(out.shape, generator=generator, dtype=F64)
    grads = torch.autograd.grad(out, list(made.values()), upstream)
    assert_same(got, dict(zip(got, (out.detach(), *grads), strict=True)))


def test_equals_torch_at_the_lower_right_corner():
    """Fewer queries than keys: torch has this as a bias, and `is_causal` is another."""
    made, options = of_sight("last queries", heads=(4, 4))
    corner = causal_lower_right(3, 7)
    q, k, v = made.values()
    expected = scaled_dot_product_attention(q, k, v, attn_mask=corner)
    for backend in BACKENDS:
        got = softmax_attention(**made, **options, backend=backend)
        torch.testing.assert_close(got, expected)
    top_left = scaled_dot_product_attention(q, k, v, is_causal=True)
    assert (top_left - expected).abs().max() > 0.1


def test_attend_one_reads_what_it_sees():
    made, seen = case(), torch.tensor([[True, False, True, False, False, False, True]])
    q_i, k, v = made["q"][:, :, 2], made["k"], made["v"]
    got = definition.attend_one(q_i, k, v, seen, None, 0.5)
    js = torch.tensor([0, 2, 6])
    e = torch.einsum("bd,bjd->bj", q_i[:, 3], k[:, 1][:, js]) * 0.5
    expected = torch.einsum("bj,bjd->bd", e.softmax(-1), v[:, 1][:, js])
    torch.testing.assert_close(got[:, 3], expected)


def test_distances_visible_linear_bias_blank_and_wide():
    sight = Sight(True, 3, torch.tensor([1, 4]), torch.tensor([5, 2]))
    distance = definition.distances(sight, 2, 5, torch.device("cpu"))
    assert distance[1].tolist() == [[4, 3, 2, 1, 0], [5, 4, 3, 2, 1]]
    seen = definition.visible(sight, distance)
    assert seen[0].int().tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]
    assert not seen[1].any()
    bias = definition.linear_bias(torch.tensor([0.5, 2.0]), distance)
    assert bias[0, 1, 0].tolist() == [-2, 0, -2, -4, -6]
    k, v = torch.ones(2, 1, 5, 3), torch.ones(2, 1, 5, 2)
    blanked = definition.blank(k, v, sight)
    assert [x[1, 0, :, 0].tolist() for x in blanked] == [[1, 1, 0, 0, 0]] * 2
    assert definition.wide(k.half()).dtype == torch.float32
    assert definition.wide(k.double()).dtype == F64


def test_equal_scores_give_the_mean_of_what_is_seen():
    made = case()
    made["q"] = torch.zeros_like(made["q"])
    for backend in BACKENDS:
        out = softmax_attention(**made, causal=True, backend=backend)
        count = torch.arange(1, 8, dtype=F64)[:, None]
        mean = (made["v"].cumsum(2) / count).repeat_interleave(2, dim=1)
        torch.testing.assert_close(out, mean)


# Backends beside each other.


@pytest.mark.parametrize("slopes", [False, True])
@pytest.mark.parametrize("name", SIGHTS)
def test_backends_agree(name, slopes, blocks):
    made, options = of_sight(name, slopes=slopes)
    expected = with_gradients(made, "reference", **options)
    for backend in (None, "parallel", "torch"):
        assert_same(with_gradients(made, backend, **options), expected)


def test_tensors_in_another_order_of_memory(blocks):
    """Time before heads, as a projection leaves them; and rows that are one row."""
    made = case()
    turned = {
        name: x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
        for name, x in made.items()
    }
    one = {
        name: x.detach()[:1].expand(3, -1, -1, -1).requires_grad_()
        for name, x in made.items()
    }
    for given in (turned, one):
        expected = with_gradients(given, "reference", causal=True)
        for backend in ("parallel", "torch"):
            got = with_gradients(given, backend, causal=True)
            assert_same(got, expected)
    assert_same(with_gradients(turned, "parallel"), with_gradients(made, "parallel"))


def test_many_rows_are_taken_a_few_at_a_time(monkeypatch):
    made = case(batch=5)
    expected = with_gradients(made, "reference", causal=True)
    monkeypatch.setattr(_blocks, "SCORES", 2 * 4 * 49)
    sight = Sight(True, None, 0, None)
    rows = [(s.first, s.last) for s in _blocks.spans(sight, made["q"], 7)]
    assert rows == [(0, 2), (2, 4), (4, 5)]
    assert_same(with_gradients(made, "parallel", causal=True), expected)


def test_blocks_in_which_nothing_is_seen_are_not_made(monkeypatch):
    monkeypatch.setattr(_blocks, "QUERIES", 10)
    monkeypatch.setattr(_blocks, "KEYS", 10)

    def cells(sight, keys=100):
        count, span = 0, _blocks.Span(0, 1, 0, keys)
        for top, bottom in _blocks.query_blocks(100):
            for block in _blocks.key_blocks(sight, span, top, bottom):
                count += (bottom - top) * (block.right - block.left)
        return count

    assert cells(Sight(False, None, 0, None)) == 100**2
    assert cells(Sight(True, None, 0, None)) == 10 * 10 * 55
    assert cells(Sight(True, 11, 0, None)) == 10 * (10 + 9 * 20)
    assert cells(Sight(False, None, 0, None), keys=30) == 3000


def test_the_adjoint_is_what_autograd_computes():
    made = {name: x.detach() for name, x in case(slopes=True).items()}
    leaves = [tensor.clone().requires_grad_() for tensor in made.values()]
    sight = Sight(True, 4, 1, None)
    out = definition.attend(*leaves, sight, 0.7)
    upstream = torch.randn_like(out)
    expected = torch.autograd.grad(out, leaves, upstream)
    made["slopes"].requires_grad_()
    inputs = (*made.values(), sight, 0.7)
    kept = parallel.attention_forward(*inputs)
    torch.testing.assert_close(kept[0], out)
    with torch.no_grad():
        got = parallel.attention_backward(*inputs, *kept, upstream)
    for mine, theirs in zip(got, expected, strict=True):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(mine, theirs, atol=1e-10, rtol=1e-10)


def test_the_log_sum_exp_is_that_of_the_scores(blocks):
    made = case(heads=(2, 2))
    q, k, v = (made[x].detach() for x in "qkv")
    lse = parallel.attention_forward(q, k, v, None, Sight(True, None, 0, None), 1.0)[1]
    scores = (q @ k.mT).masked_fill(~torch.ones(7, 7).tril().bool(), -torch.inf)
    torch.testing.assert_close(lse, scores.logsumexp(-1, keepdim=True))
    sight = Sight(False, None, 0, torch.tensor([7, 0, 2]))
    lse = parallel.attention_forward(q, k, v, None, sight, 1.0)[1]
    assert lse[1].eq(torch.inf).all()
    assert lse[[0, 2]].isfinite().all()


def error(got, expected):
    return (got.double() - expected).abs().max().item()


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("name", ["causal", "lengths", "window", "bias"])
def test_fast_forms_are_as_exact_as_the_loop(name, dtype, monkeypatch):
    for size in ("QUERIES", "KEYS"):
        monkeypatch.setattr(_blocks, size, 32)
    options = {
        "causal": {"causal": True},
        "lengths": {"lengths": torch.tensor([80, 31])},
        "window": {"causal": True, "window": 50},
        "bias": {"causal": True},
    }[name]
    sizes = {"heads": (2, 1), "batch": 2, "queries": 80, "keys": 80}
    for seed in range(5):
        low = case(dtype, seed, slopes=name == "bias", **sizes)
        if name == "bias":
            low["slopes"] = low["slopes"].detach().abs().requires_grad_()
        high = {n: t.detach().double().requires_grad_() for n, t in low.items()}
        exact = with_gradients(high, "reference", **options)
        slow = with_gradients(low, "reference", **options)
        for backend in ("parallel", "torch"):
            for part, value in with_gradients(low, backend, **options).items():
                assert value.dtype == dtype
                slack = 8 * torch.finfo(dtype).eps * exact[part].abs().max().item()
                allowed = 2 * error(slow[part], exact[part]) + slack
                assert error(value, exact[part]) <= allowed, (seed, part, backend)


# What values may have in common, and where: (heads, keys, values) of a batch.
COMMON = {
    "32": lambda v: v + 32,
    "100": lambda v: v + 100,
    "10,000": lambda v: v + 1e4,
    "-100 a component": lambda v: v - torch.linspace(-100, 100, v.shape[3], dtype=F64),
    "of the first half": lambda v: v + 100 * (torch.arange(v.shape[2]) < 40)[:, None],
    "one far away": lambda v: v * 1e4 ** (torch.arange(v.shape[2]) == 7)[:, None],
}


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("sight", ["causal", "lengths", "window"])
@pytest.mark.parametrize("name", COMMON)
def test_values_with_much_in_common(name, sight, dtype, monkeypatch):
    """Scores' gradients are differences to the output, which is as large as that."""
    for size in ("QUERIES", "KEYS"):
        monkeypatch.setattr(_blocks, size, 32)
    options = {
        "causal": {"causal": True},
        "lengths": {"lengths": torch.tensor([80, 31])},
        "window": {"causal": True, "window": 50},
    }[sight]
    sizes = {"heads": (2, 1), "batch": 2, "queries": 80, "keys": 80}
    for seed in range(5):
        low = case(dtype, seed, slopes=True, **sizes)
        low["slopes"] = low["slopes"].detach().abs().requires_grad_()
        # In half precision the largest would leave nothing else.
        if dtype in HALF and name == "10,000":
            continue
        low["v"] = COMMON[name](low["v"].detach().double()).to(dtype).requires_grad_()
        high = {n: t.detach().double().requires_grad_() for n, t in low.items()}
        exact = with_gradients(high, "reference", **options)
        slow = with_gradients(low, "reference", **options)
        for part, value in with_gradients(low, "parallel", **options).items():
            slack = 8 * torch.finfo(dtype).eps * exact[part].abs().max().item()
            allowed = 2 * error(slow[part], exact[part]) + slack
            assert error(value, exact[part]) <= allowed, (seed, part)


def test_what_values_have_in_common_is_never_larger_than_they():
    v = torch.randn(4, 2, 9, 6, dtype=F64)
    v[0] += 100
    v[1, 0] -= 3
    v[2, 1, 5] = torch.nan
    v[3, :, 8] = -torch.inf
    v[3] += 50
    for length in (9, 5):
        span = _blocks.Span(0, 4, 0, length)
        c = _blocks.in_common(v, span).view(4, 2, 1, 6)
        assert c.isfinite().all()
        real = v[:, :, :length]
        assert not ((real - c).abs() > real.abs()).any()
        torch.testing.assert_close(c[0], real[0].mean(1, keepdim=True))
    # Nothing, where signs differ; twice the smallest, where that is less than the mean.
    span = _blocks.Span(0, 1, 0, 3)
    mixed = torch.tensor([[1.0, -1, -1, 0], [2.0, -5, 1, 1], [9.0, -6, 2, 2]])
    got = _blocks.in_common(mixed[None, None], span)
    assert got.tolist() == [[[2.0, -2.0, 0.0, 0.0]]]
    assert _blocks.in_common(mixed[None, None, :, 2:], span) is None
    assert _blocks.in_common(mixed[None, None], span._replace(length=0)) is None


@pytest.mark.parametrize("backend", ["reference", "parallel"])
def test_gradients_of_both_orders(backend):
    made = case(batch=2, heads=(2, 1), queries=2, keys=3, slopes=True)
    lengths = torch.tensor([3, 0])

    def call(q, k, v, slopes):
        options = {"slopes": slopes, "lengths": lengths, "backend": backend}
        return softmax_attention(q, k, v, causal=True, offset=1, **options)

    assert torch.autograd.gradcheck(call, tuple(made.values()))
    assert torch.autograd.gradgradcheck(call, tuple(made.values()))


@pytest.mark.errors
def test_torch_refuses_a_second_derivative():
    made = case()
    # Values as wide as the keys: for others torch has no kernel that fuses.
    made["v"] = torch.randn(3, 2, 7, 5, dtype=F64, requires_grad=True)
    out = softmax_attention(**made, causal=True)
    (slope,) = torch.autograd.grad(out.sum(), made["v"], create_graph=True)
    with pytest.raises(RuntimeError, match=r"derivative for .* is not implemented"):
        torch.autograd.grad(slope.square().sum(), made["q"])


@pytest.mark.parametrize("name", ["q", "k", "v", "slopes"])
def test_each_gradient_alone(name):
    made = case(slopes=True)
    expected = with_gradients(made, "reference", causal=True)[f"gradient of {name}"]
    alone = {n: t.detach().requires_grad_(n == name) for n, t in made.items()}
    for backend in ("parallel", "torch"):
        out = softmax_attention(**alone, causal=True, backend=backend)
        generator = torch.Generator().manual_seed(9)
        upstream = torch.randn(out.shape, generator=generator, dtype=F64)
        (mine,) = torch.autograd.grad(out, alone[name], upstream)
        torch.testing.assert_close(mine, expected)


def test_two_backward_passes_and_lengths_that_are_written_to():
    made, lengths = case(), torch.tensor([7, 2, 3])
    offset = torch.zeros(3, dtype=torch.int64)
    out = softmax_attention(
        **made, causal=True, lengths=lengths, offset=offset, backend="parallel"
    )
    first = torch.autograd.grad(out.sum(), made["k"], retain_graph=True)
    lengths.fill_(7)
    offset.fill_(3)
    second = torch.autograd.grad(out.sum(), made["k"])
    assert torch.equal(first[0], second[0])


def test_what_is_kept_for_the_backward_pass():
    """Outputs and one number a query, and not the scores."""
    made = case(torch.float32, batch=1, heads=(2, 2), queries=300, keys=300)
    made["v"] = made["k"].detach().clone().requires_grad_()
    kept = {}
    for backend in BACKENDS:
        with LiveBytes(made.values()) as live:
            out = softmax_attention(**made, causal=True, backend=backend)
            kept[backend] = live.now
        assert out.shape == (1, 2, 300, 5)
    scores, per_query = 2 * 300 * 300 * 4, 2 * 300 * (5 + 1) * 4
    assert kept["reference"] > scores
    assert kept["parallel"] == per_query
    assert kept["torch"] == per_query


def test_torch_keeps_no_matrix_of_tensors_in_another_order():
    """Its fused kernel wants the last axis in order; for others it makes the matrix."""
    sizes = {"heads": (2, 2), "queries": 300, "keys": 300}
    made = case(torch.float32, batch=1, **sizes)
    for name in "qkv":
        turned = torch.randn(1, 2, 5, 300).mT
        made[name] = turned.requires_grad_()
    with LiveBytes(made.values()) as live:
        out = softmax_attention(**made, causal=True, backend="torch")
        kept = live.now
    assert out.shape == (1, 2, 300, 5)
    assert kept < 2 * 300 * 300 * 4 / 2


# Padding, and queries that see nothing.


@pytest.mark.parametrize("lengths", [[7, 0, 3], [0, 0, 0], [1, 7, 2]])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_changes_nothing_and_gets_no_gradient(backend, causal, lengths, blocks):
    made = case()
    spoilt = dict(made)
    for name in "kv":
        tensor = made[name].detach().clone()
        for row, length in enumerate(lengths):
            tensor[row, :, length:] = torch.nan
        spoilt[name] = tensor.requires_grad_()
    options = {"causal": causal, "lengths": torch.tensor(lengths, dtype=torch.uint8)}
    got = with_gradients(spoilt, backend, **options)
    assert_same(got, with_gradients(made, backend, **options))
    for row, length in enumerate(lengths):
        for name in "kv":
            assert not got[f"gradient of {name}"][row, :, length:].count_nonzero()
        if length == 0:
            assert not got["output"][row].count_nonzero()
            assert not got["gradient of q"][row].count_nonzero()


@pytest.mark.parametrize("dtype", [torch.float32, F64, *HALF])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_query_without_a_key_is_zero_and_has_no_gradient(backend, dtype, blocks):
    """By an offset and a window: queries 4 to 6 stand too far behind the last key."""
    made = case(dtype, slopes=True)
    got = with_gradients(made, backend, causal=True, offset=5, window=3)
    assert got["output"][:, :, :4].count_nonzero() == 3 * 4 * 4 * 6
    assert not got["output"][:, :, 4:].count_nonzero()
    assert not got["gradient of q"][:, :, 4:].count_nonzero()
    assert all(value.isfinite().all() for value in got.values())


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize("backend", BACKENDS)
def test_no_nan_passes_through_the_graph(backend):
    """Nor one that a mask stops later: whoever hunts for a NaN would stop here."""
    made = case(slopes=True)
    with torch.autograd.detect_anomaly():
        lengths = torch.tensor([7, 0, 2])
        out = softmax_attention(**made, causal=True, lengths=lengths, backend=backend)
        out.sum().backward()
    assert made["q"].grad.isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("empty", ["batch", "queries", "keys"])
def test_nothing_to_do(backend, empty):
    made = case(**{empty: 0})
    sizes = {"batch": 3, "queries": 7} | {empty: 0}
    got = with_gradients(made, backend, causal=True, offset=0)
    assert got["output"].shape == (sizes["batch"], 4, sizes["queries"], 6)
    assert not any(value.count_nonzero() for value in got.values())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("empty", ["queries", "keys"])
@pytest.mark.parametrize("name", ["q", "k", "v", "slopes"])
def test_every_input_is_in_the_graph_of_nothing(name, empty, backend):
    made = {n: t.detach() for n, t in case(slopes=True, **{empty: 0}).items()}
    made[name].requires_grad_()
    out = softmax_attention(**made, causal=True, offset=0, backend=backend)
    (grad,) = torch.autograd.grad(out.sum(), made[name])
    assert torch.equal(grad, torch.zeros_like(made[name]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_scores_of_any_size(backend, blocks):
    made = case(torch.float32)
    made["q"] = (made["q"].detach() * 1e30).requires_grad_()
    got = with_gradients(made, backend, causal=True)
    assert all(value.isfinite().all() for value in got.values())
    best = made["q"].double() @ made["k"].double().repeat_interleave(2, 1).mT
    best = best.masked_fill(~torch.ones(7, 7).tril().bool(), -torch.inf).argmax(-1)
    v = made["v"].repeat_interleave(2, 1)
    picked = v.gather(2, best[..., None].expand(-1, -1, -1, 6))
    torch.testing.assert_close(got["output"], picked)


def overflowing(dtype, sign, name):
    """Two queries of one head whose scores overflow, over each key or over one."""
    made, options = of_sight(name, dtype=dtype, slopes=True)
    q, k = made["q"].detach(), made["k"].detach()
    large = torch.finfo(dtype).max / 8
    k[..., 0] = k[..., 0].abs() * 8 + 32
    rows = [0, q.shape[2] // 2]
    q[1, 1, rows] = 0
    q[1, 1, rows, 0] = large * sign
    return {**made, "q": q.requires_grad_(), "k": k.requires_grad_()}, options, rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("name", SIGHTS)
def test_a_query_whose_scores_overflow_is_not_one_that_sees_nothing(
    name, sign, dtype, blocks
):
    """NaN, as a softmax of infinities is, and where it reaches by the chain rule."""
    made, options, rows = overflowing(dtype, sign, name)
    expected = with_gradients(made, "reference", **options)
    seen = mask_of(made, **options)[1, rows].any(dim=1)
    nan = torch.zeros(expected["output"].shape[:3], dtype=torch.bool)
    nan[1, 1, rows] = seen
    assert torch.equal(expected["output"].isnan().any(dim=-1), nan)
    assert torch.equal(expected["gradient of q"].isnan().any(dim=-1), nan)
    # Keys that another query sees, and this one not, are as if it were not there.
    reached = mask_of(made, **options)[1, rows].any(dim=0)
    for part in ("gradient of k", "gradient of v"):
        broken = expected[part].isnan().any(dim=-1)
        assert torch.equal(broken[1, 0], reached)
        assert broken.sum() == reached.sum()
    tolerance = {torch.float32: 1e-3, torch.bfloat16: 0.05}[dtype]
    for backend in (None, "parallel", "torch"):
        got = with_gradients(made, backend, **options)
        for part, value in got.items():
            torch.testing.assert_close(
                value, expected[part], atol=tolerance, rtol=tolerance, equal_nan=True
            )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_scale_comes_before_the_product(sign, backend, blocks):
    """What overflows without the scale need not with it."""
    made = case(torch.float32, heads=(1, 1))
    q, k = torch.zeros(3, 1, 7, 5), torch.zeros(3, 1, 7, 5)
    k[..., 0] = torch.arange(1.0, 8) / 7
    q[:, :, 3, 0] = 3e38 * sign
    k *= 8
    made |= {"q": q.requires_grad_(), "k": k.requires_grad_()}
    out = softmax_attention(**made, scale=0.1, backend=backend)
    best = 6 if sign > 0 else 0
    torch.testing.assert_close(out[:, :, 3], made["v"][:, :, best])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [-0.5, -1e-3, 0.0])
def test_a_scale_that_is_not_positive(scale, dtype, backend):
    """torch's kernel for CPUs hides later keys before it scales."""
    q, k, v = torch.randn(3, 2, 2, 64, 8, generator=torch.Generator().manual_seed(0))
    given = [x.to(dtype).requires_grad_() for x in (q, k, v)]
    judged = [x.detach().double().requires_grad_() for x in given]
    later = torch.ones(64, 64, dtype=torch.bool).triu(1)
    scores = (scale * judged[0] @ judged[1].mT).masked_fill(later, -torch.inf)
    expected = scores.softmax(dim=-1) @ judged[2]
    out = softmax_attention(*given, causal=True, scale=scale, backend=backend)
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(out.double(), expected, atol=tolerance, rtol=tolerance)
    grads = torch.autograd.grad(out.float().square().sum(), given)
    wanted = torch.autograd.grad(expected.square().sum(), judged)
    for got, want in zip(grads, wanted, strict=True):
        torch.testing.assert_close(got.double(), want, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bias_that_overflows(backend, blocks):
    made = case(torch.float32, queries=2, slopes=True)
    slopes = torch.tensor([1.0, 3e38, 0.5, 0.1])
    # All keys stand at least two positions behind the queries.
    out = softmax_attention(
        **{**made, "slopes": slopes}, causal=True, offset=9, backend=backend
    )
    assert out[:, 1].isnan().all()
    assert out[:, [0, 2, 3]].isfinite().all()


def test_the_fused_form_is_computed_again_only_where_scores_may_overflow(monkeypatch):
    ran = []

    def loop(*args):
        ran.append("reference")
        return definition_attend(*args)

    definition_attend = definition.attend
    monkeypatch.setattr(definition, "attend", loop)
    made = case(torch.float32)
    for v in (made["v"].detach(), torch.zeros(3, 2, 7, 6)):
        softmax_attention(made["q"], made["k"], v, causal=True, backend="torch")
        # A row without a key, whose outputs are zeros.
        lengths = torch.tensor([7, 0, 3])
        softmax_attention(made["q"], made["k"], v, lengths=lengths, backend="torch")
    assert ran == []
    made, options, _ = overflowing(torch.float32, -1, "causal")
    softmax_attention(**made, **options, backend="torch")
    assert ran == ["reference"]


def test_a_later_key_larger_by_far_takes_over():
    """The running maximum moves by more than a float32 can hold as a factor."""
    made = case(torch.float32, batch=1, heads=(1, 1), queries=1, keys=300)
    with torch.no_grad():
        made["k"][0, 0, 299] = made["q"][0, 0, 0] * 1e4
    for backend in BACKENDS:
        out = softmax_attention(**made, causal=True, offset=299, backend=backend)
        torch.testing.assert_close(out[0, 0, 0], made["v"][0, 0, 299])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_is_that_row_alone(backend):
    made, options = of_sight("offset by row")
    out = softmax_attention(**made, **options, backend=backend)
    for row in range(3):
        length = options["lengths"][row].item()
        alone = {
            "q": made["q"][row : row + 1],
            "k": made["k"][row : row + 1, :, :length],
            "v": made["v"][row : row + 1, :, :length],
        }
        one = softmax_attention(
            **alone, causal=True, offset=options["offset"][row].item(), backend=backend
        )
        torch.testing.assert_close(out[row : row + 1], one)


def test_parts_of_the_queries_at_their_offset_are_the_whole():
    made = case()
    whole = softmax_attention(**made, causal=True, window=4)
    for backend, cut in itertools.product(BACKENDS, (1, 4)):
        parts = [
            softmax_attention(
                made["q"][:, :, first : first + cut],
                made["k"][:, :, : first + cut],
                made["v"][:, :, : first + cut],
                causal=True,
                window=4,
                offset=first,
                backend=backend,
            )
            for first in range(0, 7, cut)
        ]
        torch.testing.assert_close(torch.cat(parts, dim=2), whole)


# The choice of a backend.


def chosen(monkeypatch, made, **options):
    """The backend that runs by default."""
    ran = []
    for name in BACKENDS:
        form = op.FORMS[name]

        def attend(*args, form=form, name=name):
            ran.append(name)
            return form.attend(*args)

        stand_in = type("Form", (), {"attend": staticmethod(attend)})
        monkeypatch.setitem(op.FORMS, name, stand_in)
    softmax_attention(**made, **options)
    return ran


@pytest.mark.parametrize(
    ("queries", "options", "expected"),
    [
        (1024, {"causal": True}, "torch"),
        (1024, {}, "torch"),
        (1024, {"causal": True, "window": 1024}, "torch"),
        (1024, {"causal": True, "window": 1023}, "parallel"),
        (1023, {"causal": True, "window": 9}, "torch"),
        (1024, {"lengths": torch.tensor([1000])}, "parallel"),
    ],
)
def test_the_default(queries, options, expected, monkeypatch):
    made = case(torch.float32, batch=1, heads=(1, 1), queries=queries, keys=queries)
    made["v"] = made["k"]
    assert chosen(monkeypatch, made, **options) == [expected]


@pytest.mark.parametrize(
    ("keys", "options", "expected"),
    [
        # Values wider than keys: torch would make the matrix of weights.
        (1024, {"causal": True}, "parallel"),
        (1024, {}, "parallel"),
        (1023, {}, "torch"),
        # Few keys: nothing to save, and rows with lengths are taken one by one.
        (16, {"lengths": torch.tensor([12])}, "torch"),
    ],
)
def test_the_default_by_widths_and_keys(keys, options, expected, monkeypatch):
    made = case(torch.float32, batch=1, heads=(1, 1), queries=1024, keys=keys)
    assert chosen(monkeypatch, made, **options) == [expected]


def test_plain_causal_attention_makes_no_mask(monkeypatch):
    """By torch: its own flag and no tensor of queries by keys."""
    calls = []

    def spy(*args, **kwargs):
        calls.append(kwargs)
        return scaled_dot_product_attention(*args, **kwargs)

    kernels = op.torch_kernels
    monkeypatch.setattr(kernels, "scaled_dot_product_attention", spy)
    softmax_attention(**case(), causal=True)
    assert calls[-1]["is_causal"]
    assert "attn_mask" not in calls[-1]
    softmax_attention(**case())
    assert calls[-1]["attn_mask"] is None
    for name in ("lengths", "window", "last queries", "offset by row"):
        made, options = of_sight(name)
        softmax_attention(**made, **options, backend="torch")
        assert not calls[-1].get("is_causal")
        assert calls[-1]["attn_mask"].dtype == torch.bool


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_forward_mode_vmap_and_autocast():
    made = {name: tensor.detach() for name, tensor in case().items()}
    options = {"causal": True, "lengths": torch.tensor([7, 0, 3])}
    expected = softmax_attention(**made, **options)
    tangent = torch.randn_like(made["k"])

    def of_keys(k):
        return softmax_attention(**{**made, "k": k}, **options)

    _, derivative = jvp(of_keys, (made["k"],), (tangent,))
    step = 1e-6 * tangent
    ahead, behind = of_keys(made["k"] + step), of_keys(made["k"] - step)
    torch.testing.assert_close(derivative, (ahead - behind) / 2e-6, atol=1e-8, rtol=0)
    with dual_level():
        dual = {**made, "k": make_dual(made["k"], tangent)}
        out = softmax_attention(**dual, **options)
        torch.testing.assert_close(unpack_dual(out).tangent, derivative)
        for backend in ("parallel", "torch"):
            with pytest.raises(RuntimeError, match="forward-mode"):
                softmax_attention(**dual, backend=backend)

    def row(q, k, v, length):
        return softmax_attention(
            q[None], k[None], v[None], causal=True, lengths=length[None]
        )[0]

    rows = vmap(row)(*made.values(), options["lengths"])
    torch.testing.assert_close(rows, expected)
    slope = vmap(grad(lambda *x: row(*x).sin().sum()))(
        *made.values(), options["lengths"]
    )
    leaf = made["q"].clone().requires_grad_()
    loss = softmax_attention(**{**made, "q": leaf}, **options).sin().sum()
    torch.testing.assert_close(slope, torch.autograd.grad(loss, leaf)[0])
    low = {name: tensor.float() for name, tensor in made.items()}
    with torch.autocast("cpu", torch.bfloat16):
        out = softmax_attention(**low, **options)
        with pytest.raises(RuntimeError, match="autocast"):
            softmax_attention(**low, backend="parallel")
    torch.testing.assert_close(out.double(), expected, atol=0.05, rtol=0)


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
@pytest.mark.parametrize("name", ["causal", "lengths", "offset by row"])
def test_compiles_to_one_graph(name):
    torch._dynamo.reset()
    made, options = of_sight(name)
    made = {name: tensor.detach() for name, tensor in made.items()}
    expected = softmax_attention(**made, **options)
    compiled = torch.compile(softmax_attention, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(**made, **options), expected)


# Bad input.


@pytest.mark.errors
@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"q": torch.zeros(3, 7, 5)}, ValueError, r"`q` must have shape"),
        ({"q": torch.zeros(3, 4, 7, 5).long()}, TypeError, r"`q`.*floating"),
        ({"k": torch.zeros(3, 2, 7, 4)}, ValueError, r"`k`.*head=5"),
        ({"k": torch.zeros(3, 2, 7, 5).double()}, ValueError, r"`k`.*queries' dtype"),
        ({"v": torch.zeros(3, 2, 6, 5)}, ValueError, r"`v`.*keys=7"),
        ({"q": torch.zeros(3, 3, 7, 5)}, ValueError, r"multiple of the kv_heads=2"),
        ({"slopes": torch.zeros(2)}, ValueError, r"`slopes`.*heads=4"),
        ({"lengths": torch.tensor([7, 8, 1])}, ValueError, r"at most keys=7, got 8"),
        ({"lengths": torch.tensor([7, -1, 1])}, ValueError, r"at least 0, got -1"),
        ({"window": 0}, ValueError, r"`window` must be at least 1"),
        ({"window": 2**63}, ValueError, r"`window` must be at most 2\*\*62"),
        ({"offset": 2**63}, ValueError, r"`offset` must be at most 2\*\*62"),
        ({"offset": torch.tensor([0, 2**63 - 1, 0])}, ValueError, r"at most 2\*\*62"),
        ({"window": 2.0}, TypeError, r"`window` must be an int"),
        ({"offset": -1}, ValueError, r"`offset` must be at least 0"),
        ({"offset": torch.tensor([0, -2, 0])}, ValueError, r"at least 0, got -2"),
        ({"offset": torch.tensor([0.0, 1, 2])}, TypeError, r"integer dtype"),
        ({"offset": torch.tensor([0, 1])}, ValueError, r"`offset`.*batch=3"),
        ({"scale": "1"}, TypeError, r"`scale` must be a number"),
        ({"scale": float("nan")}, ValueError, r"`scale`"),
        ({"backend": "flash"}, ValueError, r"`backend` must be one of"),
    ],
)
def test_bad_input(change, kind, message):
    made = {n: t.detach() for n, t in case(torch.float32).items()}
    with pytest.raises(kind, match=f"^softmax_attention: .*{message}"):
        softmax_attention(**{**made, **change})


@pytest.mark.errors
@pytest.mark.parametrize(
    "options", [{"causal": True}, {"window": 2}, {"slopes": torch.ones(4)}]
)
def test_the_place_of_the_queries_must_be_said(options):
    made = case(torch.float32, queries=3)
    message = r"`offset` must be given .* got 3 and 7 .*offset=4\)$"
    with pytest.raises(ValueError, match=message):
        softmax_attention(**made, **options)
    assert softmax_attention(**made).shape == (3, 4, 3, 6)
