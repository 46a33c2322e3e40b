r"""A grid of runs: what each cell gave over its seeds, and cells taken together."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from experiments import lab
from experiments.memory._networks import build
from experiments.memory._training import Cell, Problem, score, train

Row = dict[str, Any]


def grid(
    config: Any,
    lags: Iterable[int],
    *,
    recipes: Sequence[str] = (),
    horizon: Callable[[int], float] = lambda lag: lag,
) -> list[Cell]:
    r"""Every recipe at every lag, with every width and learning rate.

    Recipes are those of the config where none are given; it has several widths or one.
    """
    several = hasattr(config, "hidden_sizes")
    widths = config.hidden_sizes if several else [config.hidden_size]
    return [
        Cell(recipe, width, rate, lag, config.updates, horizon(lag))
        for recipe in recipes or config.recipes
        for lag in lags
        for width in widths
        for rate in config.learning_rates
    ]


def measure_run(
    problem: Problem, cell: Cell, batch_size: int, tests: int, seed: int
) -> tuple[float, int]:
    """Build, train and try one network: its score, and the updates that were made."""
    sizes = problem.input_size, cell.hidden_size, problem.output_size
    network = build(cell.recipe, sizes, cell.horizon, seed)
    made = train(problem, network, cell, batch_size, seed)
    return score(problem, network, cell.lag, tests, seed), made


def sweep(
    problem: Problem,
    cells: Sequence[Cell],
    seeds: Sequence[int],
    batch_size: int,
    tests: int,
    track: lab.Track = lab.untracked,
) -> list[Row]:
    """Every cell over its seeds: all scores, and all numbers of updates."""
    rows = []
    for cell in track(cells, "sweep"):
        runs = [measure_run(problem, cell, batch_size, tests, seed) for seed in seeds]
        scores, made = map(list, zip(*runs, strict=True))
        good = sum(value >= problem.solved for value in scores)
        rows.append({**asdict(cell), "scores": scores, "made": made, "good": good})
    return rows


def groups(rows: Iterable[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows that agree in these quantities, by the values they have."""
    agreeing: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        agreeing.setdefault(tuple(row[key] for key in keys), []).append(row)
    return agreeing


def pool(rows: Sequence[Row]) -> Row:
    r"""Rows taken together: mean score and share of solved runs, with 95 % intervals.

    The intervals take all runs for draws of one kind. Rows of several settings are not,
    and share their seeds; a page that prints them says so.
    """
    scores = [value for row in rows for value in row["scores"]]
    good = sum(row["good"] for row in rows)
    shares = [row["good"] / len(row["scores"]) for row in rows]
    return {
        "runs": len(scores),
        "good": good,
        "share": lab.share_interval(good, len(scores)),
        "score": lab.mean_interval(scores),
        "lowest_share": min(shares),
        "highest_share": max(shares),
        "median_made": lab.median(value for row in rows for value in row["made"]),
    }


def cases_of(rows: Iterable[Row], *keys: str) -> dict[str, Row]:
    """Rows that agree in these quantities, pooled, and named after their values."""
    return {named(values): pool(some) for values, some in groups(rows, *keys).items()}


def swept(
    problem: Problem,
    cells: Sequence[Cell],
    config: Any,
    track: lab.Track,
    keys: Sequence[str] = ("recipe", "lag"),
) -> dict[str, Any]:
    """What an experiment that is one sweep returns: rows, and cases by these keys."""
    cells = [c for c in cells if lab.wanted(named(getattr(c, key) for key in keys))]
    rows = sweep(problem, cells, config.seeds, config.batch_size, config.tests, track)
    return {"series": {"rows": rows}, "cases": cases_of(rows, *keys)}


def named(values: Iterable[Any]) -> str:
    """The name of a case, by the values of what it has in common."""
    return "_".join(map(str, values))


def at_least(share: float) -> lab.Check:
    """A check that so large a share of the runs solved the task."""

    def check(case: Mapping[str, Any]) -> lab.Outcome:
        runs = case["runs"]
        least = next(good for good in range(runs + 1) if good / runs >= share)
        return lab.Outcome.at_least(case["good"], least, runs)

    return lab.all_of(check, number="share.share")


def fewer_than_half(case: Mapping[str, Any]) -> lab.Outcome:
    """A check that less than half of the runs solved the task."""
    most = math.ceil(case["runs"] / 2) - 1
    count = lab.Outcome.at_most(case["good"], most, case["runs"])
    return lab.Outcome.all_of(case["share"]["share"], count)
