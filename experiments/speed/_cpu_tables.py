r"""The tables and the figure of `cpu_speed`."""

import math
from collections.abc import Mapping
from typing import Any

from experiments.lab.tables import caption, number, table
from experiments.speed._timing import LABELS

NAMES = {
    "gru": "GRU",
    "packed": "packed, half real",
    "transformer": "Transformer layer, equal width",
    "transformer_equal": "Transformer layer, equal parameters",
    "again": "the LSTM again",
}

# Where the quartiles of a ratio are further apart, its line is not shown.
SPREAD = 1.4


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Ratios as it comes and without oneDNN, at the edges, and on more threads."""
    rows = record["series"]["rows"]
    found = {
        name: of_ratios([row for row in rows if row["setting"] == name])
        for name in LABELS
        if any(row["setting"] == name for row in rows)
    }
    if record["series"]["edges"]:
        found["edges"] = of_ratios(record["series"]["edges"])
    if record["series"]["threads"]:
        found["threads"] = of_ratios(record["series"]["threads"])
        run = record["run"]
        config = {**run["config"], "threads": run["config"]["more_threads"]}
        found["threads_run"] = caption({**record, "run": {**run, "config": config}})
    found["parameters"] = of_parameters(record["series"]["parameters"])
    return found


def disturbed(row: Mapping[str, Any]) -> bool:
    """Whether other work on the machine moved the ratios of a line too far."""
    return any(
        found["high"] > SPREAD * found["low"] for found in row["ratios"].values()
    )


def of_ratios(rows: list[dict[str, Any]]) -> str:
    """One line for a size, one column for a contestant."""
    shown = [name for name in NAMES if any(name in row["ratios"] for row in rows)]

    def cell(row: Mapping[str, Any], name: str) -> str:
        found = row["ratios"].get(name)
        if found is None:
            return "none"
        if name != "again" and disturbed(row):
            return "disturbed"
        return f"{number(found['median'])} ({found['low']:.2f} to {found['high']:.2f})"

    return table(
        ["B", "T", "D", *(NAMES[name] for name in shown)],
        [
            [*(number(axis) for axis in row["size"]), *(cell(row, n) for n in shown)]
            for row in rows
        ],
    )


def of_parameters(rows: list[dict[str, Any]]) -> str:
    """Parameters of one layer of each kind by width."""
    names = [name for name in NAMES if name in rows[0]]
    return table(
        ["D", "LSTM", *(NAMES[name] for name in names)],
        [
            [
                number(row["width"]),
                number(row["lstm"]),
                *(number(row[n]) for n in names),
            ]
            for row in rows
        ],
    )


def draw_ratios(figure: Any, record: Mapping[str, Any], theme: Any) -> None:
    """Ratios by size, one panel for a setting; the padded LSTM is the line at 1.

    Without the lines that were disturbed.
    """
    rows = record["series"]["rows"]
    sizes = list(dict.fromkeys(tuple(row["size"]) for row in rows))
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    panels = figure.subplots(1, len(settings), sharey=True, squeeze=False)[0]
    names = ("packed", "transformer", "transformer_equal")
    for axes, setting in zip(panels, settings, strict=True):
        here = [row for row in rows if row["setting"] == setting]
        for name, marker, colour in zip(names, "s^o", theme.colours, strict=False):
            found = {
                tuple(row["size"]): row["ratios"][name]["median"]
                for row in here
                if name in row["ratios"] and not disturbed(row)
            }
            places = [-sizes.index(size) for size in found]
            heights = [math.log2(value) for value in found.values()]
            axes.plot(heights, places, marker, color=colour, label=NAMES[name])
        axes.axvline(0, color=theme.muted, linewidth=1)
        axes.set_title(LABELS[setting])
        axes.set_xlim(-3.4, 4.4)
        marks = ["⅛", "¼", "½", "1", "2", "4", "8", "16"]
        axes.set_xticks(range(-3, 5), marks)
    labels = [f"B {b}, T {t:,}, D {d}" for b, t, d in sizes]
    panels[0].set_yticks([-k for k in range(len(sizes))], labels)
    panels[0].set_ylim(0.5 - len(sizes), 0.5)
    figure.supxlabel("time of a training step, padded LSTM = 1", fontsize=9)
    handles, texts = panels[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper center", ncols=3, frameon=False)
