"""Masks, last states, packing beside padding, and batches by length."""

import itertools

import pytest
import torch
from torch import nn

import seqref
from seqref.recurrent.variable_length import (
    bucket_batches,
    last_state,
    lengths_to_mask,
    pack,
    padding_fraction,
    token_batches,
    unpack,
)

F64 = torch.float64
LENGTHS = torch.tensor([2, 7, 4, 1])
BATCH = r"`lengths` must have shape \(batch,\), got "
ROWS = r"`lengths` must have shape \(rows,\), got "


def rows(n=4, time=7, width=3):
    torch.manual_seed(0)
    return torch.randn(n, time, width, dtype=F64)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_mask_by_hand(dtype):
    mask = lengths_to_mask(torch.tensor([2, 0, 3], dtype=dtype), 3)
    assert mask.tolist() == [[True, True, False], [False] * 3, [True] * 3]


def test_a_mask_of_no_steps_and_one_of_no_rows():
    assert lengths_to_mask(torch.zeros(2, dtype=torch.int64), 0).shape == (2, 0)
    assert lengths_to_mask(LENGTHS[:0], 3).shape == (0, 3)


def test_mask_and_last_state_where_lengths_cannot_be_read():
    many = torch.stack([LENGTHS, LENGTHS.flip(0)])
    y = rows()
    masks = torch.func.vmap(lambda lengths: lengths_to_mask(lengths, 7))(many)
    ends = torch.func.vmap(lambda lengths: last_state(y, lengths, 1))(many)
    for row, lengths in enumerate(many):
        assert torch.equal(masks[row], lengths_to_mask(lengths, 7))
        assert torch.equal(ends[row], last_state(y, lengths, 1))

    class Reader(nn.Module):
        def forward(self, y, lengths):
            blank = ~lengths_to_mask(lengths, y.shape[1])[..., None]
            return last_state(y.masked_fill(blank, 0.0), lengths)

    exported = torch.export.export(Reader(), (y, LENGTHS)).module()
    for lengths in many:
        assert torch.equal(exported(y, lengths), last_state(y, lengths))


def test_last_state_is_the_final_state_with_nan_in_the_padding():
    layer = seqref.RNN(3, 5, dtype=F64)
    x = rows()
    y, state = layer(x, lengths=LENGTHS)
    torch.testing.assert_close(last_state(y, LENGTHS), state.h, atol=1e-12, rtol=0)
    spoilt = y.detach().masked_fill(~lengths_to_mask(LENGTHS, 7)[..., None], torch.nan)
    spoilt.requires_grad_()
    last = last_state(spoilt, LENGTHS)
    upstream = torch.randn_like(last)
    (gradient,) = torch.autograd.grad(last, spoilt, upstream)
    expected = torch.zeros_like(gradient)
    for row, length in enumerate(LENGTHS.tolist()):
        assert torch.equal(last[row], y[row, length - 1])
        expected[row, length - 1] = upstream[row]
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_last_state_is_the_upper_layers_of_both_directions(kind, layers, bias):
    torch.manual_seed(0)
    layer = kind(
        3, 5, layers, bias=bias, bidirectional=True, batch_first=True, dtype=F64
    )
    packed, h_n = layer(pack(rows(), LENGTHS))
    h_n = h_n[0] if kind is nn.LSTM else h_n
    last = last_state(unpack(packed)[0], LENGTHS, backward_width=5)
    expected = torch.cat([h_n[-2], h_n[-1]], dim=-1)
    torch.testing.assert_close(last, expected, atol=1e-12, rtol=0)
    weights = list(layer.parameters())
    upstream = torch.randn_like(last)
    mine = torch.autograd.grad(last, weights, upstream, retain_graph=True)
    theirs = torch.autograd.grad(expected, weights, upstream)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


def test_last_state_does_not_ask_the_default_device():
    y = rows()
    expected = last_state(y, LENGTHS, 1)
    with torch.device("meta"):
        assert torch.equal(last_state(y, LENGTHS, 1), expected)


