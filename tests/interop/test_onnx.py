"""Weights as ONNX wants them, judged by onnxruntime, and back."""

import numpy as np
import pytest
import torch

import seqref
from seqref import (
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    BidirectionalState,
    ChoGRU,
    LSTMState,
)
from seqref.interop import (
    cho_gru_from_onnx,
    cho_gru_to_onnx,
    gru_from_onnx,
    gru_to_onnx,
    lstm_from_onnx,
    lstm_to_onnx,
    rnn_from_onnx,
    rnn_to_onnx,
    state_to_torch,
)

RELU = {"nonlinearity": "relu"}
KINDS = {
    "tanh": ("RNN", RNN, rnn_to_onnx, rnn_from_onnx, {}),
    "relu": ("RNN", RNN, rnn_to_onnx, rnn_from_onnx, RELU),
    "lstm": ("LSTM", LSTM, lstm_to_onnx, lstm_from_onnx, {}),
    "gru": ("GRU", GRU, gru_to_onnx, gru_from_onnx, {}),
    "cho": ("GRU", ChoGRU, cho_gru_to_onnx, cho_gru_from_onnx, {}),
}


def layer_of(kind, bias=True, dtype=torch.float32):
    _, make, _, _, options = KINDS[kind]
    layer = make(3, 5, bias=bias, dtype=dtype, **options)
    with torch.no_grad():
        for parameter in layer.parameters():
            # Wide enough that no gate is idle.
            parameter.mul_(2)
    return layer


def run_node(operator, feeds, n_states, attributes):
    """Run one node on onnxruntime; `feeds` by the names of its inputs."""
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    helper, kinds = onnx.helper, onnx.TensorProto
    slots = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c"]
    slots = slots[: 5 + n_states]
    outputs = ["Y", "Y_h", "Y_c"][: 1 + n_states]
    node = helper.make_node(
        operator, [s if s in feeds else "" for s in slots], outputs, **attributes
    )
    inputs = [
        helper.make_tensor_value_info(
            name,
            kinds.INT32 if value.dtype == np.int32 else kinds.FLOAT,
            value.shape,
        )
        for name, value in feeds.items()
    ]
    results = [
        helper.make_tensor_value_info(n, kinds.FLOAT, [None] * (4 if n == "Y" else 3))
        for n in outputs
    ]
    graph = helper.make_graph([node], "judge", inputs, results)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10
    )
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return [torch.from_numpy(y) for y in session.run(None, feeds)]


def feeds_of(weights, x, states, lengths):
    feeds = {"X": x.transpose(0, 1).numpy().copy(), "W": weights.W, "R": weights.R}
    if weights.B is not None:
        feeds["B"] = weights.B
    for name, value in zip(("initial_h", "initial_c"), states, strict=False):
        feeds[name] = value.numpy()
    if lengths is not None:
        feeds["sequence_lens"] = lengths.to(torch.int32).numpy()
    return feeds


def fields(state):
    ends = state_to_torch(state)
    return ends if isinstance(ends, tuple) else (ends,)


def assert_near(got, expected):
    torch.testing.assert_close(got, expected, atol=3e-6, rtol=2e-5)


