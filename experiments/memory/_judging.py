"""What a claim asks of a cell's runs, and the scalars that sentences quote of them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from experiments.lab.claim import Outcome
from experiments.memory._presentation import percent


def scalars(name: str, case: Mapping[str, Any]) -> dict[str, Any]:
    """Runs, runs that solved the task, and their share with its interval, by name."""
    counts = {f"{name}_runs": case["runs"], f"{name}_good": case["good"]}
    return counts | {f"{name}_{k}": percent(v) for k, v in case["share"].items()}


def at_least(share: float) -> Callable[[Mapping[str, Any]], Outcome]:
    """A check that so large a share of the runs solved the task."""

    def check(case: Mapping[str, Any]) -> Outcome:
        runs = case["runs"]
        least = next(good for good in range(runs + 1) if good / runs >= share)
        found = Outcome.at_least(case["good"], least, runs)
        return Outcome.all_of(case["share"]["share"], found)

    return check


def fewer_than_half(case: Mapping[str, Any]) -> Outcome:
    """A check that less than half of the runs solved the task."""
    most = math.ceil(case["runs"] / 2) - 1
    found = Outcome.at_most(case["good"], most, case["runs"])
    return Outcome.all_of(case["share"]["share"], found)
