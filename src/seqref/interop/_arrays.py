r"""A cell's weights as arrays: their names, shapes, and blocks in another order."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from seqref.errors import check_shape
from seqref.interop._copies import names_of
from seqref.interop._grid import qualified_name

Array = Tensor | np.ndarray
# Those that torch has too.
_DTYPES = tuple(np.dtype(kind) for kind in (np.float16, np.float32, np.float64))


def to_tensor(where: str, name: str, value: object) -> Tensor:
    r"""On the CPU, cut off from any graph; the numbers as they are.

    Raises:
        TypeError: `value` is no tensor or NumPy array, or of a dtype other than
            float16, float32, float64 and bfloat16.
    """
    if not isinstance(value, Tensor | np.ndarray):
        raise TypeError(
            f"{where}: `{name}` must be a tensor or a NumPy array, got "
            f"{qualified_name(value)}"
        )
    if isinstance(value, np.ndarray):
        return _from_numpy(where, name, value)
    if not value.is_floating_point():
        raise TypeError(
            f"{where}: `{name}` must have a floating dtype, got {value.dtype}"
        )
    return value.detach().cpu()


def _from_numpy(where: str, name: str, value: np.ndarray) -> Tensor:
    # bfloat16 is no dtype of NumPy's own: packages as ml_dtypes register theirs.
    if value.dtype.name == "bfloat16" and value.dtype.itemsize == 2:
        bits = np.array(value, order="C").view(np.int16)
        return torch.from_numpy(bits).view(torch.bfloat16)
    if value.dtype.newbyteorder("=") not in _DTYPES:
        raise TypeError(
            f"{where}: `{name}` must have dtype {', '.join(map(str, _DTYPES))} or "
            f"bfloat16, got {value.dtype} (convert with .astype(numpy.float32))"
        )
    # A copy first: an array that is read-only would make torch warn. In the machine's
    # order of bytes, the one that torch takes.
    return torch.from_numpy(np.array(value, value.dtype.newbyteorder("="), order="C"))


def to_array(where: str, tensor: Tensor) -> np.ndarray:
    r"""As a NumPy array of its own memory.

    Raises:
        TypeError: NumPy lacks the dtype, as bfloat16.
    """
    if tensor.dtype == torch.bfloat16:
        raise TypeError(
            f"{where}: `weights` must have a dtype that NumPy has, got "
            f"{tensor.dtype} (convert with .float())"
        )
    return tensor.contiguous().numpy()


def read_cell(
    where: str, weights: Mapping[str, Array], n_blocks: int
) -> dict[str, Tensor]:
    r"""The state dict of a cell as tensors, checked.

    Raises:
        TypeError: `weights` is no mapping, or a value is no floating array.
        ValueError: a name is missing or unknown, or a shape does not fit.
    """
    if not isinstance(weights, Mapping):
        raise TypeError(
            f"{where}: `weights` must be the state dict of a cell, got "
            f"{qualified_name(weights)} (pass cell.state_dict())"
        )
    has_bias = "bias_ih" in weights or "bias_hh" in weights
    if set(weights) != set(names_of(has_bias)):
        raise ValueError(
            f"{where}: `weights` must have the names {', '.join(names_of(True))}, or "
            f"the first two, got {', '.join(map(str, weights)) or 'none'} "
            "(for a layer of seqref pass layer.cell.state_dict(), for one of torch.nn "
            "from_torch(module).cell.state_dict())"
        )
    made = {n: to_tensor(where, n, weights[n]) for n in names_of(has_bias)}
    hidden = made["weight_hh"].shape[-1]
    rows = (f"{n_blocks} * hidden_size", n_blocks * hidden)
    check_shape(where, "weight_hh", made["weight_hh"], (rows, ("hidden_size", None)))
    check_shape(where, "weight_ih", made["weight_ih"], (rows, ("input_size", None)))
    for name in names_of(has_bias)[2:]:
        check_shape(where, name, made[name], (rows,))
    return made


def reorder(tensor: Tensor, order: Sequence[int]) -> Tensor:
    r"""A copy with the blocks of the first axis in another order.

    Shapes:
        - `tensor`: (blocks × hidden, ...), with as many blocks as `order` is long
        - returns: as `tensor`
    """
    blocks = tensor.chunk(len(order))
    return torch.cat([blocks[k] for k in order])


def inverse(order: Sequence[int]) -> list[int]:
    r"""The order that puts blocks back."""
    return [list(order).index(k) for k in range(len(order))]
