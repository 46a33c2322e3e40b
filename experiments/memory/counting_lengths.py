r"""Counting beyond training: reach of trained layers on $a^n b^n$.

Layers of `torch.nn` read every word up to a limit in each update, and are then tried on
longer ones. A network's reach is the largest $n$ up to which it is right on every word.
Beside the trained ones stands a ReLU network of one unit whose weights are set by hand.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from experiments.lab.claim import Claim, Outcome
from experiments.lab.drawing import DASHES, Theme
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.statistics import (
    mean_interval,
    share_interval,
    spread,
)
from experiments.lab.tables import number, table
from experiments.memory._networks import CATALOGUE
from experiments.memory._presentation import NO_BREAK, interval
from experiments.memory._sweep import Cell, Row, select, sweep
from experiments.memory._training import Problem, Schedule
from seqref.tasks.counting import counting_words, words_right


@dataclass(frozen=True)
class Config:
    """Longest words of training and of the trial; widths, learning rates, seeds."""

    recipes: tuple[str, ...]
    train_to: int
    try_to: int
    hidden_sizes: tuple[int, ...]
    learning_rates: tuple[float, ...]
    updates: int
    hand_to: int
    seeds: tuple[int, ...]


SMALL = Config(
    recipes=("irnn", "lstm", "gru"),
    train_to=10,
    try_to=100,
    hidden_sizes=(8,),
    learning_rates=(0.03,),
    updates=600,
    hand_to=200,
    seeds=tuple(range(6)),
)
FULL = Config(
    recipes=("rnn", "irnn", "lstm", "gru"),
    train_to=10,
    try_to=100,
    hidden_sizes=(4, 8),
    learning_rates=(0.01, 0.03),
    updates=1500,
    hand_to=1000,
    seeds=tuple(range(6)),
)


def draw(batch_size: int, lag: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """All words up to `batch_size`; nothing is drawn, and `lag` is not read."""
    x, targets, _ = counting_words(range(1, batch_size + 1))
    return x, targets


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy over every `b`."""
    asked = ~targets.isnan()
    return binary_cross_entropy_with_logits(outputs[..., 0][asked], targets[asked])


def reach(outputs: Tensor, targets: Tensor) -> float:
    """The largest n up to which every word is right; words stand in order of n."""
    wrong = (~words_right(outputs[..., 0], targets)).nonzero()
    return float(len(targets) if len(wrong) == 0 else wrong[0])


def problem(config: Config) -> Problem:
    """The task as the training sees it: no early stop, solved on the words shown."""
    return Problem(2, 1, draw, loss, reach, enough=0.0, solved=float(config.train_to))


def hand_made(limit: int) -> float:
    r"""Reach of $h_t = \mathrm{ReLU}(h_{t-1} \pm 1)$, which is yes at 0."""
    layer = nn.RNN(2, 1, nonlinearity="relu", batch_first=True)
    with torch.no_grad():
        parameters = dict(layer.named_parameters())
        for parameter in parameters.values():
            parameter.zero_()
        parameters["weight_ih_l0"].copy_(torch.tensor([[1.0, -1.0]]))
        parameters["weight_hh_l0"].fill_(1.0)
        x, targets, _ = counting_words(range(1, limit + 1))
        return reach(0.5 - layer(x)[0], targets)


