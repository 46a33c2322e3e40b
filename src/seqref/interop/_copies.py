r"""Copies of parameters, and what a copy of them would lose."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from seqref.interop._grid import qualified_name

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def names_of(bias: bool) -> tuple[str, ...]:
    r"""The names of a cell's parameters, here and in torch.nn."""
    weights = ("weight_ih", "weight_hh")
    return (*weights, "bias_ih", "bias_hh") if bias else weights


def suffix_of(depth: int, direction: int) -> str:
    r"""What torch.nn's layers put behind these names."""
    return f"_l{depth}" + ("_reverse" if direction else "")


def copy_parameters(
    source: Any, old: Iterable[str], target: Any, new: Iterable[str]
) -> None:
    r"""Give `target` copies of parameters, with dtype, device and `requires_grad`."""
    for old_name, new_name in zip(old, new, strict=True):
        parameter = getattr(source, old_name)
        copied = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
        setattr(target, new_name, copied)


def check_copyable(
    where: str, modules: Iterable[nn.Module], owned: Mapping[str, tuple[Any, str]]
) -> None:
    r"""Raise where the values of the parameters are not all that a module is.

    Args:
        where: The function that the user called.
        modules: The module and all those inside it.
        owned: For each parameter the name that the message shows, its module and its
            name there.

    Raises:
        ValueError: a module has hooks; a parameter is computed from others, or stands
            in two places.
    """
    seen: dict[int, str] = {}
    for label, (module, name) in owned.items():
        parameter = module._parameters.get(name)
        if parameter is None:
            raise ValueError(
                f"{where}: `{label}` must be a parameter, got a value that is computed "
                "from others (a parametrization, weight normalisation or pruning? "
                "remove it first, which keeps the value)"
            )
        if id(parameter) in seen:
            raise ValueError(
                f"{where}: each parameter must stand in one place, since two copies "
                "would not stay equal in training, got one as "
                f"`{seen[id(parameter)]}` and as `{label}`"
            )
        seen[id(parameter)] = label
    for module in modules:
        if any(getattr(module, hooks) for hooks in _HOOKS):
            raise ValueError(
                f"{where}: a module must have no hooks, since a copy would lose them, "
                f"got some on {qualified_name(module)}"
            )
