r"""What recomputing the chunks costs in time, beside the memory that it saves.

The same layers and loss as in `bptt_memory`: forward and backward pass through one
graph, and with chunks whose inner values are dropped and computed again. Each layer
runs in a loop over its steps, and in one call for each chunk. Processor time in
interleaved rounds of one process, as a ratio; the milliseconds of a machine mean little
elsewhere.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

from experiments import lab
from experiments.bptt._job import KINDS, Job
from experiments.lab import ratio_cells, timing


@dataclass(frozen=True)
class Config:
    """Batch size, widths, steps, rounds, seed."""

    batch_size: int = 8
    hidden_sizes: tuple[int, ...] = (32, 256)
    time: int = 576
    rounds: int = 9
    seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Size:
    """What a job needs to know."""

    batch_size: int
    hidden_size: int
    seeds: tuple[int, ...]


FORMS = {"loop": "loop over steps", "call": "one call a chunk"}
# What is timed, by what its cases are called.
NAMES = {"checkpointed": "checkpointed", "full_again": timing.AGAIN}


def contestants(
    config: Config, kind: str, form: str, width: int
) -> dict[str, timing.Contestant]:
    """One graph, and chunks of √T, on the same job."""
    size = Size(config.batch_size, width, config.seeds)
    job = Job(size, kind, config.time, loop=form == "loop")
    runs = {
        "full": partial(job.full, config.time),
        "checkpointed": partial(job.checkpointed, math.isqrt(config.time)),
    }
    return {name: timing.Contestant(run, job.outside()) for name, run in runs.items()}


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Time every kind, form and width."""
    jobs = [
        {"kind": kind, "form": form, "width": width}
        for form in FORMS
        for width in config.hidden_sizes
        for kind in KINDS
    ]
    rows = []
    with timing.setting():
        for job in track(jobs, "bptt_checkpoint_time"):
            runs = contestants(config, **job)
            rows.append({**job, **timing.compare(runs, "full", config.rounds)})
    cases = {
        f"{label}_{form}_{width}": {"low": min(ratios), "high": max(ratios)}
        for label, name in NAMES.items()
        for form in FORMS
        for width in config.hidden_sizes
        if (ratios := timing.medians(rows, name, form=form, width=width))
    }
    return {"series": {"rows": rows}, "cases": cases}


experiment = lab.Experiment(
    small=Config(batch_size=2, hidden_sizes=(256,), time=16, rounds=2),
    run=run,
    claims=[
        lab.Claim(
            "recompute.time",
            "Recomputing the chunks, one call for each at width 256, takes more than "
            "1.15 times the processor time of one graph, for each kind of layer.",
            lab.above("low", 1.15),
            case="checkpointed_call_256",
            control="full_again_call_256",
            timed=True,
        )
    ],
    numbers=[lab.everything],
    tables={
        "ratios": lab.Table(
            rows="series.rows",
            columns={
                "layer": lambda row: f"{row['kind'].upper()}, {FORMS[row['form']]}",
                "D": "width",
                "one graph again": ratio_cells.ratio(timing.AGAIN),
                "recomputed": ratio_cells.ratio("checkpointed"),
                "peak memory": ratio_cells.memory("checkpointed"),
            },
        )
    },
)
