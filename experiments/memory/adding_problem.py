r"""The adding problem: which layers learn it, by initialisation and length.

Two marked numbers of a sequence are to be summed at its end. Layers of `torch.nn` are
initialised in several ways and trained with a fixed number of updates at most, at two
widths and two learning rates. The score is the share of the targets' variance that is
explained, 1 - 6 times the mean squared error: 0 for a constant, 1/2 where one of the
two numbers is known, 1 for the sum. What is counted is the runs that reach 0.9.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments.lab.claim import Claim
from experiments.lab.drawing import Theme
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.memory._judging import at_least, fewer_than_half, scalars
from experiments.memory._presentation import (
    draw_by_lag,
    mean_score,
    table_by_lag,
    table_of_settings,
)
from experiments.memory._sweep import Cell, pool, select, sweep
from experiments.memory._training import Problem, Schedule
from seqref.tasks.adding import Adding


@dataclass(frozen=True)
class Config:
    """Recipes and the grid: lengths, widths, learning rates, seeds; updates at most."""

    recipes: tuple[str, ...]
    lengths: tuple[int, ...]
    hidden_sizes: tuple[int, ...]
    learning_rates: tuple[float, ...]
    updates: int
    batch_size: int
    tests: int
    seeds: tuple[int, ...]


SMALL = Config(
    recipes=("lstm", "lstm_chrono", "gru"),
    lengths=(80,),
    hidden_sizes=(16,),
    learning_rates=(0.02,),
    updates=450,
    batch_size=32,
    tests=128,
    seeds=(0, 1),
)
FULL = Config(
    recipes=("rnn", "rnn_orthogonal", "irnn", "lstm", "lstm_chrono", "gru"),
    lengths=(20, 40, 80),
    hidden_sizes=(16, 32),
    learning_rates=(0.01, 0.02),
    updates=600,
    batch_size=32,
    tests=512,
    seeds=tuple(range(5)),
)
# The mean squared error of a batch, ten times in a row, at which a run stops.
ENOUGH = 0.01
SOLVED = 0.9


def draw(
    batch_size: int, length: int, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A batch of the task; its `lag` is the length of a sequence."""
    return Adding(length).draw(batch_size, random)


def squared_error(outputs: Tensor, sums: Tensor) -> Tensor:
    """Mean squared error of the last step's output."""
    return (outputs[:, -1, 0] - sums).square().mean()


def explained(outputs: Tensor, sums: Tensor) -> float:
    """Share of the variance of the targets, 1/6, that the answers explain."""
    return 1 - 6 * squared_error(outputs, sums).item()


PROBLEM = Problem(2, 1, draw, squared_error, explained, ENOUGH, SOLVED)


def cells_of(config: Config) -> list[Cell]:
    """The grid; chrono is told the length."""
    return [
        Cell(recipe, width, rate, length, config.updates, float(length))
        for recipe in config.recipes
        for length in config.lengths
        for width in config.hidden_sizes
        for rate in config.learning_rates
    ]


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Train every cell of the grid with every seed."""
    schedule = Schedule(batch_size=config.batch_size, tests=config.tests)
    rows = sweep(
        PROBLEM, cells_of(config), schedule, config.seeds, track, "adding_problem"
    )
    cases = {
        f"{recipe}_{length}": pool(select(rows, recipe=recipe, lag=length))
        for recipe in config.recipes
        for length in config.lengths
    }
    return {"numbers": summary(cases), "series": {"rows": rows}, "cases": cases}


def summary(cases: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars for sentences."""
    found: dict[str, Any] = {"runs": sum(case["runs"] for case in cases.values())}
    for name, case in cases.items():
        found |= scalars(name, case)
        found[f"{name}_explained"] = case["score"]["mean"]
    return dict(sorted(found.items()))


CLAIMS = (
    Claim(
        "C126",
        "Of the LSTMs as they come, fewer than half learn to add over 80 steps; of "
        "those with chrono biases, half or more do.",
        fewer_than_half,
        case="lstm_80",
        control="lstm_chrono_80",
    ),
    Claim(
        "C127",
        "Half or more of the GRUs as they come learn to add over 80 steps; of the "
        "LSTMs as they come, not half do.",
        at_least(0.5),
        case="gru_80",
        control="lstm_80",
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Runs that solved the task, mean share of the variance explained, settings."""
    config, rows = record["run"]["config"], record["series"]["rows"]
    recipes, lengths = config["recipes"], config["lengths"]
    return {
        "solved": table_by_lag(rows, recipes, lengths, word="length"),
        "explained": table_by_lag(rows, recipes, lengths, mean_score, word="length"),
        "settings": table_of_settings(rows, recipes, lengths, word="length"),
    }


def draw_solved(figure: Any, record: Mapping[str, Any], theme: Theme) -> None:
    """Share of the runs that learned to add, by length."""
    config, rows = record["run"]["config"], record["series"]["rows"]
    title = "Runs that learned to add two marked numbers"
    draw_by_lag(
        figure,
        rows,
        config["recipes"],
        config["lengths"],
        theme,
        title,
        word="length",
    )


FIGURES = {"solved": draw_solved}
experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
    figures=FIGURES,
)