@pytest.mark.parametrize("given", [None, [5, 2, 7, 1]])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_onnxruntime_computes_what_the_layer_computes(kind, bias, given):
    operator, _, to_onnx, _, options = KINDS[kind]
    layer = layer_of(kind, bias)
    weights = to_onnx(layer.cell.state_dict(), **options)
    assert (weights.B is not None) == bias
    x = torch.randn(4, 7, 3)
    state = type(layer.initial_state(4))(
        *(torch.randn(4, 5) for _ in layer.initial_state(4))
    )
    lengths = None if given is None else torch.tensor(given)
    feeds = feeds_of(weights, x, fields(state), lengths)
    judged, *ends = run_node(operator, feeds, len(state), weights.attributes)
    with torch.no_grad():
        y, after = layer(x, state, lengths)
    assert_near(y, judged[:, 0].transpose(0, 1))
    for mine, theirs in zip(fields(after), ends, strict=True):
        assert_near(mine, theirs)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_two_directions_are_two_cells_joined(kind):
    operator, _, to_onnx, from_onnx, _ = KINDS[kind]
    layer = Bidirectional(layer_of(kind), layer_of(kind))
    sides = (layer.forward_layer, layer.backward_layer)
    each = [to_onnx(side.cell.state_dict()) for side in sides]
    joined = each[0]._replace(
        **{n: np.concatenate([getattr(w, n) for w in each]) for n in "WRB"}
    )
    attributes = each[0].attributes | {"direction": "bidirectional"}
    x, lengths = torch.randn(4, 7, 3), torch.tensor([5, 2, 7, 1])
    n_states = 2 if kind == "lstm" else 1
    kind_of = sides[0].cell.state_type
    state = BidirectionalState(
        *(kind_of(*torch.randn(n_states, 4, 5)) for _ in range(2))
    )
    feeds = feeds_of(joined, x, fields(state), lengths)
    judged, *ends = run_node(operator, feeds, n_states, attributes)
    with torch.no_grad():
        y, after = layer(x, state, lengths)
    assert_near(y, judged.permute(2, 0, 1, 3).flatten(2))
    for mine, theirs in zip(fields(after), ends, strict=True):
        assert_near(mine, theirs)
    back = from_onnx(joined.W[1:], joined.R[1:], joined.B[1:], attributes)
    assert torch.equal(back["weight_hh"], layer.backward_layer.cell.weight_hh)


def test_the_forms_of_the_gru_are_not_each_other():
    """The attribute decides: with its other value the numbers are other ones."""
    layer = layer_of("gru")
    weights = gru_to_onnx(layer.cell.state_dict())
    x = torch.randn(4, 7, 3)
    feeds = feeds_of(weights, x, (torch.zeros(1, 4, 5),), None)
    right, _ = run_node("GRU", feeds, 1, weights.attributes)
    wrong, _ = run_node(
        "GRU", feeds, 1, weights.attributes | {"linear_before_reset": 0}
    )
    y = layer(x)[0].detach().transpose(0, 1)
    assert_near(y, right[:, 0])
    assert (y - wrong[:, 0]).abs().max() > 1e-2


@pytest.mark.parametrize("arrays", [False, True])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_round_trips_are_exact(kind, bias, arrays):
    _, _, to_onnx, from_onnx, options = KINDS[kind]
    cell = layer_of(kind, bias, torch.float64).cell
    given = cell.state_dict()
    if arrays:
        given = {name: value.numpy() for name, value in given.items()}
    weights = to_onnx(given, **options)
    blocks = cell.n_blocks
    assert weights.W.shape == (1, blocks * 5, 3)
    assert weights.R.shape == (1, blocks * 5, 5)
    assert weights.W.dtype == np.float64
    if bias:
        assert weights.B.shape == (1, 2 * blocks * 5)
    back = from_onnx(*weights, **options)
    fresh = layer_of(kind, bias, torch.float64).cell
    fresh.load_state_dict(back, strict=True)
    for name, value in cell.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value), name


def test_blocks_stand_where_onnx_has_them():
    numbers = torch.arange(4.0)[:, None]
    weights = {"weight_ih": numbers, "weight_hh": numbers}
    # Ours are i, f, g, o = 0, 1, 2, 3; ONNX's i, o, f, c.
    assert lstm_to_onnx(weights).W.flatten().tolist() == [0, 3, 1, 2]
    weights = {"weight_ih": numbers[:3], "weight_hh": numbers[:3]}
    # Ours are r, z, n = 0, 1, 2; ONNX's z, r, h.
    assert gru_to_onnx(weights).R.flatten().tolist() == [1, 0, 2]
    assert cho_gru_to_onnx(weights).R.flatten().tolist() == [1, 0, 2]


def test_arrays_are_copies():
    cell = seqref.RNNCell(3, 5)
    weights = rnn_to_onnx(cell.state_dict())
    weights.W.fill(0)
    weights.R.fill(0)
    weights.B.fill(0)
    assert all(parameter.count_nonzero() for parameter in cell.parameters())
    back = rnn_from_onnx(*weights)
    for tensor in back.values():
        tensor.add_(1)
    assert not weights.W.any()
    assert not weights.B.any()


def test_read_only_and_reversed_arrays_are_read():
    W, R = np.random.default_rng(0).normal(size=(2, 1, 5, 5))
    W.flags.writeable = False
    back = rnn_from_onnx(W, R[:, ::-1])
    np.testing.assert_array_equal(back["weight_ih"], W[0])
    np.testing.assert_array_equal(back["weight_hh"], R[0, ::-1])


