r"""What a file of a module's numbers would lose, said before it is written."""

import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

_COMPUTED = (
    "a value that is computed from others? torch.nn.utils.parametrize."
    "remove_parametrizations, remove_weight_norm or prune.remove keep it as a parameter"
)


def check_unwrapped(where: str, name: str, module: nn.Module) -> None:
    r"""Raise where a module, or one inside it, is a wrapper with names of its own.

    Raises:
        TypeError: it is compiled, or spread over devices; the message names what is
            inside.
    """
    if isinstance(module, DataParallel | DistributedDataParallel):
        raise TypeError(
            f"{where}: `{name}` must be the module itself, got "
            f"{type(module).__name__} around it (pass {name}.module)"
        )
    # Nothing is compiled where the compiler was never imported.
    compiler = sys.modules.get("torch._dynamo.eval_frame")
    for place, inner in module.named_modules():
        if compiler is None or not isinstance(inner, compiler.OptimizedModule):
            continue
        if place:
            raise TypeError(
                f"{where}: `{name}` must hold modules themselves, got {place} from "
                f"torch.compile (compile it by {name}.{place}.compile(), which keeps "
                "its names)"
            )
        raise TypeError(
            f"{where}: `{name}` must be the module itself, got what torch.compile made "
            f"of it (pass {name}._orig_mod)"
        )


def check_rebuilt(where: str, name: str, module: nn.Module, plain: nn.Module) -> None:
    r"""Raise unless `plain`, with the numbers of `module`, would be `module` again.

    Args:
        where: The function that the user called.
        name: The argument's name.
        module: What is to be written.
        plain: What reading will make, its numbers apart; on any device.

    Raises:
        ValueError: a module is of another kind or has other options, a parameter or
            buffer is missing, is one too many or has another shape, or two parameters
            lie over one another in memory.
    """
    for place, theirs, ours in _pairs(module, plain):
        if theirs != ours:
            label = f"{name}.{place}" if place else name
            raise ValueError(
                f"{where}: `{label}` must be {ours}, as it will be read, got {theirs} "
                f"({_COMPUTED})"
            )
    got, expected = (
        {key: tuple(t.shape) for key, t in each.state_dict().items()}
        for each in (module, plain)
    )
    for key in [*expected, *got]:
        if got.get(key) != expected.get(key):
            raise ValueError(
                f"{where}: `{name}.{key}` must have shape {expected.get(key)}, as it "
                f"will be read, got {got.get(key)} ({_COMPUTED})"
            )
    _check_apart(where, name, module)


def _pairs(module: nn.Module, plain: nn.Module) -> Iterable[tuple[str, str, str]]:
    r"""Each place of either, with what both have there: kind and options."""
    theirs, ours = ({**_kinds(each)} for each in (module, plain))
    for place in dict.fromkeys([*ours, *theirs]):
        yield place, theirs.get(place, "nothing"), ours.get(place, "nothing")


def _kinds(module: nn.Module) -> dict[str, str]:
    modules = {}
    for place, inner in module.named_modules(remove_duplicate=False):
        kind = type(inner)
        known = kind.__module__.split(".")[0] in ("seqref", "torch")
        label = kind.__name__ if known else f"{kind.__module__}.{kind.__qualname__}"
        modules[place] = f"{label}({inner.extra_repr()})"
    return modules


def _check_apart(where: str, name: str, module: nn.Module) -> None:
    places: dict[int, str] = {}
    for key, parameter in module.named_parameters():
        # There is no memory in an empty one, or on the device "meta".
        if parameter.numel() == 0 or parameter.is_meta:
            continue
        other = places.setdefault(parameter.data_ptr(), key)
        if other != key:
            raise ValueError(
                f"{where}: two parameters must not lie over one another in memory, got "
                f"`{name}.{other}` and `{name}.{key}` (to tie them, give both places "
                "one torch.nn.Parameter)"
            )


def ties_of(module: nn.Module) -> list[list[str]]:
    r"""The names of each parameter that stands in more than one place."""
    names: dict[int, list[str]] = {}
    for key, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(key)
    return [group for group in names.values() if len(group) > 1]


def tie(module: nn.Module, groups: Iterable[Iterable[str]]) -> None:
    r"""Put the first parameter of each group in the places of the others.

    Raises:
        AttributeError: there is no parameter of that name.
        ValueError: two of a group are not equal.
    """
    for first, *others in groups:
        parameter = module.get_parameter(first)
        for key in others:
            if not torch.equal(parameter, module.get_parameter(key)):
                raise ValueError(f"{first} and {key} are said to be tied and differ")
            path, _, leaf = key.rpartition(".")
            setattr(module.get_submodule(path), leaf, parameter)


def check_tensors(where: str, entries: dict[str, Any]) -> None:
    r"""Raise where a state dict holds something else than tensors with numbers."""
    for key, value in entries.items():
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{where}: `model.state_dict()` must hold tensors alone, got "
                f"{type(value).__name__} at {key!r} (what get_extra_state returns? put "
                "it into `config`, or keep a run by Checkpoints, whose files hold it)"
            )
        if value.is_meta:
            raise ValueError(
                f"{where}: `model` must have numbers to write, got {key!r} on the "
                'device "meta"'
            )
