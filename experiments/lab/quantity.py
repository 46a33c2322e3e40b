r"""Quantities of a case: a path into its numbers, or a function of them."""

from collections.abc import Callable, Mapping
from typing import Any

Case = Mapping[str, Any]
# `log10_norm.step_40` or `updates.0`, or a function of the case.
Quantity = str | Callable[[Any], Any]


def value_of(case: Any, quantity: Quantity) -> Any:
    r"""The value of a quantity.

    Raises:
        KeyError: The case has nothing at that path; the message names both.
    """
    if callable(quantity):
        return quantity(case)
    found = case
    for key in quantity.split("."):
        try:
            found = found[int(key) if isinstance(found, list) else key]
        except (KeyError, IndexError, ValueError, TypeError):
            there = sorted(found) if isinstance(found, Mapping) else found
            raise KeyError(f"no `{key}` of `{quantity}` in {there}") from None
    return found


def has(case: Any, quantity: Quantity) -> bool:
    """Whether a case has something at a path; a function is asked of every case."""
    if callable(quantity):
        return True
    try:
        value_of(case, quantity)
    except KeyError:
        return False
    return True
