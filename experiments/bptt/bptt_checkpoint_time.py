r"""What recomputing the chunks costs in time, beside the memory that it saves.

The same layers and loss as in `bptt_memory`: forward and backward pass through one
graph, and with chunks whose inner values are dropped and computed again. Each layer
runs in a loop over its steps, and in one call for each chunk. Processor time in
interleaved rounds of one process, as a ratio; the milliseconds of a machine mean little
elsewhere.
"""

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from experiments.bptt import bptt_memory
from experiments.bptt._job import KINDS, Job
from experiments.lab import timer
from experiments.lab.claim import Claim, Outcome
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.tables import number, table


@dataclass(frozen=True)
class Config:
    """Batch size, widths, steps, rounds, seed."""

    batch_size: int
    hidden_sizes: tuple[int, ...]
    time: int
    rounds: int
    seeds: tuple[int, ...]


SMALL = Config(batch_size=8, hidden_sizes=(256,), time=64, rounds=7, seeds=(0,))
FULL = Config(batch_size=8, hidden_sizes=(32, 256), time=576, rounds=9, seeds=(0,))
FORMS = {"loop": "loop over steps", "call": "one call a chunk"}

Runs = Mapping[str, Callable[[], Any]]


def contestants(config: Config, kind: str, form: str, width: int) -> Runs:
    """One graph (twice, for the noise) and chunks of √T, on the same job."""
    sizes = bptt_memory.Config(
        config.batch_size, width, (config.time,), config.time, config.seeds
    )
    job = Job(sizes, kind, config.time, loop=form == "loop")
    size = math.isqrt(config.time)
    return {
        "full": lambda: job.full(config.time),
        "full_again": lambda: job.full(config.time),
        "checkpointed": lambda: job.checkpointed(size),
    }


def ratios(runs: Runs, rounds: int) -> dict[str, list[float]]:
    """Processor time over that of `full` in the same round."""
    found: dict[str, list[float]] = {name: [] for name in runs if name != "full"}
    for run in runs.values():
        run()
    for _ in range(rounds):
        took = {}
        for name, run in runs.items():
            began = timer.processor()
            run()
            took[name] = timer.processor() - began
        for name, values in found.items():
            values.append(took[name] / took["full"])
    return found


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Time every kind, form and width; keep median and quartiles of the ratios."""
    rows = []
    jobs = [
        (kind, form, width)
        for form in FORMS
        for width in config.hidden_sizes
        for kind in KINDS
    ]
    for kind, form, width in track(jobs, "bptt_checkpoint_time"):
        found = ratios(contestants(config, kind, form, width), config.rounds)
        for name, values in found.items():
            low, middle, high = statistics.quantiles(values, n=4)
            labels = {"kind": kind, "form": form, "hidden_size": width}
            quartiles = {"median": middle, "low": low, "high": high}
            rows.append({**labels, "contestant": name, **quartiles})
    cases = {
        f"{name}_{form}_{width}": ends(rows, name, form, width)
        for name in ("checkpointed", "full_again")
        for form in FORMS
        for width in config.hidden_sizes
    }
    numbers = {
        f"{name}_{key}": value
        for name, case in cases.items()
        for key, value in case.items()
    }
    return {"numbers": numbers, "series": {"rows": rows}, "cases": cases}


def ends(
    rows: list[dict[str, Any]], name: str, form: str, width: int
) -> dict[str, float]:
    """Lowest and highest median of one contestant over the kinds of layer."""
    wanted = (name, form, width)
    found = [
        row["median"]
        for row in rows
        if (row["contestant"], row["form"], row["hidden_size"]) == wanted
    ]
    return {"low": min(found), "high": max(found)}


def _costs_time(case: Mapping[str, Any]) -> Outcome:
    return Outcome.above(case["low"], 1.15)


CLAIMS = (
    Claim(
        "recompute.time",
        "Recomputing the chunks, one call for each at width 256, takes more than 1.15 "
        "times the processor time of one graph, for each kind of layer.",
        _costs_time,
        case="checkpointed_call_256",
        control="full_again_call_256",
        timed=True,
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Ratios by form, width and kind: median, quartiles in brackets."""
    cells: dict[tuple[str, int, str], list[str]] = {}
    for row in record["series"]["rows"]:
        text = f"{row['median']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
        key = (row["form"], row["hidden_size"], row["kind"])
        cells.setdefault(key, []).append(text)
    rows = [
        [f"{kind.upper()}, {FORMS[form]}", number(width), again, recomputed]
        for (form, width, kind), (again, recomputed) in cells.items()
    ]
    return {"ratios": table(["layer", "D", "one graph again", "recomputed"], rows)}


experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
)
