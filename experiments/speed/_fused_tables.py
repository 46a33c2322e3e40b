"""The tables and the figure of `fused_recurrence_speed`."""

import math
from collections.abc import Mapping
from typing import Any

from experiments.lab.tables import number, table

NAMES = ("reference", "parallel", "torch", "products", "again")
LABELS = {"products": "products alone", "again": "base again"}
EVERY = ((8, 256, 64), (1, 1024, 256), (32, 128, 256), (64, 64, 512))
# What a training step should take at most, as a ratio to torch.nn.
TARGETS = {
    **{
        (kind, "parallel", size): limit
        for kind in ("RNN", "GRU")
        for size, limit in zip(EVERY, (0.6, 0.6, 1.05, 1.05), strict=True)
    },
    **{("LSTM", "torch", size): 1.05 for size in EVERY},
    ("LSTM", "parallel", EVERY[0]): 3.3,
    ("LSTM", "parallel", EVERY[2]): 1.25,
}


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Ratios of both passes, the targets, and the cost of an index."""
    rows = record["series"]["rows"]
    found = {
        "training": of_pass(rows, training=True),
        "forward": of_pass(rows, training=False),
        "targets": of_targets(rows),
    }
    if record["series"]["index"]:
        found["index"] = of_index(record["series"]["index"])
    return found


def cell(row: Mapping[str, Any]) -> str:
    """A ratio with its quartiles in brackets."""
    return f"{number(row['median'])} ({row['low']:.2f} to {row['high']:.2f})"


def of_pass(rows: list[dict[str, Any]], *, training: bool) -> str:
    """One line for a kind and a size, one column for a contestant."""
    headers = ["layer", "B", "T", "D", *(LABELS.get(name, name) for name in NAMES)]
    lines: dict[tuple[Any, ...], dict[str, str]] = {}
    for row in rows:
        if row["training"] == training:
            key = (row["kind"], *row["size"])
            lines.setdefault(key, {})[row["contestant"]] = cell(row)
    return table(
        headers,
        [
            [
                kind,
                *(number(axis) for axis in size),
                *(cells.get(name, "none") for name in NAMES),
            ]
            for (kind, *size), cells in lines.items()
        ],
    )


def of_targets(rows: list[dict[str, Any]]) -> str:
    """What a training step should take at most, and what it took."""
    lines = []
    for row in rows:
        key = (row["kind"], row["contestant"], tuple(row["size"]))
        if row["training"] and key in TARGETS:
            limit = TARGETS[key]
            verdict = "reached" if row["median"] <= limit else "not reached"
            size = [number(axis) for axis in row["size"]]
            lines.append([*key[:2], *size, f"{limit:g}", cell(row), verdict])
    headers = ["layer", "backend", "B", "T", "D", "target", "measured", "verdict"]
    return table(headers, lines)


def of_index(lengths: list[dict[str, float]]) -> str:
    """Time by number of steps, in units of the shortest run that unbinds."""
    return table(
        ["steps", "`x[:, t]`", "`x.unbind(1)`"],
        [
            [
                number(int(line["steps"])),
                number(line["indexed"]),
                number(line["unbound"]),
            ]
            for line in lengths
        ],
    )


def draw_training(figure: Any, record: Mapping[str, Any], theme: Any) -> None:
    """The ratio of a training step by size, one panel for a layer."""
    rows = [row for row in record["series"]["rows"] if row["training"]]
    kinds = [kind for kind in ("RNN", "GRU", "LSTM") if any_of(rows, kind)]
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    sizes = list(dict.fromkeys(tuple(row["size"]) for row in rows))
    for axes, kind in zip(panels, kinds, strict=True):
        for name, marker, colour in zip(
            ("reference", "parallel", "torch"), "so^", theme.colours, strict=False
        ):
            found = {
                tuple(row["size"]): row["median"]
                for row in rows
                if (row["kind"], row["contestant"]) == (kind, name)
            }
            places = [-sizes.index(size) for size in found]
            heights = [math.log2(value) for value in found.values()]
            axes.plot(heights, places, marker, color=colour, label=name)
        axes.axvline(0, color=theme.muted, linewidth=1)
        axes.set_title(kind)
        axes.set_xlim(-2.2, 4.9)
        axes.set_xticks([-2, -1, 0, 1, 2, 3, 4], ["¼", "½", "1", "2", "4", "8", "16"])
    labels = [f"B {b}, T {t:,}, D {d}" for b, t, d in sizes]
    panels[0].set_yticks([-k for k in range(len(sizes))], labels)
    panels[0].set_ylim(0.5 - len(sizes), 0.5)
    figure.supxlabel("time of a training step, torch.nn = 1", fontsize=9)
    panels[0].legend(loc="center right", frameon=False)


def any_of(rows: list[dict[str, Any]], kind: str) -> bool:
    """Whether a kind was measured."""
    return any(row["kind"] == kind for row in rows)
