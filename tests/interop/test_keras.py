"""Weights as Keras has them, judged by Keras where it is installed, and back."""

import numpy as np
import pytest
import torch

import seqref
from seqref import GRU, LSTM, RNN, Bidirectional, ChoGRU
from seqref.interop import (
    cho_gru_from_keras,
    cho_gru_to_keras,
    gru_from_keras,
    gru_to_keras,
    lstm_from_keras,
    lstm_to_keras,
    rnn_from_keras,
    rnn_to_keras,
)

F64 = torch.float64
RELU = {"nonlinearity": "relu"}
KINDS = {
    "tanh": (RNN, {}, rnn_to_keras, rnn_from_keras),
    "relu": (RNN, RELU, rnn_to_keras, rnn_from_keras),
    "lstm": (LSTM, {}, lstm_to_keras, lstm_from_keras),
    "gru": (GRU, {}, gru_to_keras, gru_from_keras),
    "cho": (ChoGRU, {}, cho_gru_to_keras, cho_gru_from_keras),
}


def layer_of(kind, bias=True):
    make, options, _, _ = KINDS[kind]
    return make(3, 5, bias=bias, dtype=F64, **options)


def judge_of(keras, kind, bias, **options):
    layers = keras.layers
    options |= {
        "return_sequences": True,
        "return_state": True,
        "use_bias": bias,
        "dtype": "float64",
        # Otherwise the outputs in the padding repeat the last real one.
        "zero_output_for_mask": True,
    }
    if kind == "lstm":
        return layers.LSTM(5, **options)
    if kind in ("gru", "cho"):
        # Keras's default is True, the form of torch.nn.
        chosen = {} if kind == "gru" else {"reset_after": False}
        return layers.GRU(5, **chosen, **options)
    return layers.SimpleRNN(5, activation=kind, **options)


def assert_same(got, expected):
    """As near as float32: Keras multiplies matrices in it even in a float64 layer."""
    for mine, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize("given", [None, [5, 2, 7, 1]])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_keras_computes_what_the_layer_computes(keras, kind, bias, given):
    layer, judge = layer_of(kind, bias), judge_of(keras, kind, bias)
    to_keras = KINDS[kind][2]
    judge.build((4, 7, 3))
    judge.set_weights(to_keras(layer.cell.state_dict()))
    lengths = None if given is None else torch.tensor(given)
    mask = None if given is None else torch.arange(7) < lengths[:, None]
    values = [torch.randn(4, 7, 3, dtype=F64)]
    values += [torch.randn(4, 5, dtype=F64) for _ in layer.initial_state(1)]

    leaves = [value.clone().requires_grad_() for value in values]
    y, state = layer(leaves[0], layer.cell.state_type(*leaves[1:]), lengths)
    upstream = [torch.randn_like(y), *(torch.randn_like(end) for end in state)]
    own = dict(layer.cell.named_parameters())
    mine = torch.autograd.grad([y, *state], [*leaves, *own.values()], upstream)

    leaves = [value.clone().requires_grad_() for value in values]
    judged, *ends = judge(leaves[0], initial_state=leaves[1:], mask=mask)
    theirs_of = [variable.value for variable in judge.trainable_weights]
    theirs = torch.autograd.grad([judged, *ends], [*leaves, *theirs_of], upstream)

    assert_same([y, *state], [judged, *ends])
    n = len(leaves)
    assert_same(mine[:n], theirs[:n])
    # A gradient is laid out as its weight. Where Keras has the sum of two biases, the
    # gradient of each is that of the sum, and to_keras has added the two.
    gradients = to_keras(dict(zip(own, mine[n:], strict=True)))
    if bias and kind != "gru":
        gradients[2] /= 2
    assert_same([torch.from_numpy(g) for g in gradients], theirs[n:])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_the_layer_computes_what_keras_computes(keras, kind, bias):
    """Keras's own initial weights: orthogonal, with its forget bias of 1."""
    judge, layer = judge_of(keras, kind, bias), layer_of(kind, bias)
    x = torch.randn(4, 7, 3, dtype=F64)
    judged, *ends = judge(x)
    weights = judge.get_weights()
    layer.cell.load_state_dict(KINDS[kind][3](*weights), strict=True)
    y, state = layer(x)
    assert_same([y, *state], [judged, *ends])
    for back, value in zip(
        KINDS[kind][2](layer.cell.state_dict()), weights, strict=True
    ):
        np.testing.assert_array_equal(back, value)
    if kind == "lstm" and bias:
        assert layer.cell.bias_ih[5:10].tolist() == [1.0] * 5
        assert layer.cell.bias_ih.count_nonzero() == 5


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_two_directions_are_two_layers_in_a_row(keras):
    judge = keras.layers.Bidirectional(judge_of(keras, "lstm", True), dtype="float64")
    x = torch.randn(4, 7, 3, dtype=F64)
    lengths = torch.tensor([5, 2, 7, 1])
    judged, *ends = judge(x, mask=torch.arange(7) < lengths[:, None])
    weights = judge.get_weights()
    layer = Bidirectional(layer_of("lstm"), layer_of("lstm"))
    for side, own in (
        (layer.forward_layer, weights[:3]),
        (layer.backward_layer, weights[3:]),
    ):
        side.cell.load_state_dict(lstm_from_keras(*own))
    y, state = layer(x, lengths=lengths)
    assert_same([y, *state.forward, *state.backward], [judged, *ends])


