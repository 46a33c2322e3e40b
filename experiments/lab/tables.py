r"""Markdown tables and the way numbers are written in them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MINUS = "\N{MINUS SIGN}"
# No line may break inside a number.
TIMES = "\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN}\N{NO-BREAK SPACE}"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    r"""A Markdown table: first column to the left, the others to the right.

    Raises:
        ValueError: A row has another number of cells than the header.
    """
    for row in rows:
        if len(row) != len(headers):
            raise ValueError(
                f"table: each row must have {len(headers)} cells, got {list(row)}"
            )
    rule = [":--", *["--:"] * (len(headers) - 1)]
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


def caption(record: Mapping[str, Any]) -> str:
    """One line that says where the numbers of a record come from."""
    run = record["run"]
    device, versions = run["device"], run["versions"]
    seeds = run["config"].get("seeds")
    # A run that sets its own number of threads says so in its config.
    threads = run["config"].get("threads", device["threads"])
    parts = [
        f"`seqref experiments run {record['experiment']}"
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