def test_last_state_of_directions_of_unequal_width():
    layer = seqref.Bidirectional(
        seqref.RNN(3, 5, dtype=F64), seqref.GRU(3, 2, dtype=F64)
    )
    y, state = layer(rows(), lengths=LENGTHS)
    last = last_state(y, LENGTHS, backward_width=2)
    expected = torch.cat([state.forward.h, state.backward.h], dim=-1)
    torch.testing.assert_close(last, expected, atol=1e-12, rtol=0)
    # Nothing of a layer in one direction is taken at the first step, and all of one
    # that reads from the right.
    assert torch.equal(last_state(y, LENGTHS, 7), y[:, 0])
    assert torch.equal(last_state(y, LENGTHS), y[range(4), LENGTHS - 1])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_packed_rows_are_rows_run_alone(bias, bidirectional):
    torch.manual_seed(0)
    layer = nn.LSTM(
        3, 5, bias=bias, bidirectional=bidirectional, batch_first=True, dtype=F64
    )
    x = rows()
    x = x.masked_fill(~lengths_to_mask(LENGTHS, 7)[..., None], torch.nan)
    x.requires_grad_()
    packed, (h_n, c_n) = layer(pack(x, LENGTHS))
    y, unpacked_lengths = unpack(packed, 9)
    assert unpacked_lengths.tolist() == LENGTHS.tolist()
    assert y.shape[1] == 9
    upstream, parts = torch.randn_like(y), []
    for row, length in enumerate(LENGTHS.tolist()):
        alone, (h_1, c_1) = layer(x[row : row + 1, :length])
        torch.testing.assert_close(y[row : row + 1, :length], alone, atol=1e-12, rtol=0)
        assert y[row, length:].eq(0).all()
        torch.testing.assert_close(h_n[:, row], h_1[:, 0], atol=1e-12, rtol=0)
        torch.testing.assert_close(c_n[:, row], c_1[:, 0], atol=1e-12, rtol=0)
        parts.append((alone[0] * upstream[row, :length]).sum())
    wanted = [x, *layer.parameters()]
    together = torch.autograd.grad((y * upstream).sum(), wanted)
    apart = torch.autograd.grad(sum(parts), wanted)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_not_packed_the_forward_half_is_right_in_one_layer_alone(kind, layers):
    torch.manual_seed(0)
    layer = kind(3, 5, layers, bidirectional=True, batch_first=True, dtype=F64)
    right = last_state(unpack(layer(pack(rows(), LENGTHS))[0])[0], LENGTHS, 5)
    last = last_state(layer(rows())[0], LENGTHS, 5)
    forward, backward = (last - right).abs().amax(0).split(5)
    assert (forward.max() < 1e-12) == (layers == 1)
    assert backward.max() > 1e-3


def test_a_relu_overflows_in_a_long_padding_of_zeros():
    torch.manual_seed(0)
    layer = nn.RNN(3, 5, nonlinearity="relu", batch_first=True)
    with torch.no_grad():
        layer.weight_hh_l0.abs_().mul_(4)
    lengths = torch.tensor([3])
    x = torch.zeros(1, 200, 3)
    x[:, :3] = torch.randn(1, 3, 3)
    for given, finite in ((x, False), (pack(x, lengths), True)):
        y, _ = layer(given)
        summary = last_state(y if given is x else unpack(y)[0], lengths)
        assert summary.isfinite().all()
        grads = torch.autograd.grad(summary.sum(), list(layer.parameters()))
        assert all(grad.isfinite().all() for grad in grads) == finite


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM])
def test_an_initial_state_is_in_the_order_of_the_batch(kind):
    torch.manual_seed(0)
    layer, x = kind(3, 5, batch_first=True, dtype=F64), rows()
    start = [torch.randn(1, 4, 5, dtype=F64) for _ in range(1 + (kind is nn.LSTM))]

    def final(x, parts):
        _, end = layer(x, tuple(parts) if kind is nn.LSTM else parts[0])
        return torch.stack(end if kind is nn.LSTM else [end])

    together = final(pack(x, LENGTHS), start)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = final(
            x[row : row + 1, :length], [part[:, row : row + 1] for part in start]
        )
        torch.testing.assert_close(together[:, :, row], alone[:, :, 0])