def test_the_two_forms_of_the_gru_differ(keras):
    """Without a bias nothing in the weights tells the forms apart."""
    x = torch.randn(4, 7, 3, dtype=F64)
    weights = gru_to_keras(layer_of("gru", bias=False).cell.state_dict())
    outputs = []
    for kind in ("gru", "cho"):
        judge = judge_of(keras, kind, bias=False)
        judge.build((4, 7, 3))
        judge.set_weights(weights)
        outputs.append(judge(x)[0])
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_round_trips(kind, bias):
    cell = layer_of(kind, bias).cell
    _, _, to_keras, from_keras = KINDS[kind]
    weights = to_keras(cell.state_dict())
    columns = 5 * cell.n_blocks
    shapes = [(3, columns), (5, columns)]
    if bias:
        shapes.append((2, columns) if kind == "gru" else (columns,))
    assert [w.shape for w in weights] == shapes
    assert {type(w) for w in weights} == {np.ndarray}
    assert all(w.flags.c_contiguous for w in weights)
    back = from_keras(*weights)
    assert list(back) == list(cell.state_dict())
    for name, value in cell.state_dict().items():
        if "weight" in name or kind == "gru":
            assert torch.equal(back[name], value), name
    if bias and kind != "gru":
        # How the sum was split is lost.
        assert torch.equal(back["bias_ih"], cell.bias_ih + cell.bias_hh)
        assert not back["bias_hh"].count_nonzero()
    for once, again in zip(weights, to_keras(back), strict=True):
        np.testing.assert_array_equal(once, again)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_sum_of_biases_keeps(kind):
    """The function stays the same, though the parameters do not."""
    layer, other = layer_of(kind), layer_of(kind)
    weights = KINDS[kind][2](layer.cell.state_dict())
    other.cell.load_state_dict(KINDS[kind][3](*weights))
    x = torch.randn(4, 7, 3, dtype=F64)
    torch.testing.assert_close(other(x), layer(x), atol=1e-14, rtol=1e-14)


def test_blocks_stand_where_keras_has_them():
    numbers = torch.arange(4.0)[:, None]
    weights = {"weight_ih": numbers, "weight_hh": numbers}
    # i, f, g, o in both; Keras calls g c.
    assert lstm_to_keras(weights)[0].tolist() == [[0, 1, 2, 3]]
    weights = {"weight_ih": numbers[:3], "weight_hh": numbers[:3]}
    # Ours are r, z, n = 0, 1, 2; Keras's z, r, h.
    assert gru_to_keras(weights)[0].tolist() == [[1, 0, 2]]
    assert cho_gru_to_keras(weights)[1].tolist() == [[1, 0, 2]]


def test_arrays_are_copies():
    cell = seqref.RNNCell(3, 5)
    for array in rnn_to_keras(cell.state_dict()):
        array.fill(0)
    assert all(parameter.count_nonzero() for parameter in cell.parameters())
    kernel = np.ones((3, 5))
    rnn_from_keras(kernel, np.ones((5, 5)))["weight_ih"].zero_()
    assert kernel.all()


