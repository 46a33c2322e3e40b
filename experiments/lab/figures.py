r"""Drawings that several experiments have: lines with a band over the seeds."""

import math
from collections.abc import Callable, Mapping, Sequence
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
    alpha: float = 0.2,
) -> tuple[float, str]:
    r"""Draw medians as a line and lowest to highest as a band.

    Returns the last median and the colour, for the name beside the line's end.
    """
    low, high = ([point[key] for point in points] for key in ("low", "high"))
    colour = theme.colours[place]
    axes.fill_between(x, low, high, color=colour, alpha=alpha, linewidth=0)
    return line(axes, x, points, theme, place)


def line(
    axes: Any,
    x: Sequence[float],
    points: Sequence[Mapping[str, float]],
    theme: Theme,
    place: int,
) -> tuple[float, str]:
    """Draw medians as a line; returns the last one and the colour."""
    middle, colour = [point["median"] for point in points], theme.colours[place]
    axes.plot(x, middle, color=colour, linestyle=DASHES[place])
    return middle[-1], colour


def lines(
    axes: Any,
    x: Sequence[float],
    curves: Mapping[str, Sequence[Mapping[str, float]]],
    theme: Theme,
    draw: Callable[..., tuple[float, str]] = band,
) -> list[tuple[float, str, str]]:
    r"""Draw every curve by its name; `draw` is `band` or `line`.

    Returns the ends with names and colours, as `label_ends` takes them.
    """
    ends = []
    for place, (name, points) in enumerate(curves.items()):
        end, colour = draw(axes, x, points, theme, place)
        ends.append((end, name, colour))
    return ends


@dataclass(frozen=True)
class Lines:
    r"""A line with a band for each of some cases, on decimal logarithms.

    Args:
        x: What the lines are drawn against: a path in the record.
        y: Points by case, each a `spread` of logarithms: a path in the record.
        xlabel: What `x` is.
        title: What is drawn.
        labels: The cases that are drawn, in order, and their names; by default all,
            under the names that `y` has for them.
        draw: `band`, or `line` for the medians alone.
        start: Left end of the x axis; by default the first of `x`.
        ticks: Exponents that are named; by default some from 0 to the highest.
    """

    x: Quantity
    y: Quantity
    xlabel: str
    title: str
    labels: Mapping[str, str] | None = None
    draw: Callable[..., tuple[float, str]] = band
    start: float | None = None
    ticks: Sequence[int] | None = None

    def __call__(self, figure: Any, record: Mapping[str, Any], theme: Theme) -> None:
        axes, x = figure.subplots(), value_of(record, self.x)
        points = value_of(record, self.y)
        labels = self.labels or {name: name for name in points}
        curves = {label: points[name] for name, label in labels.items()}
        ends = lines(axes, x, curves, theme, self.draw)
        top = math.ceil(axes.get_ylim()[1])
        some = range(0, top + 1, max(1, top // 6))
        power_ticks(axes, some if self.ticks is None else self.ticks)
        axes.set_xlim(x[0] if self.start is None else self.start, x[-1])
        axes.set_xlabel(self.xlabel)
        axes.set_title(self.title)
        label_ends(axes, x[-1], ends)
