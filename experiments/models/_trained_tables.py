r"""Tables and the figure of the trained LSTM."""

from collections.abc import Mapping
from typing import Any

from experiments.lab.drawing import DASHES, Theme
from experiments.lab.tables import number, table

GATES = ("input", "forget", "output")
BINS = 20
KEYS = ("median", "low", "high")


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Bits by context, and where the gates stand."""
    bits = record["series"]["bits"]
    rows = [
        [number(int(context)), *[f"{bits['trained'][context][k]:.2f}" for k in KEYS]]
        for context in bits["trained"]
    ]
    cases = record["cases"]
    gates_rows = [
        [label, *[_percent(cases[f"{name}_gates"][gate]) for gate in GATES]]
        for name, label in (("before", "before training"), ("trained", "trained"))
    ]
    return {
        "context": table(
            [
                "characters of context",
                "bits per character: median",
                "lowest",
                "highest",
            ],
            rows,
        ),
        "gates": table(["values below 0.1 or above 0.9, %", *GATES], gates_rows),
    }


def _percent(found: Mapping[str, float]) -> str:
    return "{:.0f} ({:.0f} to {:.0f})".format(*(100 * found[key] for key in KEYS))


def draw_gates(figure: Any, record: Mapping[str, Any], theme: Theme) -> None:
    """Histograms of the gates of the trained models."""
    axes = figure.subplots()
    edges = [i / BINS for i in range(BINS + 1)]
    for index, gate in enumerate(GATES):
        axes.stairs(
            [100 * share for share in record["series"]["histograms"][gate]],
            edges,
            color=theme.colours[index],
            linestyle=DASHES[index],
            linewidth=1.8,
            label=f"{gate} gate",
        )
    axes.set_xlabel("value of the gate")
    axes.set_ylabel("share of values, %")
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, labelcolor=theme.ink)
