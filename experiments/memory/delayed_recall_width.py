r"""Delayed recall by width and learning rate: what wider layers learn as they come.

The experiment `delayed_recall` has two narrow widths and two small learning rates. Here
one lag is tried with wider layers and a larger rate too, on the same sequences and with
as many updates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.lab.claim import Claim
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.tables import number, table
from experiments.memory._judging import at_least, scalars
from experiments.memory._networks import CATALOGUE
from experiments.memory._presentation import NO_BREAK, solved
from experiments.memory._recall import recall
from experiments.memory._sweep import Cell, pool, select, sweep
from experiments.memory._training import Schedule


@dataclass(frozen=True)
class Config:
    """Recipes and the grid: widths, learning rates, seeds; one lag; updates at most."""

    recipes: tuple[str, ...]
    lag: int
    hidden_sizes: tuple[int, ...]
    learning_rates: tuple[float, ...]
    updates: int
    batch_size: int
    tests: int
    seeds: tuple[int, ...]


# By these updates the wide default layers learn at the two larger rates, and not at the
# smallest: two thirds of the runs, as far from half as from nine in ten.
SMALL = Config(
    recipes=("lstm", "lstm_chrono"),
    lag=20,
    hidden_sizes=(32, 256),
    learning_rates=(0.0003, 0.005, 0.006),
    updates=220,
    batch_size=32,
    tests=128,
    seeds=(0, 1),
)
FULL = Config(
    recipes=("lstm", "lstm_chrono", "gru"),
    lag=50,
    hidden_sizes=(32, 64, 128, 256),
    learning_rates=(0.003, 0.01, 0.03),
    updates=300,
    batch_size=32,
    tests=512,
    seeds=tuple(range(5)),
)


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Train every cell of the grid with every seed; chrono is told the lag."""
    cells = [
        Cell(recipe, width, rate, config.lag, config.updates, config.lag)
        for recipe in config.recipes
        for width in config.hidden_sizes
        for rate in config.learning_rates
    ]
    schedule = Schedule(batch_size=config.batch_size, tests=config.tests)
    rows = sweep(recall(), cells, schedule, config.seeds, track, "delayed_recall_width")
    cases = {
        f"{recipe}_{width}": pool(select(rows, recipe=recipe, hidden_size=width))
        for recipe in config.recipes
        for width in config.hidden_sizes
    }
    return {"numbers": summary(cases), "series": {"rows": rows}, "cases": cases}


def summary(cases: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars for sentences."""
    found: dict[str, Any] = {}
    for name, case in cases.items():
        found |= scalars(name, case)
    return found


CLAIMS = (
    Claim(
        "C147.width",
        "At least half of the LSTMs as they come of width 256 learn to carry a symbol "
        "over 50 steps; of those of width 32, not half do.",
        at_least(0.5),
        case="lstm_256",
        control="lstm_32",
    ),
    Claim(
        "C147.chrono",
        "At least nine in ten LSTMs of width 256 with chrono biases learn to carry a "
        "symbol over 50 steps; of those as they come, not nine in ten do.",
        at_least(0.9),
        case="lstm_chrono_256",
        control="lstm_256",
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Runs that solved the task by width: each learning rate, then all together."""
    config, rows = record["run"]["config"], record["series"]["rows"]
    widths = config["hidden_sizes"]
    lines = []
    for recipe in config["recipes"]:
        label = CATALOGUE[recipe].label
        for rate in config["learning_rates"]:
            some = select(rows, recipe=recipe, learning_rate=rate)
            counts = [pool(select(some, hidden_size=width)) for width in widths]
            cells = [f"{c['good']} of {c['runs']}" for c in counts]
            cells = [cell.replace(" ", NO_BREAK) for cell in cells]
            lines.append([label, number(rate, 1), *cells])
        some = select(rows, recipe=recipe)
        together = [solved(select(some, hidden_size=width)) for width in widths]
        lines.append([label, "all", *together])
    headers = ["layer, initialisation", "learning rate"]
    return {"solved": table([*headers, *[f"width {number(w)}" for w in widths]], lines)}


experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
)
