r"""Tables, figures and numbers of the models that say words."""

from collections.abc import Mapping
from typing import Any

from experiments import lab

KINDS = {
    "in_order": "one vector, source in order",
    "from_end": "one vector, source from its end",
    "equal": "all positions, equal weights",
    "attention": "attention, source in order",
}
LETTERS = {"5": "up to 5", "7": "6 or 7", "9": "8 or 9", "10": "10 or more"}
ORDERS = {"before": "the state before the step", "after": "the state after the step"}
TRAINED = {
    "attention": "Luong's",
    "equal": "Luong's, its weights equal",
    "bahdanau": "Bahdanau's",
}
WEIGHTS = {"own": "as trained", "permuted": "permuted", "levelled": "made equal"}
SCHEDULES = {
    "bahdanau": "teacher forcing",
    "linear": "linear",
    "exponential": "exponential",
    "inverse_sigmoid": "inverse sigmoid",
    "free": "own tokens from the start",
}


def ends(rate: Mapping[str, float]) -> tuple[float, float, float]:
    """A rate, and the ends of its interval."""
    return rate["mean"], rate["low"], rate["high"]


def share(quantity: str) -> lab.Cell:
    """A share with its interval, in per cent; nothing where a case has none."""

    def write(case: Mapping[str, Any]) -> str:
        if quantity not in case:
            return ""
        found = case[quantity]
        middle, low, high = (100 * found[key] for key in ("mean", "low", "high"))
        text = f"{middle:.1f} ({low:.1f} to {high:.1f})"
        return text.replace("-", "\N{MINUS SIGN}")

    return write


def more(quantity: str) -> lab.Cell:
    """A difference with its interval, in points."""

    def write(case: Mapping[str, Any]) -> str:
        found = case[quantity]
        middle, low, high = (100 * found[key] for key in ("mean", "low", "high"))
        text = f"{middle:+.2f} ({low:+.2f} to {high:+.2f})"
        return text.replace("-", "\N{MINUS SIGN}")

    return write


def letters_table(record: Mapping[str, Any]) -> lab.Pivot:
    """PER by the letters of the word: a row for each kind, a column for each length."""
    return lab.Pivot(
        lines={
            "model": lambda case: KINDS[case["bottleneck"]],
            "width": lambda case: str(case["width"]),
        },
        across="letters",
        columns={name: f"{text} letters" for name, text in LETTERS.items()},
        cell=share("per"),
        rows=lambda record: [
            case for case in record["cases"].values() if "bottleneck" in case
        ],
    )


def of_kinds(labels: Mapping[str, str], heading: str, columns: Any) -> Any:
    """A row for each of some kinds and widths, with the differences in the same row."""

    def make(record: Mapping[str, Any]) -> lab.Table:
        cases = record["cases"]
        rows = []
        for width in record["run"]["config"]["hidden_sizes"]:
            for kind, text in labels.items():
                if f"{kind}_{width}" in cases:
                    extra = cases.get(f"schedule_{kind}_{width}", {})
                    if kind == "after":
                        extra = cases[f"order_{width}"]
                    rows.append({**cases[f"{kind}_{width}"], **extra, "label": text})
        return lab.Table(
            rows=lambda record: rows,
            columns={"width": "width", heading: lambda row: row["label"], **columns},
        )

    return make


def optional(write: lab.Cell, quantity: str) -> lab.Cell:
    """What `write` makes of a row that has the quantity; of another, nothing."""
    return lambda row: write(row) if quantity in row else ""


def nats(case: Mapping[str, Any]) -> str:
    """The loss after true tokens."""
    found = case["nats"]
    return f"{found['mean']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def largest(case: Mapping[str, Any]) -> str:
    """The mean of the largest weight of a step, of the model's own."""
    return f"{case['largest']['mean']:.2f}" if "largest" in case else ""


def weights_table(record: Mapping[str, Any]) -> lab.Table:
    """Weights that are replaced, by what they were in training."""
    rows = [case for case in record["cases"].values() if "trained" in case]
    return lab.Table(
        rows=lambda record: rows,
        columns={
            "width": "width",
            "attention in training": lambda row: TRAINED[row["trained"]],
            "weights after it": lambda row: WEIGHTS[row["weights"]],
            "largest weight": largest,
            "predictions that change, %": share("changed"),
            "distance of outputs, %": share("distance"),
            "PER, %": share("per"),
        },
    )


def searched(record: Mapping[str, Any], group: str) -> list[dict[str, Any]]:
    """The cases of beams or of divisors."""
    return [c for c in record["cases"].values() if c.get("search") == group]


def beams_table(record: Mapping[str, Any]) -> lab.Table:
    """Beams by width, each against greedy."""
    return lab.Table(
        rows=lambda record: searched(record, "beams"),
        columns={
            "model width": "width",
            "beam": lambda row: row["name"],
            "log P more, nats a word": lambda row: f"{row['log_p_more']['mean']:.3f}",
            "PER, %": share("per"),
            "against greedy": more("per_more"),
            "WER, %": share("wer"),
            "against greedy ": more("wer_more"),
        },
    )


