"""The layer: four scores, three windows, padding, beams, judges, refusals."""

import copy
import math

import pytest
import torch
from torch.func import functional_call, vmap
from torch.nn.functional import scaled_dot_product_attention

import seqref
from seqref.attention import (
    AdditiveAttention,
    MultiplicativeAttention,
    MultiplicativeSource,
)
from seqref.testing import LiveBytes

F64 = torch.float64
SCORES = {
    "dot": {},
    "general": {},
    "concat": {"hidden_size": 8},
    "location": {"max_source": 9},
}
WINDOWS = {
    "global": {},
    "monotonic": {"window": "monotonic", "half_width": 2},
    "predictive": {"window": "predictive", "half_width": 2},
}
EVERY = [(score, window) for score in SCORES for window in WINDOWS]
every = pytest.mark.parametrize(("score", "window"), EVERY)
FIRST = torch.tensor([0, 3, 1])


def case(score="general", window="global", dtype=F64, batch=3, time=4, source=6):
    query_size = 7 if score == "dot" else 5
    options = {"score": score, **SCORES[score], **WINDOWS[window], "dtype": dtype}
    layer = MultiplicativeAttention(query_size, 7, **options)
    query = torch.randn(batch, time, query_size, dtype=dtype)
    return layer, query, torch.randn(batch, source, 7, dtype=dtype)


def assert_same(got, expected, **tolerance):
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, **tolerance)


def score_of(layer, q, m, j):
    """One number, by the paper's letters; `j` counts from 0."""
    own = layer.scores
    if layer.score == "dot":
        return float(q @ m)
    if layer.score == "general":
        return float(q @ own.weight_key @ m)
    if layer.score == "location":
        return float(own.weight_location[j] @ q)
    both = torch.cat([own.weight_query, own.weight_key], dim=1)
    return float(own.weight_score @ (both @ torch.cat([q, m])).tanh())


def by_loops(layer, query, memory, lengths, first):
    """Contexts and weights by Python's arithmetic, position by position."""
    batch, time = query.shape[:2]
    weights = torch.zeros(batch, time, memory.shape[1], dtype=F64)
    for row in range(batch):
        for t in range(time):
            q, size = query[row, t], int(lengths[row])
            center, width = 0.0, math.inf
            if layer.window == "monotonic":
                center, width = int(first[row]) + t + 1, layer.half_width
            elif layer.window == "predictive":
                p = layer.weigh.weight_center @ (layer.weigh.weight_hidden @ q).tanh()
                center, width = size / (1 + math.exp(-p)), layer.half_width
            inside = [j for j in range(size) if abs(j + 1 - center) <= width]
            scores = [score_of(layer, q, memory[row, j], j) for j in inside]
            total = sum(math.exp(e) for e in scores)
            for j, e in zip(inside, scores, strict=True):
                weights[row, t, j] = math.exp(e) / total
                if layer.window == "predictive":
                    sigma = width / 2
                    curve = math.exp(-((j + 1 - center) ** 2) / (2 * sigma**2))
                    weights[row, t, j] *= curve
    context = torch.stack(
        [
            sum(a * m for a, m in zip(weights[row, t], memory[row], strict=True))
            for row in range(batch)
            for t in range(time)
        ]
    )
    return context.view(batch, time, -1), weights


@every
@torch.no_grad()
def test_it_is_its_equations(score, window):
    layer, query, memory = case(score, window)
    for lengths in ([6, 2, 0], [6, 6, 6], [1, 5, 3]):
        given = torch.tensor(lengths)
        expected = by_loops(layer, query, memory, given, FIRST)
        assert_same(layer(query, memory, given, FIRST), expected)
    expected = by_loops(layer, query, memory, [6] * 3, FIRST)
    assert_same(layer(query, memory, position=FIRST), expected)


def sdpa(query, keys, values, lengths):
    real = (torch.arange(keys.shape[1]) < lengths[:, None])[:, None]
    return scaled_dot_product_attention(query, keys, values, real, scale=1.0)


