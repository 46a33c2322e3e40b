"""The layer: closed forms, one step and many, beams, padding, judges, refusals."""

import copy

import pytest
import torch
from torch.func import functional_call, vmap

import seqref
from seqref.attention import AdditiveAttention, AdditiveSource
from seqref.ops.additive_attention import additive_attention
from seqref.testing import LiveBytes

F64 = torch.float64


def case(dtype=F64, batch=3, time=4, source=6):
    layer = AdditiveAttention(5, 7, 8, dtype=dtype)
    query = torch.randn(batch, time, 5, dtype=dtype)
    return layer, query, torch.randn(batch, source, 7, dtype=dtype)


def assert_same(got, expected, **tolerance):
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, **tolerance)


def test_it_is_its_equations():
    layer, query, memory = case()
    context, weights = layer(query, memory)
    keys = memory @ layer.weight_key.T
    for row in range(3):
        for t in range(4):
            q = layer.weight_query @ query[row, t]
            e = torch.stack([layer.weight_score @ (q + k).tanh() for k in keys[row]])
            torch.testing.assert_close(weights[row, t], e.softmax(0))
            torch.testing.assert_close(context[row, t], e.softmax(0) @ memory[row])


def test_it_is_the_op_on_projected_queries_and_keys():
    layer, query, memory = case()
    lengths = torch.tensor([6, 0, 2])
    projected = query @ layer.weight_query.T, memory @ layer.weight_key.T
    expected = additive_attention(*projected, memory, layer.weight_score, lengths)
    assert_same(layer(query, memory, lengths), expected)


def test_equals_the_layer_of_keras(keras):
    layer, query, memory = case(torch.float32)
    judge = keras.layers.AdditiveAttention(use_scale=True)
    keys = memory @ layer.weight_key.T
    inputs = [query @ layer.weight_query.T, memory, keys]
    judge.build([tuple(tensor.shape) for tensor in inputs])
    judge.set_weights([layer.weight_score.detach().numpy()])
    lengths = torch.tensor([6, 2, 3])
    mask = [None, torch.arange(6) < lengths[:, None]]
    expected = judge(inputs, mask=mask, return_attention_scores=True)
    assert_same(layer(query, memory, lengths), expected, atol=2e-6, rtol=1e-5)
    # What the page says of a row that is masked everywhere.
    mask[1] = torch.zeros(3, 6, dtype=torch.bool)
    _, weights = judge(inputs, mask=mask, return_attention_scores=True)
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 6))


def test_one_position_gets_all_the_weight():
    layer, query, memory = case(source=1)
    context, weights = layer(query, memory)
    assert torch.equal(weights, torch.ones_like(weights))
    torch.testing.assert_close(context, memory.expand_as(context))


def test_the_order_of_the_source_does_not_matter():
    """Attention sees a set: only the encoder's outputs carry positions."""
    layer, query, memory = case()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    context, weights = layer(query, memory)
    other, others = layer(query, memory[:, order])
    torch.testing.assert_close(other, context)
    torch.testing.assert_close(others, weights[:, :, order])


def test_without_a_query_layer_it_is_one_weighting_for_all():
    """What is added inside tanh decides; without tanh a query would cancel out."""
    layer, query, memory = case()
    with torch.no_grad():
        layer.weight_query.zero_()
    _, weights = layer(query, memory)
    torch.testing.assert_close(weights, weights[:, :1].expand_as(weights))


# One step, many, beams.


def test_a_step_is_a_query_of_the_sequence():
    layer, query, memory = case()
    lengths = torch.tensor([6, 0, 2])
    source = layer.prepare(memory, lengths)
    context, weights = layer(query, memory, lengths)
    for t in range(4):
        one = layer.attend(query[:, t], source)
        assert_same(one, (context[:, t], weights[:, t]))
        assert_same(layer(query[:, t], memory, lengths), one)