def divisor(row: Mapping[str, Any]) -> str:
    """What log P is divided by."""
    if row["search"] == "beams":
        return "1 (the sum itself)"
    if row["name"] == "mean":
        return "the length"
    return f"GNMT's, α = {row['name']}"


def penalties_table(record: Mapping[str, Any]) -> lab.Table:
    """Divisors of log P at one width of beam, each against none."""
    beam = record["run"]["config"]["beam"]
    rows: list[dict[str, Any]] = []
    for width in record["run"]["config"]["hidden_sizes"]:
        rows.append(record["cases"][f"beams_{beam}_{width}"])
        rows += [r for r in searched(record, "penalties") if r["width"] == width]

    def against(quantity: str) -> lab.Cell:
        write = more(quantity)
        return lambda row: "" if row["search"] == "beams" else write(row)

    return lab.Table(
        rows=lambda record: rows,
        columns={
            "model width": "width",
            "log P is divided by": divisor,
            "phonemes said, % of the reference": share("length"),
            "PER, %": share("per"),
            "against the sum": against("per_more"),
            "WER, %": share("wer"),
            "against the sum ": against("wer_more"),
        },
    )


def point(rate: Mapping[str, float]) -> dict[str, float]:
    """A rate in per cent, under the names that drawings have."""
    return {
        "median": 100 * rate["mean"],
        "low": 100 * rate["low"],
        "high": 100 * rate["high"],
    }


def panels(figure: Any, record: Mapping[str, Any]) -> Any:
    """A panel for each width, side by side."""
    widths = record["run"]["config"]["hidden_sizes"]
    all_axes = figure.subplots(1, len(widths), sharey=True, squeeze=False)[0]
    for axes, width in zip(all_axes, widths, strict=True):
        axes.set_title(f"width {width}")
        yield axes, width


def draw_letters(figure: Any, record: Mapping[str, Any], theme: lab.Theme) -> None:
    """PER by letters, with one vector and with attention."""
    trained = record["run"]["config"]["kinds"]
    labels = {kind: text for kind, text in KINDS.items() if kind in trained}
    for axes, width in panels(figure, record):
        curves = {
            text: [
                point(record["cases"][f"{kind}_letters{name}_{width}"]["per"])
                for name in LETTERS
            ]
            for kind, text in labels.items()
        }
        lab.lines(axes, range(len(LETTERS)), curves, theme)
        axes.set_xticks(range(len(LETTERS)), ["to 5", "6, 7", "8, 9", "10 up"])
        axes.set_xlabel("letters of the word")
        axes.set_ylim(bottom=0)
    figure.axes[0].set_ylabel("PER, %")
    lines = figure.axes[-1].get_lines()
    figure.legend(lines, list(labels.values()), loc="outside lower center", ncols=3)


def draw_beams(figure: Any, record: Mapping[str, Any], theme: lab.Theme) -> None:
    """What beams change against greedy, in points of PER and of WER."""
    for axes, width in panels(figure, record):
        rows = [row for row in searched(record, "beams") if row["width"] == width]
        curves = {
            name: [point(row[key]) for row in rows]
            for name, key in (("PER", "per_more"), ("WER", "wer_more"))
        }
        lab.lines(axes, range(len(rows)), curves, theme)
        axes.axhline(0, color=theme.colours[-1], linewidth=0.8)
        axes.set_xticks(range(len(rows)), [row["name"] for row in rows])
        axes.set_xlabel("width of the beam")
    figure.axes[0].set_ylabel("points against greedy")
    lines = figure.axes[-1].get_lines()[:2]
    figure.legend(lines, ["PER", "WER"], loc="outside lower center", ncols=2)


def numbers(cases: Mapping[str, Any]) -> dict[str, Any]:
    """Every rate with its ends, for sentences; differences also as points fewer."""
    made = {}
    for name, case in cases.items():
        for key, found in case.items():
            if not isinstance(found, Mapping):
                continue
            for end, value in zip(("", "_low", "_high"), ends(found), strict=True):
                made[f"{name}_{key}{end}"] = value
            if key.endswith("_more"):
                middle, low, high = (-100 * value for value in ends(found))
                fewer = f"{name}_{key.removesuffix('_more')}_fewer"
                made |= {fewer: middle, f"{fewer}_low": high, f"{fewer}_high": low}
    return made


TABLES = {
    "letters": letters_table,
    "orders": of_kinds(
        ORDERS,
        "asks",
        {
            "parameters": "parameters",
            "loss after true tokens, nats": nats,
            "PER, %": share("per"),
            "more": optional(more("per_more"), "per_more"),
            "WER, %": share("wer"),
            "more ": optional(more("wer_more"), "wer_more"),
        },
    ),
    "schedules": of_kinds(
        SCHEDULES,
        "training",
        {
            "loss after true tokens, nats": nats,
            "errors after true tokens, %": share("forced"),
            "after own tokens, %": share("free"),
            "gap": share("gap"),
            "PER against teacher forcing": optional(more("free_more"), "free_more"),
        },
    ),
    "weights": weights_table,
    "beams": beams_table,
    "penalties": penalties_table,
}
FIGURES = {"letters": draw_letters, "beams": draw_beams}