@pytest.mark.parametrize("lengths", [[6, 2, 3], [6, 0, 1]])
def test_dot_and_general_equal_torch(lengths):
    given = torch.tensor(lengths)
    layer, query, memory = case("dot")
    query.requires_grad_()
    mine, _ = layer(query, memory, given)
    theirs = sdpa(query, memory, memory, given)
    torch.testing.assert_close(mine, theirs)
    upstream = torch.randn_like(mine)
    wanted = torch.autograd.grad(theirs, query, upstream)
    assert_same(torch.autograd.grad(mine, query, upstream), wanted)
    # q^T W m is the inner product of a projected query.
    layer, query, memory = case("general")
    mine, _ = layer(query, memory, given)
    projected = query @ layer.scores.weight_key
    torch.testing.assert_close(mine, sdpa(projected, memory, memory, given))


def test_dot_equals_the_layer_of_keras(keras):
    layer, query, memory = case("dot", dtype=torch.float32)
    lengths = torch.tensor([6, 2, 3])
    mask = [None, torch.arange(6) < lengths[:, None]]
    judge = keras.layers.Attention()
    expected = judge([query, memory], mask=mask, return_attention_scores=True)
    assert_same(layer(query, memory, lengths), expected, atol=2e-6, rtol=1e-5)


def test_what_keras_calls_concat_has_no_layer_inside(keras):
    """What the page says: a number in the place of v, and no W."""
    query, memory = torch.randn(3, 4, 7), torch.randn(3, 6, 7)
    judge = keras.layers.Attention(score_mode="concat")
    judge([query, memory])
    judge.set_weights([torch.tensor(0.5).numpy()])
    assert [tuple(weight.shape) for weight in judge.weights] == [()]
    _, theirs = judge([query, memory], return_attention_scores=True)
    inside = (query[:, :, None] + memory[:, None]).tanh().sum(-1)
    mine = (0.5 * inside).softmax(-1)
    torch.testing.assert_close(theirs, mine, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("lengths", [None, [6, 0, 2]])
def test_concat_is_additive_attention(lengths):
    layer, query, memory = case("concat")
    twin = AdditiveAttention(5, 7, 8, dtype=F64)
    twin.load_state_dict(layer.scores.state_dict())
    given = None if lengths is None else torch.tensor(lengths)
    assert_same(layer(query, memory, given), twin(query, memory, given))


@pytest.mark.parametrize("score", SCORES)
def test_a_window_that_holds_everything_is_global(score):
    layer, query, memory = case(score)
    lengths = torch.tensor([6, 0, 2])
    wide = MultiplicativeAttention(
        layer.query_size,
        7,
        score=score,
        **SCORES[score],
        window="monotonic",
        half_width=20,
        dtype=F64,
    )
    wide.load_state_dict(layer.state_dict())
    assert_same(wide(query, memory, lengths, FIRST), layer(query, memory, lengths))


# What the weights sum to.


@every
def test_sums_of_the_weights(score, window):
    layer, query, memory = case(score, window)
    lengths = torch.tensor([6, 1, 0])
    _, weights = layer(query, memory, lengths, FIRST)
    sums = weights.sum(-1)
    assert not sums[2].count_nonzero()
    if window == "global":
        torch.testing.assert_close(sums[:2], torch.ones(2, 4, dtype=F64))
    elif window == "monotonic":
        # Row 1 has one position, and windows around 4 to 7.
        assert not sums[1].count_nonzero()
        torch.testing.assert_close(sums[0], torch.ones(4, dtype=F64))
    else:
        assert (sums[:2] > 0).all()
        assert (sums[:2] < 1).all()


@torch.no_grad()
def test_predictive_weights_of_one_position_are_the_curve():
    """With one position the softmax is 1, and the bell is all that is left."""
    layer, query, memory = case("general", "predictive", source=1)
    layer.weigh.weight_center.zero_()  # p_t = S / 2
    _, weights = layer(query, memory)
    # (1 - 1/2)^2 / (2 (2/2)^2)
    torch.testing.assert_close(weights, torch.full_like(weights, math.exp(-1 / 8)))


@torch.no_grad()
def test_the_predicted_center_is_a_real_number_from_0_to_the_length():
    layer, query, memory = case("location", "predictive", source=6)
    lengths = torch.tensor([6, 2, 4])
    layer.weigh.weight_center.mul_(1000)
    source = layer.prepare(memory, lengths)
    center = layer.weigh.center(query, source.real)
    assert ((center >= 0) & (center <= lengths[:, None])).all()
    layer.weigh.weight_center.div_(1000)
    center = layer.weigh.center(query, source.real)
    assert (center != center.round()).all()


def test_the_window_stands_on_the_diagonal():
    layer, query, memory = case("general", "monotonic", time=6)
    _, weights = layer(query, memory, position=torch.zeros(3, dtype=torch.int64))
    steps = torch.arange(6)
    near = (steps[:, None] - steps).abs() <= 2
    assert torch.equal(weights != 0, near.expand_as(weights))


def test_a_target_longer_than_its_source_runs_out_of_positions():
    layer, query, memory = case("general", "monotonic")
    last = torch.tensor([7, 8, 9])  # the windows end at 6, 7 and 8 of 6, from 1
    query = query[:, 0].requires_grad_()
    context, weights = layer(query, memory, position=last)
    assert (weights[0] != 0).tolist() == [False] * 5 + [True]
    torch.testing.assert_close(context[0], memory[0, 5])
    assert not weights[1:].count_nonzero()
    assert not context[1:].count_nonzero()
    with torch.autograd.set_detect_anomaly(True):
        (grad,) = torch.autograd.grad(context.square().sum(), query)
    assert not grad.isnan().any()


def test_location_scores_do_not_read_the_source():
    layer, query, memory = case("location")
    _, weights = layer(query, memory)
    _, others = layer(query, torch.randn_like(memory))
    assert torch.equal(weights, others)
    # A shorter source: the same scores, cut before the softmax.
    _, short = layer(query, memory[:, :4])
    cut = weights[..., :4]
    torch.testing.assert_close(short, cut / cut.sum(-1, keepdim=True))


@pytest.mark.parametrize("score", ["dot", "general", "concat"])
def test_scores_of_the_content_do_not_see_the_order(score):
    layer, query, memory = case(score)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    context, weights = layer(query, memory)
    other, others = layer(query, memory[:, order])
    torch.testing.assert_close(other, context)
    torch.testing.assert_close(others, weights[:, :, order])


def test_in_general_query_and_source_change_places_with_the_matrix_turned():
    """Scores of (q, m) by W are those of (m, q) by its transpose."""
    layer, query, memory = case("general")
    twin = MultiplicativeAttention(7, 5, dtype=F64)
    with torch.no_grad():
        twin.scores.weight_key.copy_(layer.scores.weight_key.T)
    mine = layer.scores(query, layer.scores.keys(memory))
    theirs = twin.scores(memory, twin.scores.keys(query))
    torch.testing.assert_close(mine, theirs.mT)


# One step, many, beams.


@every
def test_a_step_is_a_query_of_the_sequence(score, window):
    layer, query, memory = case(score, window)
    lengths = torch.tensor([6, 0, 2])
    source = layer.prepare(memory, lengths)
    context, weights = layer(query, memory, lengths, FIRST)
    for t in range(4):
        one = layer.attend(query[:, t], source, FIRST + t)
        assert_same(one, (context[:, t], weights[:, t]))
        assert_same(layer(query[:, t], memory, lengths, FIRST + t), one)


@every
def test_beams_of_a_row_stand_next_to_each_other(score, window):
    layer, _, memory = case(score, window)
    lengths = torch.tensor([6, 3, 2])
    beams = torch.randn(12, layer.query_size, dtype=F64)
    source = layer.prepare(memory, lengths)
    repeated = memory.repeat_interleave(4, 0), lengths.repeat_interleave(4)
    each = FIRST.repeat_interleave(4)
    expected = layer(beams, *repeated, each)
    assert_same(layer.attend(beams, source, each), expected)
    # One step for all beams of a row.
    assert_same(layer.attend(beams, source, FIRST), expected)
    # Each beam at a step of its own.
    own = torch.arange(12) % 5
    assert_same(layer.attend(beams, source, own), layer(beams, *repeated, own))


@pytest.mark.parametrize("score", ["dot", "general", "concat"])
def test_beams_share_the_source(score):
    options = {"hidden_size": 32} if score == "concat" else {}
    layer = MultiplicativeAttention(32, 32, score=score, **options)
    source = layer.prepare(torch.randn(4, 100, 32))
    beams = torch.randn(16, 32)
    with torch.no_grad(), LiveBytes() as live:
        outputs = layer.attend(beams, source)
    assert outputs[0].shape == (16, 32)
    one_source = sum(tensor.nbytes for tensor in source)
    # A buffer as large as the keys and some scores; repeated, it would be four sources.
    assert live.peak < 2 * one_source


@pytest.mark.parametrize("score", SCORES)
def test_keys_are_made_once(score):
    layer, query, memory = case(score)
    source = layer.prepare(memory)
    first = layer.attend(query, source)
    for name, parameter in layer.scores.named_parameters():
        if name == "weight_key":
            with torch.no_grad():
                parameter.fill_(torch.nan)
    assert_same(layer.attend(query, source), first)
    assert (source.keys.data_ptr() == memory.data_ptr()) == (score == "dot")


# Padding and precision.


@every
@pytest.mark.parametrize("lengths", [[6, 0, 3], [0, 0, 0], [6, 6, 6]])
def test_padding_changes_nothing_and_gets_no_gradient(score, window, lengths):
    layer, query, memory = case(score, window)
    given = torch.tensor(lengths)
    spoilt = memory.clone()
    for row, length in enumerate(lengths):
        spoilt[row, length:] = torch.nan
    results = []
    for each in (memory, spoilt):
        each.requires_grad_()
        query.requires_grad_()
        wanted = [each, query, *layer.parameters()]
        with torch.autograd.set_detect_anomaly(True):
            outputs = layer(query, each, given, FIRST)
            loss = sum(y.square().sum() for y in outputs)
            grads = torch.autograd.grad(loss, wanted, materialize_grads=True)
        assert_same(grads, [grad.nan_to_num() for grad in grads])
        results.append((*outputs, *grads))
    assert_same(*results)
    for row, length in enumerate(lengths):
        context, weights, grad_memory, grad_query = (r[row] for r in results[0][:4])
        assert not weights[:, length:].count_nonzero()
        assert not grad_memory[length:].count_nonzero()
        if not length:
            assert not context.count_nonzero()
            assert not grad_query.count_nonzero()


@every
def test_more_padding_changes_nothing(score, window):
    layer, query, memory = case(score, window)
    lengths = torch.tensor([6, 2, 5])
    longer = torch.cat([memory, torch.full((3, 3, 7), 1e30, dtype=F64)], dim=1)
    context, weights = layer(query, memory, lengths, FIRST)
    other, others = layer(query, longer, lengths, FIRST)
    torch.testing.assert_close(other, context)
    torch.testing.assert_close(others[..., :6], weights)
    assert not others[..., 6:].count_nonzero()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("score", ["dot", "general"])
def test_large_scores_do_not_overflow(score, dtype):
    """Products past the end of float16, 65504, over a long source."""
    layer = MultiplicativeAttention(64, 64, score=score, dtype=dtype)
    query = torch.full((1, 2, 64), 60.0, dtype=dtype)
    memory = torch.full((1, 3000, 64), 50.0, dtype=dtype)
    memory[:, 7] = 60.0
    if score == "general":
        with torch.no_grad():
            layer.scores.weight_key.copy_(torch.eye(64))
    context, weights = layer(query, memory)
    assert context.dtype == weights.dtype == dtype
    assert torch.finfo(torch.float16).max < 60 * 60 * 64
    expected = torch.zeros(1, 2, 3000, dtype=dtype)
    expected[..., 7] = 1
    assert torch.equal(weights, expected)
    assert torch.equal(context, memory[:, 7:8].expand_as(context))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@every
def test_half_precision_is_near_float64(score, window, dtype):
    layer, query, memory = case(score, window, dtype=dtype)
    lengths = torch.tensor([6, 2, 5])
    low = layer(query, memory, lengths, FIRST)
    exact = layer.double()(query.double(), memory.double(), lengths, FIRST)
    eps = torch.finfo(dtype).eps
    for mine, theirs in zip(low, exact, strict=True):
        assert mine.dtype == dtype
        assert (mine.double() - theirs).abs().max() < 16 * eps * memory.abs().max()


def test_half_precision_keeps_the_place_of_a_window():
    """bfloat16 has no 299: a centre that is rounded would be a position off."""
    layer = MultiplicativeAttention(4, 4, window="predictive", half_width=1)
    layer = layer.to(torch.bfloat16)
    source = layer.prepare(torch.zeros(1, 599, 4, dtype=torch.bfloat16))
    query = torch.zeros(1, 1, 4, dtype=torch.bfloat16)  # p_t = S / 2 = 299.5
    _, weights = layer.attend(query, source)
    assert weights[0, 0].nonzero()[:, 0].tolist() == [298, 299]


# As a module.


@every
def test_gradients_by_central_differences(score, window):
    layer, query, memory = case(score, window, batch=2, time=2, source=3)
    names = [name for name, _ in layer.named_parameters()]

    def run(query, memory, *weights):
        parameters = dict(zip(names, weights, strict=True))
        arguments = query, memory, torch.tensor([3, 2]), torch.tensor([0, 1])
        return functional_call(layer, parameters, arguments)

    inputs = [query, memory, *(p.detach() for p in layer.parameters())]
    inputs = [tensor.clone().requires_grad_() for tensor in inputs]
    assert torch.autograd.gradcheck(run, inputs)


def test_a_predicted_center_learns_through_the_curve():
    layer, query, memory = case("general", "predictive")
    context, _ = layer(query, memory)
    grads = torch.autograd.grad(context.square().sum(), list(layer.weigh.parameters()))
    assert all(grad.count_nonzero() for grad in grads)


def test_parameters_are_drawn_within_their_bounds():
    layer = MultiplicativeAttention(
        400, 100, score="concat", hidden_size=900, window="predictive", half_width=3
    )
    for name, parameter in layer.named_parameters():
        bound = parameter.shape[-1] ** -0.5
        assert 0.9 * bound < parameter.abs().max() <= bound, name
        spread = parameter.std().item()
        assert spread == pytest.approx(bound / 3**0.5, rel=0.1)


@every
def test_copies_and_stored_weights(score, window):
    layer, query, memory = case(score, window)
    twin, _, _ = case(score, window)
    twin.load_state_dict(layer.state_dict())
    for other in (twin, copy.deepcopy(layer)):
        got = other(query, memory, position=FIRST)
        assert_same(got, layer(query, memory, position=FIRST))
    assert f"score='{score}'" in repr(layer)
    assert layer.uses_position == (window == "monotonic")


@every
def test_vmap_over_rows_and_autocast(score, window):
    layer, query, memory = case(score, window, torch.float32)
    expected = layer(query, memory, position=FIRST)

    def row(q, m, p):
        context, weights = layer(q[None], m[None], position=p[None])
        return context[0], weights[0]

    assert_same(vmap(row)(query, memory, FIRST), expected)
    with torch.autocast("cpu", torch.bfloat16):
        low = layer(query, memory, position=FIRST)
    # A window that moves by the rounding of its centre may lose a position.
    if window != "predictive":
        assert_same([y.float() for y in low], expected, atol=0.08, rtol=0)
    assert all(y.isfinite().all() for y in low)


def test_autocast_does_not_lead_back_to_float16():
    layer = MultiplicativeAttention(64, 64, score="dot")
    query, memory = torch.full((1, 1, 64), 60.0), torch.full((1, 5, 64), 50.0)
    with torch.autocast("cpu", torch.float16):
        _, weights = layer(query, memory)
    torch.testing.assert_close(weights, torch.full_like(weights, 0.2))


@pytest.mark.compile
@pytest.mark.parametrize(
    ("score", "window"),
    [("general", "monotonic"), ("concat", "predictive")],
)
def test_a_compiled_layer_is_the_same(score, window):
    layer, query, memory = case(score, window, torch.float32)
    given = query, memory, torch.tensor([6, 0, 2]), FIRST
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert_same(compiled(*given), layer(*given), atol=1e-6, rtol=1e-5)


@every
def test_shapes_on_a_device_without_values(score, window):
    layer, query, memory = case(score, window)
    layer = layer.to("meta")
    context, weights = layer(query.to("meta"), memory.to("meta"), None, FIRST)
    assert context.shape == (3, 4, 7)
    assert weights.shape == (3, 4, 6)


@every
def test_empty_batches_and_sequences(score, window):
    layer, query, memory = case(score, window)
    context, weights = layer(query[:, :0], memory, position=FIRST)
    assert context.shape == (3, 0, 7)
    assert weights.shape == (3, 0, 6)
    context, weights = layer(query, memory[:, :0], position=FIRST)
    assert not context.count_nonzero()
    assert weights.shape == (3, 4, 0)
    for asked in (query[:0], query[:0, 0]):
        context, weights = layer(asked, memory[:0], position=FIRST[:0])
        assert context.shape == (*asked.shape[:-1], 7)
        assert weights.shape == (*asked.shape[:-1], 6)


@every
def test_on_a_device(device, score, window):
    layer, query, memory = case(score, window, torch.float32)
    lengths = torch.tensor([6, 0, 2])
    expected = layer(query, memory, lengths, FIRST)
    moved = [tensor.to(device) for tensor in (query, memory)]
    got = layer.to(device)(*moved, lengths, FIRST)
    assert all(y.device.type == device for y in got)
    assert_same([y.cpu() for y in got], expected, atol=1e-5, rtol=1e-4)


def test_it_is_exported():
    assert seqref.MultiplicativeAttention is MultiplicativeAttention
    assert seqref.MultiplicativeSource is MultiplicativeSource


# Bad input.


@pytest.mark.errors
@pytest.mark.parametrize(
    ("query", "memory", "lengths", "message"),
    [
        ((3, 4, 6), (3, 6, 7), None, r"`query`.*query_size=5\), got"),
        ((3, 4, 5), (3, 6, 8), None, r"`memory`.*memory_size=7\), got"),
        ((2, 4, 5), (3, 6, 7), None, r"`query`.*batch=3"),
        ((3, 4, 5), (6, 7), None, r"`memory` must have shape"),
        ((4, 5), (3, 6, 7), None, r"multiple of the source's batch=3"),
        ((3, 5), (3, 6, 7), [6, 7, 0], r"at most source=6, got 7"),
        ((3, 5), (3, 6, 7), [6, -1, 0], r"at least 0, got -1"),
        ((3, 5), (3, 6, 7), [6, 1], r"`lengths` must have shape"),
    ],
)
def test_bad_arguments(query, memory, lengths, message):
    layer = MultiplicativeAttention(5, 7)
    given = None if lengths is None else torch.tensor(lengths)
    with pytest.raises(
        ValueError, match=f"^MultiplicativeAttention.forward: .*{message}"
    ):
        layer(torch.zeros(query), torch.zeros(memory), given)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("position", "kind", "message"),
    [
        (None, ValueError, "`position` must be given where window='monotonic'"),
        (torch.tensor([0, -2, 1]), ValueError, "at least 0, got -2"),
        (torch.tensor([0.0, 1, 2]), TypeError, r"integer dtype, got torch\.float32"),
        (torch.tensor([True] * 3), TypeError, r"integer dtype, got torch\.bool"),
        (torch.tensor([0, 1]), ValueError, r"`position` must have shape \(batch=3,\)"),
        (torch.tensor(1), ValueError, r"`position` must have shape"),
        ([0, 1, 2], TypeError, r"`position` must be a torch\.Tensor, got list"),
    ],
)
def test_bad_positions(position, kind, message):
    layer, query, memory = case("general", "monotonic")
    source = layer.prepare(memory)
    for each in (query, query[:, 0]):
        with pytest.raises(kind, match=f"^MultiplicativeAttention.attend: .*{message}"):
            layer.attend(each, source, position)
    # Four queries of a row follow each other; they are no beams.
    with pytest.raises(ValueError, match=r"`position` must have shape \(batch=3,\)"):
        layer.attend(query, source, torch.arange(12))


