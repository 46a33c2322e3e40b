r"""Markdown tables and the way numbers are written in them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from experiments.lab.quantity import Quantity, value_of

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MINUS = "\N{MINUS SIGN}"
# No line may break inside a number.
TIMES = "\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN}\N{NO-BREAK SPACE}"


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[str] = ()
) -> str:
    r"""A Markdown table: the first column and those of `words` to the left.

    The others, of numbers, stand to the right, and the site does not break their lines.

    Raises:
        ValueError: A row has another number of cells than the header.
    """
    for row in rows:
        if len(row) != len(headers):
            raise ValueError(
                f"table: each row must have {len(headers)} cells, got {list(row)}"
            )
    rule = [":--", *(":--" if name in words else "--:" for name in headers[1:])]
    lines = [headers, rule, *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def number(value: int | float, digits: int = 3) -> str:
    r"""A number for reading: 0.731, 1,024, 2.5 × 10⁻¹⁴."""
    if isinstance(value, int):
        return f"{value:,}".replace("-", MINUS)
    if value == 0:
        return "0"
    # The exponent after rounding: 0.9996 is 1.00, not 1.000.
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    if -4 <= exponent < 6:
        decimals = max(digits - 1 - exponent, 0)
        return f"{value:,.{decimals}f}".replace("-", MINUS)
    mantissa, _, power = f"{value:.{max(digits - 2, 0)}e}".partition("e")
    mantissa = mantissa.replace("-", MINUS)
    return f"{mantissa}{TIMES}10{str(int(power)).translate(SUPERSCRIPTS)}"


def power_of_ten(logarithm: float) -> str:
    r"""A decimal logarithm as a power: -12.3 becomes 10⁻¹²·³ written as 5 × 10⁻¹³."""
    exponent = math.floor(logarithm)
    mantissa = round(10 ** (logarithm - exponent))
    if mantissa == 10:
        mantissa, exponent = 1, exponent + 1
    if -3 <= exponent <= 2:
        return number(10**logarithm, 2)
    return f"{mantissa}{TIMES}10{str(exponent).translate(SUPERSCRIPTS)}"


# Texts of a row: what a column of a `Table` is made of.
Cell = Callable[[Any], str]


def cell(
    quantity: Quantity, write: Callable[..., str] = number, *more: Any, **options: Any
) -> Cell:
    """A quantity of a row, written by `write(value, *more, **options)`."""
    return lambda row: write(value_of(row, quantity), *more, **options)


def fixed(quantity: Quantity, decimals: int, unit: str = "") -> Cell:
    """A quantity with so many decimals: 0.50."""
    return lambda row: f"{value_of(row, quantity):,.{decimals}f}{unit}"


def span(quantity: Quantity, digits: int = 3) -> Cell:
    """The lowest and the highest of a spread: 0.1 to 0.3."""

    def write(spread: Mapping[str, float]) -> str:
        return f"{number(spread['low'], digits)} to {number(spread['high'], digits)}"

    return cell(quantity, write)


def with_span(
    quantity: Quantity, write: Callable[..., str] = number, *more: Any
) -> Cell:
    """The median of a spread, or its mean, and the ends: 0.2 (0.1 to 0.3)."""

    def text(spread: Mapping[str, float]) -> str:
        keys = "median" if "median" in spread else "mean", "low", "high"
        middle, low, high = (write(spread[key], *more) for key in keys)
        return f"{middle} ({low} to {high})"

    return cell(quantity, text)


def spread_columns(quantity: str) -> dict[str, str]:
    """Columns for the median, the lowest and the highest of a spread."""
    keys = {"median": "median", "lowest": "low", "highest": "high"}
    return {header: f"{quantity}.{key}" for header, key in keys.items()}


def quartiles_text(spread: Mapping[str, float]) -> str:
    """A ratio with its quartiles: 1.23 (1.20 to 1.31)."""
    return f"{spread['median']:.2f} ({spread['low']:.2f} to {spread['high']:.2f})"


def rows_of(
    record: Mapping[str, Any], rows: Quantity, where: Mapping[str, Any]
) -> list[Any]:
    """Rows of a record that have these values; those of a mapping get its `name`."""
    listed = value_of(record, rows)
    if isinstance(listed, Mapping):
        listed = [{"name": name, **row} for name, row in listed.items()]
    return [row for row in listed if all(row.get(k) == v for k, v in where.items())]


@dataclass(frozen=True)
class Table:
    r"""A line for each row of a record, a column for each quantity.

    Args:
        columns: By header a quantity, which `number` writes, or a `Cell`.
        rows: Where the rows are: a path in the record, or a function of it.
        where: The rows that have these values alone.
        labels: Names of rows, in the order of the lines, and what stands for them in
            the first column; the rows are then those alone.
        heading: Header of that column.
        words: Headers of the columns that hold words and no numbers.
    """

    columns: Mapping[str, str | Cell]
    rows: Quantity = "cases"
    where: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] | None = None
    heading: str = ""
    words: tuple[str, ...] = ()

    def text(self, record: Mapping[str, Any]) -> str:
        """The Markdown of the table."""
        listed = rows_of(record, self.rows, self.where)
        heads, cells = list(self.columns), _cells(self.columns)
        if self.labels is None:
            lines = [[make(row) for make in cells] for row in listed]
            return table(heads, lines, self.words)
        by_name = {row["name"]: row for row in listed}
        lines = [
            [label, *(make(by_name[name]) for make in cells)]
            for name, label in self.labels.items()
            if name in by_name
        ]
        return table([self.heading, *heads], lines, self.words)


def _cells(columns: Mapping[str, str | Cell]) -> list[Cell]:
    return [cell(made) if isinstance(made, str) else made for made in columns.values()]


@dataclass(frozen=True)
class Pivot:
    r"""A line for each kind of row, a column for each value of one quantity.

    Args:
        lines: By header what a line has in common, as the columns of a `Table`.
        across: The quantity that the columns are told apart by.
        columns: By each of its values the header of a column, in order; or what makes
            a header of a value, for all values that the rows have.
        cell: What stands in a column of a row.
        rows: Where the rows are: a path in the record, or a function of it.
        where: The rows that have these values alone.
    """

    lines: Mapping[str, str | Cell]
    across: Quantity
    columns: Mapping[Any, str] | Callable[[Any], str]
    cell: Cell
    rows: Quantity = "series.rows"
    where: Mapping[str, Any] = field(default_factory=dict)

    def text(self, record: Mapping[str, Any]) -> str:
        """The Markdown of the table; a column without a row of a line is empty."""
        lines: dict[tuple[str, ...], dict[Any, str]] = {}
        heads, cells = list(self.lines), _cells(self.lines)
        for row in rows_of(record, self.rows, self.where):
            line = lines.setdefault(tuple(make(row) for make in cells), {})
            line[value_of(row, self.across)] = self.cell(row)
        columns = self.columns
        if not isinstance(columns, Mapping):
            known = {value: None for line in lines.values() for value in line}
            columns = {value: columns(value) for value in known}
        return table(
            [*heads, *columns.values()],
            [
                [*line, *(texts.get(key, "") for key in columns)]
                for line, texts in lines.items()
            ],
        )


def caption(record: Mapping[str, Any]) -> str:
    """One line that says where the numbers of a record come from."""
    run = record["run"]
    device, versions = run["device"], run["versions"]
    seeds = run["config"].get("seeds")
    # A run that sets its own number of threads says so in its config.
    threads = run["config"].get("threads", device["threads"])
    parts = [
        f"`python -m experiments run {record['experiment']}"
        + (" --full`" if run["size"] == "full" else "`"),
        f"{device['name']}, {threads} thread" + ("s" if threads != 1 else ""),
        f"Python {versions['python']}, torch {versions['torch']}",
    ]
    if seeds:
        parts.append(f"{len(seeds)} seed" + ("s" if len(seeds) != 1 else ""))
    if run["commit"] is not None:
        state = "" if run["commit"]["clean"] else ", with changes not committed"
        parts.append(f"commit {run['commit']['hash'][:10]}{state}")
    parts.append(run["date"])
    return "Measured by " + "; ".join(parts) + ".\n"
