r"""A tree of states as a flat table of tensors and JSON, and back. No pickle."""

import math
import sys
from collections import Counter, OrderedDict
from enum import Enum
from pathlib import PurePath
from types import ModuleType
from typing import Any

import numpy
import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]
ABSENT = object()
PLAIN = (bool, int, str, type(None))
DICTS = {"dict": dict, "OrderedDict": OrderedDict, "Counter": Counter}
SEQUENCES = {list: "list", tuple: "tuple", torch.Size: "size"}
LARGEST_NUMBER = 8


def pack(tree: Any, name: str, tensors: Tensors) -> Any:
    r"""JSON for `tree`; its tensors go into `tensors`, under `name` and where they are.

    What comes back from `unpack` has the same types: dicts and `OrderedDict`s with
    string or int keys, lists, tuples, NamedTuples, `Counter`, `torch.Size`, numbers
    (infinite ones and NumPy's too), strings, None, tensors, parameters and NumPy arrays
    of integers. A class that is derived from one of these is another kind.

    Raises:
        TypeError: something in the tree is of another kind.
    """
    kind = type(tree)
    if isinstance(tree, Tensor):
        return _pack_tensor(tree, name, tensors)
    if kind is numpy.ndarray and tree.dtype.kind in "iu":
        whole = torch.from_numpy(tree.astype(numpy.int64))
        return {"array": [_put(whole, name, tensors), tree.dtype.str]}
    if isinstance(tree, numpy.generic) and tree.dtype.kind in "biuf":
        # A long double has no Python number of its size.
        if tree.dtype.itemsize <= LARGEST_NUMBER:
            item = pack(tree.item(), name, tensors)
            return {"scalar": [item, tree.dtype.str]}
    elif kind is float:
        # JSON has no infinity; a finite float comes back from its digits exactly.
        return float(tree) if math.isfinite(tree) else {"float": str(float(tree))}
    elif kind in PLAIN:
        return tree
    elif isinstance(tree, dict) and kind in DICTS.values():
        return _pack_dict(tree, name, tensors)
    elif isinstance(tree, list | tuple) and (
        kind in SEQUENCES or hasattr(tree, "_fields")
    ):
        parts = [pack(part, f"{name}/{i}", tensors) for i, part in enumerate(tree)]
        return _sequence(tree, parts)
    raise TypeError(
        f"a checkpoint cannot hold {name}: {kind.__qualname__} is none of tensor, "
        "number, string, None, dict, list, tuple and NamedTuple, so it would not come "
        f"back as it was{_hint(tree)}"
    )


def unpack(node: Any, tensors: Tensors) -> Any:
    r"""The tree that `pack` turned into `node`.

    Raises:
        ValueError: `node` is not of `pack`'s making, or names a NamedTuple that this
            program does not have.
    """
    if not isinstance(node, dict):
        return node
    ((kind, value),) = node.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "array":
        return tensors[value[0]].numpy().astype(numpy.dtype(value[1]))
    if kind == "float":
        return float(value)
    if kind == "parameter":
        return nn.Parameter(tensors[value[0]], requires_grad=value[1])
    if kind == "scalar":
        return numpy.dtype(value[1]).type(unpack(value[0], tensors))
    if kind == "size":
        return torch.Size(value)
    if kind in DICTS:
        return DICTS[kind]({key: unpack(part, tensors) for key, part in value})
    if kind in ("list", "tuple"):
        parts = [unpack(part, tensors) for part in value]
        return parts if kind == "list" else tuple(parts)
    if kind == "named":
        path, fields, parts = value
        make = _named_tuple(path, fields)._make
        return make(unpack(part, tensors) for part in parts)
    raise ValueError(f"there is no kind {kind!r}")


def plain(tree: Any, where: str, name: str) -> Any:
    r"""Plain JSON that tells two settings apart by value.

    Raises:
        TypeError: something in the tree has no value in JSON.
    """
    kind = type(tree)
    if kind in (dict, OrderedDict):
        _check_keys(tree, where, name)
        parts = tree.items()
        return {str(k): plain(v, where, f"{name}[{k!r}]") for k, v in parts}
    if kind in (list, tuple, torch.Size):
        return [plain(part, where, f"{name}[{i}]") for i, part in enumerate(tree)]
    array = isinstance(tree, numpy.generic) or kind is numpy.ndarray
    if (array and tree.dtype.kind in "biuf") or kind is Tensor:
        tree = tree.tolist()
    kind = type(tree)
    if kind in (float, list, *PLAIN):
        return describe(tree)
    raise TypeError(
        f"{where}: `{name}` must be plain data, compared by value (number, string, "
        f"None, list, dict or tensor), got {kind.__qualname__}{_hint(tree)}"
    )