def test_pack_and_unpack_are_inverse():
    x = rows() * lengths_to_mask(LENGTHS, 7)[..., None]
    back, lengths = unpack(pack(x, LENGTHS))
    assert torch.equal(back, x)
    assert torch.equal(lengths, LENGTHS)


def test_rows_sorted_by_hand_come_back_in_sorted_order():
    layer, x = nn.LSTM(3, 5, batch_first=True, dtype=F64), rows()
    order = LENGTHS.argsort(descending=True)
    _, (right, _) = layer(pack(x, LENGTHS))
    _, (sorted_rows, _) = layer(pack(x[order], LENGTHS[order]))
    assert not torch.allclose(sorted_rows, right)
    torch.testing.assert_close(sorted_rows[:, order.argsort()], right)


def many():
    return torch.randint(0, 50, (103,), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("form", "size"), [(bucket_batches, 8), (token_batches, 200)])
def test_batches_hold_each_row_once_and_follow_the_generator(form, size):
    def make(seed):
        return form(many(), size, generator=torch.Generator().manual_seed(seed))

    assert sorted(row for batch in make(0) for row in batch) == list(range(103))
    assert make(0) == make(0)
    assert make(0) != make(1)
    members = [{frozenset(batch) for batch in make(seed)} for seed in (0, 1)]
    assert members[0] != members[1], "ties are drawn anew"
    # Batches do not overlap in length: sorted before the cut.
    spans = [[int(many()[row]) for row in batch] for batch in make(0)]
    spans.sort(key=lambda span: (min(span), max(span)))
    ends = itertools.pairwise(spans)
    assert all(max(one) <= min(two) for one, two in ends)
    firsts = [int(many()[batch[0]]) for batch in make(0)]
    assert firsts != sorted(firsts), "the batches are shuffled"


def test_bucket_sizes():
    sizes = [len(batch) for batch in bucket_batches(many(), 8)]
    assert sorted(sizes) == [7] + [8] * 12
    assert bucket_batches(torch.zeros(0, dtype=torch.int64), 8) == []


def test_token_batches_are_bounded_and_full():
    lengths = many()
    batches = token_batches(lengths, 200)
    spans = sorted(
        (sorted(int(lengths[row]) for row in batch) for batch in batches),
        key=lambda span: (span[0], span[-1]),
    )
    assert all(len(span) * span[-1] <= 200 for span in spans)
    for one, two in itertools.pairwise(spans):
        assert (len(one) + 1) * two[0] > 200, "one more row would not have fitted"


def test_padding_fraction_by_hand():
    lengths = torch.tensor([1, 4, 3, 0])
    assert padding_fraction(lengths, [[0, 1], [2, 3]]) == 1 - 8 / 14
    assert padding_fraction(lengths, [[3]]) == 0.0
    assert padding_fraction(lengths, []) == 0.0
    assert padding_fraction(lengths, [[], [0, 1]]) == 1 - 5 / 8


def test_padding_fraction_of_what_can_be_read_once_and_of_a_sampler():
    lengths = torch.tensor([1, 4, 3, 0])
    batches = [[0, 1], [2, 3]]
    expected = padding_fraction(lengths, batches)
    assert expected > 0
    assert padding_fraction(lengths, (iter(batch) for batch in batches)) == expected
    sampler = torch.utils.data.BatchSampler(range(4), 2, drop_last=False)
    assert padding_fraction(lengths, sampler) == expected


@pytest.mark.parametrize("form", [bucket_batches, token_batches])
def test_the_order_is_drawn_on_the_generators_device(form):
    def make(generator=None):
        return form(many(), 200, generator=generator)

    expected = make(torch.Generator().manual_seed(0))
    lengths = many()
    with torch.device("meta"):
        batches = form(lengths, 200, generator=torch.Generator("cpu").manual_seed(0))
        assert sum(map(len, form(lengths, 200))) == 103
    assert batches == expected


