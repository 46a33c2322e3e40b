r"""Checks of numbers that are no sizes."""

from typing import Any


def check_number(where: str, name: str, value: Any) -> None:
    r"""Raise `TypeError` unless `value` is a number (a bool is none)."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        kind = type(value).__name__
        raise TypeError(f"{where}: `{name}` must be a number, got {kind}")


def check_probability(where: str, name: str, value: Any) -> None:
    r"""Raise unless `value` is a number of at least 0 and below 1."""
    check_number(where, name, value)
    # Written so that NaN is refused too.
    if not 0 <= value < 1:
        raise ValueError(
            f"{where}: `{name}` must be at least 0 and below 1, got {value}"
        )