@pytest.mark.errors
def test_bad_sources_and_kinds():
    layer, query, memory = case()
    with pytest.raises(TypeError, match="`source` must be a MultiplicativeSource"):
        layer.attend(query, memory)
    additive = AdditiveAttention(5, 7, 5, dtype=F64).prepare(memory)
    with pytest.raises(TypeError, match="must be a MultiplicativeSource, got Additive"):
        layer.attend(query, additive)
    other, _, _ = case("concat")
    with pytest.raises(ValueError, match=r"`source.keys`.*key=5\), got \(3, 6, 8\)"):
        layer.attend(query, other.prepare(memory))
    keys, values, real = layer.prepare(memory)
    with pytest.raises(ValueError, match=r"`source.values`.*source=6"):
        layer.attend(query, MultiplicativeSource(keys, values[:, :5], real))
    with pytest.raises(TypeError, match=r"prepare: `memory` must be a torch\.Tensor"):
        layer.prepare(None)
    with pytest.raises(ValueError, match=r"`memory`.*parameters' dtype torch\.float64"):
        layer.prepare(memory.float())
    with pytest.raises(ValueError, match=r"`query`.*the source's dtype torch\.float64"):
        layer(query.float(), memory)
    with pytest.raises(TypeError, match="forward: `lengths`"):
        layer(query, memory, [6, 6, 6])
    dot, query, memory = case("dot")
    with pytest.raises(TypeError, match="`memory` must have a floating dtype"):
        dot.prepare(memory.long())
    with pytest.raises(ValueError, match=r"`query`.*the source's dtype torch\.float64"):
        dot(query.float(), memory)


