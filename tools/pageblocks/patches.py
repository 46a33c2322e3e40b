r"""Puts back functions, methods and classes that a page has replaced.

Watched are the functions and classes of torch, NumPy, seqref, the builtins and the
standard library, and the methods of torch's and seqref's own classes.
"""

import builtins
import contextlib
import operator
import sys
import types
from collections.abc import Iterator
from typing import Any

_MODULES = {"torch", "seqref", "numpy", "builtins"} | sys.stdlib_module_names
# What pytest, its plugins and torch themselves replace while tests run.
_NOT = {"sys", "warnings", "socket", "faulthandler", "__main__"}
_CLASSES = (
    "seqref",
    "torch._tensor",
    "torch.autograd",
    "torch.nn",
    "torch.optim",
    "torch.utils.data",
)
_DESCRIPTORS = (types.GetSetDescriptorType, staticmethod, classmethod, property)
_PLAIN = (bool, int, float, str, tuple, frozenset, type(None))
# torch's compiler wraps these when it is first used, for good.
_BY_TORCH = ("torch/_dynamo/", "torch/_compile", "torch/optim/optimizer.py")


@contextlib.contextmanager
def unpatched() -> Iterator[None]:
    r"""Take note of functions and classes; put back what was replaced or added."""
    watched = [(owner, dict(vars(owner))) for owner in _owners()]
    kept = dict(vars(builtins))
    try:
        yield
    finally:
        # First, and by a method: the rest needs the builtins.
        builtins.__dict__.update(kept)
        for owner, before in watched:
            _put_back(owner, before)


def _owners() -> Iterator[Any]:
    r"""The modules and classes that are watched, each once."""
    seen: set[int] = set()
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        if top not in _MODULES or top in _NOT or not _is_module(module):
            continue
        yield module
        if name.startswith(_CLASSES):
            for value in list(vars(module).values()):
                if _is_own_class(value) and id(value) not in seen:
                    seen.add(id(value))
                    yield value


def _is_own_class(value: Any) -> bool:
    # `torch.Tensor` says that it is of `torch`, and is made in `torch._tensor`.
    return isinstance(value, type) and value.__module__.partition(".")[0] in (
        "seqref",
        "torch",
    )


def _is_module(value: Any) -> bool:
    return type(value) is types.ModuleType


def _put_back(owner: Any, before: dict[str, Any]) -> None:
    now = vars(owner)
    # The same names with the same values, in the same order: nothing was done.
    if (
        len(now) == len(before)
        and all(map(operator.is_, now.values(), before.values()))
        and all(map(operator.eq, now, before))
    ):
        return
    for name, value in before.items():
        replaced = now.get(name, before) is not value
        if not replaced or not _is_watched(owner, value):
            continue
        if not _is_by_torch(owner, name, now.get(name)):
            setattr(owner, name, value)
    for name in [name for name in now if name not in before]:
        if _is_of_page(owner, name, now[name]):
            delattr(owner, name)


def _is_watched(owner: Any, value: Any) -> bool:
    if _is_code(value):
        return True
    # Plain variables only where nothing but a page would change them.
    ours = _module_of(owner).partition(".")[0] == "seqref"
    return ours and isinstance(value, _PLAIN)


def _is_code(value: Any) -> bool:
    return callable(value) or isinstance(value, _DESCRIPTORS)


def _module_of(owner: Any) -> str:
    return owner.__name__ if _is_module(owner) else owner.__module__


def _is_by_torch(owner: Any, name: str, value: Any) -> bool:
    r"""Whether torch replaced it; nothing in `torch.nn` but two methods of `Module`."""
    code = getattr(_function(value), "__code__", None)
    file = getattr(code, "co_filename", "").replace("\\", "/")
    if not any(part in file for part in _BY_TORCH):
        return False
    in_nn = _module_of(owner).startswith("torch.nn")
    return not in_nn or (owner.__name__, name) in (
        ("Module", "__init__"),
        ("Module", "__setstate__"),
    )


def _is_of_page(owner: Any, name: str, value: Any) -> bool:
    r"""Whether a new attribute was put there by a page."""
    if getattr(_function(value), "__module__", None) == "__main__":
        return True
    if not isinstance(owner, type) or name[:1] == "_":
        return False
    # Also what hides an inherited method, such as another method of torch's.
    return _is_code(value) or isinstance(value, _PLAIN)


def _function(value: Any) -> Any:
    r"""The function in a static method, class method or property."""
    if isinstance(value, property):
        return value.fget
    return getattr(value, "__func__", value)