def test_attributes_as_onnx_gives_them():
    """Strings come as bytes; two directions name their activations twice."""
    W, R = np.zeros((1, 20, 3)), np.zeros((1, 20, 5))
    names = [b"Sigmoid", b"Tanh", b"Tanh"]
    node = {
        "hidden_size": 5,
        "direction": b"bidirectional",
        "activations": 2 * names,
        "input_forget": 0,
        "layout": 1,
    }
    assert lstm_from_onnx(W, R, None, node)["weight_ih"].shape == (20, 3)
    assert lstm_from_onnx(W, R, P=np.zeros((1, 15)))["weight_hh"].shape == (20, 5)
    relu = {"activations": ["Relu"]}
    assert rnn_from_onnx(W[:, :5], R[:, :5], None, relu, nonlinearity="relu")


def zeros(*shape):
    return np.zeros((1, *shape))


@pytest.mark.errors
@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            {"clip": 3.0},
            r"`attributes\['clip'\]` must be None, since no layer .* 3\.0$",
        ),
        (
            {"input_forget": 1},
            r"`attributes\['input_forget'\]` must be 0, since .* tie its .*, got 1$",
        ),
        (
            {"activations": [b"HardSigmoid", b"Tanh", b"Tanh"]},
            r"`attributes\['activations'\]` must be \['Sigmoid', 'Tanh', 'Tanh'\], "
            r"since .*, got \['HardSigmoid', 'Tanh', 'Tanh'\]$",
        ),
        (
            {"hidden_size": 4},
            r"`attributes\['hidden_size'\]` must be 5, since .* axis of `R`, got 4$",
        ),
        ({"axis": 1}, r"`attributes` must be those of the operator, got axis$"),
    ],
)
def test_attributes_without_equal_are_refused(attributes, message):
    with pytest.raises(ValueError, match="^lstm_from_onnx: " + message):
        lstm_from_onnx(zeros(20, 3), zeros(20, 5), None, attributes)


@pytest.mark.errors
def test_peepholes_are_refused():
    P = zeros(15)
    P[0, 3:5] = 1
    message = (
        r"^lstm_from_onnx: `P` must be None or zero, since an LSTMCell has no "
        r"peepholes .*, got 2 weights that are not zero$"
    )
    with pytest.raises(ValueError, match=message):
        lstm_from_onnx(zeros(20, 3), zeros(20, 5), P=P)
    with pytest.raises(
        ValueError, match=r"`P` must have shape \(directions=1, 3 \* hid"
    ):
        lstm_from_onnx(zeros(20, 3), zeros(20, 5), P=zeros(10))


@pytest.mark.errors
@pytest.mark.parametrize(
    ("convert", "attributes", "wanted"),
    [
        (gru_from_onnx, None, 1),
        (gru_from_onnx, {"hidden_size": 5}, 1),
        (gru_from_onnx, {"linear_before_reset": 0}, 1),
        (cho_gru_from_onnx, {"linear_before_reset": 1}, 0),
        (cho_gru_from_onnx, {"linear_before_reset": 2}, 0),
    ],
)
def test_the_other_form_of_the_gru_is_refused(convert, attributes, wanted):
    message = (
        rf"`attributes\['linear_before_reset'\]` must be {wanted}, since 0, ONNX's "
        r"default, resets before the product \(cho_gru_from_onnx, ChoGRUCell\), any"
    )
    with pytest.raises(ValueError, match=message):
        convert(zeros(15, 3), zeros(15, 5), None, attributes)
    fits = {"linear_before_reset": wanted}
    assert convert(zeros(15, 3), zeros(15, 5), None, fits)


@pytest.mark.errors
def test_the_other_nonlinearity_is_refused():
    arrays = (zeros(5, 3), zeros(5, 5), None)
    for options, attributes in (
        ({}, {"activations": ["Relu"]}),
        (RELU, {"activations": ["Tanh"]}),
        # A node that does not say has tanh.
        (RELU, {}),
        (RELU, None),
    ):
        with pytest.raises(ValueError, match=r"`attributes\['activations'\]` must be"):
            rnn_from_onnx(*arrays, attributes, **options)
    for convert in (
        lambda **chosen: rnn_from_onnx(*arrays, **chosen),
        lambda **chosen: rnn_to_onnx(seqref.RNNCell(3, 5).state_dict(), **chosen),
    ):
        with pytest.raises(ValueError, match=r"`nonlinearity` must be one of 'tanh', "):
            convert(nonlinearity="gelu")


