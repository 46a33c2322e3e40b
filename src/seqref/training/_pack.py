r"""A tree of states as a flat table of tensors and JSON, and back. No pickle."""

import math
import sys
from collections import Counter
from typing import Any

import numpy
import torch
from torch import Tensor

Tensors = dict[str, Tensor]
ABSENT = object()
PLAIN = (bool, int, str, type(None))


def pack(tree: Any, name: str, tensors: Tensors) -> Any:
    r"""JSON for `tree`; its tensors go into `tensors`, under `name` and where they are.

    What comes back from `unpack` has the same types: dicts with string or int keys,
    lists, tuples, NamedTuples, `Counter`, numbers (infinite ones too), strings, None,
    tensors and NumPy arrays of integers.

    Raises:
        TypeError: something in the tree is of another kind.
    """
    if isinstance(tree, Tensor):
        return {"tensor": _put(tree.detach(), name, tensors)}
    if isinstance(tree, numpy.ndarray) and tree.dtype.kind in "iu":
        whole = torch.from_numpy(tree.astype(numpy.int64))
        return {"array": [_put(whole, name, tensors), tree.dtype.str]}
    if isinstance(tree, numpy.generic):
        tree = tree.item()
    if isinstance(tree, float):
        # JSON has no infinity; a finite float comes back from its digits exactly.
        return float(tree) if math.isfinite(tree) else {"float": str(float(tree))}
    if isinstance(tree, PLAIN):
        return tree
    if isinstance(tree, dict):
        return _pack_dict(tree, name, tensors)
    if isinstance(tree, list | tuple):
        parts = [pack(part, f"{name}/{i}", tensors) for i, part in enumerate(tree)]
        return _sequence(tree, parts)
    raise TypeError(
        f"a checkpoint cannot hold {name}: {type(tree).__qualname__} is none of "
        "tensor, number, string, None, dict, list, tuple and NamedTuple"
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
    if kind in ("dict", "Counter"):
        made = {key: unpack(part, tensors) for key, part in value}
        return Counter(made) if kind == "Counter" else made
    if kind in ("list", "tuple"):
        parts = [unpack(part, tensors) for part in value]
        return parts if kind == "list" else tuple(parts)
    if kind == "named":
        path, fields, parts = value
        make = _named_tuple(path, fields)._make
        return make(unpack(part, tensors) for part in parts)
    raise ValueError(f"there is no kind {kind!r}")


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
        found = [
            differences(
                old.get(k, ABSENT), new.get(k, ABSENT), f"{name}{dot}{k}", loose
            )
            for k in names
        ]
        return [line for lines in found for line in lines]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        found = [differences(a, b, f"{name}[{i}]", loose) for i, (a, b) in pairs]
        return [line for lines in found for line in lines]
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


def _pack_dict(tree: dict[Any, Any], name: str, tensors: Tensors) -> Any:
    pairs = []
    for key, value in tree.items():
        if type(key) not in (str, int):
            raise TypeError(
                f"a checkpoint cannot hold {name}: its key {key!r} is neither a "
                "string nor an int"
            )
        pairs.append([key, pack(value, f"{name}/{key}", tensors)])
    return {"Counter" if isinstance(tree, Counter) else "dict": pairs}


def _sequence(tree: Any, parts: list[Any]) -> Any:
    if isinstance(tree, list):
        return {"list": parts}
    fields = getattr(tree, "_fields", None)
    if fields is None:
        return {"tuple": parts}
    path = f"{type(tree).__module__}:{type(tree).__qualname__}"
    if _find(path) is not type(tree):
        raise TypeError(
            f"a checkpoint cannot hold a {type(tree).__qualname__}: it must be defined "
            "at the top of a module, so that it can be found again"
        )
    return {"named": [path, list(fields), parts]}


def _named_tuple(path: str, fields: list[str]) -> Any:
    found = _find(path)
    good = isinstance(found, type) and issubclass(found, tuple)
    if not good or list(getattr(found, "_fields", ())) != fields:
        raise ValueError(
            f"this program has no NamedTuple {path} with the fields {', '.join(fields)}"
        )
    return found


def _find(path: str) -> Any:
    # Looked up among the modules that are there: a file must not make us import one.
    module, _, name = path.partition(":")
    found = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found
