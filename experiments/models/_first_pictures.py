r"""Tables, samples and the learning curve, from the record alone."""

from collections.abc import Mapping
from typing import Any

from experiments.lab.drawing import DASHES, Theme, label_line
from experiments.lab.tables import number, table
from experiments.models._first_data import ORDERS

LABELS = {"unigram": "unigram", "bigram": "bigram", "fivegram": "5-gram"}
CURVES = ("bigram", "fivegram", "lstm")


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Bits of each model, at equal text, by order, by reset; the samples."""
    numbers, series = record["numbers"], record["series"]
    rows = [
        [f"uniform over {numbers['vocabulary']} symbols", _bits(numbers["uniform"])]
    ]
    rows += [[LABELS[name], _bits(numbers[name])] for name in ORDERS]
    rows += [["LSTM without memory (control)", _bits(numbers["without_memory"])]]
    rows += [["LSTM", _bits(numbers["lstm"])]]
    curve = [
        [number(int(p["characters"])), *(_bits(p[k]) for k in CURVES)]
        for p in series["curve"]
    ]
    states = [
        [f"every {p['every']} characters", _bits(p["bits"]), _lost(p, numbers["lstm"])]
        for p in series["resets"]
    ]
    return {
        "bits": table(["model", "bits per character"], rows),
        "equal_text": table(["characters read", "bigram", "5-gram", "LSTM"], curve),
        "orders": table(
            ["order n", "bits per character"],
            [[str(p["order"]), _bits(p["bits"])] for p in series["orders"]],
        ),
        "resets": table(
            ["state emptied", "bits per character", "bits lost each time"],
            [*states, ["never", _bits(numbers["lstm"]), "0"]],
        ),
        "samples": "\n".join(_sample(s) for s in series["samples"]),
    }


def _bits(value: float) -> str:
    return f"{value:.3f}"


def _lost(point: Mapping[str, float], carried: float) -> str:
    return f"{point['every'] * (point['bits'] - carried):.1f}"


def _sample(drawn: Mapping[str, Any]) -> str:
    # Spaces at line ends would be cut by editors and make the file differ.
    text = "\n".join(
        line.rstrip() for line in (drawn["prompt"] + drawn["text"]).splitlines()
    )
    return f"Temperature {drawn['temperature']:g}:\n\n````text\n{text}\n````\n"


def draw_curve(figure: Any, record: Mapping[str, Any], theme: Theme) -> None:
    """Held-out bits against characters read; n-grams of all the text as lines."""
    axes = figure.subplots()
    numbers, curve = record["numbers"], record["series"]["curve"]
    x = [p["characters"] for p in curve]
    for i, (key, text) in enumerate((("lstm", "LSTM"), ("fivegram", "5-gram"))):
        y = [p[key] for p in curve]
        style = {"color": theme.colours[i], "linestyle": DASHES[i], "marker": "os"[i]}
        axes.plot(x, y, markersize=4, label=f"{text}, same text", **style)
    for i, name in enumerate(ORDERS):
        value, colour = numbers[name], theme.colours[i + 2]
        axes.axhline(value, color=colour, linestyle=DASHES[i + 2], linewidth=1.2)
        label_line(axes, x[-1] * 1.15, value, f"{LABELS[name]}, all text", colour)
    axes.set_xscale("log")
    axes.set_xlim(x[0] / 1.15, x[-1] * 1.15)
    axes.set_xlabel("training characters read")
    axes.set_title("Bits per character on held-out modules")
    axes.legend(frameon=False, loc="center right", bbox_to_anchor=(1, 0.79))