@pytest.mark.errors
@pytest.mark.parametrize(
    ("convert", "shapes", "message"),
    [
        (
            gru_from_keras,
            [(3, 15), (5, 15), (15,)],
            r"`bias` must have shape \(biases=2, 3 \* hidden_size=15\), got \(15,\) "
            r"\(one bias is that of reset_after=False: cho_gru_from_keras, ChoGRUCell",
        ),
        (
            cho_gru_from_keras,
            [(3, 15), (5, 15), (2, 15)],
            r"`bias` must have shape \(3 \* hidden_size=15,\), got \(2, 15\) \(two "
            r"biases are those of reset_after=True: gru_from_keras, GRUCell\)$",
        ),
        (
            lstm_from_keras,
            [(3, 20), (5, 20), (2, 20)],
            r"`bias` must have shape \(4 \* hidden_size=20,\), got \(2, 20\)$",
        ),
        (
            gru_from_keras,
            [(3, 15), (5, 15), (30,)],
            r"`bias` must have shape .*, got \(30,\) \(that is the bias of CuDNNGRU in "
            r"Keras 2, whose kernels lie in another order as well",
        ),
        (
            cho_gru_from_keras,
            [(3, 15), (5, 15), (30,)],
            r"`bias` must have shape .*, got \(30,\) \(that is the bias of CuDNNGRU",
        ),
        (
            lstm_from_keras,
            [(3, 20), (5, 20), (40,)],
            r"`bias` must have shape .*, got \(40,\) \(that is the bias of CuDNNLSTM",
        ),
        (
            gru_from_keras,
            [(3, 15), (5, 15), (7,)],
            r"`bias` must have shape \(biases=2, 3 \* hidden_size=15\), got \(7,\)$",
        ),
        (
            lstm_from_keras,
            [(3, 15), (5, 15)],
            r"`recurrent_kernel` must have shape \(hidden_size, 4 \* hidden_size=20\)",
        ),
        (
            rnn_from_keras,
            [(5, 3), (5, 5)],
            r"`kernel` must have shape \(input_size, 1 \* hidden_size=5\), got \(5, 3",
        ),
        (
            gru_from_keras,
            [(3, 15), ()],
            r"`recurrent_kernel` must have shape .*, got \(\)$",
        ),
    ],
)
def test_bad_shapes(convert, shapes, message):
    with pytest.raises(ValueError, match=f"^{convert.__name__}: {message}"):
        convert(*map(np.zeros, shapes))


@pytest.mark.errors
def test_bad_kinds():
    message = r"^lstm_to_keras: `weights` must be the state dict of a cell, got LSTM "
    with pytest.raises(TypeError, match=message):
        lstm_to_keras(LSTM(3, 5))
    message = r"^gru_from_keras: `kernel` must be a tensor or a NumPy array, got list$"
    with pytest.raises(TypeError, match=message):
        gru_from_keras([0.0], np.zeros((5, 15)))
    message = r"^rnn_to_keras: `weight_hh` must have shape \(1 \* hidden_size=5, hidden"
    with pytest.raises(ValueError, match=message):
        rnn_to_keras(seqref.GRUCell(3, 5).state_dict())


def test_what_stands_in_the_padding_under_bidirectional(keras):
    """The page says it: zeros in both halves, though the layers alone repeat."""
    mask = torch.arange(4) < torch.tensor([4, 2])[:, None]
    left = mask.flip(1)
    alone = keras.layers.LSTM(3, return_sequences=True)
    both = keras.layers.Bidirectional(
        keras.layers.LSTM(3, return_sequences=True, zero_output_for_mask=False)
    )
    x = torch.randn(2, 4, 5)
    y = alone(x, mask=mask)
    assert torch.equal(y[1, 2], y[1, 1])
    assert torch.equal(y[1, 3], y[1, 1])
    assert y[1, 1].any()
    assert not alone(x, mask=left)[1, :2].any()
    y = both(x, mask=mask)
    assert not y[1, 2:].any()
    assert y[1, :2].all()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_weights_of_a_keras_layer_in_bfloat16(keras):
    # Its default, orthogonal, is not there in bfloat16 on a CPU.
    start = "glorot_uniform"
    layer = keras.layers.LSTM(5, dtype="bfloat16", recurrent_initializer=start)
    layer.build((None, 4, 3))
    weights = lstm_from_keras(*layer.get_weights())
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    cell = seqref.LSTMCell(3, 5, dtype=torch.bfloat16)
    cell.load_state_dict(weights, strict=True)
    for mine, variable in zip(
        lstm_to_keras({n: p.float() for n, p in weights.items()}),
        layer.trainable_weights,
        strict=True,
    ):
        np.testing.assert_array_equal(mine, variable.value.detach().float().numpy())
