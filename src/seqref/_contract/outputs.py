r"""The tensors of what a model returned, in whatever they stand."""

import enum
import inspect
import weakref
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

Outputs = dict[str, Tensor]

# What holds no tensor that is a result; a module's are its parameters.
PLAIN = (
    str,
    bytes,
    int,
    float,
    complex,
    enum.Enum,
    type,
    np.generic,
    np.dtype,
    nn.Module,
    ModuleType,
    weakref.ref,
    torch.Generator,
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
)
RETURN = (
    "return tensors from `call`, or tuples, lists, dicts or other objects whose "
    "attributes they are"
)


def flatten(value: Any, name: str = "`output`") -> Outputs:
    r"""The tensors of what a model returned, by name, also inside other objects.

    Numbers, words and modules are left out. Where tensors may be and cannot be looked
    for, as in an iterator, `TypeError` is raised.
    """
    found = with_graph(value, name)
    return {key: _plain(tensor, key) for key, tensor in found.items()}


def with_graph(value: Any, name: str = "`output`") -> Outputs:
    r"""The same tensors as they came, with what leads back from them."""
    tensors: Outputs = {}
    _walk(value, name, tensors, {}, (), again=True)
    return tensors


def _walk(
    value: Any,
    name: str,
    tensors: Outputs,
    seen: dict[int, Tensor],
    path: tuple[int, ...],
    again: bool,
) -> None:
    if value is None or isinstance(value, PLAIN) or inspect.isroutine(value):
        return
    if isinstance(value, PackedSequence):
        raise TypeError(
            "a model under test must return padded tensors, got a PackedSequence "
            "(call pad_packed_sequence in `call`)"
        )
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        value = torch.from_numpy(value.copy())
    if isinstance(value, Tensor):
        # An attribute is often a second name of what was returned.
        if again or id(value) not in seen:
            tensors[name] = value
        seen[id(value)] = value
    elif id(value) not in path:
        for suffix, part, is_attribute in _parts(value, name):
            inner = f"{name[:-1]}{suffix}`"
            _walk(
                part,
                inner,
                tensors,
                seen,
                (*path, id(value)),
                again and not is_attribute,
            )


def _plain(value: Tensor, name: str) -> Tensor:
    if value.is_nested:
        raise TypeError(
            f"a model under test must return padded tensors, got a nested tensor as "
            f"{name} (torch.nested.to_padded_tensor in `call`)"
        )
    value = value.detach()
    if value.layout != torch.strided:
        value = value.to_dense()
    return (torch.view_as_real(value) if value.is_complex() else value).clone()


def _parts(value: Any, name: str) -> Iterator[tuple[str, Any, bool]]:
    r"""Name, value and whether it is an attribute, of all that a value holds."""
    fields, attributes = getattr(value, "_fields", None), _attributes(value)
    if isinstance(value, Mapping):
        yield from ((f".{key}", part, False) for key, part in value.items())
    elif isinstance(value, Sequence):
        for i, part in enumerate(value):
            yield (f".{fields[i]}" if fields else f"[{i}]"), part, False
    elif _hides_tensors(value, attributes):
        raise TypeError(
            f"a model under test must return tensors, got {type(value).__name__} as "
            f"{name}, in which they cannot be looked for; {RETURN}"
        )
    # What is public names a tensor first.
    for key in sorted(attributes, key=lambda key: key.startswith("_")):
        yield f".{key}", attributes[key], True


def _hides_tensors(value: Any, attributes: dict[str, Any]) -> bool:
    r"""Whether a value is an array of another library, or a stream or set of values."""
    if hasattr(value, "__array__") or hasattr(value, "__dlpack__"):
        return True
    # A cache that can be iterated over holds what it gives as attributes.
    return hasattr(value, "__iter__") and not attributes


def _attributes(value: Any) -> dict[str, Any]:
    attributes = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for key in (slots,) if isinstance(slots, str) else slots:
            # A name with two underscores in front is kept under another.
            hidden = key.startswith("__") and not key.endswith("__")
            full = f"_{kind.__name__.lstrip('_')}{key}" if hidden else key
            if full not in ("__dict__", "__weakref__") and hasattr(value, full):
                attributes.setdefault(key, getattr(value, full))
    return attributes
