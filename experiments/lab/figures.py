r"""Drawings that several experiments have: lines with a band over the seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.lab.drawing import DASHES, Theme, label_ends, power_ticks
from experiments.lab.quantity import Quantity, value_of


def band(
    axes: Any,
    x: Sequence[float],
    points: Sequence[Mapping[str, float]],
    theme: Theme,
    place: int,
) -> tuple[float, str]:
    r"""Draw medians as a line and lowest to highest as a band.

    Returns the last median and the colour, for the name beside the line's end.
    """
    low, middle, high = (
        [point[key] for point in points] for key in ("low", "median", "high")
    )
    colour = theme.colours[place]
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(x, middle, color=colour, linestyle=DASHES[place])
    return middle[-1], colour


@dataclass(frozen=True)
class Lines:
    r"""A line with a band for each of some cases, on decimal logarithms.

    Args:
        x: What the lines are drawn against: a path in the record.
        y: Points by case, each a `spread` of logarithms: a path in the record.
        labels: The cases that are drawn, in order, and their names.
        xlabel: What `x` is.
        title: What is drawn.
    """

    x: Quantity
    y: Quantity
    labels: Mapping[str, str]
    xlabel: str
    title: str

    def __call__(self, figure: Any, record: Mapping[str, Any], theme: Theme) -> None:
        axes, x = figure.subplots(), value_of(record, self.x)
        ends = []
        for place, (name, label) in enumerate(self.labels.items()):
            points = value_of(record, self.y)[name]
            end, colour = band(axes, x, points, theme, place)
            ends.append((end, label, colour))
        top = math.ceil(axes.get_ylim()[1])
        power_ticks(axes, range(0, top + 1, max(1, top // 6)))
        axes.set_xlim(x[0], x[-1])
        axes.set_xlabel(self.xlabel)
        axes.set_title(self.title)
        label_ends(axes, x[-1], ends)
