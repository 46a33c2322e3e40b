r"""The tables and the figure of the experiment `bidirectional`."""

from collections.abc import Mapping
from typing import Any

from experiments.lab.drawing import DASHES, Theme, label_ends
from experiments.lab.tables import number, table

LABELS = {
    "one_way": "LSTM, next token",
    "two_ways": "bidirectional LSTM, next token",
    "around": "one bidirectional layer, token between its neighbours",
    "mixed": "two bidirectional layers, mixed, the same",
    "separate": "two layers a direction, not mixed, the same",
    "masked": "two bidirectional layers, masked token",
    "chain_one_way": "chain: LSTM, next token",
    "chain_masked": "chain: two bidirectional layers, masked token",
}
PADDED = {
    "rnn": ("rnn", 0.0, "RNN"),
    "gru": ("gru", 0.0, "GRU"),
    "lstm": ("lstm", 0.0, "LSTM"),
    "lstm_3": ("lstm", 3.0, "LSTM, forget bias + 3"),
}


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Losses, errors by length, parameters by depth."""
    series, lengths = record["series"], record["run"]["config"]["lengths"]
    known = record["numbers"]
    best = {"chain_one_way": known["chain_past"], "chain_masked": known["chain_both"]}
    rows = []
    for name, result in series["trained"].items():
        loss = result["loss"]
        rows.append(
            [
                LABELS[name],
                number(loss["median"]),
                f"{number(loss['low'])} to {number(loss['high'])}",
                number(best.get(name, known["uniform"])),
            ]
        )
    errors = [
        [PADDED[name][2], *map(number, ways["backward_final"])]
        for name, ways in series["padded"].items()
    ]
    counts = [
        [number(row["layers"])]
        + [number(row[key]) for key in ("one", "two")]
        + [f"{row['ratio']:.2f}", number(row["half"]), f"{row['half_ratio']:.2f}"]
        for row in series["counts"]
    ]
    return {
        "losses": table(
            ["model and task", "test loss", "over seeds", "best without the target"],
            rows,
        ),
        "padding": table(["layer", *[f"length {n}" for n in lengths]], errors),
        "parameters": table(
            ["layers", "one direction", "two", "ratio", "two, half width", "ratio"],
            counts,
        ),
    }


def draw_losses(figure: Any, record: Mapping[str, Any], theme: Theme) -> None:
    """Test loss against updates, for the models over random tokens."""
    axes = figure.subplots()
    every, labels = record["run"]["config"]["every"], []
    shown = {
        "one_way": "LSTM",
        "two_ways": "bidirectional",
        "mixed": "two layers, mixed",
        "separate": "not mixed",
        "masked": "mixed, masked",
    }
    updates = 0
    for i, (name, label) in enumerate(shown.items()):
        curve = record["series"]["trained"][name]["curve"]
        updates = every * (len(curve) - 1)
        steps = [every * at for at in range(len(curve))]
        axes.plot(steps, curve, color=theme.colours[i], linestyle=DASHES[i])
        labels.append((curve[-1], label, theme.colours[i]))
    axes.set_ylim(0, 1.15 * record["numbers"]["uniform"])
    axes.set_xlim(0, updates)
    axes.set_xlabel("updates")
    axes.set_title("Test loss on independent random tokens, nats per token")
    label_ends(axes, updates, labels)
