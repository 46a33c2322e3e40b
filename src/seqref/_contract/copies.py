r"""The copy of a module that is under test, in the dtype of the check."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

COMPLEX = {torch.float64: torch.complex128, torch.float32: torch.complex64}
DTYPES = tuple(COMPLEX)


def check_dtype(where: str, dtype: torch.dtype) -> None:
    r"""Raise `ValueError` unless a check can be run in a dtype."""
    if dtype not in DTYPES:
        raise ValueError(
            f"{where}: `dtype` must be torch.float64 or torch.float32, got {dtype}"
        )


def copied(where: str, module: nn.Module, dtype: torch.dtype) -> nn.Module:
    r"""A copy in evaluation mode; what it holds in floating point is of `dtype`."""
    try:
        return converted(module, dtype).eval()
    except Exception as error:
        error.add_note(
            f"{where} could not copy the model. As a function, `lambda x: model(x)`, "
            "it is taken as it is, in its own dtype and mode: call `eval()` first."
        )
        raise


def parameters_of(module: nn.Module) -> tuple[set[str], bool]:
    r"""Names of parameters, and whether some are made by the first call."""
    parameters = dict(module.named_parameters())
    return set(parameters), any(is_lazy(p) for p in parameters.values())


def converted(module: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    r"""A copy in the mode that the module is in, in `dtype` and without gradients.

    None leaves each tensor its own dtype.
    """
    held = {id(t) for t in (*module.parameters(), *module.buffers())}
    # Tensors that are plain attributes: a state that was kept, a table of positions.
    loose = [t for child in module.modules() for t in _tensors(vars(child))]
    memo: dict[int, Any] = {
        id(t): in_dtype(t.detach().clone(), dtype) for t in loose if id(t) not in held
    }
    made = copy.deepcopy(module, memo)
    for tensor in (*made.parameters(), *made.buffers()):
        tensor.data = in_dtype(tensor.data, dtype)
        tensor.grad = None
    return made


def in_dtype(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    r"""The tensor in a dtype, if there is one and it is no integer; else as it is."""
    if dtype is None:
        return tensor
    if tensor.is_complex():
        return tensor.to(COMPLEX[dtype])
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in _tensors(part)]
    return []
