r"""Counting: does an LSTM tell $a^n b^n$ at lengths it was not trained on, does a GRU?

A network reads $n$ times $a$ and then $b$ after $b$, and must say at each $b$ whether
it was the $n$-th. It is right at $n$ if all $n$ answers are. Trained networks see every
$n$ up to a limit and are then tried beyond it. Beside them stand counters with weights
set by hand: an LSTM whose cell state goes up and down by one, and a GRU whose state
moves by a share $\delta$ of the way to $+1$ or to $-1$, each in several precisions.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from experiments import lab
from experiments.memory._counting import (
    Words,
    counting,
    draw_curves,
    lowest_to_highest,
    reach,
    zeroed,
)
from experiments.memory._networks import Network, layer_of
from experiments.memory._training import Cell, train
from seqref.tasks.counting import words_right


@dataclass(frozen=True)
class Config:
    """Training, lengths tried after it, and the counters set by hand."""

    train_to: int = 20
    steps: int = 4000
    learning_rate: float = 0.01
    try_to: int = 80
    deltas: tuple[float, ...] = (1e-1, 1e-2, 1e-4, 1e-6, 1e-8)
    hand_to: int = 2000
    seeds: tuple[int, ...] = tuple(range(6))


# One LSTM, a GRU of its width, and a GRU with at least its number of parameters.
TRAINED = {"lstm_4": ("lstm", 4), "gru_4": ("gru", 4), "gru_5": ("gru", 5)}
LABELS = {
    name: f"{kind.upper()}, {width} units" for name, (kind, width) in TRAINED.items()
}
DTYPES = {
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}
# What of the counters by hand is judged and quoted.
HAND = {
    "hand_lstm_bfloat16": "lstm.bfloat16",
    "hand_gru_bfloat16": lambda hand: max(hand["gru"]["bfloat16"]),
    "hand_gru_finest_float32": "gru.float32.-1",
    "hand_gru_finest_float64": "gru.float64.-1",
}


def trained(config: Config, name: str, updates: int, seed: int) -> Network:
    """A layer of torch.nn and its read-out, after so many updates."""
    (kind, width), shown = TRAINED[name], config.train_to
    with lab.seeded(seed):
        network = Network(layer_of(kind, 2, width, horizon=0), 1)
    cell = Cell(kind, width, config.learning_rate, shown, updates, horizon=0)
    train(counting(shown), network, cell, shown, seed, decay=True)
    return network


def measure_trained(config: Config, name: str, updates: int) -> dict:
    """One kind over all seeds: which n are right, and how far."""
    networks = [trained(config, name, updates, seed) for seed in config.seeds]
    x, targets = Words().draw(config.try_to)
    with torch.no_grad():
        good = [words_right(network(x)[..., 0], targets) for network in networks]
    reaches = [reach(row) for row in good]
    return {
        "parameters": lab.parameter_count(networks[0].layer),
        "train_to": config.train_to,
        "reach": lab.spread(map(float, reaches)),
        "reaches": reaches,
        "share_right": torch.stack(good).double().mean(0).tolist(),
    }


@torch.no_grad()
def hand_lstm() -> nn.LSTMCell:
    r"""$c$ goes up by 1 on $a$ and down by 1 on $b$: all gates open, candidate ±1."""
    cell = zeroed(lambda: nn.LSTMCell(2, 1, dtype=torch.float64))
    cell.bias_ih.copy_(torch.tensor([200.0, 200.0, 0.0, 200.0]))
    cell.weight_ih[2].copy_(torch.tensor([30.0, -30.0]))
    return cell


@torch.no_grad()
def hand_gru(delta: float) -> nn.GRUCell:
    r"""$h$ goes a share `delta` of the way to 1 on $a$ and to -1 on $b$."""
    cell = zeroed(lambda: nn.GRUCell(2, 1, dtype=torch.float64))
    cell.bias_ih[1] = math.log((1 - delta) / delta)
    cell.weight_ih[2].copy_(torch.tensor([30.0, -30.0]))
    return cell


@torch.no_grad()
def try_hand(
    step: Callable[[Tensor, Any], Any], dtype: torch.dtype, threshold: float, limit: int
) -> int:
    """How far a step of one unit is right that says yes below `threshold`."""
    x, targets = Words().draw(limit)
    state, margins = None, []
    for x_t in x.to(dtype).unbind(1):
        state = step(x_t, state)
        value = state[1] if isinstance(state, tuple) else state
        margins.append(threshold - value[:, 0].double())
    return reach(words_right(torch.stack(margins, dim=1), targets))


def run(config: Config, track: lab.Track) -> dict:
    """Train and try every kind, then try the counters by hand in every precision."""
    cases: dict[str, Any] = {
        name: measure_trained(config, name, config.steps)
        for name in track([n for n in TRAINED if lab.wanted(n)], "gru_counting")
    }
    cases["gru_4_untrained"] = measure_trained(config, "gru_4", updates=0)
    hand: dict[str, dict[str, Any]] = {"lstm": {}, "gru": {}}
    for label, dtype in DTYPES.items():
        cell = hand_lstm().to(dtype)
        hand["lstm"][label] = try_hand(cell, dtype, 0.5, config.hand_to)
        hand["gru"][label] = [
            try_hand(hand_gru(delta).to(dtype), dtype, delta / 2, config.hand_to)
            for delta in config.deltas
        ]
    cases |= {name: {"reach": lab.value_of(hand, at)} for name, at in HAND.items()}
    return {"series": {"hand": hand}, "cases": cases}


def learned(case: Mapping[str, Any]) -> lab.Outcome:
    """A check that the lowest reach is the longest length of training."""
    return lab.Outcome.above(case["reach"]["low"], case["train_to"] - 0.5)


def beyond(case: Mapping[str, Any]) -> lab.Outcome:
    """A check that the median reach is 1.3 times the longest length of training."""
    median, train_to = case["reach"]["median"], case["train_to"]
    # Lengths are whole: half of one below the least that is enough.
    far = lab.Outcome.above(median, 1.3 * train_to - 0.5)
    return lab.Outcome.all_of(median / train_to, far)


def hand_table(record: Mapping[str, Any]) -> lab.Table:
    """How far each counter by hand is right, in every precision."""
    hand, config = record["series"]["hand"], record["run"]["config"]
    rows = [{"name": "LSTM, steps of 1", **hand["lstm"]}]
    for i, delta in enumerate(config["deltas"]):
        reaches = {label: hand["gru"][label][i] for label in DTYPES}
        rows.append({"name": f"GRU, steps of {lab.number(delta, 1)}", **reaches})

    def write(value: int) -> str:
        return lab.number(value) + (" or more" if value == config["hand_to"] else "")

    precisions = {label: lab.cell(label, write) for label in DTYPES}
    return lab.Table(
        {"counter": lambda row: row["name"], **precisions}, rows=lambda _: rows
    )


def draw_share(figure: Any, record: Mapping[str, Any], theme: lab.Theme) -> None:
    """Share of the networks that are right, by n."""
    shown, cases = record["run"]["config"]["train_to"], record["cases"]
    curves = {label: cases[name]["share_right"] for name, label in LABELS.items()}
    axes = draw_curves(figure, theme, curves, shown)
    axes.annotate(
        "trained up to here",
        (shown, 0.5),
        xytext=(-6, 0),
        textcoords="offset points",
        ha="right",
        color=theme.muted,
    )
    axes.set_ylim(-0.02, 1.05)
    axes.set_title("Share of the networks that are right on all of aⁿbⁿ")


COUNTS_TO_100 = lab.above("reach", 99.5)
experiment = lab.Experiment(
    small=Config(
        train_to=10,
        steps=1000,
        learning_rate=0.02,
        try_to=30,
        deltas=(1e-1, 1e-2, 1e-8),
        hand_to=300,
        seeds=(0, 1, 2, 3, 4),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C50.learned",
            "Every trained GRU of 4 units is right on all lengths it was trained on; "
            "an untrained one is not.",
            learned,
            case="gru_4",
            control="gru_4_untrained",
        ),
        lab.Claim(
            "C50.beyond",
            "The median trained LSTM is right up to at least 1.3 times the longest "
            "length of training; the median GRU of the same width is not.",
            beyond,
            case="lstm_4",
            control="gru_4",
        ),
        lab.Claim(
            "C50.state",
            "In bfloat16 an LSTM with weights set by hand counts to at least 100; no "
            "GRU of this construction does.",
            COUNTS_TO_100,
            case="hand_lstm_bfloat16",
            control="hand_gru_bfloat16",
        ),
        lab.Claim(
            "C50.precision",
            "With small enough steps a GRU with weights set by hand counts to at least "
            "100 in float64; in float32 the same weights do not.",
            COUNTS_TO_100,
            case="hand_gru_finest_float64",
            control="hand_gru_finest_float32",
        ),
    ],
    numbers=[
        lab.each("parameters", cases=TRAINED),
        *(lab.each(f"reach.{end}", cases=TRAINED) for end in ("median", "low", "high")),
        lab.each("reach", cases=HAND),
    ],
    tables={
        "trained": lab.Table(
            labels=LABELS,
            heading="network",
            columns={
                "parameters": "parameters",
                "right up to n, median": lab.cell("reach.median", "{:g}".format),
                "over seeds": lowest_to_highest,
            },
        ),
        "hand": hand_table,
    },
    figures={"share": draw_share},
)