def test_beams_of_a_row_stand_next_to_each_other():
    layer, _, memory = case()
    lengths = torch.tensor([6, 3, 2])
    beams = torch.randn(12, 5, dtype=F64)
    context, weights = layer.attend(beams, layer.prepare(memory, lengths))
    repeated = layer(
        beams, memory.repeat_interleave(4, 0), lengths.repeat_interleave(4)
    )
    assert_same((context, weights), repeated)


def test_beams_share_the_source():
    layer = AdditiveAttention(8, 32, 16)
    source = layer.prepare(torch.randn(4, 100, 32))
    beams = torch.randn(16, 8)
    with torch.no_grad(), LiveBytes() as live:
        outputs = layer.attend(beams, source)
    assert outputs[0].shape == (16, 32)
    one_source = sum(tensor.nbytes for tensor in source)
    # A buffer as large as the keys and some scores; repeated, it would be four sources.
    assert live.peak < 2 * one_source


def test_no_tanh_is_kept():
    """Some numbers for each score, whatever the width."""
    layer = AdditiveAttention(8, 8, 256)
    query, memory = torch.randn(1, 20, 8), torch.randn(1, 30, 8)
    source = layer.prepare(memory)
    with LiveBytes([*source, *layer.parameters(), query]) as live:
        outputs = layer.attend(query, source)
        kept = live.now
    assert outputs[0].requires_grad
    projected = 20 * 256 * 4
    assert kept - projected < 8 * 20 * 30 * 4


# Padding.


@pytest.mark.parametrize("lengths", [[6, 0, 3], [0, 0, 0], [6, 6, 6]])
def test_padding_changes_nothing_and_gets_no_gradient(lengths):
    layer, query, memory = case()
    given = torch.tensor(lengths)
    spoilt = memory.clone()
    for row, length in enumerate(lengths):
        spoilt[row, length:] = torch.nan
    results = []
    for each in (memory, spoilt):
        each.requires_grad_()
        outputs = layer(query, each, given)
        wanted = [each, *layer.parameters()]
        grads = torch.autograd.grad(sum(y.square().sum() for y in outputs), wanted)
        assert_same(grads, [grad.nan_to_num() for grad in grads])
        results.append((*outputs, *grads))
    assert_same(*results)
    for row, length in enumerate(lengths):
        context, weights, grad_memory = (value[row] for value in results[0][:3])
        assert not weights[:, length:].count_nonzero()
        assert not grad_memory[length:].count_nonzero()
        assert (weights.sum(-1) - float(length > 0)).abs().max() < 1e-12
        assert length or not context.count_nonzero()


# As a module.


def test_gradients_by_central_differences():
    layer, query, memory = case(batch=2, time=2, source=3)
    names = [name for name, _ in layer.named_parameters()]

    def run(query, memory, *weights):
        parameters = dict(zip(names, weights, strict=True))
        lengths = torch.tensor([3, 2])
        return functional_call(layer, parameters, (query, memory, lengths))

    inputs = [query, memory, *(p.detach() for p in layer.parameters())]
    assert torch.autograd.gradcheck(run, [t.clone().requires_grad_() for t in inputs])


def test_parameters_are_drawn_within_their_bounds():
    layer = AdditiveAttention(400, 100, 900)
    for parameter, width in zip(layer.parameters(), (400, 100, 900), strict=True):
        bound = width**-0.5
        assert 0.9 * bound < parameter.abs().max() <= bound
        spread = parameter.std().item()
        assert spread == pytest.approx(bound / 3**0.5, rel=0.1)


def test_copies_stored_weights_and_dtypes():
    layer, query, memory = case()
    twin = AdditiveAttention(5, 7, 8, dtype=F64)
    twin.load_state_dict(layer.state_dict())
    for other in (twin, copy.deepcopy(layer)):
        assert_same(other(query, memory), layer(query, memory))
    assert repr(layer) == "AdditiveAttention(5, 7, 8)"
    low = layer.to(torch.bfloat16)
    context, weights = low(query.bfloat16(), memory.bfloat16())
    assert context.dtype == weights.dtype == torch.bfloat16