def _check_keys(tree: dict[Any, Any], where: str, name: str) -> None:
    if any(type(key) not in (str, int) for key in tree):
        raise TypeError(
            f"{where}: `{name}` must have strings or ints as keys, got {tree!r}"
        )
    if len({str(key) for key in tree}) < len(tree):
        raise TypeError(
            f"{where}: `{name}` must have keys that differ as text, got {tree!r}"
        )


def describe(tree: Any) -> Any:
    r"""Plain JSON that tells two settings apart; what has no value becomes its type."""
    if isinstance(tree, Tensor):
        return describe(tree.tolist())
    if isinstance(tree, numpy.generic):
        tree = tree.item()
    if isinstance(tree, float) and not math.isfinite(tree):
        return str(tree)
    if isinstance(tree, (float, *PLAIN)):
        return tree
    if isinstance(tree, dict):
        return {str(key): describe(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [describe(part) for part in tree]
    return f"<{type(tree).__qualname__}>"


def differences(old: Any, new: Any, name: str = "", loose: bool = True) -> list[str]:
    r"""Where two trees of plain JSON differ: "lr is 0.1 in the file, 0.2 here".

    `loose` passes over a name that only one of two dicts has: a release of torch may
    add a setting.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        dot = "." if name else ""
        names = [key for key in old if key in new or not loose]
        names += [key for key in new if key not in old and not loose]
        parts = [
            differences(
                old.get(k, ABSENT), new.get(k, ABSENT), f"{name}{dot}{k}", loose
            )
            for k in names
        ]
        return [line for lines in parts for line in lines]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        parts = [differences(a, b, f"{name}[{i}]", loose) for i, (a, b) in pairs]
        return [line for lines in parts for line in lines]
    # 1 and 1.0 are one setting, 1 and True are not.
    same = old == new and isinstance(old, bool) == isinstance(new, bool)
    return [] if same else [f"{name} is {_short(old)} in the file, {_short(new)} here"]


def _short(value: Any) -> str:
    text = "absent" if value is ABSENT else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _put(tensor: Tensor, name: str, tensors: Tensors) -> str:
    # The keys 1 and "1" of one dict would give one name.
    while name in tensors:
        name += "'"
    tensors[name] = tensor
    return name


def _pack_tensor(tree: Tensor, name: str, tensors: Tensors) -> Any:
    if type(tree) is nn.Parameter:
        put = _put(tree.detach(), name, tensors)
        return {"parameter": [put, tree.requires_grad]}
    if type(tree) is not Tensor:
        raise TypeError(
            f"a checkpoint cannot hold {name}: {type(tree).__qualname__} would come "
            "back as another type of tensor"
        )
    return {"tensor": _put(tree.detach(), name, tensors)}


def _pack_dict(tree: dict[Any, Any], name: str, tensors: Tensors) -> Any:
    pairs = []
    for key, value in tree.items():
        if type(key) not in (str, int):
            raise TypeError(
                f"a checkpoint cannot hold {name}: its key {key!r} is neither a "
                "string nor an int"
            )
        pairs.append([key, pack(value, f"{name}/{key}", tensors)])
    return {next(k for k, made in DICTS.items() if made is type(tree)): pairs}


def _sequence(tree: Any, parts: list[Any]) -> Any:
    if type(tree) in SEQUENCES:
        return {SEQUENCES[type(tree)]: parts}
    path = f"{type(tree).__module__}:{type(tree).__qualname__}"
    if _find(path) is not type(tree):
        raise TypeError(
            f"a checkpoint cannot hold a {type(tree).__qualname__}: it must be defined "
            "at the top of a module, so that it can be found again"
        )
    return {"named": [path, list(tree._fields), parts]}


def _hint(tree: Any) -> str:
    if isinstance(tree, PurePath):
        return " (pass str(path))"
    if isinstance(tree, Enum):
        return " (pass its value)"
    if isinstance(tree, dict):
        return " (pass dict(...))"
    if isinstance(tree, set | frozenset):
        return " (pass sorted(...))"
    return ""


def _named_tuple(path: str, fields: list[str]) -> Any:
    kind = _find(path)
    good = isinstance(kind, type) and issubclass(kind, tuple)
    if not good or list(getattr(kind, "_fields", ())) != fields:
        raise ValueError(
            f"this program has no NamedTuple {path} with the fields {', '.join(fields)}"
        )
    return kind


def _find(path: str) -> Any:
    # Looked up among the modules that are there: a file must not make us import one.
    module, _, name = path.partition(":")
    place = sys.modules.get(module)
    for part in name.split("."):
        # Not getattr: a module may import another when it is asked for a name, and a
        # lazy one even when it is asked for its `__dict__`.
        if not isinstance(place, ModuleType | type):
            return None
        place = object.__getattribute__(place, "__dict__").get(part)
    return place
