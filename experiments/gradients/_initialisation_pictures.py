r"""Tables and figures of the experiment, and the texts that sentences take from it."""

from collections.abc import Mapping
from typing import Any

from experiments.gradients._initialisation_layers import NAMES
from experiments.lab.drawing import DASHES, Theme, label_ends, power_ticks
from experiments.lab.tables import number, power_of_ten, table

MARKS = (1, 10, 100, 1000)
BOTTOM = -4.0


def at(case: Mapping[str, Any], part: str, lag: int, key: str = "median") -> float:
    """A decimal logarithm at a lag."""
    return case[part][key][case["lags"].index(lag)]


def text_of(logarithm: float) -> str:
    """A power of ten, or that it is too small to matter."""
    return "below 10⁻⁹⁹" if logarithm < -99 else power_of_ten(logarithm)


def length_text(found: Mapping[str, float], lags: list[int]) -> str:
    """A lag with its range over seeds, such as 7 (6 to 8)."""
    texts = {
        key: f"over {max(lags):,}" if value > max(lags) else f"{round(value):,}"
        for key, value in found.items()
    }
    if texts["low"] == texts["high"]:
        return texts["median"]
    return f"{texts['median']} ({texts['low']} to {texts['high']})"


def _beside(case: Mapping[str, Any], lag: int) -> str:
    measured = at(case, "state", lag) - at(case, "state", 1)
    return f"{text_of(measured)}, {text_of(at(case, 'biases', lag))}"


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """States and inputs by lag, the biases' prediction, saturation, constant gates."""
    layers = {n: c for n, c in record["cases"].items() if n in NAMES}
    lags = record["run"]["config"]["lags"]
    marks = [lag for lag in MARKS if lag in lags]
    later = [lag for lag in (10, 100, 500, 1000) if lag in lags]
    back = [f"{lag:,} step{'s' * (lag > 1)} back" for lag in marks]

    def by_lag(part: str) -> list[list[str]]:
        return [
            [NAMES[name], *[text_of(at(case, part, lag)) for lag in marks]]
            for name, case in layers.items()
        ]

    lengths = [length_text(case["one_percent"], lags) for case in layers.values()]
    states = [[*row, lag] for row, lag in zip(by_lag("state"), lengths, strict=True)]
    pairs = [lag for lag in (10, 100, 1000) if lag in lags]
    predicted = [
        [NAMES[name], *[_beside(case, lag) for lag in pairs]]
        for name, case in layers.items()
        if "biases" in case
    ]
    saturated = [
        [NAMES[name], number(case["cell"], 2), number(case["slope"], 2)]
        for name, case in layers.items()
        if "slope" in case
    ]
    constant = [
        [f"{case['gate']:g}", *[text_of(at(case, "state", lag)) for lag in later]]
        for case in record["cases"].values()
        if "gate" in case
    ]
    return {
        "state": table(["layer", *back, "below 1 % at"], states),
        "input": table(["layer", *back], by_lag("input")),
        "biases": table(["layer", *[f"{lag:,} steps" for lag in pairs]], predicted),
        "saturation": table(["layer", "mean size of c", "mean slope"], saturated),
        "gates": table(["gate", *[f"left after {lag:,}" for lag in later]], constant),
    }


def _draw(figure: Any, record: Mapping[str, Any], theme: Theme, kinds: str) -> None:
    axes = figure.subplots()
    lags = record["run"]["config"]["lags"]
    names = [name for name in record["cases"] if name.split("_")[0] in kinds]
    # Six lines can be told apart; this one lies close to that of the default.
    names = [name for name in names if name != "gru_orthogonal"]
    beside = []
    for i, name in enumerate(names):
        case, colour = record["cases"][name]["state"], theme.colours[i]
        ends_inside = case["median"][-1] > BOTTOM
        short = NAMES[name].replace("forget ", "")
        # A line that leaves the frame is named in the legend.
        label = None if ends_inside else short
        style = {"color": colour, "linestyle": DASHES[i], "label": label}
        axes.plot(lags, case["median"], **style)
        band = (case["low"], case["high"])
        axes.fill_between(lags, *band, color=colour, alpha=0.2, linewidth=0)
        if ends_inside:
            beside.append((case["median"][-1], short, colour))
    axes.set_xscale("log")
    axes.set_xticks(list(MARKS), [f"{lag:,}" for lag in MARKS])
    axes.set_xlim(1, max(lags))
    axes.set_ylim(BOTTOM, 1)
    power_ticks(axes, range(int(BOTTOM), 2))
    label_ends(axes, lags[-1], beside)
    place = {"loc": "lower right", "bbox_to_anchor": (0.97, 0.0)}
    axes.legend(**place, frameon=False, labelcolor=theme.ink, handlelength=3)
    axes.set_xlabel("steps back")
    axes.set_title("Gradient by the state, over that by the last output")


def draw_lstm(figure: Any, record: Mapping[str, Any], theme: Theme) -> None:
    """LSTMs: what is left of a gradient against the lag, both on logarithmic scales."""
    _draw(figure, record, theme, "lstm")


def draw_others(figure: Any, record: Mapping[str, Any], theme: Theme) -> None:
    """Plain networks and GRUs in the same way."""
    _draw(figure, record, theme, "rnn gru")
