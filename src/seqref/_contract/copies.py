r"""The copy of a module that is under test, in the dtype of the check."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from seqref._contract.subject import COMPLEX


def copied(where: str, module: nn.Module, dtype: torch.dtype) -> nn.Module:
    r"""A copy in evaluation mode; what it holds in floating point is of `dtype`."""
    try:
        return _converted(module, dtype)
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


def _converted(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    held = {id(t) for t in (*module.parameters(), *module.buffers())}
    # Tensors that are plain attributes: a state that was kept, a table of positions.
    loose = [t for child in module.modules() for t in _tensors(vars(child))]
    memo: dict[int, Any] = {
        id(t): _in_dtype(t.detach().clone(), dtype) for t in loose if id(t) not in held
    }
    made = copy.deepcopy(module, memo).eval()
    for tensor in (*made.parameters(), *made.buffers()):
        tensor.data = _in_dtype(tensor.data, dtype)
    return made


def _in_dtype(tensor: Tensor, dtype: torch.dtype) -> Tensor:
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
