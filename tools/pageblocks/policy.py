r"""Which warnings are not errors: the list in warnings.toml, and nothing else."""

import builtins
import functools
import tomllib
import warnings
from pathlib import Path

LIST = Path(__file__).with_name("warnings.toml")
_FIELDS = {"message", "category", "torch", "reason"}


@functools.cache
def ignored() -> tuple[dict[str, str], ...]:
    r"""The entries of warnings.toml.

    Raises:
        ValueError: An entry lacks its message, category, torch version or reason.
    """
    listed = tomllib.loads(LIST.read_text(encoding="utf-8")).get("ignore", [])
    for entry in listed:
        if set(entry) != _FIELDS or not all(str(v).strip() for v in entry.values()):
            raise ValueError(f"warnings.toml: {entry} needs exactly {sorted(_FIELDS)}")
        if ":" in entry["message"]:
            raise ValueError(f"warnings.toml: no colon in a message: {entry}")
    return tuple(listed)


def make_errors() -> None:
    r"""Turn every warning into an error, except those on the list."""
    warnings.simplefilter("error")
    for entry in ignored():
        category = getattr(builtins, entry["category"])
        warnings.filterwarnings("ignore", entry["message"], category)


def as_ini_lines() -> list[str]:
    r"""The list in the form of pytest's `filterwarnings`."""
    return [f"ignore:{entry['message']}:{entry['category']}" for entry in ignored()]
