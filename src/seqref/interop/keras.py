r"""Weights of a cell as those of the Keras layers SimpleRNN, LSTM and GRU, and back.

The functions know arrays only; Keras itself is not needed. The layouts are those of
Keras 3. Its layers must have the activations of ours: Keras's own defaults, or for
`SimpleRNN` the ``"relu"`` of an `RNNCell` that has it. Weights do not show them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from seqref.errors import check_shape
from seqref.interop._arrays import (
    Array,
    inverse,
    read_cell,
    reorder,
    to_array,
    to_tensor,
)

# Keras's LSTM has our order, i, f, g, o, and calls g c; its GRU has z, r, n and calls
# n h.
_SAME = (0,)
_IFCO = (0, 1, 2, 3)
_ZRH = (1, 0, 2)


def rnn_to_keras(weights: Mapping[str, Array]) -> list[np.ndarray]:
    r"""Turn the state dict of an `RNNCell` into what `SimpleRNN.set_weights` takes.

    Keras has one bias: the sum of the two. How it was split is lost.

    Args:
        weights: `cell.state_dict()`; tensors or NumPy arrays.

    Shapes:
        - returns: kernel (input, hidden), recurrent kernel (hidden, hidden) and, with
          biases, bias (hidden,)

    Raises:
        ValueError: a name or a shape does not fit.
        TypeError: `weights` is no mapping of floating arrays.

    Source:
        Keras 3, `keras.layers.SimpleRNN`.
    """
    return _to_keras("rnn_to_keras", weights, _SAME, n_biases=1)


def rnn_from_keras(
    kernel: Array, recurrent_kernel: Array, bias: Array | None = None
) -> dict[str, Tensor]:
    r"""Turn what `SimpleRNN.get_weights` returns into the state dict of an `RNNCell`.

    Keras's one bias becomes `bias_ih`; `bias_hh` is zero.

    Args:
        kernel: Weights of the input.
        recurrent_kernel: Weights of the state.
        bias: None for a layer with `use_bias=False`.

    Shapes:
        - `kernel`: (input, hidden); `recurrent_kernel`: (hidden, hidden); `bias`:
          (hidden,)
        - returns: `weight_ih`, `weight_hh` and, with a bias, `bias_ih`, `bias_hh`

    Raises:
        ValueError: a shape does not fit.
        TypeError: something is no floating array.

    Source:
        Keras 3, `keras.layers.SimpleRNN`.
    """
    arrays = (kernel, recurrent_kernel, bias)
    return _from_keras("rnn_from_keras", arrays, _SAME, n_biases=1)


def lstm_to_keras(weights: Mapping[str, Array]) -> list[np.ndarray]:
    r"""Turn the state dict of an `LSTMCell` into what `LSTM.set_weights` takes.

    The blocks keep their order: Keras's i, f, c, o are i, f, g, o. Keras has one bias:
    the sum of the two. How it was split is lost.

    Args:
        weights: `cell.state_dict()`; tensors or NumPy arrays.

    Shapes:
        - returns: kernel (input, 4 × hidden), recurrent kernel (hidden, 4 × hidden)
          and, with biases, bias (4 × hidden,)

    Raises:
        ValueError: a name or a shape does not fit.
        TypeError: `weights` is no mapping of floating arrays.

    Source:
        Keras 3, `keras.layers.LSTM`.
    """
    return _to_keras("lstm_to_keras", weights, _IFCO, n_biases=1)


def lstm_from_keras(
    kernel: Array, recurrent_kernel: Array, bias: Array | None = None
) -> dict[str, Tensor]:
    r"""Turn what `LSTM.get_weights` returns into the state dict of an `LSTMCell`.

    Keras's one bias becomes `bias_ih`; `bias_hh` is zero. `unit_forget_bias` only says
    how the bias began, so nothing needs to be done for it.

    Args:
        kernel: Weights of the input, blocks in the order i, f, c, o.
        recurrent_kernel: Weights of the state.
        bias: None for a layer with `use_bias=False`.

    Shapes:
        - `kernel`: (input, 4 × hidden); `recurrent_kernel`: (hidden, 4 × hidden);
          `bias`: (4 × hidden,)
        - returns: `weight_ih`, `weight_hh` and, with a bias, `bias_ih`, `bias_hh`

    Raises:
        ValueError: a shape does not fit.
        TypeError: something is no floating array.

    Source:
        Keras 3, `keras.layers.LSTM`.
    """
    arrays = (kernel, recurrent_kernel, bias)
    return _from_keras("lstm_from_keras", arrays, _IFCO, n_biases=1)


def gru_to_keras(weights: Mapping[str, Array]) -> list[np.ndarray]:
    r"""Turn the state dict of a `GRUCell` into the weights of a Keras `GRU`.

    The layer must have `reset_after=True`, Keras's default. The blocks r, z, n are put
    in the order z, r, n. This is the one Keras layer with two biases, so nothing is
    lost.

    Args:
        weights: `cell.state_dict()`; tensors or NumPy arrays.

    Shapes:
        - returns: kernel (input, 3 × hidden), recurrent kernel (hidden, 3 × hidden)
          and, with biases, bias (2, 3 × hidden), that on the input first

    Raises:
        ValueError: a name or a shape does not fit.
        TypeError: `weights` is no mapping of floating arrays.

    Source:
        Keras 3, `keras.layers.GRU`.
    """
    return _to_keras("gru_to_keras", weights, _ZRH, n_biases=2)


def gru_from_keras(
    kernel: Array, recurrent_kernel: Array, bias: Array | None = None
) -> dict[str, Tensor]:
    r"""Turn the weights of a Keras `GRU` into the state dict of a `GRUCell`.

    The layer must have `reset_after=True`, Keras's default. A bias shows it by its
    shape; without a bias look at `layer.reset_after`.

    Args:
        kernel: Weights of the input, blocks in the order z, r, h.
        recurrent_kernel: Weights of the state.
        bias: Both biases, or None for a layer with `use_bias=False`.

    Shapes:
        - `kernel`: (input, 3 × hidden); `recurrent_kernel`: (hidden, 3 × hidden);
          `bias`: (2, 3 × hidden)
        - returns: `weight_ih`, `weight_hh` and, with a bias, `bias_ih`, `bias_hh`

    Raises:
        ValueError: a shape does not fit, such as the bias of `reset_after=False`.
        TypeError: something is no floating array.

    Source:
        Keras 3, `keras.layers.GRU`.
    """
    arrays = (kernel, recurrent_kernel, bias)
    return _from_keras("gru_from_keras", arrays, _ZRH, n_biases=2)


def cho_gru_to_keras(weights: Mapping[str, Array]) -> list[np.ndarray]:
    r"""Turn the state dict of a `ChoGRUCell` into the weights of a Keras `GRU`.

    The layer must have `reset_after=False`. The blocks r, z, n are put in the order
    z, r, n. Such a layer has one bias: the sum of the two. How it was split is lost.

    Args:
        weights: `cell.state_dict()`; tensors or NumPy arrays.

    Shapes:
        - returns: kernel (input, 3 × hidden), recurrent kernel (hidden, 3 × hidden)
          and, with biases, bias (3 × hidden,)

    Raises:
        ValueError: a name or a shape does not fit.
        TypeError: `weights` is no mapping of floating arrays.

    Source:
        Keras 3, `keras.layers.GRU`.
    """
    return _to_keras("cho_gru_to_keras", weights, _ZRH, n_biases=1)


def cho_gru_from_keras(
    kernel: Array, recurrent_kernel: Array, bias: Array | None = None
) -> dict[str, Tensor]:
    r"""Turn the weights of a Keras `GRU` into the state dict of a `ChoGRUCell`.

    The layer must have `reset_after=False`. A bias shows it by its shape; without a
    bias look at `layer.reset_after`. The one bias becomes `bias_ih`; `bias_hh` is zero.

    Args:
        kernel: Weights of the input, blocks in the order z, r, h.
        recurrent_kernel: Weights of the state.
        bias: The bias, or None for a layer with `use_bias=False`.

    Shapes:
        - `kernel`: (input, 3 × hidden); `recurrent_kernel`: (hidden, 3 × hidden);
          `bias`: (3 × hidden,)
        - returns: `weight_ih`, `weight_hh` and, with a bias, `bias_ih`, `bias_hh`

    Raises:
        ValueError: a shape does not fit, such as the bias of `reset_after=True`.
        TypeError: something is no floating array.

    Source:
        Keras 3, `keras.layers.GRU`.
    """
    arrays = (kernel, recurrent_kernel, bias)
    return _from_keras("cho_gru_from_keras", arrays, _ZRH, n_biases=1)


def _to_keras(
    where: str, weights: Mapping[str, Array], order: Sequence[int], n_biases: int
) -> list[np.ndarray]:
    ours = read_cell(where, weights, len(order))
    made = {name: reorder(tensor, order) for name, tensor in ours.items()}
    kept = [made["weight_ih"].T, made["weight_hh"].T]
    if "bias_ih" in made:
        both = torch.stack([made["bias_ih"], made["bias_hh"]])
        kept.append(both if n_biases == 2 else both.sum(0))
    return [to_array(where, tensor) for tensor in kept]


def _from_keras(
    where: str,
    arrays: tuple[Array, Array, Array | None],
    order: Sequence[int],
    n_biases: int,
) -> dict[str, Tensor]:
    kernel, recurrent = (
        to_tensor(where, name, array)
        for name, array in zip(("kernel", "recurrent_kernel"), arrays[:2], strict=True)
    )
    hidden, blocks = recurrent.shape[0] if recurrent.dim() else 0, len(order)
    columns = (f"{blocks} * hidden_size", blocks * hidden)
    check_shape(where, "recurrent_kernel", recurrent, (("hidden_size", None), columns))
    check_shape(where, "kernel", kernel, (("input_size", None), columns))
    back = inverse(order)
    made = {
        "weight_ih": reorder(kernel.T, back),
        "weight_hh": reorder(recurrent.T, back),
    }
    if arrays[2] is None:
        return made
    bias = to_tensor(where, "bias", arrays[2])
    axes = (("biases", 2), columns) if n_biases == 2 else (columns,)
    check_shape(where, "bias", bias, axes, _hint(bias, hidden, blocks, n_biases))
    on_input, on_state = bias if n_biases == 2 else (bias, torch.zeros_like(bias))
    made |= {"bias_ih": reorder(on_input, back), "bias_hh": reorder(on_state, back)}
    return made


def _hint(bias: Tensor, hidden: int, blocks: int, n_biases: int) -> str:
    # Of what a bias of another shape is, where the shape shows it.
    one, two = (blocks * hidden,), (2, blocks * hidden)
    shape = tuple(bias.shape)
    if shape == (2 * blocks * hidden,) and blocks > 1:
        former, now = ("CuDNNLSTM", "LSTM") if blocks == 4 else ("CuDNNGRU", "GRU")
        return (
            f"that is the bias of {former} in Keras 2, whose kernels lie in another "
            f"order as well: let Keras 2 load its weights into its {now}"
        )
    if blocks == 3 and n_biases == 2 and shape == one:
        return "one bias is that of reset_after=False: cho_gru_from_keras, ChoGRUCell"
    if blocks == 3 and n_biases == 1 and shape == two:
        return "two biases are those of reset_after=True: gru_from_keras, GRUCell"
    return ""
