"""Lines and bands: what is drawn of which points, and what the ends say."""

import pytest

from experiments import lab
from experiments.lab.drawing import LIGHT


class Axes:
    """Keeps what is drawn, as a name and the values up the page."""

    def __init__(self):
        self.drawn = []

    def plot(self, x, y, color, linestyle):
        self.drawn.append((color, linestyle, y))

    def fill_between(self, x, low, high, color, **_):
        self.drawn.append((color, "band", [low, high]))


CURVES = {
    "one": [
        {"low": 0.0, "median": 1.0, "high": 2.0},
        {"low": 1.0, "median": 3.0, "high": 4.0},
    ],
    "two": [{"median": 5.0, "low": 4.0, "high": 9.0}] * 2,
}


@pytest.mark.parametrize("draw", [lab.band, lab.line])
def test_lines_have_a_place_each_and_end_at_their_last_median(draw):
    axes, (first, second, *_) = Axes(), LIGHT.colours
    ends = lab.lines(axes, [1, 2], CURVES, LIGHT, draw)
    assert ends == [(3.0, "one", first), (5.0, "two", second)]
    drawn = [
        (first, "band", [[0.0, 1.0], [2.0, 4.0]]),
        (first, "-", [1.0, 3.0]),
        (second, "band", [[4.0, 4.0], [9.0, 9.0]]),
        (second, "--", [5.0, 5.0]),
    ]
    bands = [part for part in drawn if draw is lab.band or part[1] != "band"]
    assert axes.drawn == bands


def test_an_axis_begins_and_is_named_as_asked():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    record = {"x": [1, 2], "y": CURVES}
    lines = lab.Lines("x", "y", "steps", "", start=0, ticks=range(-4, 5, 2))
    lines(figure, record, LIGHT)
    (axes,) = figure.axes
    assert axes.get_xlim() == (0, 2)
    assert axes.get_yticks().tolist() == [-4, -2, 0, 2, 4]
