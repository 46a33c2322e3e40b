r"""Figures as SVG: one light and one dark twin, byte for byte the same every time."""

import importlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seqref.errors import import_extra

# The committed SVG files were drawn by this version; another may move a digit.
MATPLOTLIB_VERSION = "3.11.2"
# 680 CSS pixels at 96 to the inch, so that 9 pt in the file is 12 px on the page.
WIDTH = 680 / 96
# Least distance of two names beside lines, as a share of the axis.
LABEL_GAP = 0.055


@dataclass(frozen=True)
class Theme:
    """Colours of one colour scheme; the lines can be told apart without colour."""

    name: str
    ink: str
    muted: str
    grid: str
    colours: tuple[str, ...]


# Hues after Okabe and Ito, darkened or lightened to at least 3:1 on the page.
LIGHT = Theme(
    name="light",
    ink="#1b1f24",
    muted="#57606a",
    grid="#d0d7de",
    colours=("#0072b2", "#c2410c", "#00775a", "#a3438a", "#7a5c00", "#57606a"),
)
DARK = Theme(
    name="dark",
    ink="#e6edf3",
    muted="#a3adb8",
    grid="#3b434c",
    colours=("#56b4e9", "#ff9052", "#3fc9a0", "#e79ac9", "#f0c04a", "#a3adb8"),
)
THEMES = (LIGHT, DARK)
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))


def load_matplotlib() -> Any:
    r"""Import matplotlib.

    Raises:
        RuntimeError: It is not installed.
    """
    return import_extra("matplotlib", "drawing figures", "bench")


def draw(function: Callable[..., None], record: Mapping[str, Any], theme: Theme) -> str:
    """Draw one figure in one theme and return the text of its SVG file."""
    matplotlib = load_matplotlib()
    figures = importlib.import_module("matplotlib.figure")
    with matplotlib.rc_context():
        # A reader's own matplotlibrc must not change the picture.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_style(theme))
        figure = figures.Figure(figsize=(WIDTH, 0.56 * WIDTH), layout="constrained")
        function(figure, record, theme)
        stream = io.StringIO()
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(stream, format="svg", metadata=metadata, transparent=True)
    text = stream.getvalue()
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def _style(theme: Theme) -> dict[str, Any]:
    return {
        "axes.edgecolor": theme.muted,
        "axes.grid": True,
        "axes.labelcolor": theme.ink,
        "axes.linewidth": 0.8,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlecolor": theme.ink,
        "axes.titlelocation": "left",
        "axes.titlesize": 10,
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "grid.color": theme.grid,
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.8,
        "svg.fonttype": "path",
        "svg.hashsalt": "seqref",
        "text.color": theme.ink,
        "xtick.color": theme.muted,
        "xtick.labelcolor": theme.ink,
        "ytick.color": theme.muted,
        "ytick.labelcolor": theme.ink,
    }


def power_ticks(axes: Any, exponents: Sequence[int]) -> None:
    """Label a y axis that holds decimal logarithms with powers of ten."""
    # Exponents are printed at 0.7 of the size, which must stay above 8 pt.
    labels = [f"$10^{{{exponent}}}$" for exponent in exponents]
    axes.set_yticks(list(exponents), labels, fontsize=11.5)


def label_line(axes: Any, x: float, y: float, text: str, colour: str) -> None:
    """Write a line's name at its right end."""
    label_ends(axes, x, [(y, text, colour)])


def label_ends(axes: Any, x: float, labels: Sequence[tuple[float, str, str]]) -> None:
    r"""Write the names of lines, each (y, text, colour), beside their right ends.

    Names that would touch are moved apart, the middle of a group staying where it is.
    Call it last: the room between two names is a share of the axis as it stands.
    """
    low, high = axes.get_ylim()
    gap = LABEL_GAP * (high - low)
    ordered = sorted(labels, key=lambda label: label[0])
    places = spaced([label[0] for label in ordered], gap)
    for (_, text, colour), place in zip(ordered, places, strict=True):
        _write_beside(axes, x, place, text, colour)


def spaced(values: Sequence[float], gap: float) -> list[float]:
    """Rising values moved apart to at least `gap`, each group about its own mean."""
    groups: list[list[float]] = []
    for value in values:
        groups.append([value])
        while len(groups) > 1 and _touch(groups[-2], groups[-1], gap):
            last = groups.pop()
            groups[-1] += last
    return [place for group in groups for place in _spread_out(group, gap)]


def _spread_out(group: Sequence[float], gap: float) -> list[float]:
    middle = sum(group) / len(group)
    first = middle - gap * (len(group) - 1) / 2
    return [first + gap * i for i in range(len(group))]


def _touch(below: Sequence[float], above: Sequence[float], gap: float) -> bool:
    return _spread_out(above, gap)[0] - _spread_out(below, gap)[-1] < gap


def _write_beside(axes: Any, x: float, y: float, text: str, colour: str) -> None:
    axes.annotate(
        text,
        (x, y),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        color=colour,
        annotation_clip=False,
    )
