r"""Properties that a check expects to fail: each by its name, with a reason."""

from collections.abc import Collection, Mapping


def check_expected(
    where: str, expected: Mapping[str, str], properties: Collection[str]
) -> None:
    r"""Raise unless each name is that of a property and each reason says something.

    Raises:
        TypeError: it is no mapping, or a reason is no str.
        ValueError: a property is unknown, or a reason empty.
    """
    if not isinstance(expected, Mapping):
        raise TypeError(
            f"{where}: `expected_failures` must map names of properties to reasons, "
            f"got {type(expected).__name__}"
        )
    for name, reason in expected.items():
        if name not in properties:
            raise ValueError(
                f"{where}: `expected_failures` must name properties "
                f"({', '.join(properties)}), got {name!r}"
            )
        if not isinstance(reason, str):
            raise TypeError(
                f"{where}: `expected_failures[{name!r}]` must be a str, the reason, "
                f"got {type(reason).__name__}"
            )
        if not reason.strip():
            raise ValueError(
                f"{where}: `expected_failures[{name!r}]` must give a reason, got "
                f"{reason!r}"
            )


def holds_after_all(name: str, reason: str) -> AssertionError:
    r"""The error that ends an entry whose reason is gone."""
    return AssertionError(
        f"{name}: holds, and was expected to fail ({reason}): take it out of "
        "`expected_failures`"
    )
