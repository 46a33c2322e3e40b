r"""Counting beyond training: reach of trained layers on $a^n b^n$.

Layers of `torch.nn` read every word up to a limit in each update, and are then tried on
longer ones. A network's reach is the largest $n$ up to which it is right on every word.
Beside the trained ones stands a ReLU network of one unit whose weights are set by hand.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from experiments import lab
from experiments.memory._counting import (
    Words,
    counting,
    draw_curves,
    lowest_to_highest,
    score,
    zeroed,
)
from experiments.memory._networks import CATALOGUE
from experiments.memory._sweep import Row, grid, groups, sweep
from experiments.memory._tables import count, interval, share_axis


@dataclass(frozen=True)
class Config:
    """Longest words of training and of the trial; widths, learning rates, seeds."""

    recipes: tuple[str, ...] = ("rnn", "irnn", "lstm", "gru")
    train_to: int = 10
    try_to: int = 100
    hidden_sizes: tuple[int, ...] = (4, 8)
    learning_rates: tuple[float, ...] = (0.01, 0.03)
    updates: int = 1500
    hand_to: int = 1000
    seeds: tuple[int, ...] = tuple(range(6))


@torch.no_grad()
def hand_made(limit: int) -> float:
    r"""Reach of $h_t = \mathrm{ReLU}(h_{t-1} \pm 1)$, which is yes at 0."""
    layer = zeroed(lambda: nn.RNN(2, 1, nonlinearity="relu", batch_first=True))
    layer.get_parameter("weight_ih_l0").copy_(torch.tensor([[1.0, -1.0]]))
    layer.get_parameter("weight_hh_l0").fill_(1.0)
    x, targets = Words().draw(limit)
    return score(0.5 - layer(x)[0], targets)


def pool_reach(rows: list[Row], shown: int) -> dict[str, Any]:
    """Reaches of rows taken together; shares that know the words shown, and twice."""
    scores = [value for row in rows for value in row["scores"]]
    reaches = sorted(scores)
    return {
        "train_to": shown,
        "runs": len(reaches),
        "reach": lab.spread(reaches),
        "mean": lab.mean_interval(scores),
        **{
            key: lab.share_interval(sum(v >= least for v in reaches), len(reaches))
            for key, least in (("knows", shown), ("twice", 2 * shown))
        },
        "reaches": reaches,
    }


def run(config: Config, track: lab.Track) -> dict:
    """Train every cell of the grid with every seed; try the counter set by hand."""
    shown = config.train_to
    cells = grid(config, [shown])
    rows = sweep(counting(shown), cells, config.seeds, shown, config.try_to, track)
    by_hand = hand_made(config.hand_to)
    cases: dict[str, Any] = {
        recipe: pool_reach(some, shown)
        for (recipe,), some in groups(rows, "recipe").items()
    }
    cases["relu_by_hand"] = {"train_to": shown, "mean": {"mean": by_hand}}
    return {"series": {"rows": rows}, "cases": cases}


def good(key: str, case: Mapping[str, Any]) -> int:
    """The number of runs behind a share."""
    return round(case[key]["share"] * case["runs"])


def table(record: Mapping[str, Any]) -> lab.Table:
    """Reach by layer: mean, range, and how many know the words shown and twice that."""
    config = record["run"]["config"]
    shown = config["train_to"]

    def knowing(key: str) -> lab.Cell:
        return lambda case: (
            f"{count(good(key, case), case['runs'])} ({interval(case[key])})"
        )

    return lab.Table(
        labels={recipe: CATALOGUE[recipe].label for recipe in config["recipes"]},
        heading="layer, initialisation",
        columns={
            "reach, mean": lab.with_span("mean", "{:.1f}".format),
            "lowest to highest": lowest_to_highest,
            f"right up to {lab.number(shown)}": knowing("knows"),
            f"right up to {lab.number(2 * shown)}": knowing("twice"),
        },
    )


def draw_reach(figure: Any, record: Mapping[str, Any], theme: lab.Theme) -> None:
    """Share of the networks that are right on every word up to n."""
    config, cases = record["run"]["config"], record["cases"]
    shown, curves = config["train_to"], {}
    for recipe in config["recipes"]:
        reaches = cases[recipe]["reaches"]
        curves[CATALOGUE[recipe].label] = [
            sum(r >= n for r in reaches) / len(reaches) for n in range(1, 4 * shown + 1)
        ]
    axes = draw_curves(figure, theme, curves, shown, drawstyle="steps-mid")
    share_axis(axes, 1.05)
    axes.set_xlabel(f"n; the line marks the longest word of training, {shown}")
    axes.set_title("Networks that are right on every word up to aⁿbⁿ")


def times_shown(case: Mapping[str, Any]) -> float:
    """The mean reach over the longest word of training."""
    return case["mean"]["mean"] / case["train_to"]


experiment = lab.Experiment(
    small=Config(
        recipes=("irnn", "lstm", "gru"),
        hidden_sizes=(8,),
        learning_rates=(0.03,),
        updates=600,
        hand_to=200,
    ),
    run=run,
    claims=[
        lab.Claim(
            "C128",
            "Trained LSTMs are right on average up to at least 1.3 times the longest "
            "word they were shown; trained GRUs are not.",
            lab.above(times_shown, 1.3),
            case="lstm",
            control="gru",
        ),
        lab.Claim(
            "C129",
            "A ReLU RNN with weights set by hand counts to at least three times the "
            "longest word of training; trained ReLU RNNs on average do not.",
            # Far below what the trial of trained networks ends at, or none could pass.
            lab.above(times_shown, 3),
            case="relu_by_hand",
            control="irnn",
        ),
    ],
    numbers=[
        {"relu_by_hand": "relu_by_hand.mean.mean"},
        lab.each("runs"),
        *(lab.each(f"reach.{end}", end) for end in ("median", "low", "high")),
        lab.each("mean.mean", "mean", cases=CATALOGUE),
        lab.each(partial(good, "knows"), "knows", cases=CATALOGUE),
        lab.each(partial(good, "twice"), "twice", cases=CATALOGUE),
    ],
    tables={"reach": table},
    figures={"reach": draw_reach},
)
