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

from experiments import lab
from experiments.memory._networks import build
from experiments.memory._recall import SYMBOLS, recall
from experiments.memory._sweep import Row, at_least, grid, groups, swept
from experiments.memory._tables import COUNTS, LAYER, by_lag


@dataclass(frozen=True)
class Config:
    """Recipes and the grid: lags, learning rates, seeds; one width; updates at most."""

    recipes: tuple[str, ...] = (
        *("lstm_chrono_input", "lstm_chrono_forget", "lstm_bias_5", "lstm_chrono"),
    )
    lags: tuple[int, ...] = (50, 200)
    hidden_size: int = 32
    learning_rates: tuple[float, ...] = (0.003, 0.01)
    updates: int = 300
    batch_size: int = 32
    tests: int = 512
    seeds: tuple[int, ...] = tuple(range(5))


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
        network = build(recipe, (SYMBOLS, width, SYMBOLS), lag, seed).double()
        y, state = network.layer(x)
        apart.append((y[0, -1] - y[1, -1]).norm().item())
        slope.append(lab.median((1 - state.c.tanh().square()).flatten().tolist()))
    return {"apart": lab.median(apart), "slope": lab.median(slope)}


def run(config: Config, track: lab.Track) -> dict:
    """Train the grid with every seed, and look at every layer before training."""
    result = swept(recall(), grid(config, config.lags), config, track)
    rows, cases = result["series"]["rows"], result["cases"]
    for recipe, lag in groups(rows, "recipe", "lag"):
        cases[f"{recipe}_{lag}"]["start"] = start(
            recipe, lag, config.hidden_size, config.seeds
        )
    return result


def starts(record: Mapping[str, Any]) -> list[Row]:
    """The layers before training: a row for each quantity of a recipe at a lag."""
    words = {"apart": "symbols apart", "slope": "slope"}
    return [
        {
            "recipe": recipe,
            "column": f"{word}, lag {lab.number(lag)}",
            "value": record["cases"][f"{recipe}_{lag}"]["start"][key],
        }
        for key, word in words.items()
        for recipe, lag in groups(record["series"]["rows"], "recipe", "lag")
    ]


experiment = lab.Experiment(
    small=Config(
        recipes=("lstm_chrono_input", "lstm_chrono_forget", "lstm_chrono"),
        learning_rates=(0.005,),
        updates=260,
        tests=128,
        seeds=(0, 1),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C146.input",
            "At least half of the LSTMs with both biases of chrono learn to carry a "
            "symbol over 200 steps; of those with its forget biases alone, not half "
            "do.",
            at_least(0.5),
            case="lstm_chrono_200",
            control="lstm_chrono_forget_200",
        ),
        lab.Claim(
            "C146.forget",
            "At least half of the LSTMs with the forget biases of chrono alone learn "
            "to carry a symbol over 50 steps; of those with its input biases alone, "
            "not half do.",
            at_least(0.5),
            case="lstm_chrono_forget_50",
            control="lstm_chrono_input_50",
        ),
    ],
    numbers=[
        *COUNTS,
        lab.each("start.apart", "apart"),
        lab.each("start.slope", "slope"),
    ],
    tables={
        "solved": by_lag(),
        "start": lab.Pivot(
            LAYER, "column", str, lab.cell("value", lab.number, 2), starts
        ),
    },
)
