r"""Cells of tables whose rows are what the timer returned."""

from collections.abc import Iterable, Mapping
from typing import Any

from experiments.lab.tables import Cell, quartiles_text

# Of a contestant that did not run, or whose memory is not counted.
NONE = "none"
# The columns of a row whose `size` is batch, time and width.
SIZE = {"B": "size.0", "T": "size.1", "D": "size.2"}


def ratio(name: str) -> Cell:
    """A contestant's time over that of the base: 1.23 (1.20 to 1.31)."""

    def write(row: Mapping[str, Any]) -> str:
        return quartiles_text(row["ratios"][name]) if name in row["ratios"] else NONE

    return write


def memory(name: str) -> Cell:
    """A contestant's peak of memory over that of the base: 1.23."""

    def write(row: Mapping[str, Any]) -> str:
        share = memory_ratio(row, name)
        return NONE if share is None else f"{share:.2f}"

    return write


def memory_ratio(row: Mapping[str, Any], name: str) -> float | None:
    """A contestant's peak of memory over that of the base, where both are counted."""
    peak = row["ratios"].get(name, {}).get("peak")
    return None if peak is None or not row["peak"] else peak / row["peak"]


def memory_span(rows: Iterable[Mapping[str, Any]], name: str) -> str:
    """The ends of a contestant's peak of memory over that of the base, over rows."""
    ratios = [ratio for row in rows if (ratio := memory_ratio(row, name)) is not None]
    return f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else NONE
