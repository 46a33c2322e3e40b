r"""A grid of runs: what each cell gave over its seeds, and cells taken together."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from experiments.lab.experiment import Track, untracked
from experiments.lab.statistics import (
    mean_interval,
    median,
    share_interval,
)
from experiments.memory._networks import build
from experiments.memory._training import (
    Problem,
    Run,
    Schedule,
    score,
    train,
)

Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    r"""One setting of the grid; `horizon` is what the initialisation is told."""

    recipe: str
    hidden_size: int
    learning_rate: float
    lag: int
    updates: int
    horizon: float


def measure_run(problem: Problem, cell: Cell, schedule: Schedule, seed: int) -> Run:
    """Build, train and try one network."""
    network = build(
        cell.recipe,
        problem.input_size,
        cell.hidden_size,
        problem.output_size,
        cell.horizon,
        seed,
    )
    made = train(
        problem,
        network,
        schedule,
        cell.lag,
        cell.updates,
        cell.learning_rate,
        seed,
    )
    return Run(score(problem, network, schedule, cell.lag, seed), made)


def measure_cell(
    problem: Problem, cell: Cell, schedule: Schedule, seeds: Sequence[int]
) -> Row:
    """A cell over its seeds: every score, and every number of updates."""
    runs = [measure_run(problem, cell, schedule, seed) for seed in seeds]
    return {
        **asdict(cell),
        "scores": [run.score for run in runs],
        "made": [run.updates for run in runs],
        "good": sum(run.score >= problem.solved for run in runs),
    }


def sweep(
    problem: Problem,
    cells: Sequence[Cell],
    schedule: Schedule,
    seeds: Sequence[int],
    track: Track = untracked,
    label: str = "sweep",
) -> list[Row]:
    """Every cell of a grid, in order."""
    return [
        measure_cell(problem, cell, schedule, seeds) for cell in track(cells, label)
    ]


def select(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """The rows that have these values."""
    return [
        row for row in rows if all(row[key] == value for key, value in wanted.items())
    ]


def pool(rows: Sequence[Row]) -> Row:
    r"""Rows taken together: mean score and share of solved runs, with 95 % intervals.

    The intervals take all runs for draws of one kind. Rows of several settings are not,
    and share their seeds; a page that prints them says so.

    Raises:
        ValueError: There are no rows.
    """
    if not rows:
        raise ValueError("pool: `rows` must hold at least one row, got none")
    scores = [value for row in rows for value in row["scores"]]
    good = sum(row["good"] for row in rows)
    return {
        "runs": len(scores),
        "good": good,
        "share": share_interval(good, len(scores)),
        "score": mean_interval(scores),
        "lowest_share": min(row["good"] / len(row["scores"]) for row in rows),
        "highest_share": max(row["good"] / len(row["scores"]) for row in rows),
        "median_made": median(value for row in rows for value in row["made"]),
    }
