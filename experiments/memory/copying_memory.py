r"""The copying problem: what its usual baseline needs, and which layers learn it.

The first part is about the losses without any symbol: the best table of answers by the
current input, which is all that a network without memory has, and the best table by the
time. The second trains layers of `torch.nn`, initialised in several ways, on short
strings. The score is the share of the symbols that are right, and what is counted is
the runs that get 95 % of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from experiments.lab.claim import Claim, Outcome, share
from experiments.lab.drawing import Theme
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.seeding import generator
from experiments.lab.tables import number, table
from experiments.memory._judging import scalars
from experiments.memory._presentation import (
    draw_by_lag,
    mean_score,
    table_by_lag,
    table_of_settings,
)
from experiments.memory._sweep import Cell, pool, select, sweep
from experiments.memory._training import Problem, Schedule
from seqref.tasks.copying import Copying


@dataclass(frozen=True)
class Config:
    """Lags of the tables; the task that is trained, its grid, its updates at most."""

    table_lags: tuple[int, ...]
    table_rows: int
    recipes: tuple[str, ...]
    length: int
    symbols: int
    lags: tuple[int, ...]
    hidden_sizes: tuple[int, ...]
    learning_rates: tuple[float, ...]
    updates: int
    batch_size: int
    tests: int
    seeds: tuple[int, ...]


SMALL = Config(
    table_lags=(1, 100),
    table_rows=500,
    recipes=("rnn", "gru"),
    length=3,
    symbols=4,
    lags=(10,),
    hidden_sizes=(32,),
    learning_rates=(0.01,),
    updates=500,
    batch_size=32,
    tests=128,
    seeds=(0, 1),
)
FULL = Config(
    table_lags=(1, 10, 100, 1000),
    table_rows=2000,
    recipes=("rnn", "irnn", "lstm", "lstm_chrono", "gru"),
    length=3,
    symbols=4,
    lags=(5, 10, 20),
    hidden_sizes=(16, 32),
    learning_rates=(0.01, 0.02),
    updates=800,
    batch_size=32,
    tests=512,
    seeds=tuple(range(5)),
)
# The loss of a batch, ten times in a row, at which a run stops.
ENOUGH = 0.003
SOLVED = 0.95


def table_loss(key: Tensor, targets: Tensor, categories: int) -> float:
    r"""Cross-entropy of the best answer that depends on `key` alone.

    The best table has, for each key, the relative frequencies of its targets.
    """
    counts = torch.zeros(int(key.max()) + 1, categories, dtype=torch.float64)
    ones = torch.ones(targets.numel(), dtype=torch.float64)
    counts.index_put_((key.flatten(), targets.flatten()), ones, accumulate=True)
    share = counts / counts.sum(1, keepdim=True).clamp_min(1)
    return -share[key, targets].log().mean().item()


def measure_tables(lag: int, rows: int) -> dict[str, dict[str, Any]]:
    """Losses of the tables by input and by time, beside their closed forms."""
    task = Copying(lag)
    x, targets = task.draw(rows, generator(lag))
    read = x.argmax(-1)
    time = torch.arange(task.time).expand_as(read)
    by_input = table_loss(read, targets, task.categories)
    by_time = table_loss(time, targets, task.categories)
    blind = {"lag": lag, "blind": task.blind_loss}
    return {
        "by_input": {**blind, "loss": by_input, "law": task.memoryless_loss},
        "by_time": {**blind, "loss": by_time, "law": task.blind_loss},
    }


def problem(config: Config) -> Problem:
    """The task as the training sees it: every step has a target."""

    def draw(
        batch_size: int, lag: int, random: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        task = Copying(lag, config.length, config.symbols)
        return task.draw(batch_size, random)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs.transpose(1, 2), targets)

    def score(outputs: Tensor, targets: Tensor) -> float:
        right = outputs.argmax(-1) == targets
        return right[:, -config.length :].double().mean().item()

    width = config.symbols + 2
    return Problem(width, width, draw, loss, score, ENOUGH, SOLVED)


def cells_of(config: Config) -> list[Cell]:
    """The grid; chrono is told the steps from a symbol to its target, and half more."""
    return [
        Cell(recipe, width, rate, lag, config.updates, 1.5 * (lag + config.length))
        for recipe in config.recipes
        for lag in config.lags
        for width in config.hidden_sizes
        for rate in config.learning_rates
    ]


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Fit the tables, then train every cell of the grid with every seed."""
    cases: dict[str, Any] = {}
    for lag in config.table_lags:
        for name, found in measure_tables(lag, config.table_rows).items():
            cases[f"{name}_{lag}"] = found
    schedule = Schedule(batch_size=config.batch_size, tests=config.tests)
    rows = sweep(
        problem(config), cells_of(config), schedule, config.seeds, track, "copying"
    )
    for recipe in config.recipes:
        for lag in config.lags:
            cases[f"{recipe}_{lag}"] = pool(select(rows, recipe=recipe, lag=lag))
    return {"numbers": summary(cases), "series": {"rows": rows}, "cases": cases}


def summary(cases: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars for sentences."""
    found: dict[str, Any] = {}
    for name, case in cases.items():
        if "law" in case:
            found[f"{name}_loss"] = case["loss"]
            found[f"{name}_blind"] = case["blind"]
            found[f"{name}_times"] = case["loss"] / case["blind"]
            continue
        found |= scalars(name, case)
        found[f"{name}_right"] = case["score"]["mean"]
    return dict(sorted(found.items()))


def _above(case: Mapping[str, Any]) -> Outcome:
    found = case["loss"] / case["blind"]
    return Outcome.above(found, 2)


def _most(case: Mapping[str, Any]) -> Outcome:
    found = case["score"]["mean"]
    return Outcome.above(found, 0.5, share)


CLAIMS = (
    Claim(
        "C132",
        "At a lag of 100 the best answer by the current input alone has at least twice "
        "the loss 10 ln 8 / (T + 20); the best answer by the time has not.",
        _above,
        case="by_input_100",
        control="by_time_100",
    ),
    Claim(
        "C133",
        "At a lag of 10 trained GRUs as they come get at least half of the symbols "
        "right on average; tanh RNNs as they come do not.",
        _most,
        case="gru_10",
        control="rnn_10",
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Losses without a symbol by lag; runs that solved the task, symbols, settings."""
    config, cases = record["run"]["config"], record["cases"]
    rows = record["series"]["rows"]
    recipes, lags = config["recipes"], config["lags"]
    lines = [
        [
            number(lag),
            f"{cases[f'by_time_{lag}']['loss']:.4f}",
            f"{cases[f'by_time_{lag}']['law']:.4f}",
            f"{cases[f'by_input_{lag}']['loss']:.4f}",
            f"{cases[f'by_input_{lag}']['law']:.4f}",
        ]
        for lag in config["table_lags"]
    ]
    headers = [
        "lag",
        "best table by the time",
        "blind",
        "best table by the input",
        "memoryless",
    ]
    return {
        "baselines": table(headers, lines),
        "solved": table_by_lag(rows, recipes, lags),
        "right": table_by_lag(rows, recipes, lags, mean_score),
        "settings": table_of_settings(rows, recipes, lags),
    }


def draw_solved(figure: Any, record: Mapping[str, Any], theme: Theme) -> None:
    """Share of the runs that learned to copy, by lag."""
    config, rows = record["run"]["config"], record["series"]["rows"]
    title = f"Runs that learned to copy {config['length']} symbols"
    draw_by_lag(figure, rows, config["recipes"], config["lags"], theme, title)


FIGURES = {"solved": draw_solved}
experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
    figures=FIGURES,
)
