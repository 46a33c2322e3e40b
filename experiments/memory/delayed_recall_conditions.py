r"""Delayed recall under other conditions: more updates, noise, a horizon that is off.

The experiment `delayed_recall` has few updates and blanks after the symbol, and it
tells chrono initialisation the lag. Here each of the three is changed by itself, at one
width. A run of more updates begins as the one with fewer does: what it would have been
at an earlier limit can be read from the update at which it stopped.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from experiments import lab
from experiments.memory._recall import recall
from experiments.memory._sweep import Row, at_least, cases_of, grid, groups, sweep
from experiments.memory._tables import (
    COUNTS,
    LAYER,
    RATE,
    by_lag,
    counted,
    headed,
    interval,
    pooled,
    solved,
)
from experiments.memory._training import Cell


@dataclass(frozen=True)
class Config:
    r"""What each part takes.

    `long` holds a recipe, a learning rate and a limit of updates for each line; of
    those updates `early` is the first limit that is reported.
    """

    hidden_size: int = 32
    learning_rates: tuple[float, ...] = (0.003, 0.01)
    updates: int = 300
    long: tuple[tuple[str, float, int], ...] = (
        ("rnn", 0.003, 2000),
        ("rnn", 0.01, 2000),
        ("lstm", 0.003, 2000),
        ("lstm", 0.01, 10000),
        ("gru", 0.003, 2000),
        ("gru", 0.01, 2000),
    )
    long_lag: int = 50
    early: int = 2000
    noise: float = 1.0
    noise_recipes: tuple[str, ...] = (
        *("rnn", "rnn_orthogonal", "irnn", "lstm", "lstm_chrono"),
    )
    noise_lags: tuple[int, ...] = (20, 50)
    horizons: tuple[int, ...] = (10, 100, 1000)
    horizon_lags: tuple[int, ...] = (20, 100)
    batch_size: int = 32
    tests: int = 512
    seeds: tuple[int, ...] = tuple(range(5))


def run(config: Config, track: lab.Track) -> dict:
    """Train all cells of the three parts."""
    width, lag = config.hidden_size, config.long_lag
    chrono = grid(config, config.horizon_lags, recipes=["lstm_chrono"])
    parts = {
        "long": [
            Cell(recipe, width, rate, lag, updates, lag)
            for recipe, rate, updates in config.long
        ],
        "noise": grid(config, config.noise_lags, recipes=config.noise_recipes),
        "horizon": [
            replace(cell, horizon=horizon)
            for horizon in config.horizons
            for cell in chrono
        ],
    }
    series = {}
    for part, cells in parts.items():
        problem = recall(config.noise if part == "noise" else 0.0)
        series[part] = sweep(
            problem, cells, config.seeds, config.batch_size, config.tests, track
        )
    cases = long_cases(series["long"], config.early)
    for part, key in (("noise", "recipe"), ("horizon", "horizon")):
        for name, case in cases_of(series[part], key, "lag").items():
            cases[f"{part}_{name}"] = case
    return {"series": series, "cases": cases}


def good_by(rows: list[Row], updates: int) -> dict[str, Any]:
    r"""Runs that had stopped, solved, after at most so many updates.

    A run that ended at its own limit did not stop: its last batches were not all good.
    """
    made = [(made, row["updates"]) for row in rows for made in row["made"]]
    good = sum(count <= updates and count < limit for count, limit in made)
    share = lab.share_interval(good, len(made))
    return {"good": good, "runs": len(made), "share": share}


def long_cases(rows: list[Row], early: int) -> dict[str, Any]:
    """Each recipe by the early limit of updates, and by its longest."""
    cases: dict[str, Any] = {}
    for (recipe,), some in groups(rows, "recipe").items():
        cases[f"{recipe}_early"] = good_by(some, early)
        (updates,), last = max(groups(some, "updates").items())
        cases[f"{recipe}_long"] = {"updates": updates, **good_by(last, updates)}
    return cases


def by_limit(record: Mapping[str, Any]) -> list[Row]:
    """Each line of the long part at the limits that are reported, its own the last."""
    config = record["run"]["config"]
    return [
        {**row, "limit": limit, **good_by([row], limit)}
        for row in record["series"]["long"]
        for limit in (config["updates"], config["early"], row["updates"])
    ]


experiment = lab.Experiment(
    small=Config(
        learning_rates=(0.01,),
        long=(("rnn", 0.01, 400), ("lstm", 0.01, 400)),
        early=400,
        noise_recipes=("lstm", "lstm_chrono"),
        noise_lags=(20,),
        horizons=(10, 1000),
        horizon_lags=(100,),
        tests=128,
        seeds=(0, 1, 2, 3),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C123",
            "With more updates at least half of the tanh RNNs as they come learn the "
            "lag; with as many, not half of the LSTMs as they come do.",
            at_least(0.5),
            case="rnn_early",
            control="lstm_early",
        ),
        lab.Claim(
            "C124",
            "With noise after the symbol at least nine in ten LSTMs with chrono biases "
            "learn a lag of 20; of the LSTMs as they come, not nine in ten do.",
            at_least(0.9),
            case="noise_lstm_chrono_20",
            control="noise_lstm_20",
        ),
        lab.Claim(
            "C125",
            "With a horizon of 1,000 for a lag of 100 at least nine in ten LSTMs with "
            "chrono biases learn it; with a horizon of 10, not nine in ten do.",
            at_least(0.9),
            case="horizon_1000_100",
            control="horizon_10_100",
        ),
    ],
    numbers=[*COUNTS, lab.each("updates"), lab.each("median_made")],
    tables={
        "long": lab.Pivot(
            lines={**LAYER, **RATE},
            across="limit",
            columns=headed("by update"),
            cell=lambda row: f"{counted(row)} ({interval(row['share'])})",
            rows=by_limit,
        ),
        "noise": by_lag(part="noise"),
        "horizon": lab.Pivot(
            lines={"horizon of chrono": "horizon"},
            across="lag",
            columns=headed("lag"),
            cell=solved,
            rows=pooled("horizon", "lag", part="horizon"),
        ),
    },
)