@pytest.mark.errors
@pytest.mark.parametrize(
    ("call", "kind", "match"),
    [
        (lambda: lengths_to_mask(LENGTHS, 6), ValueError, "at most time=6, got 7"),
        (lambda: lengths_to_mask(LENGTHS[None], 7), ValueError, BATCH + r"\(1, 4\)"),
        (lambda: lengths_to_mask(LENGTHS[0], 7), ValueError, BATCH + r"\(\)"),
        (lambda: lengths_to_mask([2, 7], 7), TypeError, "`lengths` must be a torch.T"),
        (
            lambda: lengths_to_mask(LENGTHS * 0, -1),
            ValueError,
            "`time` must be at .* 0",
        ),
        (lambda: lengths_to_mask(LENGTHS, 7.0), TypeError, "`time` must be an int"),
        (lambda: last_state(rows()[0], LENGTHS), ValueError, "`y` must have shape"),
        (lambda: last_state(rows(), LENGTHS - 1), ValueError, "at least 1, got 0"),
        (lambda: last_state(rows(), LENGTHS, 4), ValueError, "at most width=3, got 4"),
        (lambda: last_state(rows(), LENGTHS, -1), ValueError, "at least 0, got -1"),
        (lambda: last_state(rows(), LENGTHS, 1.0), TypeError, "must be an int"),
        (lambda: pack(rows(), LENGTHS - 1), ValueError, "pack: .* at least 1, got 0"),
        (lambda: pack(rows(), LENGTHS + 1), ValueError, "at most time=7, got 8"),
        (lambda: pack(rows()[0], LENGTHS), ValueError, "pack: `x` must have shape"),
        (lambda: pack([[1.0]], LENGTHS), TypeError, "pack: `x` must be a torch.Tensor"),
        (lambda: pack(rows(0), LENGTHS[:0]), ValueError, "at least one row"),
        (lambda: pack(rows()[..., :0], LENGTHS), ValueError, "and one feature"),
        (lambda: pack(rows(), LENGTHS.float()), TypeError, "integer dtype"),
        (lambda: unpack(rows()), TypeError, "`packed` must be a PackedSequence"),
        (lambda: unpack(pack(rows(), LENGTHS), 6), ValueError, "at least 7, got 6"),
        (lambda: bucket_batches(LENGTHS, 0), ValueError, "`batch_size` must be at"),
        (lambda: bucket_batches(-LENGTHS, 2), ValueError, "at least 0, got -7"),
        (lambda: bucket_batches([1, 2], 2), TypeError, "`lengths` must be a"),
        (lambda: bucket_batches(LENGTHS[None], 2), ValueError, ROWS + r"\(1, 4\)"),
        (lambda: bucket_batches(LENGTHS[0], 2), ValueError, ROWS + r"\(\)"),
        (lambda: bucket_batches(LENGTHS.float(), 2), TypeError, "integer dtype"),
        (lambda: padding_fraction([1, 2], [[0]]), TypeError, "`lengths` must be a"),
        (lambda: padding_fraction(LENGTHS[None], [[0]]), ValueError, ROWS),
        (
            lambda: padding_fraction(LENGTHS, [[0, 4]]),
            ValueError,
            "rows from 0 to 3, got 4",
        ),
        (lambda: padding_fraction(LENGTHS, [[-1]]), ValueError, "0 to 3, got -1"),
        (lambda: padding_fraction(LENGTHS, [0, 1]), TypeError, "_fraction: `batches`"),
        (lambda: padding_fraction(LENGTHS, [[0.0]]), TypeError, "_fraction: `batches`"),
        (lambda: bucket_batches(LENGTHS, 2, generator=0), TypeError, "`generator` mu"),
        (lambda: token_batches(LENGTHS, 9, generator=0), TypeError, "`generator` must"),
        (lambda: token_batches(LENGTHS, 6), ValueError, "at least 7, got 6"),
        (lambda: token_batches(LENGTHS, 0), ValueError, "at least 7, got 0"),
        (lambda: token_batches(LENGTHS * 0, 0), ValueError, "at least 1, got 0"),
        (lambda: token_batches(LENGTHS[:0], 0), ValueError, "at least 1, got 0"),
        (lambda: token_batches(LENGTHS, 8.0), TypeError, "`max_tokens` must be an"),
    ],
)
def test_bad_arguments(call, kind, match):
    with pytest.raises(kind, match=match):
        call()
