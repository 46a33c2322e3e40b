r"""Delayed recall under other conditions: more updates, noise, a horizon that is off.

The experiment `delayed_recall` has few updates and blanks after the symbol, and it
tells chrono initialisation the lag. Here each of the three is changed by itself, at one
width. A run of more updates begins as the one with fewer does: what it would have been
at an earlier limit can be read from the update at which it stopped.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.lab.claim import Claim
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.statistics import share_interval
from experiments.lab.tables import number, table
from experiments.memory._judging import at_least, scalars
from experiments.memory._networks import CATALOGUE
from experiments.memory._presentation import (
    NO_BREAK,
    interval,
    solved,
    table_by_lag,
)
from experiments.memory._recall import recall
from experiments.memory._sweep import Cell, Row, pool, select, sweep
from experiments.memory._training import Schedule


@dataclass(frozen=True)
class Config:
    r"""What each part takes.

    `long` holds a recipe, a learning rate and a limit of updates for each line; of
    those updates `early` is the first limit that is reported.
    """

    hidden_size: int
    learning_rates: tuple[float, ...]
    updates: int
    long: tuple[tuple[str, float, int], ...]
    long_lag: int
    early: int
    noise: float
    noise_recipes: tuple[str, ...]
    noise_lags: tuple[int, ...]
    horizons: tuple[int, ...]
    horizon_lags: tuple[int, ...]
    batch_size: int
    tests: int
    seeds: tuple[int, ...]


SMALL = Config(
    hidden_size=32,
    learning_rates=(0.01,),
    updates=300,
    long=(("rnn", 0.01, 400), ("lstm", 0.01, 400)),
    long_lag=50,
    early=400,
    noise=1.0,
    noise_recipes=("lstm", "lstm_chrono"),
    noise_lags=(20,),
    horizons=(10, 1000),
    horizon_lags=(100,),
    batch_size=32,
    tests=128,
    seeds=(0, 1, 2, 3),
)
FULL = Config(
    hidden_size=32,
    learning_rates=(0.003, 0.01),
    updates=300,
    long=(
        ("rnn", 0.003, 2000),
        ("rnn", 0.01, 2000),
        ("lstm", 0.003, 2000),
        ("lstm", 0.01, 10000),
        ("gru", 0.003, 2000),
        ("gru", 0.01, 2000),
    ),
    long_lag=50,
    early=2000,
    noise=1.0,
    noise_recipes=("rnn", "rnn_orthogonal", "irnn", "lstm", "lstm_chrono"),
    noise_lags=(20, 50),
    horizons=(10, 100, 1000),
    horizon_lags=(20, 100),
    batch_size=32,
    tests=512,
    seeds=tuple(range(5)),
)


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Train all cells of the three parts."""
    width, rates = config.hidden_size, config.learning_rates
    parts = {
        "long": [
            Cell(recipe, width, rate, config.long_lag, updates, config.long_lag)
            for recipe, rate, updates in config.long
        ],
        "noise": [
            Cell(recipe, width, rate, lag, config.updates, lag)
            for recipe in config.noise_recipes
            for lag in config.noise_lags
            for rate in rates
        ],
        "horizon": [
            Cell("lstm_chrono", width, rate, lag, config.updates, horizon)
            for horizon in config.horizons
            for lag in config.horizon_lags
            for rate in rates
        ],
    }
    schedule = Schedule(batch_size=config.batch_size, tests=config.tests)
    noises = {"long": 0.0, "noise": config.noise, "horizon": 0.0}
    series = {
        part: sweep(recall(noises[part]), cells, schedule, config.seeds, track, part)
        for part, cells in parts.items()
    }
    cases = cases_of(config, series)
    return {"numbers": summary(cases), "series": series, "cases": cases}


