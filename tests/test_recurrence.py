"""The loop over time, and what is done to states."""

from typing import NamedTuple

import pytest
import torch
from torch import nn

import seqref
from seqref.recurrence import (
    Recurrent,
    detach_state,
    map_state,
    output_width,
    reset_rows,
    scan,
    select_rows,
    width_of,
)


class Pair(NamedTuple):
    a: torch.Tensor
    n: torch.Tensor


class Other(NamedTuple):
    a: torch.Tensor
    n: torch.Tensor


class Counter(nn.Module):
    """Sums what it has seen and counts steps: a state of two kinds, nested."""

    def initial_state(self, batch_size):
        zeros = torch.zeros(batch_size, 2, 3)
        return (Pair(zeros, torch.zeros(batch_size, dtype=torch.int64)),)

    def step(self, x_t, state):
        ((a, n),) = state
        a, n = a + x_t, n + 1
        return a.flatten(1) * n[:, None], (Pair(a, n),)

    def forward(self, x, state=None, lengths=None):
        return scan(self, x, state, lengths)


def nested(offset=0.0):
    a = torch.arange(12.0).view(4, 3) + offset
    return (Pair(a, torch.arange(4)), (a * 2,))


def test_protocol_is_met_by_the_layers_and_not_by_torch_nn():
    assert isinstance(seqref.LSTM(3, 5), Recurrent)
    assert isinstance(Counter(), Recurrent)
    assert not isinstance(nn.LSTM(3, 5), Recurrent)


def test_map_state_keeps_structure_and_kinds():
    state = nested()
    twice = map_state(lambda t: t * 2, state)
    assert type(twice) is tuple
    assert type(twice[0]) is Pair
    assert type(twice[1]) is tuple
    assert torch.equal(twice[0].a, state[0].a * 2)
    assert torch.equal(twice[0].n, state[0].n * 2)
    assert torch.equal(twice[1][0], state[1][0] * 2)


def test_map_state_over_several_states_and_a_bare_tensor():
    total = map_state(lambda *t: sum(t), nested(), nested(1.0), nested(2.0))
    assert torch.equal(total[0].a, 3 * nested(1.0)[0].a)
    assert torch.equal(total[1][0], 3 * nested(1.0)[1][0])
    bare = map_state(torch.add, torch.ones(2), torch.ones(2))
    assert torch.equal(bare, torch.full((2,), 2.0))
    assert map_state(torch.neg, ()) == ()


@pytest.mark.errors
@pytest.mark.parametrize(
    ("state", "others", "message"),
    [
        ([torch.ones(1)], (), r"^map_state: `state` must be a tensor, .* got list$"),
        ((torch.ones(1), None), (), r"`state` must be a tensor, .* got NoneType$"),
        (
            Pair(torch.ones(1), torch.ones(1)),
            (Other(torch.ones(1), torch.ones(1)),),
            r"one structure, got Pair of 2 and Other$",
        ),
        (
            (torch.ones(1),),
            ((torch.ones(1), torch.ones(1)),),
            r"one structure, got tuple of 1 and tuple$",
        ),
        ((torch.ones(1),), (torch.ones(1),), r"got tuple of 1 and Tensor$"),
        (
            torch.ones(1),
            ((torch.ones(1),),),
            r"`others` must be a torch\.Tensor, got t",
        ),
    ],
)
def test_map_state_refuses_other_kinds(state, others, message):
    with pytest.raises(TypeError, match=message):
        map_state(lambda *t: t[0], state, *others)


def test_detach_state_cuts_the_graph_and_shares_memory():
    leaf = torch.ones(2, 3, requires_grad=True)
    state = (Pair(leaf * 2, torch.arange(2)),)
    cut = detach_state(state)
    assert not cut[0].a.requires_grad
    assert state[0].a.requires_grad
    assert cut[0].a.data_ptr() == state[0].a.data_ptr()
    assert torch.equal(cut[0].a, torch.full((2, 3), 2.0))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_select_rows_in_order_and_with_repeats(dtype):
    state = nested()
    rows = torch.tensor([3, 0, 0], dtype=dtype)
    taken = select_rows(state, rows)
    assert torch.equal(taken[0].a, state[0].a[[3, 0, 0]])
    assert taken[0].n.tolist() == [3, 0, 0]
    assert torch.equal(taken[1][0], state[1][0][[3, 0, 0]])
    taken[0].a.zero_()
    assert torch.equal(state[0].a, nested()[0].a)


def test_select_rows_takes_none_and_carries_gradients():
    assert select_rows(nested(), torch.zeros(0, dtype=torch.int64))[0].a.shape == (0, 3)
    leaf = torch.ones(2, 3, requires_grad=True)
    select_rows((leaf,), torch.tensor([1, 1]))[0].sum().backward()
    assert leaf.grad.tolist() == [[0.0] * 3, [2.0] * 3]