@pytest.mark.errors
@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ((zeros(20, 3), zeros(20, 4)), ValueError, r"`R` must have shape .*4 \* hid"),
        ((zeros(16, 3), zeros(20, 5)), ValueError, r"`W` .* \* hidden_size=20, input"),
        ((zeros(20), zeros(20, 5)), ValueError, r"`W` must have shape .* \(1, 20\)$"),
        ((np.zeros(()), zeros(20, 5)), ValueError, r"`W` must have .* got \(\)$"),
        ((zeros(20, 3), np.zeros(())), ValueError, r"`R` must have .* got \(\)$"),
        (
            (np.zeros((2, 20, 3)), np.zeros((2, 20, 5))),
            ValueError,
            r"got \(2, 20, 5\) \(two directions\? convert each: W\[:1\], then W\[1:\]",
        ),
        (
            (zeros(20, 3), zeros(20, 5), zeros(20)),
            ValueError,
            r"`B` must have shape \(.*, 8 \* hidden_size=40\), got \(1, 20\)$",
        ),
        (([[0.0]], zeros(20, 5)), TypeError, r"`W` must be a tensor or .* got list$"),
        (
            (zeros(20, 3), zeros(20, 5).astype(int)),
            TypeError,
            r"`R` must have dtype float16, .*, got int64 \(convert with",
        ),
        (
            (zeros(20, 3), zeros(20, 5).astype(np.longdouble)),
            TypeError,
            r"`R` must have dtype float16, float32, float64 or bfloat16, got \w+ \(con",
        ),
        (
            (zeros(20, 3), torch.zeros(1, 20, 5, dtype=torch.int32)),
            TypeError,
            r"`R` must have a floating dtype, got torch\.int32$",
        ),
    ],
)
def test_bad_arrays(arrays, error, message):
    with pytest.raises(error, match="^lstm_from_onnx: .*" + message):
        lstm_from_onnx(*arrays)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (seqref.LSTMCell(3, 5), TypeError, r"got LSTMCell \(pass cell\.state_dict\(\)"),
        (
            LSTM(3, 5).state_dict(),
            ValueError,
            r"names weight_ih, .* got cell\.weight_ih, .* pass layer\.cell\.state_dict",
        ),
        (torch.nn.LSTM(3, 5).state_dict(), ValueError, r"from_torch\(module\)\.cell"),
        ({}, ValueError, r"got none "),
        (
            {"weight_ih": torch.zeros(20, 3), "bias_ih": torch.zeros(20)},
            ValueError,
            r"got weight_ih, bias_ih ",
        ),
        (
            seqref.GRUCell(3, 5).state_dict(),
            ValueError,
            r"`weight_hh` must have shape \(4 \* hidden_size=20, hidden_size\), got",
        ),
        (
            {n: p.bfloat16() for n, p in seqref.LSTMCell(3, 5).state_dict().items()},
            TypeError,
            r"dtype that NumPy has, got torch\.bfloat16 \(convert with \.float\(\)\)$",
        ),
        (
            {"weight_ih": torch.zeros(20, 3), "weight_hh": None},
            TypeError,
            r"`weight_hh` must be a tensor or a NumPy array, got NoneType$",
        ),
    ],
)
def test_bad_weights(weights, error, message):
    with pytest.raises(error, match="^lstm_to_onnx: .*" + message):
        lstm_to_onnx(weights)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_onnxruntime_drops_the_state_of_a_row_without_steps(kind):
    """The page says so; every other row agrees."""
    operator, _, to_onnx, _, _ = KINDS[kind]
    layer = layer_of(kind)
    weights = to_onnx(layer.cell.state_dict())
    x, lengths = torch.randn(3, 4, 3), torch.tensor([4, 0, 2])
    state = layer.cell.state_type(*torch.randn(len(layer.initial_state(1)), 3, 5))
    feeds = feeds_of(weights, x, fields(state), lengths)
    judged, *ends = run_node(operator, feeds, len(state), weights.attributes)
    with torch.no_grad():
        y, after = layer(x, state, lengths)
    assert_near(y, judged[:, 0].transpose(0, 1))
    for kept, mine, theirs in zip(state, fields(after), ends, strict=True):
        assert_near(mine[:, ::2], theirs[:, ::2])
        assert torch.equal(mine[0, 1], kept[1])
        assert not theirs[0, 1].any()


