r"""Tables and the figure of the cell state on a stream."""

from collections.abc import Mapping
from typing import Any

from experiments.lab.drawing import DASHES, Theme, label_ends, power_ticks
from experiments.lab.tables import number, table
from experiments.models._continual_cells import CASES

KINDS = {
    "whole": "1997, whole gradient",
    "truncated": "1997, truncated",
    "lstm": "LSTM",
}


def _learned(learned: Mapping[str, Any]) -> list[list[str]]:
    """Lowest shares over the seeds, and the median of the largest states."""
    return [
        [
            label,
            f"{learned[kind]['first']['low']:.1%}",
            f"{learned[kind]['last']['low']:.1%}",
            f"{learned[kind]['held']['low']:.1%}",
            number(learned[kind]["largest"]["median"]),
        ]
        for kind, label in KINDS.items()
    ]


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Size and saturation by step, cosines by length, trained cells."""
    config, series = record["run"]["config"], record["series"]
    marks = [m for m in config["marks"] if m in (1, 10, 100, 1000, 10_000)]
    places = [config["marks"].index(mark) for mark in marks]
    rows = []
    for name, case in CASES.items():
        found = series["by_case"][name]
        sizes = [number(10 ** found["log10_size"][at]["median"]) for at in places]
        rows.append([case.label, *sizes, f"{found['saturated'][-1]:.0%}"])
    headers = ["cell", *[f"step {mark:,}" for mark in marks], "saturated at the end"]
    angles = [
        [number(angle[key], 3) for key in ("median", "low", "high")]
        for angle in series["angles"]
    ]
    lengths = [number(steps) for steps in config["gradient_steps"]]
    return {
        "size": table(headers, rows),
        "cosine": table(
            ["steps", "median cosine", "lowest", "highest"],
            [[n, *row] for n, row in zip(lengths, angles, strict=True)],
        ),
        "trained": table(
            [
                "network",
                "right, as far as it was trained",
                "right, last tenth of the stream",
                "the same, state held in range",
                "largest cell state at the end",
            ],
            _learned(series["learned"]),
        ),
    }


def draw_growth(figure: Any, record: Mapping[str, Any], theme: Theme) -> None:
    """Root mean square of the cell state against the number of steps."""
    axes = figure.subplots()
    marks, labels = record["run"]["config"]["marks"], []
    for i, (name, case) in enumerate(CASES.items()):
        points = record["series"]["by_case"][name]["log10_size"]
        low, high, middle = ([p[k] for p in points] for k in ("low", "high", "median"))
        colour = theme.colours[i]
        axes.fill_between(marks, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(marks, middle, color=colour, linestyle=DASHES[i])
        labels.append((middle[-1], case.label, colour))
    axes.set_xscale("log")
    ticks = [m for m in marks if m in (1, 10, 100, 1000, 10_000)]
    axes.set_xticks(ticks, [f"{m:,}" for m in ticks])
    power_ticks(axes, range(-1, 4))
    axes.set_xlim(1, marks[-1])
    axes.set_xlabel("steps without a reset")
    axes.set_title("Size of the cell state (root mean square)")
    label_ends(axes, marks[-1], labels)