@pytest.mark.errors
@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([0], TypeError, r"^select_rows: `rows` must be a torch\.Tensor, got list$"),
        (torch.ones(4) > 0, TypeError, r"dtype int64 or int32, got torch\.bool$"),
        (torch.tensor(1), ValueError, r"must have shape \(selected,\), got \(\)$"),
        (torch.tensor([0, 4]), ValueError, r"must be from 0 to 3, got 0 to 4$"),
        (torch.tensor([-1, 1]), ValueError, r"must be from 0 to 3, got -1 to 1$"),
    ],
)
def test_select_rows_refused(rows, error, message):
    with pytest.raises(error, match=message):
        select_rows(nested(), rows)


def test_reset_rows_replaces_where_the_mask_is_true():
    old, fresh = nested(), nested(100.0)
    mask = torch.tensor([True, False, False, True])
    new = reset_rows(old, fresh, mask)
    assert torch.equal(new[0].a[mask], fresh[0].a[mask])
    assert torch.equal(new[0].a[~mask], old[0].a[~mask])
    assert torch.equal(new[1][0][mask], fresh[1][0][mask])
    assert new[0].n.tolist() == [0, 1, 2, 3]
    assert torch.equal(old[0].a, nested()[0].a)


def test_reset_rows_stops_gradients_of_replaced_rows():
    old = torch.ones(2, 3, requires_grad=True)
    new = reset_rows((old,), (torch.zeros(2, 3),), torch.tensor([True, False]))
    new[0].sum().backward()
    assert old.grad.tolist() == [[0.0] * 3, [1.0] * 3]


@pytest.mark.errors
@pytest.mark.parametrize(
    ("fresh", "mask", "error", "message"),
    [
        (nested(), [True], TypeError, r"^reset_rows: `mask` must be a torch\.Tensor"),
        (nested(), torch.ones(4), TypeError, r"dtype bool, got torch\.float32$"),
        (
            nested(),
            torch.ones(3) > 0,
            ValueError,
            r"`mask` must .*batch=4,\), got \(3,",
        ),
        (nested(), torch.ones(4, 1) > 0, ValueError, r"`mask` .* got \(4, 1\)$"),
        (nested()[:1], torch.ones(4) > 0, TypeError, r"one structure, got tuple of 2"),
        (
            map_state(lambda t: t[:1], nested()),
            torch.ones(4) > 0,
            ValueError,
            r"`fresh` must have shape \(axis 0=4, axis 1=3\), got \(1, 3\)$",
        ),
        (
            map_state(lambda t: t.double(), nested()),
            torch.ones(4) > 0,
            ValueError,
            r"`fresh` must have the state's dtype torch\.float32 .* got torch\.float64",
        ),
    ],
)
def test_reset_rows_refused(fresh, mask, error, message):
    with pytest.raises(error, match=message):
        reset_rows(nested(), fresh, mask)


@pytest.mark.errors
def test_reset_rows_refuses_another_device():
    fresh = map_state(lambda t: t.to("meta"), nested())
    with pytest.raises(ValueError, match=r"device cpu, got torch\.float32 and meta$"):
        reset_rows(nested(), fresh, torch.ones(4) > 0)


def test_scan_is_the_loop_over_step():
    x = torch.randn(4, 5, 2, 3)
    layer = Counter()
    y, state = scan(layer, x)
    sums = x.cumsum(1).flatten(2)
    torch.testing.assert_close(y, sums * torch.arange(1, 6)[:, None])
    torch.testing.assert_close(state[0].a, x.sum(1))
    assert state[0].n.tolist() == [5] * 4


def test_scan_starts_from_the_given_state():
    x = torch.randn(4, 5, 2, 3)
    start = (Pair(torch.randn(4, 2, 3), torch.tensor([7, 0, 1, 2])),)
    y, state = scan(Counter(), x, start)
    torch.testing.assert_close(
        y[:, 0], ((start[0].a + x[:, 0]).flatten(1) * (start[0].n + 1)[:, None])
    )
    torch.testing.assert_close(state[0].a, start[0].a + x.sum(1))
    assert state[0].n.tolist() == [12, 5, 6, 7]


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.uint32])
@pytest.mark.parametrize("fill", [float("nan"), float("inf"), 1e30])
def test_scan_with_lengths(dtype, fill):
    x = torch.randn(4, 5, 2, 3)
    lengths = [3, 0, 5, 1]
    for row, length in enumerate(lengths):
        x[row, length:] = fill
    x.requires_grad_()
    start = (Pair(torch.randn(4, 2, 3), torch.arange(4)),)
    y, state = scan(Counter(), x, start, torch.tensor(lengths).to(dtype))
    upstream = torch.randn_like(y)
    (gradient,) = torch.autograd.grad((y * upstream).sum() + state[0].a.sum(), x)
    for row, length in enumerate(lengths):
        alone = x[row : row + 1, :length].detach().requires_grad_()
        begin = map_state(lambda t, row=row: t[row : row + 1], start)
        y_alone, end = scan(Counter(), alone, begin)
        loss = (y_alone * upstream[row : row + 1, :length]).sum() + end[0].a.sum()
        torch.testing.assert_close(y[row, :length], y_alone[0])
        torch.testing.assert_close(state[0].a[row], end[0].a[0])
        assert state[0].n[row] == row + length
        assert not y[row, length:].count_nonzero()
        assert not gradient[row, length:].count_nonzero()
        if length:
            (expected,) = torch.autograd.grad(loss, alone)
            torch.testing.assert_close(gradient[row, :length], expected[0])


