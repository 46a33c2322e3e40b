"""What a claim asks of a cell's runs, and the scalars that sentences quote of them."""

from collections.abc import Callable, Mapping
from typing import Any

from seqref.experiments.framework.claim import Outcome
from seqref.experiments.memory_parts.presentation import percent


def scalars(name: str, case: Mapping[str, Any]) -> dict[str, Any]:
    """Runs, runs that solved the task, and their share with its interval, by name."""
    counts = {f"{name}_runs": case["runs"], f"{name}_good": case["good"]}
    return counts | {f"{name}_{k}": percent(v) for k, v in case["share"].items()}


def at_least(share: float) -> Callable[[Mapping[str, Any]], Outcome]:
    """A check that so large a share of the runs solved the task."""

    def check(case: Mapping[str, Any]) -> Outcome:
        found = case["share"]["share"]
        return Outcome(found >= share, found)

    return check


def fewer_than_half(case: Mapping[str, Any]) -> Outcome:
    """A check that less than half of the runs solved the task."""
    found = case["share"]["share"]
    return Outcome(found < 0.5, found)
