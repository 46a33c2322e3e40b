r"""Ratios by size: beside each other in both settings, and as marks in panels."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from experiments import lab
from experiments.lab import ratio_cells, timing
from experiments.lab.tables import Cell

Rows = Sequence[Mapping[str, Any]]
TICKS = ["⅛", "¼", "½", "1", "2", "4", "8", "16"]


def by_setting(series: str, lines: Mapping[str, str | Cell], name: str) -> lab.Pivot:
    r"""A contestant's ratios, one column for a setting, and its memory as it comes.

    Args:
        series: Where the rows are in a record.
        lines: By header what a line has in common, as in `Pivot`.
        name: The contestant.
    """

    def cells(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        ratio, memory = ratio_cells.ratio(name), ratio_cells.memory(name)
        for row in lab.value_of(record, series):
            yield {**row, "column": row["setting"], "text": ratio(row)}
            if timing.SETTINGS[row["setting"]]:
                yield {**row, "column": "memory", "text": memory(row)}

    return lab.Pivot(
        lines=lines,
        across="column",
        columns={**timing.LABELS, "memory": "peak memory"},
        cell=lambda row: row["text"],
        rows=lambda record: list(cells(record)),
    )


def draw_by_size(
    figure: Any,
    theme: lab.Theme,
    panels: Mapping[str, Rows],
    names: Mapping[str, str],
    base: str,
    leave_out: Callable[[Any], bool] = lambda row: False,
) -> None:
    r"""Marks for ratios, powers of two apart: a panel for a group, a line for a size.

    Args:
        figure: An empty figure.
        theme: Its colours.
        panels: By title the rows of a group.
        names: The contestants that are drawn, and what they are called.
        base: What is called 1.
        leave_out: The rows that are not drawn, though their sizes have their lines.
    """
    sizes = list(
        dict.fromkeys(tuple(row["size"]) for rows in panels.values() for row in rows)
    )
    every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, rows) in zip(every, panels.items(), strict=True):
        marks = zip(names.items(), "so^", theme.colours, strict=False)
        for (name, label), marker, colour in marks:
            shown = [r for r in rows if name in r["ratios"] and not leave_out(r)]
            places = [-sizes.index(tuple(row["size"])) for row in shown]
            ratios = [math.log2(ratio) for ratio in timing.medians(shown, name)]
            axes.plot(ratios, places, marker, color=colour, label=label)
        axes.axvline(0, color=theme.muted, linewidth=1)
        axes.set_title(title)
        axes.set_xlim(-3.4, 4.9)
        axes.set_xticks(range(-3, 5), TICKS)
    labels = [f"B {b}, T {t:,}, D {d}" for b, t, d in sizes]
    every[0].set_yticks([-k for k in range(len(sizes))], labels)
    every[0].set_ylim(0.5 - len(sizes), 0.5)
    figure.supxlabel(f"time of a training step, {base} = 1", fontsize=9)
    handles, texts = every[0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper center", ncols=3, frameon=False)
