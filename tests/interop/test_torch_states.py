"""States beside torch.nn's documented layout, both ways."""

import pytest
import torch
from torch import nn

import seqref
from seqref import (
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    BidirectionalState,
    ChoGRU,
    GRUState,
    LSTMState,
    RNNState,
    Stacked,
)
from seqref.interop import from_torch, state_from_torch, state_to_torch


def numbered(places):
    """(places, batch 2, hidden 5); each place holds its own number."""
    return torch.arange(float(places))[:, None, None].expand(places, 2, 5).clone()


def test_places_go_layer_by_layer_and_forward_first():
    deep = from_torch(nn.GRU(3, 5, 3, bidirectional=True))
    state = state_from_torch(numbered(6), deep)
    assert type(state) is tuple
    assert [type(part) for part in state] == [BidirectionalState] * 3
    firsts = [[side.h[0, 0].item() for side in part] for part in state]
    assert firsts == [[0, 1], [2, 3], [4, 5]]
    assert [part._fields for part in state] == [("forward", "backward")] * 3


def test_torch_documents_the_same_order():
    """Its own view: h_n.view(num_layers, num_directions, batch, hidden)."""
    judge = nn.LSTM(3, 5, 2, bidirectional=True, batch_first=True)
    layer = from_torch(judge)
    x = torch.randn(2, 7, 3)
    y, (h_n, c_n) = judge(x)
    _, state = layer(x)
    by_place = h_n.view(2, 2, 2, 5)
    for depth, pair in enumerate(state):
        for direction, side in enumerate(pair):
            torch.testing.assert_close(side.h, by_place[depth, direction])
            torch.testing.assert_close(side.c, c_n.view(2, 2, 2, 5)[depth, direction])
    # What the two directions of the last layer end with, in the outputs.
    torch.testing.assert_close(state[-1].forward.h, y[:, -1, :5])
    torch.testing.assert_close(state[-1].backward.h, y[:, 0, 5:])


LAYERS = [
    (lambda: RNN(3, 5), 1, RNNState),
    (lambda: LSTM(3, 5), 1, LSTMState),
    (lambda: GRU(3, 5), 1, GRUState),
    (lambda: ChoGRU(3, 5), 1, GRUState),
    (lambda: Bidirectional(LSTM(3, 5), LSTM(3, 5)), 2, BidirectionalState),
    (lambda: Stacked([GRU(3, 5)]), 1, tuple),
    (lambda: Stacked([LSTM(3, 5), LSTM(5, 5), LSTM(5, 5)]), 3, tuple),
    (lambda: Stacked([RNN(5, 5), RNN(5, 5)], residual=True), 2, tuple),
    (lambda: from_torch(nn.LSTM(3, 5, 3, bidirectional=True)), 6, tuple),
]


@pytest.mark.parametrize(("make", "places", "kind"), LAYERS)
def test_round_trips_are_exact_both_ways(make, places, kind):
    layer = make()
    is_lstm = any(isinstance(part, LSTM) for part in layer.modules())
    h_n, c_n = torch.randn(2, places, 2, 5)
    given = (h_n, c_n) if is_lstm else h_n
    state = state_from_torch(given, layer)
    assert type(state) is kind
    back = state_to_torch(state)
    if is_lstm:
        assert type(back) is tuple
        assert torch.equal(back[0], h_n)
        assert torch.equal(back[1], c_n)
    else:
        assert torch.equal(back, h_n)
    again = state_from_torch(back, layer)
    assert repr(again) == repr(state)
    # The layer takes it, and it is not the initial state.
    x = torch.randn(2, 4, layer.input_size)
    assert (layer(x, state)[0] - layer(x)[0]).abs().max() > 1e-3


def test_none_stays_none():
    assert state_from_torch(None, LSTM(3, 5)) is None
    assert state_to_torch(None) is None


def test_gradients_flow_both_ways():
    layer = from_torch(nn.LSTM(3, 5, 2, bidirectional=True))
    h_n, c_n = (torch.randn(4, 2, 5, requires_grad=True) for _ in "hc")
    upstream = torch.randn(2, 4, 2, 5)
    ends = state_to_torch(state_from_torch((h_n, c_n), layer))
    got = torch.autograd.grad(ends, (h_n, c_n), tuple(upstream))
    assert torch.equal(torch.stack(got), upstream)


def test_a_batch_of_nothing_is_legal():
    state = state_from_torch(torch.zeros(1, 0, 5), RNN(3, 5))
    assert state.h.shape == (0, 5)
    assert state_to_torch(state).shape == (1, 0, 5)


def test_what_torch_returns_is_a_copy():
    state = GRUState(torch.zeros(2, 5))
    state_to_torch(state).fill_(1)
    assert not state.h.count_nonzero()


two = Bidirectional(LSTM(3, 5), LSTM(3, 5))
pair = (torch.zeros(1, 2, 5), torch.zeros(1, 2, 5))