@pytest.mark.errors
def test_a_source_longer_than_location_scores_know():
    layer, query, _ = case("location")
    assert layer(query, torch.zeros(3, 9, 7, dtype=F64))[1].shape == (3, 4, 9)
    with pytest.raises(ValueError, match="at most max_source=9 positions, got 10"):
        layer(query, torch.zeros(3, 10, 7, dtype=F64))


@pytest.mark.errors
@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"score": "cosine"}, ValueError, "`score` must be one of 'dot', 'general'"),
        ({"window": "global"}, ValueError, "`window` must be one of 'monotonic'"),
        ({"score": "dot"}, ValueError, "`query_size` must be memory_size=7 .* got 5"),
        ({"score": "concat"}, ValueError, "`hidden_size` must be given with score"),
        ({"score": "location"}, ValueError, "`max_source` must be given with score"),
        ({"window": "monotonic"}, ValueError, "`half_width` must be given with a wind"),
        ({"half_width": 3}, ValueError, "`half_width` has no use without a window"),
        ({"hidden_size": 3}, ValueError, "`hidden_size` has no use without score"),
        ({"max_source": 3}, ValueError, "`max_source` has no use without score"),
        ({"window": "monotonic", "half_width": 0}, ValueError, "at least 1, got 0"),
        ({"window": "monotonic", "half_width": 1.5}, TypeError, "must be an int"),
        ({"score": "concat", "hidden_size": True}, TypeError, "must be an int"),
        ({"score": "location", "max_source": 0}, ValueError, "at least 1, got 0"),
    ],
)
def test_bad_options(options, kind, message):
    with pytest.raises(kind, match=f"^MultiplicativeAttention: .*{message}"):
        MultiplicativeAttention(5, 7, **options)


@pytest.mark.errors
@pytest.mark.parametrize("place", [0, 1])
def test_bad_sizes(place):
    name = ("query_size", "memory_size")[place]
    for bad, kind in ((0, ValueError), (True, TypeError), (2.0, TypeError)):
        sizes = [3, 3]
        sizes[place] = bad
        with pytest.raises(kind, match=f"^MultiplicativeAttention: `{name}`"):
            MultiplicativeAttention(*sizes)
