r"""Chrono's two biases: delayed recall with the forget bias or the input bias alone.

Chrono initialisation opens the forget gates and closes the input gates by as much. Here
an LSTM gets both, one of the two, or a large constant forget bias, and is trained on
delayed recall. Beside the runs that solved the task stands what each layer is before
training: how far apart the two symbols leave its last output, and what slope tanh has
at the cell state by then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from experiments.lab.claim import Claim
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.statistics import median
from experiments.lab.tables import number, table
from experiments.memory._judging import at_least, scalars
from experiments.memory._networks import CATALOGUE, build
from experiments.memory._presentation import table_by_lag
from experiments.memory._recall import SYMBOLS, recall
from experiments.memory._sweep import Cell, pool, select, sweep
from experiments.memory._training import Schedule


@dataclass(frozen=True)
class Config:
    """Recipes and the grid: lags, learning rates, seeds; one width; updates at most."""

    recipes: tuple[str, ...]
    lags: tuple[int, ...]
    hidden_size: int
    learning_rates: tuple[float, ...]
    updates: int
    batch_size: int
    tests: int
    seeds: tuple[int, ...]


SMALL = Config(
    recipes=("lstm_chrono_input", "lstm_chrono_forget", "lstm_chrono"),
    lags=(50, 200),
    hidden_size=32,
    learning_rates=(0.005,),
    updates=260,
    batch_size=32,
    tests=128,
    seeds=(0, 1),
)
FULL = Config(
    recipes=(
        "lstm_chrono_input",
        "lstm_chrono_forget",
        "lstm_bias_5",
        "lstm_chrono",
    ),
    lags=(50, 200),
    hidden_size=32,
    learning_rates=(0.003, 0.01),
    updates=300,
    batch_size=32,
    tests=512,
    seeds=tuple(range(5)),
)


@torch.no_grad()
def start(recipe: str, lag: int, width: int, seeds: Sequence[int]) -> dict[str, float]:
    r"""A layer before training: what it has of the symbol after the lag.

    `apart` is the distance of the last outputs after the two symbols, `slope` the
    median over units of $1 - \tanh^2 c$ there; of both the median over the seeds.
    """
    # In float32 what is left of a symbol would be rounding.
    x = torch.zeros(SYMBOLS, lag + 1, SYMBOLS, dtype=torch.float64)
    x[:, 0] = torch.eye(SYMBOLS)
    apart, slope = [], []
    for seed in seeds:
        network = build(recipe, SYMBOLS, width, SYMBOLS, lag, seed).double()
        y, state = network.layer(x)
        apart.append((y[0, -1] - y[1, -1]).norm().item())
        slope.append(median((1 - state.c.tanh().square()).flatten().tolist()))
    return {"apart": median(apart), "slope": median(slope)}


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Look at every layer before training, then train the grid with every seed."""
    cells = [
        Cell(recipe, config.hidden_size, rate, lag, config.updates, lag)
        for recipe in config.recipes
        for lag in config.lags
        for rate in config.learning_rates
    ]
    schedule = Schedule(batch_size=config.batch_size, tests=config.tests)
    rows = sweep(recall(), cells, schedule, config.seeds, track, "chrono_biases")
    cases = {
        f"{recipe}_{lag}": {
            **pool(select(rows, recipe=recipe, lag=lag)),
            "start": start(recipe, lag, config.hidden_size, config.seeds),
        }
        for recipe in config.recipes
        for lag in config.lags
    }
    return {"numbers": summary(cases), "series": {"rows": rows}, "cases": cases}


def summary(cases: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars for sentences."""
    found: dict[str, Any] = {}
    for name, case in cases.items():
        found |= scalars(name, case)
        for key, value in case["start"].items():
            found[f"{name}_{key}"] = value
    return found


CLAIMS = (
    Claim(
        "C146.input",
        "At least half of the LSTMs with both biases of chrono learn to carry a symbol "
        "over 200 steps; of those with its forget biases alone, not half do.",
        at_least(0.5),
        case="lstm_chrono_200",
        control="lstm_chrono_forget_200",
    ),
    Claim(
        "C146.forget",
        "At least half of the LSTMs with the forget biases of chrono alone learn to "
        "carry a symbol over 50 steps; of those with its input biases alone, not half "
        "do.",
        at_least(0.5),
        case="lstm_chrono_forget_50",
        control="lstm_chrono_input_50",
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Runs that solved the task by lag; the layers before training."""
    config, rows = record["run"]["config"], record["series"]["rows"]
    recipes, lags = config["recipes"], config["lags"]
    lines = [
        [
            CATALOGUE[recipe].label,
            *[
                number(record["cases"][f"{recipe}_{lag}"]["start"][key], 2)
                for key in ("apart", "slope")
                for lag in lags
            ],
        ]
        for recipe in recipes
    ]
    headers = [
        f"{word}, lag {number(lag)}"
        for word in ("symbols apart", "slope")
        for lag in lags
    ]
    return {
        "solved": table_by_lag(rows, recipes, lags),
        "start": table(["layer, initialisation", *headers], lines),
    }


experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
)