@pytest.mark.parametrize("fill", [float("nan"), float("inf")])
def test_scan_keeps_the_padding_out_of_the_gradients_of_weights(fill):
    """A zero times what the padding holds would be NaN: the input itself is masked."""
    layer = seqref.LSTM(3, 5)
    clean = torch.randn(2, 4, 3)
    clean[0, 1:] = 0
    spoilt = clean.clone()
    spoilt[0, 1:] = fill
    lengths = torch.tensor([1, 4])
    gradients = []
    for x in (clean, spoilt):
        y, state = scan(layer, x, lengths=lengths)
        loss = y.square().sum() + state.c.sum()
        gradients.append(torch.autograd.grad(loss, list(layer.parameters())))
    for one, other in zip(*gradients, strict=True):
        assert one.isfinite().all()
        assert torch.equal(one, other)


def test_scan_of_numbers_without_a_width():
    class Sum(nn.Module):
        def initial_state(self, batch_size):
            return (torch.zeros(batch_size),)

        def step(self, x_t, state):
            total = state[0] + x_t
            return total, (total,)

    x = torch.randn(3, 4)
    y, (total,) = scan(Sum(), x, lengths=torch.tensor([4, 0, 2]))
    torch.testing.assert_close(y[0], x[0].cumsum(0))
    assert y[1].tolist() == [0.0] * 4
    torch.testing.assert_close(y[2, :2], x[2, :2].cumsum(0))
    torch.testing.assert_close(
        total, torch.stack([x[0].sum(), x[1, 0] * 0, x[2, :2].sum()])
    )


def test_scan_leaves_its_input_as_it_is():
    x = torch.randn(2, 3, 2, 3)
    kept, version = x.clone(), x._version
    scan(Counter(), x, lengths=torch.tensor([1, 2]))
    assert torch.equal(x, kept)
    assert x._version == version


def test_scan_of_no_steps_gives_empty_outputs_and_the_state():
    start = (Pair(torch.randn(4, 2, 3), torch.arange(4)),)
    lengths = torch.zeros(4, dtype=torch.int64)
    for given in (None, lengths):
        y, state = scan(Counter(), torch.randn(4, 0, 2, 3), start, given)
        assert y.shape == (4, 0, 6)
        assert y.dtype == torch.float32
        assert torch.equal(state[0].a, start[0].a)
        assert state[0].n.tolist() == [0, 1, 2, 3]


def test_scan_of_an_empty_batch():
    y, state = scan(seqref.LSTM(3, 5), torch.zeros(0, 4, 3))
    assert y.shape == (0, 4, 5)
    assert state.c.shape == (0, 5)


def test_scan_uses_a_state_that_can_be_learnt():
    layer = seqref.RNN(3, 5)
    start = seqref.RNNState(torch.randn(2, 5, requires_grad=True))
    y, _ = scan(layer, torch.randn(2, 4, 3), start)
    y.sum().backward()
    assert start.h.grad.abs().min() > 0


@pytest.mark.errors
def test_scan_refuses():
    layer = seqref.RNN(3, 5)
    with pytest.raises(
        TypeError, match=r"^scan: `x` must be a torch\.Tensor, got list"
    ):
        scan(layer, [[1.0]])
    message = r"^scan: `x` must have shape \(batch, time, \.\.\.\), got \(3,\)$"
    with pytest.raises(ValueError, match=message):
        scan(layer, torch.zeros(3))
    with pytest.raises(ValueError, match=r"^scan: `lengths` must be at most time=4, g"):
        scan(layer, torch.zeros(2, 4, 3), lengths=torch.tensor([5, 1]))
    with pytest.raises(TypeError, match=r"^scan: `lengths` must have an integer dtype"):
        scan(layer, torch.zeros(2, 4, 3), lengths=torch.tensor([2.0, 1.0]))


def test_widths_are_what_a_layer_tells():
    class Layer:
        input_size = 3
        hidden_size = 5

    layer = Layer()
    assert width_of(layer, "input_size") == 3
    assert output_width(layer) == 5
    layer.output_size = 2
    assert output_width(layer) == 2
    # A layer that does not know says None, which is not a width.
    layer.output_size = None
    assert output_width(layer) == 5
    layer.hidden_size = "wide"
    assert output_width(layer) is None
    assert width_of(layer, "depth") is None
