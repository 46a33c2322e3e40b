r"""The tables and the figure of `padding_cost`."""

import math
from collections.abc import Mapping
from typing import Any

from experiments.lab.drawing import DASHES
from experiments.lab.tables import number, table
from experiments.speed._timing import LABELS, SETTINGS

WAYS = {
    "random": "at random",
    "sorted": "sorted, then cut",
    "tokens": "sorted, bounded in steps",
}


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """The ratios of time, and the ways of batching."""
    return {
        "packing": of_packing(record["series"]["packing"]),
        "batching": of_batching(record["series"]["batching"]),
    }


def ratio(row: Mapping[str, float]) -> str:
    """A ratio with its quartiles in brackets."""
    return f"{number(row['median'])} ({row['low']:.2f} to {row['high']:.2f})"


def of_packing(rows: list[dict[str, Any]]) -> str:
    """One line for a size and a share, one column for a setting."""
    lines: dict[tuple[Any, ...], dict[str, str]] = {}
    for row in rows:
        key = (*row["size"], row["real"])
        lines.setdefault(key, {})[row["setting"]] = ratio(row["packed"])
    return table(
        ["B", "T", "D", "real steps", *LABELS.values()],
        [
            [
                *(number(axis) for axis in size),
                f"{100 * real:.0f} %",
                *(cells.get(name, "none") for name in SETTINGS),
            ]
            for (*size, real), cells in lines.items()
        ],
    )


def of_batching(ways: Mapping[str, Mapping[str, float]]) -> str:
    """One line for a way of putting rows together."""
    lines = []
    for way, found in ways.items():
        label = WAYS.get(way) or f"buckets {way.removeprefix('width_')} wide"
        lines.append(
            [
                label,
                f"{100 * found['padding']:.1f} %",
                number(round(found["batches"])),
                f"{found['fewest_rows']:.0f} to {found['most_rows']:.0f}",
                number(round(found["most_steps"])),
                f"{100 * found['between']:.0f} %",
            ]
        )
    headers = ["batches", "padding", "number", "rows", "most steps", "variance between"]
    return table(headers, lines)


def draw_packing(figure: Any, record: Mapping[str, Any], theme: Any) -> None:
    """Packed over padded against the share of real steps, one panel for a setting."""
    rows = record["series"]["packing"]
    sizes = list(dict.fromkeys(tuple(row["size"]) for row in rows))
    panels = figure.subplots(1, len(SETTINGS), sharey=True)
    for axes, name in zip(panels, SETTINGS, strict=True):
        for size, colour, dash in zip(sizes, theme.colours, DASHES, strict=False):
            found = [
                r for r in rows if (tuple(r["size"]), r["setting"]) == (size, name)
            ]
            shares = [100 * row["real"] for row in found]
            heights = [math.log2(row["packed"]["median"]) for row in found]
            label = f"B {size[0]}, T {size[1]}, D {size[2]}"
            axes.plot(shares, heights, "o", linestyle=dash, color=colour, label=label)
        axes.axhline(0, color=theme.muted, linewidth=1)
        axes.set_title(LABELS[name])
        axes.set_xlabel("real steps in the batch, %")
    panels[0].set_ylabel("time, padded = 1")
    panels[0].set_yticks([-3, -2, -1, 0, 1, 2, 3], ["⅛", "¼", "½", "1", "2", "4", "8"])
    panels[-1].legend(loc="upper left", frameon=False)
