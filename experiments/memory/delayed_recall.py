r"""Delayed recall: which layers learn to carry a symbol, by initialisation and lag.

One of two symbols is shown at the first step, blanks follow, and at the last step the
network must name the symbol. Layers of `torch.nn` are initialised in several ways and
trained with a fixed number of updates at most, at two widths and two learning rates.
What is counted is the runs that solved the task.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.lab.claim import Claim, Outcome
from experiments.lab.drawing import Theme
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.memory._judging import at_least, fewer_than_half, scalars
from experiments.memory._presentation import (
    draw_by_lag,
    mean_score,
    table_by_lag,
    table_of_settings,
)
from experiments.memory._recall import recall
from experiments.memory._sweep import Cell, Row, pool, select, sweep
from experiments.memory._training import Schedule


@dataclass(frozen=True)
class Config:
    """Recipes and the grid: lags, widths, learning rates, seeds; updates at most."""

    recipes: tuple[str, ...]
    lags: tuple[int, ...]
    hidden_sizes: tuple[int, ...]
    learning_rates: tuple[float, ...]
    updates: int
    batch_size: int
    tests: int
    seeds: tuple[int, ...]


# At this width and rate those that learn do so by update 162 in FULL, and an LSTM as it
# comes, over 20 steps, from update 248 on.
SMALL = Config(
    recipes=("rnn", "rnn_orthogonal", "lstm", "lstm_bias_1", "lstm_chrono"),
    lags=(20, 50, 100),
    hidden_sizes=(32,),
    learning_rates=(0.003,),
    updates=200,
    batch_size=32,
    tests=128,
    seeds=(0, 1, 2, 3),
)
FULL = Config(
    recipes=(
        "rnn",
        "rnn_orthogonal",
        "irnn",
        "lstm",
        "lstm_bias_1",
        "lstm_chrono",
        "gru",
        "gru_chrono",
    ),
    lags=(20, 50, 100, 200),
    hidden_sizes=(16, 32),
    learning_rates=(0.003, 0.01),
    updates=300,
    batch_size=32,
    tests=512,
    seeds=tuple(range(5)),
)


def cells_of(config: Config) -> list[Cell]:
    """The grid; chrono is told the lag."""
    return [
        Cell(recipe, width, rate, lag, config.updates, lag)
        for recipe in config.recipes
        for lag in config.lags
        for width in config.hidden_sizes
        for rate in config.learning_rates
    ]


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Train every cell of the grid with every seed."""
    schedule = Schedule(batch_size=config.batch_size, tests=config.tests)
    rows = sweep(
        recall(), cells_of(config), schedule, config.seeds, track, "delayed_recall"
    )
    cases = {
        f"{recipe}_{lag}": pool(select(rows, recipe=recipe, lag=lag))
        for recipe in config.recipes
        for lag in config.lags
    }
    return {"numbers": summary(cases, rows), "series": {"rows": rows}, "cases": cases}


def summary(cases: Mapping[str, Any], rows: list[Row]) -> dict[str, Any]:
    """Scalars for sentences."""
    found: dict[str, Any] = {"runs": sum(case["runs"] for case in cases.values())}
    for name, case in cases.items():
        found |= scalars(name, case)
        found[f"{name}_accuracy"] = case["score"]["mean"]
    for recipe in {row["recipe"] for row in rows}:
        good = [row["lag"] for row in select(rows, recipe=recipe) if row["good"]]
        found[f"{recipe}_longest"] = max(good, default=0)
    return dict(sorted(found.items()))


def _none(case: Mapping[str, Any]) -> Outcome:
    return Outcome.at_most(case["good"], 0, case["runs"])


CLAIMS = (
    Claim(
        "C15",
        "At least half of the tanh RNNs that start with an orthogonal matrix learn to "
        "carry a symbol over 100 steps; of the LSTMs as they come, not half do.",
        at_least(0.5),
        case="rnn_orthogonal_100",
        control="lstm_100",
    ),
    Claim(
        "C33",
        "At least nine in ten LSTMs with chrono biases learn to carry a symbol over "
        "100 steps; of the LSTMs as they come, not nine in ten do.",
        at_least(0.9),
        case="lstm_chrono_100",
        control="lstm_100",
    ),
    Claim(
        "C120",
        "At least nine in ten tanh RNNs that start with an orthogonal matrix learn to "
        "carry a symbol over 50 steps; of those as they come, not nine in ten do.",
        at_least(0.9),
        case="rnn_orthogonal_50",
        control="rnn_50",
    ),
    Claim(
        "C121",
        "No LSTM as it comes learns to carry a symbol over 50 steps; some with chrono "
        "biases do.",
        _none,
        case="lstm_50",
        control="lstm_chrono_50",
    ),
    Claim(
        "C122.near",
        "At least nine in ten LSTMs with a forget bias of 1 learn to carry a symbol "
        "over 20 steps; of the LSTMs as they come, not nine in ten do.",
        at_least(0.9),
        case="lstm_bias_1_20",
        control="lstm_20",
    ),
    Claim(
        "C122.far",
        "Fewer than half of the LSTMs with a forget bias of 1 learn to carry a symbol "
        "over 50 steps; of those with chrono biases, half or more do.",
        fewer_than_half,
        case="lstm_bias_1_50",
        control="lstm_chrono_50",
    ),
)
PLAIN = ("rnn", "rnn_orthogonal", "irnn", "lstm")
GATED = ("lstm", "lstm_bias_1", "lstm_chrono", "gru", "gru_chrono")


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Runs that solved the task and mean accuracy by lag; every setting by itself."""
    config, rows = record["run"]["config"], record["series"]["rows"]
    recipes, lags = config["recipes"], config["lags"]
    plain, gated = (
        [recipe for recipe in some if recipe in recipes] for some in (PLAIN, GATED)
    )
    return {
        "plain": table_by_lag(rows, plain, lags),
        "gated": table_by_lag(rows, gated, lags),
        "accuracy": table_by_lag(rows, recipes, lags, mean_score),
        "settings": table_of_settings(rows, recipes, lags),
    }


def _draw(recipes: tuple[str, ...], title: str) -> Any:
    def draw(figure: Any, record: Mapping[str, Any], theme: Theme) -> None:
        config = record["run"]["config"]
        known = [recipe for recipe in recipes if recipe in config["recipes"]]
        rows = record["series"]["rows"]
        draw_by_lag(figure, rows, known, config["lags"], theme, title)

    return draw


FIGURES = {
    "plain": _draw(
        PLAIN, "Runs that learned to carry a symbol, plain RNNs and the LSTM"
    ),
    "gated": _draw(GATED, "Runs that learned to carry a symbol, gated layers"),
}
experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
    figures=FIGURES,
)
