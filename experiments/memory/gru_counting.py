r"""Counting: does an LSTM tell $a^n b^n$ at lengths it was not trained on, does a GRU?

A network reads $n$ times $a$ and then $b$ after $b$, and must say at each $b$ whether
it was the $n$-th. It is right at $n$ if all $n$ answers are. Trained networks see every
$n$ up to a limit and are then tried beyond it. Beside them stand counters with weights
set by hand: an LSTM whose cell state goes up and down by one, and a GRU whose state
moves by a share $\delta$ of the way to $+1$ or to $-1$, each in several precisions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from experiments.lab.claim import Claim, Outcome
from experiments.lab.drawing import DASHES, Theme
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.seeding import seeded
from experiments.lab.statistics import spread
from experiments.lab.tables import number, table
from experiments.memory._counters import (
    Layer,
    hand_gru,
    hand_lstm,
    reach,
    try_hand,
    try_layer,
    words,
)


@dataclass(frozen=True)
class Config:
    """Training, lengths tried after it, and the counters set by hand."""

    train_to: int
    steps: int
    learning_rate: float
    try_to: int
    deltas: tuple[float, ...]
    hand_to: int
    seeds: tuple[int, ...]


SMALL = Config(
    train_to=10,
    steps=1000,
    learning_rate=0.02,
    try_to=30,
    deltas=(1e-1, 1e-2, 1e-8),
    hand_to=300,
    seeds=(0, 1, 2, 3, 4),
)
FULL = Config(
    train_to=20,
    steps=4000,
    learning_rate=0.01,
    try_to=80,
    deltas=(1e-1, 1e-2, 1e-4, 1e-6, 1e-8),
    hand_to=2000,
    seeds=tuple(range(6)),
)
# One LSTM, a GRU of its width, and a GRU with at least its number of parameters.
TRAINED = {"lstm_4": (nn.LSTM, 4), "gru_4": (nn.GRU, 4), "gru_5": (nn.GRU, 5)}
LABELS = {
    "lstm_4": "LSTM, 4 units",
    "gru_4": "GRU, 4 units",
    "gru_5": "GRU, 5 units",
}
DTYPES = {
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}


def build(kind: type[Layer], width: int, seed: int) -> tuple[Layer, nn.Linear]:
    """A layer of torch.nn as it comes, and a linear read-out of its output."""
    with seeded(seed):
        return kind(2, width, batch_first=True), nn.Linear(width, 1)


def train(config: Config, layer: Layer, head: nn.Linear) -> None:
    """Adam on all words up to `train_to`, the rate going down in a line."""
    x, answers = words(config.train_to)
    asked = ~answers.isnan()
    parameters = [*layer.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=config.learning_rate)
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 - step / config.steps)
        optimizer.zero_grad()
        logits = head(layer(x)[0])[..., 0]
        binary_cross_entropy_with_logits(logits[asked], answers[asked]).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()


def measure_trained(config: Config, name: str, *, trained: bool = True) -> dict:
    """One kind over all seeds: which n are right, and how far."""
    kind, width = TRAINED[name]
    rows = []
    for seed in config.seeds:
        layer, head = build(kind, width, seed)
        if trained:
            train(config, layer, head)
        rows.append(try_layer(layer, head, config.try_to))
    found = [reach(row) for row in rows]
    parameters = sum(p.numel() for p in build(kind, width, 0)[0].parameters())
    return {
        "parameters": parameters,
        "train_to": config.train_to,
        "reach": spread(float(value) for value in found),
        "reaches": found,
        "share_right": torch.stack(rows).double().mean(0).tolist(),
    }


def measure_hand(config: Config) -> dict[str, Any]:
    """Every counter by hand in every precision."""
    found: dict[str, Any] = {"lstm": {}, "gru": {}}
    for label, dtype in DTYPES.items():
        found["lstm"][label] = try_hand(hand_lstm(), dtype, 0.5, config.hand_to)
        found["gru"][label] = [
            try_hand(hand_gru(delta), dtype, delta / 2, config.hand_to)
            for delta in config.deltas
        ]
    return found


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Train and try every kind, then try the counters by hand."""
    cases: dict[str, Any] = {
        name: measure_trained(config, name) for name in track(TRAINED, "gru_counting")
    }
    cases["gru_4_untrained"] = measure_trained(config, "gru_4", trained=False)
    hand = measure_hand(config)
    cases["hand_lstm_bfloat16"] = {"reach": hand["lstm"]["bfloat16"]}
    cases["hand_gru_bfloat16"] = {"reach": max(hand["gru"]["bfloat16"])}
    for label in ("float32", "float64"):
        cases[f"hand_gru_finest_{label}"] = {"reach": hand["gru"][label][-1]}
    return {"numbers": summary(cases), "series": {"hand": hand}, "cases": cases}


