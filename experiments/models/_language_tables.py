r"""Tables, figures and numbers of the language models that are compared."""

from collections.abc import Mapping
from typing import Any

from experiments import lab

COUNTS = {"frequencies": "frequencies, counted", "bigram": "bigrams, counted"}
LABELS = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM", "transformer": "transformer"}


def signed(quantity: str, decimals: int = 3) -> lab.Cell:
    """A difference with its interval: +0.02 (+0.01 to +0.03)."""

    def write(found: Mapping[str, float]) -> str:
        middle, *ends = (
            f"{found[key]:+.{decimals}f}" for key in ("mean", "low", "high")
        )
        text = f"{middle} ({ends[0]} to {ends[1]})"
        return text.replace("-", "\N{MINUS SIGN}")

    return lab.cell(quantity, write)


def plain(quantity: str, decimals: int = 3) -> lab.Cell:
    """A quantity with its interval: 2.50 (2.48 to 2.52)."""

    def write(found: Mapping[str, float]) -> str:
        middle, *ends = (
            f"{found[key]:.{decimals}f}" for key in ("mean", "low", "high")
        )
        return f"{middle} ({ends[0]} to {ends[1]})"

    return lab.cell(quantity, write)


def optional(quantity: str) -> lab.Cell:
    """A difference with its interval, or nothing where there is none."""
    return lambda row: signed(quantity)(row) if quantity in row else ""


def named(key: str) -> lab.Cell:
    """The name of the kind that stands under a key."""
    return lambda row: LABELS[row[key]]


def having(key: str) -> Any:
    """The rows that have a key."""
    return lambda record: [row for row in record["cases"].values() if key in row]


def bands_table(record: Mapping[str, Any]) -> str:
    """A row for each band of places, a column for each kind."""
    series, cases = record["series"], record["cases"]
    kinds = record["run"]["config"]["kinds"]
    rows = []
    for place, (first, last) in enumerate(
        zip(series["first"], series["last"], strict=True)
    ):
        cells = [cases[kind]["bands"][place]["mean"] for kind in kinds]
        text = str(first) if first == last else f"{first} to {last}"
        less = cases["transformer_less_lstm"]["bands"][place]
        cell = signed("less")({"less": less})
        rows.append([text, *(f"{value:.3f}" for value in cells), cell])
    heads = ["characters read", *(LABELS[kind] for kind in kinds)]
    return lab.table([*heads, "transformer less LSTM"], rows)


def bits_table(record: Mapping[str, Any]) -> str:
    """A row for each kind, then one for each thing that was counted."""
    cases, rows = record["cases"], []
    for row in having("width")(record):
        carried = plain("carried")(row) if "carried" in row else ""
        less, far = signed("less_bigram", 2)(row), signed("far")(row)
        rows.append([LABELS[row["kind"]], plain("bits")(row), less, carried, far])
    for name, label in COUNTS.items():
        rows.append([label, f"{cases[name]['bits']:.3f}", "", "", ""])
    heads = ["kind", "bits per character", "less the bigrams'"]
    return lab.table([*heads, "after the window before", "worth of what is cut"], rows)


def seeds_table(record: Mapping[str, Any]) -> str:
    """A row for each kind, a column for each seed."""
    rows = [
        [LABELS[row["kind"]], *(f"{bits:.3f}" for bits in row["by_seed"])]
        for row in having("width")(record)
    ]
    seeds = record["run"]["config"]["seeds"]
    return lab.table(["kind", *(f"seed {seed}" for seed in seeds)], rows)


def rates_table(record: Mapping[str, Any]) -> str:
    """A row for each rate, a column for each kind; the fewest bits in bold."""
    config, cases = record["run"]["config"], record["cases"]
    rows = []
    for place, rate in enumerate(config["rates"]):
        cells = []
        for kind in config["kinds"]:
            own = cases[f"rates_{kind}"]["bits"]
            text = f"{own[place]:.3f}"
            cells.append(f"**{text}**" if own[place] == min(own) else text)
        rows.append([f"{rate:g}", *cells])
    heads = ["highest rate", *(LABELS[kind] for kind in config["kinds"])]
    return lab.table(heads, rows)


def draw_places(figure: Any, record: Mapping[str, Any], theme: lab.Theme) -> None:
    """Bits by the characters read, and those of each kind less the LSTM's."""
    whole, less = figure.subplots(1, 2)
    series, cases = record["series"], record["cases"]
    x = series["first"]
    colours = dict(
        zip(LABELS, zip(theme.colours, lab.DASHES, strict=False), strict=False)
    )
    for kind in record["run"]["config"]["kinds"]:
        colour, dash = colours[kind]
        style = {"color": colour, "linestyle": dash}
        middle = [band["mean"] for band in cases[kind]["bands"]]
        whole.plot(x, middle, label=LABELS[kind], **style)
        if kind == "lstm":
            less.axhline(0, label=LABELS[kind], **style)
            continue
        name = f"{kind}_less_lstm"
        found = cases.get(name) or opposite(cases[f"lstm_less_{kind}"])
        low, middle, high = (
            [band[key] for band in found["bands"]] for key in ("low", "mean", "high")
        )
        less.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        less.plot(x, middle, **style)
    for axes, title in (
        (whole, "Bits per character"),
        (less, "Less those of the LSTM"),
    ):
        axes.set_xscale("log", base=2)
        axes.set_xticks(x, [str(first) for first in x])
        axes.set_xlim(x[0], x[-1])
        axes.set_xlabel("characters read, at least")
        axes.set_title(title)
    whole.legend(frameon=False)


def opposite(case: Mapping[str, Any]) -> dict[str, Any]:
    """The bands of a difference the other way round."""
    return {
        "bands": [
            {"mean": -band["mean"], "low": -band["high"], "high": -band["low"]}
            for band in case["bands"]
        ]
    }


TABLES = {
    "sizes": lab.Table(
        rows=having("width"),
        columns={
            "kind": named("kind"),
            "width": "width",
            "parameters of the layers": "layers",
            "embedding": "embedding",
            "head": "head",
            "all parameters": "parameters",
            "multiply-adds a character": lab.cell(
                lambda row: round(row["multiply_adds"])
            ),
            "over the LSTM's": lab.fixed("over_lstm", 2),
            "rate": lab.cell("rate", lambda rate: f"{rate:g}"),
        },
    ),
    "pairs": lab.Table(
        rows=having("shift"),
        columns={
            "kind": named("one"),
            "less those of": named("other"),
            "all places": signed("bits"),
            "level of all six": lab.fixed("holm", 2),
            "early": signed("early"),
            "late": signed("late"),
            "late less early": signed("shift"),
        },
    ),
    "compute": lab.Table(
        rows=having("compute"),
        columns={
            "kind": named("compute"),
            "updates": "updates",
            "multiply-adds": "total",
            "bits per character": plain("bits"),
            "less the LSTM's": optional("less"),
            "less its own with all updates": optional("own"),
        },
    ),
    "bits": bits_table,
    "seeds": seeds_table,
    "bands": bands_table,
    "rates": rates_table,
}
FIGURES = {"places": draw_places}


def numbers(cases: Mapping[str, Any]) -> dict[str, Any]:
    """What sentences take: means and ends of intervals."""
    made: dict[str, Any] = {}
    for name, case in cases.items():
        for key, found in case.items():
            if isinstance(found, int | float | str):
                made[f"{name}_{key}"] = found
            elif isinstance(found, Mapping):
                made[f"{name}_{key}"] = found["mean"]
                made |= {f"{name}_{key}_{end}": found[end] for end in ("low", "high")}
    return made