def pool_reach(rows: list[Row], config: Config) -> dict[str, Any]:
    """Reaches of rows taken together; shares that know the words shown, and twice."""
    found = [value for row in rows for value in row["scores"]]
    shown, twice = config.train_to, 2 * config.train_to
    return {
        "train_to": shown,
        "runs": len(found),
        "reach": spread(found),
        "mean": mean_interval(found),
        "knows": share_interval(sum(v >= shown for v in found), len(found)),
        "twice": share_interval(sum(v >= twice for v in found), len(found)),
        "reaches": sorted(found),
    }


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Train every cell of the grid with every seed; try the counter set by hand."""
    schedule = Schedule(batch_size=config.train_to, tests=config.try_to)
    shown = config.train_to
    cells = [
        Cell(recipe, width, rate, shown, config.updates, float(shown))
        for recipe in config.recipes
        for width in config.hidden_sizes
        for rate in config.learning_rates
    ]
    rows = sweep(
        problem(config), cells, schedule, config.seeds, track, "counting_lengths"
    )
    cases: dict[str, Any] = {
        recipe: pool_reach(select(rows, recipe=recipe), config)
        for recipe in config.recipes
    }
    by_hand = hand_made(config.hand_to)
    cases["relu_by_hand"] = {"train_to": config.train_to, "mean": {"mean": by_hand}}
    return {"numbers": summary(cases), "series": {"rows": rows}, "cases": cases}


def summary(cases: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars for sentences."""
    found: dict[str, Any] = {"relu_by_hand": cases["relu_by_hand"]["mean"]["mean"]}
    for name, case in cases.items():
        if name == "relu_by_hand":
            continue
        found[f"{name}_runs"] = case["runs"]
        for key in ("median", "low", "high"):
            found[f"{name}_{key}"] = case["reach"][key]
        found[f"{name}_mean"] = case["mean"]["mean"]
        for share in ("knows", "twice"):
            found[f"{name}_{share}"] = round(case[share]["share"] * case["runs"])
    return found


def _beyond(case: Mapping[str, Any]) -> Outcome:
    found = case["mean"]["mean"] / case["train_to"]
    return Outcome.above(found, 1.3)


def _three_times(case: Mapping[str, Any]) -> Outcome:
    # Far below what the trial of trained networks ends at, or none could pass.
    found = case["mean"]["mean"] / case["train_to"]
    return Outcome.above(found, 3)


CLAIMS = (
    Claim(
        "C128",
        "Trained LSTMs are right on average up to at least 1.3 times the longest word "
        "they were shown; trained GRUs are not.",
        _beyond,
        case="lstm",
        control="gru",
    ),
    Claim(
        "C129",
        "A ReLU RNN with weights set by hand counts to at least three times the "
        "longest word of training; trained ReLU RNNs on average do not.",
        _three_times,
        case="relu_by_hand",
        control="irnn",
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Reach by layer: mean, range, and how many know the words shown and twice that."""
    cases, config = record["cases"], record["run"]["config"]
    shown = config["train_to"]

    def count(case: Mapping[str, Any], key: str) -> str:
        share = case[key]
        good = f"{round(share['share'] * case['runs'])} of {case['runs']}"
        good = good.replace(" ", NO_BREAK)
        return f"{good} ({interval(share['low'], share['high'])})"

    lines = []
    for recipe in config["recipes"]:
        case = cases[recipe]
        spread_, mean = case["reach"], case["mean"]
        lines.append(
            [
                CATALOGUE[recipe].label,
                f"{mean['mean']:.1f} ({mean['low']:.1f} to {mean['high']:.1f})",
                f"{spread_['low']:g} to {spread_['high']:g}",
                count(case, "knows"),
                count(case, "twice"),
            ]
        )
    headers = [
        "layer, initialisation",
        "reach, mean",
        "lowest to highest",
        f"right up to {number(shown)}",
        f"right up to {number(2 * shown)}",
    ]
    return {"reach": table(headers, lines)}


def draw_reach(figure: Any, record: Mapping[str, Any], theme: Theme) -> None:
    """Share of the networks that are right on every word up to n."""
    axes = figure.subplots()
    config = record["run"]["config"]
    last = 4 * config["train_to"]
    lengths = range(1, last + 1)
    for i, recipe in enumerate(config["recipes"]):
        reaches = record["cases"][recipe]["reaches"]
        share = [sum(r >= n for r in reaches) / len(reaches) for n in lengths]
        style = {"color": theme.colours[i], "linestyle": DASHES[i]}
        label = CATALOGUE[recipe].label
        axes.plot(lengths, share, drawstyle="steps-mid", label=label, **style)
    axes.axvline(config["train_to"], color=theme.muted, linewidth=1)
    axes.set_xlim(1, last)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_ylim(-0.03, 1.05)
    axes.set_xlabel(
        f"n; the line marks the longest word of training, {config['train_to']}"
    )
    axes.set_title("Networks that are right on every word up to aⁿbⁿ")
    axes.legend(frameon=False, labelcolor=theme.ink)


FIGURES = {"reach": draw_reach}
experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
    figures=FIGURES,
)