def good_by(rows: list[Row], updates: int) -> dict[str, Any]:
    r"""Runs that had stopped, solved, after at most so many updates.

    A run that ended at its own limit did not stop: its last batches were not all good.
    """
    made = [(made, row["updates"]) for row in rows for made in row["made"]]
    good = sum(count <= updates and count < limit for count, limit in made)
    share = share_interval(good, len(made))
    return {"good": good, "runs": len(made), "share": share}


def cases_of(config: Config, series: Mapping[str, list[Row]]) -> dict[str, Any]:
    """Each recipe by limit of updates, with noise by lag, and each horizon by lag."""
    found: dict[str, Any] = {}
    for recipe in dict.fromkeys(recipe for recipe, _, _ in config.long):
        rows = select(series["long"], recipe=recipe)
        found[f"{recipe}_early"] = good_by(rows, config.early)
        longest = max(row["updates"] for row in rows)
        rows = select(rows, updates=longest)
        found[f"{recipe}_long"] = {"updates": longest, **good_by(rows, longest)}
    for row in series["noise"]:
        name = f"noise_{row['recipe']}_{row['lag']}"
        rows = select(series["noise"], recipe=row["recipe"], lag=row["lag"])
        found[name] = pool(rows)
    for row in series["horizon"]:
        name = f"horizon_{row['horizon']:g}_{row['lag']}"
        rows = select(series["horizon"], horizon=row["horizon"], lag=row["lag"])
        found[name] = pool(rows)
    return found


def summary(cases: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars for sentences."""
    found: dict[str, Any] = {}
    for name, case in cases.items():
        found |= scalars(name, case)
        for key in ("updates", "median_made"):
            if key in case:
                found[f"{name}_{key}"] = case[key]
    return found


CLAIMS = (
    Claim(
        "C123",
        "With more updates at least half of the tanh RNNs as they come learn the lag; "
        "with as many, not half of the LSTMs as they come do.",
        at_least(0.5),
        case="rnn_early",
        control="lstm_early",
    ),
    Claim(
        "C124",
        "With noise after the symbol at least nine in ten LSTMs with chrono biases "
        "learn a lag of 20; of the LSTMs as they come, not nine in ten do.",
        at_least(0.9),
        case="noise_lstm_chrono_20",
        control="noise_lstm_20",
    ),
    Claim(
        "C125",
        "With a horizon of 1,000 for a lag of 100 at least nine in ten LSTMs with "
        "chrono biases learn it; with a horizon of 10, not nine in ten do.",
        at_least(0.9),
        case="horizon_1000_100",
        control="horizon_10_100",
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Runs that solved the task: by updates, with noise, and by horizon."""
    config, series = record["run"]["config"], record["series"]
    longs = [
        [
            CATALOGUE[row["recipe"]].label,
            number(row["learning_rate"], 1),
            *[_by(row, limit) for limit in (config["updates"], config["early"])],
            _by(row, row["updates"]) if row["updates"] > config["early"] else "",
        ]
        for row in series["long"]
    ]
    last = max(row["updates"] for row in series["long"])
    limits = [number(limit) for limit in (config["updates"], config["early"], last)]
    headers = ["layer, initialisation", "learning rate"]
    horizons = [
        [
            number(horizon),
            *[
                solved(select(series["horizon"], horizon=horizon, lag=lag))
                for lag in config["horizon_lags"]
            ],
        ]
        for horizon in config["horizons"]
    ]
    lags = [f"lag {number(lag)}" for lag in config["horizon_lags"]]
    return {
        "long": table([*headers, *[f"by update {limit}" for limit in limits]], longs),
        "noise": table_by_lag(
            series["noise"], config["noise_recipes"], config["noise_lags"]
        ),
        "horizon": table(["horizon of chrono", *lags], horizons),
    }


def _by(row: Row, limit: int) -> str:
    found = good_by([row], limit)
    share = found["share"]
    count = f"{found['good']} of {found['runs']}".replace(" ", NO_BREAK)
    return f"{count} ({interval(share['low'], share['high'])})"


experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
)