@pytest.mark.errors
@pytest.mark.parametrize(
    ("state", "layer", "error", "message"),
    [
        (pair[0], LSTM(3, 5), TypeError, r"the pair \(h_n, c_n\) .* LSTM, got Tensor$"),
        (pair, GRU(3, 5), TypeError, r"be h_n .* GRU, got a tuple of Tensor, Tensor$"),
        (pair[:1], LSTM(3, 5), TypeError, r"got a tuple of Tensor$"),
        ((), LSTM(3, 5), TypeError, r"got a tuple of nothing$"),
        (
            (pair[0], None),
            LSTM(3, 5),
            TypeError,
            r"got a tuple of Tensor, NoneType$",
        ),
        (1.0, RNN(3, 5), TypeError, r"must be h_n for a layer .* RNN, got float$"),
        (
            LSTMState(*torch.zeros(2, 2, 5)),
            LSTM(3, 5),
            TypeError,
            r"got LSTMState, which a layer of seqref takes as it is$",
        ),
        (
            pair,
            two,
            ValueError,
            r"`h_n` must have shape \(layers \* directions=2, batch, hidden_size=5\), "
            r"got \(1, 2, 5\)$",
        ),
        (
            (pair[0], torch.zeros(1, 3, 5)),
            LSTM(3, 5),
            ValueError,
            r"`c_n` must have shape \(.*, batch=2, hidden_size=5\), got \(1, 3, 5\)$",
        ),
        (
            torch.zeros(1, 5),
            RNN(3, 5),
            ValueError,
            r"got \(1, 5\) \(unbatched\? pass h_n\.unsqueeze\(1\)\)$",
        ),
        (
            tuple(torch.zeros(2, 1, 5)),
            LSTM(3, 5),
            ValueError,
            r"`h_n` .* \(unbatched\? pass h_n\.unsqueeze\(1\)\)$",
        ),
        (torch.zeros(1, 2, 4), RNN(3, 5), ValueError, r"got \(1, 2, 4\)$"),
        (
            pair[0],
            seqref.GRUCell(3, 5),
            TypeError,
            r"got GRUCell \(a cell's state has the same shape here and in "
            r"torch\.nn: GRUState\(h\)\)$",
        ),
        (
            pair,
            Bidirectional(Stacked([LSTM(3, 5)]), Stacked([LSTM(3, 5)])),
            TypeError,
            r"`layer\.forward_layer` must be a layer, got Stacked: in torch",
        ),
        (
            pair,
            Stacked([LSTM(3, 5), LSTM(5, 4)]),
            ValueError,
            r"must have one `hidden_size`",
        ),
        (None, nn.LSTM(3, 5), TypeError, r"got torch\.nn\.modules\.rnn\.LSTM"),
    ],
)
def test_bad_states_of_torch(state, layer, error, message):
    with pytest.raises(error, match="^state_from_torch: .*" + message):
        state_from_torch(state, layer)


h = torch.zeros(2, 5)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ((), ValueError, r"`state` must hold at least 1 state, got 0$"),
        (h, TypeError, r"`state` must be RNNState, .* got torch\.Tensor$"),
        ((h, h), TypeError, r"`state\[0\]` must be RNNState, .* got torch\.Tensor$"),
        (
            (GRUState(h), (GRUState(h),)),
            TypeError,
            r"`state\[1\]` must be .* got a tuple of GRUState$",
        ),
        (
            (GRUState(h), RNNState(h)),
            TypeError,
            r"of one kind, .* got GRUState and RNNState as `state\[1\]`$",
        ),
        (
            BidirectionalState(GRUState(h), LSTMState(h, h)),
            TypeError,
            r"got GRUState and LSTMState as `state\.backward`$",
        ),
        (
            (BidirectionalState(GRUState(h), GRUState(h)), GRUState(h)),
            ValueError,
            r"as many directions as `state\[0\]`, 2, got 1 in `state\[1\]`",
        ),
        (
            (GRUState(h), GRUState(torch.zeros(2, 4))),
            ValueError,
            r"one shape, .* got \(2, 5\) and \(2, 4\) as `state\[1\]\.h`$",
        ),
        (
            LSTMState(h, torch.zeros(1, 5)),
            ValueError,
            r"got \(2, 5\) and \(1, 5\) as `state\.c`$",
        ),
        (
            RNNState(torch.zeros(1, 2, 5)),
            ValueError,
            r"`state\.h` must have shape \(batch, hidden_size\), got \(1, 2, 5\)$",
        ),
        (RNNState(None), TypeError, r"`state\.h` must be a torch\.Tensor, got NoneT"),
    ],
)
def test_bad_states_of_ours(state, error, message):
    with pytest.raises(error, match="^state_to_torch: .*" + message):
        state_to_torch(state)
