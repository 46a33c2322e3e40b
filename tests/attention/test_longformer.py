"""Longformer's window to both sides: transformers and the matrix as judges."""

import pytest
import torch
from torch import nn

from seqref import LongformerSelfAttention
from seqref.attention import _longformer

F64 = torch.float64


def build(half_width=2, **options):
    """A layer of which no two projections are alike, and no parameter is zero."""
    torch.manual_seed(0)
    return stirred(LongformerSelfAttention(8, 4, half_width, dtype=F64, **options))


def stirred(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def draw(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=F64)


def gradients(y, x, module):
    """Of the input and of all parameters, by name."""
    named = dict(module.named_parameters())
    loss = (y * draw(*y.shape, seed=2)).sum()
    x_grad, *grads = torch.autograd.grad(
        loss, [x, *named.values()], materialize_grads=True
    )
    return x_grad, dict(zip(named, grads, strict=True))


def chosen(batch, time, *places):
    mask = torch.zeros(batch, time, dtype=torch.bool)
    for row, place in places:
        mask[row, place] = True
    return mask


# transformers as judge.

WINDOW, TIME = 4, 12
MASKS = {
    "none": None,
    "the first": chosen(3, TIME, (0, 0), (1, 0), (2, 0)),
    "of rows that differ": chosen(3, TIME, (0, 0), (0, 5), (0, 11), (2, 3)),
    "side by side": chosen(3, TIME, *((row, p) for row in (0, 1) for p in range(6))),
    "in the padding": chosen(3, TIME, (0, 2), (1, 11), (2, 4)),
}


def config_of(window=WINDOW):
    transformers = pytest.importorskip("transformers")
    return transformers.LongformerConfig(
        vocab_size=11,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=8,
        attention_window=[window],
        max_position_embeddings=40,
        attention_probs_dropout_prob=0.0,
        hidden_dropout_prob=0.0,
        pad_token_id=1,
    )


@pytest.fixture
def in_float64(monkeypatch):
    """Their module; its softmax rounds to float32, and float64 shows more."""
    name = "transformers.models.longformer.modeling_longformer"
    modeling, softmax = pytest.importorskip(name), torch.softmax
    monkeypatch.setattr(
        modeling.nn.functional, "softmax", lambda x, dim, dtype=None: softmax(x, dim)
    )
    return modeling


@pytest.mark.parametrize("lengths", [None, torch.tensor([12, 5, 9])])
@pytest.mark.parametrize("name", MASKS)
def test_equals_transformers(name, lengths, in_float64):
    torch.manual_seed(0)
    theirs = stirred(in_float64.LongformerSelfAttention(config_of(), 0).to(F64))
    mine = LongformerSelfAttention(8, 4, WINDOW // 2, dtype=F64)
    mine.load_state_dict(theirs.state_dict(), strict=True)
    x = draw(3, TIME, 8).requires_grad_()
    real = torch.ones(3, TIME, dtype=torch.bool)
    if lengths is not None:
        real = torch.arange(TIME) < lengths[:, None]
    mask = MASKS[name]
    is_global = torch.zeros_like(real) if mask is None else mask & real
    # Theirs are told by the sign: below 0 hidden, above 0 global.
    signs = torch.where(real, is_global.to(F64), -1.0)
    (expected,) = theirs(
        x,
        attention_mask=signs,
        is_index_masked=~real,
        is_index_global_attn=is_global,
        is_global_attn=bool(is_global.any()),
    )
    expected = expected.masked_fill(~real[..., None], 0)
    y = mine(x, mask, lengths)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(gradients(y, x, mine), gradients(expected, x, theirs))


@pytest.mark.parametrize("time", [3, 8, 11, 29])
def test_equals_a_model_of_transformers_that_pads(time):
    """To a multiple of its window, before the first layer, by itself."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = transformers.LongformerModel(config_of(), add_pooling_layer=False)
    model = stirred(model).to(F64).eval()
    block = model.encoder.layer[0].attention.self
    seen = []
    block.register_forward_hook(
        lambda _module, inputs, outputs: seen.append((inputs[0], outputs[0]))
    )
    tokens = torch.randint(2, 11, (2, time))
    mask = chosen(2, time, (0, 0), (1, 0), (1, time - 1))
    model(tokens, global_attention_mask=mask.long())
    ((x, expected),) = seen
    assert x.shape[1] % WINDOW == 0
    mine = LongformerSelfAttention(8, 4, WINDOW // 2, dtype=F64)
    mine.load_state_dict(block.state_dict())
    y = mine(x[:, :time], mask)
    torch.testing.assert_close(y, expected[:, :time], atol=1e-6, rtol=1e-6)


# The matrix as judge.


def by_matrix(layer, x, global_mask, lengths):
    """All scores, masked."""
    batch, time, _ = x.shape
    steps = torch.arange(time)
    real = torch.ones(batch, time, dtype=torch.bool)
    if lengths is not None:
        real = steps < lengths[:, None]
    is_global = torch.zeros_like(real) if global_mask is None else global_mask & real
    near = (steps[:, None] - steps).abs() <= layer.half_width
    seen = (near | is_global[:, None]) & real[:, None]

    def read(names, seen):
        q, k, v = (
            getattr(layer, name)(x).unflatten(2, (layer.n_heads, -1)).transpose(1, 2)
            for name in names
        )
        # A row of padding alone would be NaN.
        seen = seen | ~real[:, :, None]
        scores = (q @ k.mT / q.shape[3] ** 0.5).masked_fill(~seen[:, None], -torch.inf)
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)

    y = read(("query", "key", "value"), seen)
    names = "query_global", "key_global", "value_global"
    of_all = read(names, real[:, None].expand(-1, time, -1))
    y = torch.where(is_global[..., None], of_all, y)
    return y.masked_fill(~real[..., None], 0)


@pytest.mark.parametrize("lengths", [None, torch.tensor([400, 128])])
@pytest.mark.parametrize("places", [(), ((0, 0), (0, 170), (0, 399), (1, 127))])
@pytest.mark.parametrize("half_width", [0, 1, 63, 128, 130, 500])
def test_equals_the_matrix(half_width, places, lengths):
    """Blocks have 128 queries or as many as the half width."""
    layer = build(half_width)
    x = draw(2, 400, 8).requires_grad_()
    mask = chosen(2, 400, *places) if places else None
    y, expected = layer(x, mask, lengths), by_matrix(layer, x, mask, lengths)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(gradients(y, x, layer), gradients(expected, x, layer))


@pytest.mark.parametrize("half_width", [129, 3, 4, 10**6])
@pytest.mark.parametrize("time", [4, 130])
def test_a_half_width_beyond_the_sequence_costs_no_more(half_width, time):
    """A mask of 10^12 numbers would not fit."""
    layer, x = build(half_width), draw(2, time, 8)
    mask, lengths = chosen(2, time, (0, 1)), torch.tensor([time, 2])
    torch.testing.assert_close(
        layer(x, mask, lengths), by_matrix(layer, x, mask, lengths)
    )


@pytest.mark.parametrize("half_width", [300, 299, 10**6])
def test_a_sequence_of_one_block_has_no_neighbours(half_width, monkeypatch):
    """As many keys as the sequence has, and not zeros on both sides besides."""
    sizes, kernel = [], _longformer.scaled_dot_product_attention

    def seen(q, k, *arguments, **options):
        sizes.append((q.shape[-2], k.shape[-2]))
        return kernel(q, k, *arguments, **options)

    monkeypatch.setattr(_longformer, "scaled_dot_product_attention", seen)
    build(half_width)(draw(1, 300, 8))
    assert sizes == [(300, 300)] if half_width >= 300 else [(299, 897)]


class Call(nn.Module):
    """The layer and its outputs alone."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)


@pytest.mark.compile
@pytest.mark.filterwarnings("ignore:`torch.jit.trace")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("traced_at", [4, 300])
def test_a_trace_runs_at_other_lengths(traced_at):
    module = Call(build(3))
    traced = torch.jit.trace(module, draw(1, traced_at, 8), check_trace=False)
    for time in (1, 5, 128, 129, 400):
        x = draw(1, time, 8)
        torch.testing.assert_close(traced(x), module(x))


@pytest.mark.compile
def test_no_export_with_a_dynamic_length():
    shapes = ({1: torch.export.Dim("time", min=2, max=4096)},)
    with pytest.raises(torch._dynamo.exc.UserError, match="Constraints violated"):
        torch.export.export(Call(build(3)), (draw(1, 200, 8),), dynamic_shapes=shapes)


def test_nan_stays_in_the_blocks_that_read_it():
    """Blocks have 128 queries, and 3 positions more on each side."""
    layer, x = build(3), draw(1, 400, 8)
    clean = layer(x)
    for place, first, last in ((20, 0, 127), (130, 0, 255), (200, 128, 255)):
        spoilt = x.clone()
        spoilt[:, place] = torch.nan
        y = layer(spoilt)
        seen = set(y.isnan().any(dim=2)[0].nonzero().flatten().tolist())
        window = set(range(place - 3, place + 4))
        assert window < seen <= set(range(first, last + 1))
        for part in (slice(first), slice(last + 1, None)):
            torch.testing.assert_close(y[:, part], clean[:, part])


def test_all_positions_global_is_full_attention():
    layer, x = build(1), draw(2, 9, 8)
    everywhere = torch.ones(2, 9, dtype=torch.bool)
    torch_layer = nn.MultiheadAttention(8, 4, batch_first=True, dtype=F64)
    parts = layer.query_global, layer.key_global, layer.value_global
    with torch.no_grad():
        torch_layer.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        torch_layer.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        torch_layer.out_proj.weight.copy_(torch.eye(8))
        torch_layer.out_proj.bias.zero_()
    expected, _ = torch_layer(x, x, x)
    torch.testing.assert_close(layer(x, everywhere), expected)


# Properties.


def test_what_an_output_depends_on():
    layer, mask = build(2), chosen(1, 20, (0, 3))
    x = draw(1, 20, 8).requires_grad_()
    y = layer(x, mask)
    for t, expected in ((10, {3, 8, 9, 10, 11, 12}), (3, set(range(20)))):
        (grad,) = torch.autograd.grad(y[0, t].sum(), x, retain_graph=True)
        assert set(grad[0].abs().sum(dim=1).nonzero()[:, 0].tolist()) == expected


def test_a_global_position_counts_once():
    """In the window or out of it: its weight is that of one key."""
    layer = build(2)
    for projection in (layer.query, layer.key):
        nn.init.zeros_(projection.weight)
        nn.init.zeros_(projection.bias)
    x = draw(1, 9, 8)
    y = layer(x, chosen(1, 9, (0, 0), (0, 4)))
    v = layer.value(x)[0]
    torch.testing.assert_close(y[0, 5], v[[0, 3, 4, 5, 6, 7]].mean(0))
    torch.testing.assert_close(y[0, 1], v[[0, 1, 2, 3, 4]].mean(0))


def test_padding_changes_nothing_and_gets_no_gradient():
    layer, lengths = build(), torch.tensor([7, 0, 3])
    x, mask = draw(3, 9, 8), chosen(3, 9, (0, 1), (0, 4), (0, 8), (2, 2))
    spoilt = x.clone()
    for row, length in enumerate(lengths):
        spoilt[row, length:] = torch.nan
    spoilt.requires_grad_()
    y = layer(spoilt, mask, lengths)
    for row, length in enumerate(lengths.tolist()):
        assert not y[row, length:].count_nonzero()
        alone = layer(x[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(y[row : row + 1, :length], alone)
    grads = gradients(y, spoilt, layer)
    assert grads[0].isfinite().all()
    assert not grads[0][1].count_nonzero()
    assert not grads[0][2, 3:].count_nonzero()
    assert all(grad.isfinite().all() for grad in grads[1].values())


@pytest.mark.parametrize("shape", [(2, 0, 8), (0, 5, 8)])
def test_nothing_to_read(shape):
    layer = build()
    mask = torch.ones(shape[:2], dtype=torch.bool)
    for given in (None, mask):
        assert layer(draw(*shape), given).shape == shape


@pytest.mark.parametrize("seed", range(5))
def test_blocks_are_as_exact_as_the_matrix(seed):
    """In float32, beside the matrix in float64: outputs and all gradients."""
    torch.manual_seed(seed)
    # The gradient of a bias of keys is zero but for rounding.
    exact = LongformerSelfAttention(8, 2, 20, bias=False, dtype=F64)
    exact = stirred(exact).float().double()
    low = LongformerSelfAttention(8, 2, 20, bias=False)
    low.load_state_dict(exact.state_dict())
    x = draw(2, 150, 8, seed=seed + 10).float()
    mask, lengths = chosen(2, 150, (0, 0), (1, 7)), torch.tensor([150, 97])

    def everything(layer, form):
        given = x.to(layer.query.weight.dtype).requires_grad_()
        y = form(layer, given)
        weight = draw(*y.shape, seed=seed + 20).to(y.dtype)
        named = list(layer.parameters())
        return [y, *torch.autograd.grad((y * weight).sum(), [given, *named])]

    def matrix(layer, given):
        return by_matrix(layer, given, mask, lengths)

    def blocks(layer, given):
        return layer(given, mask, lengths)

    eps = torch.finfo(torch.float32).eps
    triples = zip(
        everything(exact, matrix),
        everything(low, matrix),
        everything(low, blocks),
        strict=True,
    )
    for want, whole, block in triples:
        bound = 2 * (whole - want).abs().max() + 8 * eps * want.abs().max()
        assert (block - want).abs().max() <= bound


def test_by_torch_func():
    """Where kernels refuse, the same by plain products."""
    layer, mask = build(), chosen(2, 9, (0, 1), (1, 0))
    x, upstream = draw(2, 9, 8), draw(2, 9, 8, seed=3)

    def loss(x):
        return (layer(x, mask) * upstream).sum()

    def by_all_scores(x):
        return (by_matrix(layer, x, mask, None) * upstream).sum()

    given = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(by_all_scores(given), given, create_graph=True)
    got = torch.func.grad(loss)(given)
    torch.testing.assert_close(got, expected)
    slopes = [
        torch.autograd.grad(each.square().sum(), given)[0] for each in (got, expected)
    ]
    torch.testing.assert_close(*slopes)


def test_global_projections_begin_as_the_local_ones():
    layer = LongformerSelfAttention(8, 4, 2)
    for name in ("query", "key", "value"):
        local, other = getattr(layer, name), getattr(layer, f"{name}_global")
        assert torch.equal(local.weight, other.weight)
        assert local.weight is not other.weight
        assert not local.bias.count_nonzero()
        assert local.weight.abs().max() <= (6 / 16) ** 0.5


# Bad input.


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: LongformerSelfAttention(8, 3, 2), ValueError, r"multiple of n_heads"),
        (lambda: build(-1), ValueError, r"`half_width` must be at least 0, got -1"),
        (lambda: build(2.0), TypeError, r"`half_width` must be an int, got float"),
        (lambda: build()(draw(2, 3, 7)), ValueError, r"forward: `x`.*d_model=8"),
        (lambda: build()(draw(2, 3, 8).float()), ValueError, r"`x`.*dtype"),
        (
            lambda: build()(draw(2, 3, 8), torch.ones(2, 3)),
            TypeError,
            r"`global_mask` must have dtype bool, got torch.float32",
        ),
        (
            lambda: build()(draw(2, 3, 8), chosen(2, 4)),
            ValueError,
            r"`global_mask` must have shape \(batch=2, time=3\)",
        ),
        (lambda: build()(draw(2, 3, 8), [0]), TypeError, r"`global_mask` must be a"),
        (
            lambda: build()(draw(2, 3, 8), None, torch.tensor([4, 1])),
            ValueError,
            r"`lengths` must be at most time=3, got 4",
        ),
        (
            lambda: build().step(draw(2, 8)),
            TypeError,
            r"step: a window to both sides has no step, since each output needs inputs",
        ),
    ],
)
def test_bad_input(call, kind, message):
    with pytest.raises(kind, match=f"^LongformerSelfAttention.*{message}"):
        call()
