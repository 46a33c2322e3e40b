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

from experiments import lab
from experiments.memory._sweep import Row, grid, swept
from experiments.memory._tables import COUNTS, ByLag, by_lag, mean_score, settings
from experiments.memory._training import Problem
from seqref.tasks.copying import Copying


@dataclass(frozen=True)
class Config:
    """Lags of the tables; the task that is trained, its grid, its updates at most."""

    table_lags: tuple[int, ...] = (1, 10, 100, 1000)
    table_rows: int = 2000
    recipes: tuple[str, ...] = ("rnn", "irnn", "lstm", "lstm_chrono", "gru")
    length: int = 3
    symbols: int = 4
    lags: tuple[int, ...] = (5, 10, 20)
    hidden_sizes: tuple[int, ...] = (16, 32)
    learning_rates: tuple[float, ...] = (0.01, 0.02)
    updates: int = 800
    batch_size: int = 32
    tests: int = 512
    seeds: tuple[int, ...] = tuple(range(5))


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
    x, targets = task.draw(rows, lab.generator(lag))
    read = x.argmax(-1)
    keys = {"by_input": read, "by_time": torch.arange(task.time).expand_as(read)}
    laws = {"by_input": task.memoryless_loss, "by_time": task.blind_loss}
    return {
        f"{name}_{lag}": {
            "lag": lag,
            "blind": task.blind_loss,
            "loss": table_loss(key, targets, task.categories),
            "law": laws[name],
        }
        for name, key in keys.items()
    }


def problem(config: Config) -> Problem:
    """The task as the training sees it: every step has a target."""

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs.transpose(1, 2), targets)

    def score(outputs: Tensor, targets: Tensor) -> float:
        right = outputs.argmax(-1) == targets
        return right[:, -config.length :].double().mean().item()

    return Problem(
        input_size=config.symbols + 2,
        output_size=config.symbols + 2,
        task=lambda lag: Copying(lag, config.length, config.symbols),
        loss=loss,
        score=score,
        enough=0.003,
        solved=0.95,
    )


def run(config: Config, track: lab.Track) -> dict:
    """Train every cell of the grid with every seed, and fit the tables."""
    # Chrono is told the steps from a symbol to its target, and half more.
    cells = grid(config, config.lags, horizon=lambda lag: 1.5 * (lag + config.length))
    result = swept(problem(config), cells, config, track)
    for lag in config.table_lags:
        result["cases"] |= measure_tables(lag, config.table_rows)
    return result


def over_blind(table: Mapping[str, Any]) -> float:
    """The loss of a table over that of an answer that sees nothing."""
    return table["loss"] / table["blind"]


def tables_by_lag(record: Mapping[str, Any]) -> list[Row]:
    """Both tables of answers at each lag."""
    cases = record["cases"]
    return [
        {"lag": lag, **{key: cases[f"{key}_{lag}"] for key in ("by_time", "by_input")}}
        for lag in record["run"]["config"]["table_lags"]
    ]


experiment = lab.Experiment(
    small=Config(
        table_lags=(1, 100),
        table_rows=500,
        recipes=("rnn", "gru"),
        lags=(10,),
        hidden_sizes=(32,),
        learning_rates=(0.01,),
        updates=500,
        tests=128,
        seeds=(0, 1),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C132",
            "At a lag of 100 the best answer by the current input alone has at least "
            "twice the loss 10 ln 8 / (T + 20); the best answer by the time has not.",
            lab.above(over_blind, 2),
            case="by_input_100",
            control="by_time_100",
        ),
        lab.Claim(
            "C133",
            "At a lag of 10 trained GRUs as they come get at least half of the symbols "
            "right on average; tanh RNNs as they come do not.",
            lab.above("score.mean", 0.5, lab.share),
            case="gru_10",
            control="rnn_10",
        ),
    ],
    numbers=[
        lab.each("loss"),
        lab.each("blind"),
        lambda cases: {
            f"{name}_times": over_blind(case)
            for name, case in cases.items()
            if "law" in case
        },
        *COUNTS,
        lab.each("score.mean", "right"),
    ],
    tables={
        "baselines": lab.Table(
            columns={
                "lag": "lag",
                "best table by the time": lab.fixed("by_time.loss", 4),
                "blind": lab.fixed("by_time.law", 4),
                "best table by the input": lab.fixed("by_input.loss", 4),
                "memoryless": lab.fixed("by_input.law", 4),
            },
            rows=tables_by_lag,
        ),
        "solved": by_lag(),
        "right": by_lag(mean_score),
        "settings": settings(),
    },
    figures={"solved": ByLag(f"Runs that learned to copy {Config.length} symbols")},
)