@pytest.mark.parametrize("names", [["sigmoid", "tanh"], [b"SIGMOID", "TanH"]])
def test_names_of_activations_in_any_case(names):
    """onnxruntime takes them so, and computes the same."""
    layer = layer_of("gru")
    weights = gru_to_onnx(layer.cell.state_dict())
    given = weights.attributes | {"activations": names}
    x = torch.randn(2, 4, 3)
    feeds = feeds_of(weights, x, (torch.zeros(1, 2, 5),), None)
    written = given | {
        "activations": [n if isinstance(n, str) else "SIGMOID" for n in names]
    }
    judged, _ = run_node("GRU", feeds, 1, written)
    assert_near(layer(x)[0].detach().transpose(0, 1), judged[:, 0])
    back = gru_from_onnx(weights.W, weights.R, weights.B, given)
    assert torch.equal(back["weight_ih"], layer.cell.weight_ih)
    with pytest.raises(ValueError, match=r"`attributes\['activations'\]` must be"):
        gru_from_onnx(
            weights.W, weights.R, weights.B, {**given, "activations": ["relu", "tanh"]}
        )


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_onnxruntime_has_no_float64_recurrences(kind):
    """A session is made, and its first run fails: the page says to convert first."""
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    operator, _, to_onnx, _, _ = KINDS[kind]
    weights = to_onnx(layer_of(kind, dtype=torch.float64).cell.state_dict())
    feeds = {"X": np.zeros((2, 1, 3)), "W": weights.W, "R": weights.R, "B": weights.B}
    helper, double = onnx.helper, onnx.TensorProto.DOUBLE
    node = helper.make_node(operator, list(feeds), ["Y"], **weights.attributes)
    inputs = [
        helper.make_tensor_value_info(n, double, a.shape) for n, a in feeds.items()
    ]
    outputs = [helper.make_tensor_value_info("Y", double, None)]
    graph = helper.make_graph([node], "float64", inputs, outputs)
    opset = [helper.make_opsetid("", 22)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    with pytest.raises(Exception, match="does not support double"):
        session.run(None, feeds)
    converted = {n: p.float() for n, p in layer_of(kind).cell.state_dict().items()}
    assert to_onnx(converted).W.dtype == np.float32


@pytest.mark.parametrize("stored", ["<f4", ">f4", ">f8", "<f2"])
def test_arrays_of_either_byte_order(stored):
    W, R = np.arange(60.0).reshape(1, 20, 3), np.ones((1, 20, 5))
    weight = lstm_from_onnx(W.astype(stored), R.astype(stored))["weight_ih"]
    expected = lstm_from_onnx(W, R)["weight_ih"]
    assert torch.equal(weight.double(), expected)
    assert weight.element_size() == np.dtype(stored).itemsize


def test_bfloat16_arrays_of_ml_dtypes():
    """What onnx.numpy_helper and Keras under the policy bfloat16 give."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    W, R = np.linspace(-2, 2, 60).reshape(1, 20, 3), np.ones((1, 20, 5))
    low = [array.astype(ml_dtypes.bfloat16) for array in (W, R)]
    weight = lstm_from_onnx(*low)["weight_ih"]
    assert weight.dtype == torch.bfloat16
    exact = [array.astype(np.float64) for array in low]
    assert torch.equal(weight.double(), lstm_from_onnx(*exact)["weight_ih"])
    message = r"`W` must have dtype .* or bfloat16, got float8_e4m3fn \(convert with"
    with pytest.raises(TypeError, match=message):
        lstm_from_onnx(W.astype(ml_dtypes.float8_e4m3fn), R)


def test_a_state_of_one_layer_is_onnx_initial_state():
    h_n, c_n = state_to_torch(LSTMState(torch.ones(2, 5), torch.zeros(2, 5)))
    assert h_n.shape == c_n.shape == (1, 2, 5)
