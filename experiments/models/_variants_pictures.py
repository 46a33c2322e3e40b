r"""Tables and the figure of what layer norm does."""

from collections.abc import Mapping
from typing import Any

from experiments.lab.drawing import DASHES, Theme, label_ends, power_ticks
from experiments.lab.tables import number, power_of_ten, table

MARKS = (10, 50, 100)
NAMES = {"plain": "plain", "layer_norm": "layer norm"}
SERIES_NAMES = {
    "layer_norm_series": "layer norm",
    "layer_norm_series_with_1": "layer norm, a constant 1 beside the input",
    "plain_series": "plain",
}


def _row(found: Mapping[str, float]) -> list[str]:
    return [number(found[key]) for key in ("median", "low", "high")]


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """What is kept by lag and scale; what is explained; what is left."""
    series, cases = record["series"], record["cases"]
    labelled = [
        (f"{NAMES[kind]}, weights × {scale:g}", curve)
        for kind, curves in series["by_lag"].items()
        for scale, curve in zip(series["scales"], curves, strict=True)
    ]
    narrow = record["run"]["config"]["narrow_width"]
    labelled.append((f"layer norm, weights × 1, width {narrow}", series["narrow"]))
    kept = [
        [
            label,
            *(power_of_ten(curve[mark]["median"]) for mark in MARKS),
            " to ".join(power_of_ten(curve[MARKS[-1]][k]) for k in ("low", "high")),
        ]
        for label, curve in labelled
    ]
    shares = [
        [label, *_row(cases[name]["explained"])] for name, label in SERIES_NAMES.items()
    ]
    forms = {"as it is": "carried_raw", "normalized": "carried_normed"}
    left = [[label, *_row(cases[name]["jacobian"])] for label, name in forms.items()]
    return {
        "lags": table(
            ["LSTM", *(f"lag {m}" for m in MARKS), "lag 100, lowest to highest"], kept
        ),
        "series": table(["LSTM", "median", "lowest", "highest"], shares),
        "carried": table(["cell state carried", "median", "lowest", "highest"], left),
    }


def draw_by_lag(figure: Any, record: Mapping[str, Any], theme: Theme) -> None:
    """What is kept of a gradient against the lag."""
    axes = figure.subplots()
    series, labels, i = record["series"], [], 0
    last = len(next(iter(series["by_lag"].values()))[0]) - 1
    for kind, curves in series["by_lag"].items():
        for scale, curve in zip(series["scales"], curves, strict=True):
            middle = [point["median"] for point in curve]
            colour = theme.colours[i]
            axes.plot(range(len(middle)), middle, color=colour, linestyle=DASHES[i])
            labels.append((middle[-1], f"{NAMES[kind]}, × {scale:g}", colour))
            i += 1
    power_ticks(axes, range(-25, 1, 5))
    axes.set_xlim(0, last)
    axes.set_xlabel("lag (steps)")
    axes.set_title("What is left of a gradient, by scale of the weights")
    label_ends(axes, last, labels)