def summary(cases: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars for sentences."""
    found: dict[str, Any] = {}
    for name, case in cases.items():
        if name in TRAINED:
            found[f"{name}_parameters"] = case["parameters"]
            for key, value in case["reach"].items():
                found[f"{name}_reach_{key}"] = float(value)
        elif name.startswith("hand"):
            found[f"{name}_reach"] = case["reach"]
    return found


def _learned(case: Mapping[str, Any]) -> Outcome:
    found = case["reach"]["low"]
    return Outcome.all_of(float(found), Outcome.above(found, case["train_to"] - 0.5))


def _beyond(case: Mapping[str, Any]) -> Outcome:
    median, train_to = case["reach"]["median"], case["train_to"]
    # Lengths are whole: half of one below the least that is enough.
    return Outcome.all_of(
        median / train_to, Outcome.above(median, 1.3 * train_to - 0.5)
    )


def _counts(case: Mapping[str, Any]) -> Outcome:
    return Outcome.above(float(case["reach"]), 99.5)


CLAIMS = (
    Claim(
        "C50.learned",
        "Every trained GRU of 4 units is right on all lengths it was trained on; an "
        "untrained one is not.",
        _learned,
        case="gru_4",
        control="gru_4_untrained",
    ),
    Claim(
        "C50.beyond",
        "The median trained LSTM is right up to at least 1.3 times the longest length "
        "of training; the median GRU of the same width is not.",
        _beyond,
        case="lstm_4",
        control="gru_4",
    ),
    Claim(
        "C50.state",
        "In bfloat16 an LSTM with weights set by hand counts to at least 100; no GRU "
        "of this construction does.",
        _counts,
        case="hand_lstm_bfloat16",
        control="hand_gru_bfloat16",
    ),
    Claim(
        "C50.precision",
        "With small enough steps a GRU with weights set by hand counts to at least 100 "
        "in float64; in float32 the same weights do not.",
        _counts,
        case="hand_gru_finest_float64",
        control="hand_gru_finest_float32",
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """How far trained networks and counters by hand are right."""
    cases, config = record["cases"], record["run"]["config"]
    trained = [
        [
            LABELS[name],
            number(cases[name]["parameters"]),
            f"{cases[name]['reach']['median']:g}",
            f"{cases[name]['reach']['low']:g} to {cases[name]['reach']['high']:g}",
        ]
        for name in TRAINED
    ]

    def cell(value: int) -> str:
        return number(value) + (" or more" if value == config["hand_to"] else "")

    hand = record["series"]["hand"]
    rows = [["LSTM, steps of 1", *(cell(hand["lstm"][label]) for label in DTYPES)]]
    for i, delta in enumerate(config["deltas"]):
        label = f"GRU, steps of {number(delta, 1)}"
        rows.append([label, *(cell(hand["gru"][name][i]) for name in DTYPES)])
    return {
        "trained": table(
            ["network", "parameters", "right up to n, median", "over seeds"], trained
        ),
        "hand": table(["counter", *DTYPES], rows),
    }


def draw_share(figure: Any, record: Mapping[str, Any], theme: Theme) -> None:
    """Share of the networks that are right, by n."""
    axes = figure.subplots()
    config = record["run"]["config"]
    lengths = list(range(1, config["try_to"] + 1))
    for i, name in enumerate(TRAINED):
        share = record["cases"][name]["share_right"]
        style = {"color": theme.colours[i], "linestyle": DASHES[i]}
        axes.plot(lengths, share, label=LABELS[name], **style)
    axes.axvline(config["train_to"], color=theme.muted, linewidth=1)
    axes.annotate(
        "trained up to here",
        (config["train_to"], 0.5),
        xytext=(-6, 0),
        textcoords="offset points",
        ha="right",
        color=theme.muted,
    )
    axes.set_xlim(1, lengths[-1])
    axes.set_ylim(-0.02, 1.05)
    axes.set_xlabel("n")
    axes.set_title("Share of the networks that are right on all of aⁿbⁿ")
    axes.legend(frameon=False, labelcolor=theme.ink)


FIGURES = {"share": draw_share}
experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
    figures=FIGURES,
)