def test_vmap_over_rows_and_autocast():
    layer, query, memory = case(torch.float32)
    expected = layer(query, memory)

    def row(q, m):
        context, weights = layer(q[None], m[None])
        return context[0], weights[0]

    assert_same(vmap(row)(query, memory), expected)
    with torch.autocast("cpu", torch.bfloat16):
        low = layer(query, memory)
    assert_same([y.float() for y in low], expected, atol=0.05, rtol=0)


def test_on_a_device(device):
    layer = AdditiveAttention(5, 7, 8, device=device)
    query, memory = torch.randn(2, 3, 5, device=device), torch.ones(2, 4, 7)
    context, weights = layer(query, memory.to(device), torch.tensor([4, 0]))
    assert context.device.type == weights.device.type == device
    assert weights[1].count_nonzero() == 0


def test_it_is_exported():
    assert seqref.AdditiveAttention is AdditiveAttention


# Bad input.


@pytest.mark.errors
@pytest.mark.parametrize(
    ("query", "memory", "lengths", "kind", "message"),
    [
        ((3, 4, 6), (3, 6, 7), None, ValueError, r"`query`.*query_size=5\), got"),
        ((3, 4, 5), (3, 6, 8), None, ValueError, r"`memory`.*memory_size=7\), got"),
        ((2, 4, 5), (3, 6, 7), None, ValueError, r"`query`.*batch=3"),
        ((3, 4, 5), (6, 7), None, ValueError, r"`memory` must have shape"),
        ((4, 5), (3, 6, 7), None, ValueError, r"multiple of the source's batch=3"),
        ((3, 5), (3, 6, 7), [6, 7, 0], ValueError, r"at most source=6, got 7"),
        ((3, 5), (3, 6, 7), [6, -1, 0], ValueError, r"at least 0, got -1"),
        ((3, 5), (3, 6, 7), [6, 1], ValueError, r"`lengths` must have shape"),
    ],
)
def test_bad_arguments(query, memory, lengths, kind, message):
    layer = AdditiveAttention(5, 7, 8)
    given = None if lengths is None else torch.tensor(lengths)
    with pytest.raises(kind, match=f"^AdditiveAttention.forward: .*{message}"):
        layer(torch.zeros(query), torch.zeros(memory), given)


@pytest.mark.errors
def test_bad_sources_and_kinds():
    layer, query, memory = case()
    with pytest.raises(TypeError, match="attend: `source` must be an AdditiveSource"):
        layer.attend(query, memory)
    other = AdditiveAttention(5, 7, 9, dtype=F64).prepare(memory)
    with pytest.raises(ValueError, match=r"`source.keys`.*hidden_size=8"):
        layer.attend(query, other)
    keys, values, real = layer.prepare(memory)
    with pytest.raises(ValueError, match=r"`source.values`.*source=6"):
        layer.attend(query, AdditiveSource(keys, values[:, :5], real))
    with pytest.raises(TypeError, match=r"prepare: `memory` must be a torch\.Tensor"):
        layer.prepare(None)
    with pytest.raises(ValueError, match=r"`query`.*dtype torch\.float64"):
        layer(query.float(), memory)
    with pytest.raises(TypeError, match="forward: `lengths`"):
        layer(query, memory, [6, 6, 6])


@pytest.mark.errors
@pytest.mark.parametrize("place", [0, 1, 2])
def test_bad_sizes(place):
    name = ("query_size", "memory_size", "hidden_size")[place]
    for bad, kind in ((0, ValueError), (True, TypeError), (2.0, TypeError)):
        sizes = [3, 3, 3]
        sizes[place] = bad
        with pytest.raises(kind, match=f"^AdditiveAttention: `{name}`"):
            AdditiveAttention(*sizes)
