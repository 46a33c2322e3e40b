r"""Weights of a cell as inputs of the ONNX operators RNN, LSTM and GRU, and back.

The functions know arrays only; ONNX itself is not needed. Equations and layouts are
those of the operators of version 22.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqref.errors import check_choice, check_shape
from seqref.interop._arrays import (
    Array,
    inverse,
    read_cell,
    reorder,
    to_array,
    to_tensor,
)

# Which of our blocks stand where in ONNX: ours are i, f, g, o and r, z, n.
_IOFC = (0, 3, 1, 2)
_ZRH = (1, 0, 2)
_ACTIVATIONS = {"tanh": "Tanh", "relu": "Relu"}
# Where a node stands and how its input lies: nothing of it concerns the weights.
_FREE = ("direction", "layout", "activation_alpha", "activation_beta")


class OnnxWeights(NamedTuple):
    r"""The inputs of an ONNX node for one direction, and the attributes it needs.

    `W` is (1, blocks × hidden, input), `R` (1, blocks × hidden, hidden) and `B`
    (1, 2 × blocks × hidden), first the bias on the input, then that on the state; None
    without biases. Arrays of two directions are joined along the first axis, forward
    first.
    """

    W: np.ndarray
    R: np.ndarray
    B: np.ndarray | None
    attributes: dict[str, Any]


def rnn_to_onnx(
    weights: Mapping[str, Array], *, nonlinearity: str = "tanh"
) -> OnnxWeights:
    r"""Turn the state dict of an `RNNCell` into the inputs of the operator RNN.

    Args:
        weights: `cell.state_dict()`; tensors or NumPy arrays.
        nonlinearity: The cell's: ``"tanh"`` or ``"relu"``.

    Raises:
        ValueError: a name or a shape does not fit; `nonlinearity` is unknown.
        TypeError: `weights` is no mapping of floating arrays.

    Source:
        ONNX, operator RNN, version 22.
    """
    where = "rnn_to_onnx"
    check_choice(where, "nonlinearity", nonlinearity, tuple(_ACTIVATIONS))
    activations = [_ACTIVATIONS[nonlinearity]]
    return _to_onnx(where, weights, (0,), {"activations": activations})


def rnn_from_onnx(
    W: Array,
    R: Array,
    B: Array | None = None,
    attributes: Mapping[str, Any] | None = None,
    *,
    nonlinearity: str = "tanh",
) -> dict[str, Tensor]:
    r"""Turn the inputs of the operator RNN into the state dict of an `RNNCell`.

    Args:
        W: Weights of the input, one direction.
        R: Weights of the state.
        B: Both biases, or None.
        attributes: Those of the node; what has no equal raises. `direction` and
            `layout` do not concern the weights and are passed over.
        nonlinearity: That of the cell that is to take the weights.

    Shapes:
        - `W`: (1, hidden, input); `R`: (1, hidden, hidden); `B`: (1, 2 × hidden)
        - returns: `weight_ih`, `weight_hh` and, with `B`, `bias_ih`, `bias_hh`

    Raises:
        ValueError: a shape does not fit; an attribute has no equal here, as `clip` or
            other activations.
        TypeError: something is no floating array.

    Source:
        ONNX, operator RNN, version 22.
    """
    where = "rnn_from_onnx"
    check_choice(where, "nonlinearity", nonlinearity, tuple(_ACTIVATIONS))
    wanted = {"activations": [_ACTIVATIONS[nonlinearity]]}
    return _from_onnx(where, (W, R, B), (0,), attributes, wanted)


def lstm_to_onnx(weights: Mapping[str, Array]) -> OnnxWeights:
    r"""Turn the state dict of an `LSTMCell` into the inputs of the operator LSTM.

    The blocks i, f, g, o are put in the order i, o, f, c; ONNX calls the candidate c.

    Args:
        weights: `cell.state_dict()`; tensors or NumPy arrays.

    Raises:
        ValueError: a name or a shape does not fit.
        TypeError: `weights` is no mapping of floating arrays.

    Source:
        ONNX, operator LSTM, version 22.
    """
    return _to_onnx("lstm_to_onnx", weights, _IOFC, {})


def lstm_from_onnx(
    W: Array,
    R: Array,
    B: Array | None = None,
    attributes: Mapping[str, Any] | None = None,
    *,
    P: Array | None = None,
) -> dict[str, Tensor]:
    r"""Turn the inputs of the operator LSTM into the state dict of an `LSTMCell`.

    Args:
        W: Weights of the input, one direction, blocks in the order i, o, f, c.
        R: Weights of the state.
        B: Both biases, or None.
        attributes: Those of the node; what has no equal raises. `direction` and
            `layout` do not concern the weights and are passed over.
        P: The node's peephole weights: None, or zeros, which do nothing.

    Shapes:
        - `W`: (1, 4 × hidden, input); `R`: (1, 4 × hidden, hidden); `B`:
          (1, 8 × hidden); `P`: (1, 3 × hidden)
        - returns: `weight_ih`, `weight_hh` and, with `B`, `bias_ih`, `bias_hh`

    Raises:
        ValueError: a shape does not fit; `P` is not zero; an attribute has no equal
            here, as `input_forget`, `clip` or other activations.
        TypeError: something is no floating array.

    Source:
        ONNX, operator LSTM, version 22.
    """
    where = "lstm_from_onnx"
    wanted = {"activations": ["Sigmoid", "Tanh", "Tanh"], "input_forget": 0}
    made = _from_onnx(where, (W, R, B), _IOFC, attributes, wanted)
    if P is not None:
        peepholes = to_tensor(where, "P", P)
        rows = ("3 * hidden_size", 3 * made["weight_hh"].shape[1])
        check_shape(where, "P", peepholes, (("directions", 1), rows))
        if peepholes.count_nonzero():
            raise ValueError(
                f"{where}: `P` must be None or zero, since an LSTMCell has no "
                "peepholes (weights from the cell state to the gates), got "
                f"{int(peepholes.count_nonzero())} weights that are not zero"
            )
    return made


def gru_to_onnx(weights: Mapping[str, Array]) -> OnnxWeights:
    r"""Turn the state dict of a `GRUCell` into the inputs of the operator GRU.

    The blocks r, z, n are put in the order z, r, h; ONNX calls the candidate h. The
    node must have `linear_before_reset` = 1, as the attributes say: ONNX's default, 0,
    is the cell of `cho_gru_to_onnx`.

    Args:
        weights: `cell.state_dict()`; tensors or NumPy arrays.

    Raises:
        ValueError: a name or a shape does not fit.
        TypeError: `weights` is no mapping of floating arrays.

    Source:
        ONNX, operator GRU, version 22.
    """
    return _to_onnx("gru_to_onnx", weights, _ZRH, {"linear_before_reset": 1})


def cho_gru_to_onnx(weights: Mapping[str, Array]) -> OnnxWeights:
    r"""Turn the state dict of a `ChoGRUCell` into the inputs of the operator GRU.

    The arrays are laid out as in `gru_to_onnx`; the node has `linear_before_reset` = 0.

    Args:
        weights: `cell.state_dict()`; tensors or NumPy arrays.

    Raises:
        ValueError: a name or a shape does not fit.
        TypeError: `weights` is no mapping of floating arrays.

    Source:
        ONNX, operator GRU, version 22.
    """
    return _to_onnx("cho_gru_to_onnx", weights, _ZRH, {"linear_before_reset": 0})


def gru_from_onnx(
    W: Array,
    R: Array,
    B: Array | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> dict[str, Tensor]:
    r"""Turn the inputs of the operator GRU into the state dict of a `GRUCell`.

    Args:
        W: Weights of the input, one direction, blocks in the order z, r, h.
        R: Weights of the state.
        B: Both biases, or None.
        attributes: Those of the node. `linear_before_reset` must be there and not 0,
            since a node without it is a `ChoGRUCell`; what has no equal raises.
            `direction` and `layout` do not concern the weights and are passed over.

    Shapes:
        - `W`: (1, 3 × hidden, input); `R`: (1, 3 × hidden, hidden); `B`:
          (1, 6 × hidden)
        - returns: `weight_ih`, `weight_hh` and, with `B`, `bias_ih`, `bias_hh`

    Raises:
        ValueError: a shape does not fit; the node resets before the product; another
            attribute has no equal here, as `clip` or other activations.
        TypeError: something is no floating array.

    Source:
        ONNX, operator GRU, version 22.
    """
    wanted = {"activations": ["Sigmoid", "Tanh"], "linear_before_reset": 1}
    return _from_onnx("gru_from_onnx", (W, R, B), _ZRH, attributes, wanted)


def cho_gru_from_onnx(
    W: Array,
    R: Array,
    B: Array | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> dict[str, Tensor]:
    r"""Turn the inputs of the operator GRU into the state dict of a `ChoGRUCell`.

    Args:
        W: Weights of the input, one direction, blocks in the order z, r, h.
        R: Weights of the state.
        B: Both biases, or None.
        attributes: Those of the node. `linear_before_reset` must be 0 or missing, which
            is the same; what has no equal raises. `direction` and `layout` do not
            concern the weights and are passed over.

    Shapes:
        - `W`: (1, 3 × hidden, input); `R`: (1, 3 × hidden, hidden); `B`:
          (1, 6 × hidden)
        - returns: `weight_ih`, `weight_hh` and, with `B`, `bias_ih`, `bias_hh`

    Raises:
        ValueError: a shape does not fit; the node resets after the product; another
            attribute has no equal here, as `clip` or other activations.
        TypeError: something is no floating array.

    Source:
        ONNX, operator GRU, version 22.
    """
    wanted = {"activations": ["Sigmoid", "Tanh"], "linear_before_reset": 0}
    return _from_onnx("cho_gru_from_onnx", (W, R, B), _ZRH, attributes, wanted)


def _to_onnx(
    where: str,
    weights: Mapping[str, Array],
    order: Sequence[int],
    attributes: dict[str, Any],
) -> OnnxWeights:
    ours = read_cell(where, weights, len(order))
    made = {name: reorder(tensor, order) for name, tensor in ours.items()}
    W, R = (to_array(where, made[n][None]) for n in ("weight_ih", "weight_hh"))
    B = None
    if "bias_ih" in made:
        both = torch.cat([made["bias_ih"], made["bias_hh"]])
        B = to_array(where, both[None])
    return OnnxWeights(W, R, B, {"hidden_size": R.shape[2], **attributes})


def _from_onnx(
    where: str,
    arrays: tuple[Array, Array, Array | None],
    order: Sequence[int],
    attributes: Mapping[str, Any] | None,
    wanted: Mapping[str, Any],
) -> dict[str, Tensor]:
    W, R = (to_tensor(where, n, a) for n, a in zip("WR", arrays[:2], strict=True))
    hint = (
        "two directions? convert each: W[:1], then W[1:]" if W.shape[:1] == (2,) else ""
    )
    one, blocks, hidden = ("directions", 1), len(order), R.shape[-1] if R.dim() else 0
    rows = (f"{blocks} * hidden_size", blocks * hidden)
    check_shape(where, "R", R, (one, rows, ("hidden_size", None)), hint)
    check_shape(where, "W", W, (one, rows, ("input_size", None)), hint)
    _check_attributes(where, attributes or {}, {**wanted, "hidden_size": hidden})
    back = inverse(order)
    made = {"weight_ih": reorder(W[0], back), "weight_hh": reorder(R[0], back)}
    if arrays[2] is not None:
        B = to_tensor(where, "B", arrays[2])
        both = (f"{2 * blocks} * hidden_size", 2 * blocks * hidden)
        check_shape(where, "B", B, (one, both), hint)
        for name, half in zip(("bias_ih", "bias_hh"), B[0].chunk(2), strict=True):
            made[name] = reorder(half, back)
    return made


_REASONS = {
    "activations": "no layer of seqref has other ones",
    "clip": "no layer of seqref bounds what goes into its activations",
    "hidden_size": "that is the last axis of `R`",
    "input_forget": "an LSTMCell does not tie its forget gate to its input gate",
    "linear_before_reset": (
        "0, ONNX's default, resets before the product (cho_gru_from_onnx, ChoGRUCell), "
        "any other value after it (gru_from_onnx, GRUCell)"
    ),
}


def _check_attributes(
    where: str, attributes: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
    unknown = set(attributes) - set(wanted) - {*_FREE, "clip"}
    if unknown:
        raise ValueError(
            f"{where}: `attributes` must be those of the operator, got "
            f"{', '.join(sorted(unknown))}"
        )
    if attributes.get("clip") is not None:
        wanted = {**wanted, "clip": None}
    # What a node does not say has ONNX's default.
    given = {"linear_before_reset": 0, **attributes}
    for name, value in wanted.items():
        default = ["Tanh"] if value == ["Relu"] else value
        got = given.get(name, default)
        if name == "activations":
            # Runtimes take the names in any case.
            got = [each.decode() if isinstance(each, bytes) else each for each in got]
            names = [each.lower() for each in got]
            usual = [each.lower() for each in value]
            # A node of two directions names them twice.
            fits = names in (usual, 2 * usual)
        elif name == "linear_before_reset":
            fits = bool(got) == bool(value)
        else:
            fits = got == value
        if not fits:
            raise ValueError(
                f"{where}: `attributes[{name!r}]` must be {value}, since "
                f"{_REASONS[name]}, got {got}"
            )
