r"""Memory of backpropagation through time against the length: full, cut, recomputed.

The same layer, step by step through `scan`, and the same loss at each step, in three
ways: one graph over the whole sequence, chunks with the graph cut between them, and
chunks whose inner values `torch.utils.checkpoint` drops and computes again. Two counts:
the bytes that autograd keeps after the forward pass, and the most bytes that are alive
at once in forward and backward pass together. Inputs, targets and parameters are there
in any case and are not counted.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments.bptt._counting import kept_bytes
from experiments.bptt._job import KINDS, Job
from experiments.lab.claim import Claim, Outcome
from experiments.lab.drawing import DASHES, Theme, label_ends
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.tables import number, table
from seqref.testing import LiveBytes


@dataclass(frozen=True)
class Config:
    """Sizes; the lengths are squares, so that a chunk of √T steps divides them."""

    batch_size: int
    hidden_size: int
    times: tuple[int, ...]
    chunk_size: int
    seeds: tuple[int, ...]


SMALL = Config(batch_size=16, hidden_size=8, times=(64, 256), chunk_size=16, seeds=(0,))
FULL = Config(
    batch_size=8,
    hidden_size=32,
    times=(64, 256, 1024, 4096),
    chunk_size=64,
    seeds=(0,),
)
WAYS = {
    "full": "one graph",
    "truncated": "cut into chunks",
    "checkpointed": "recomputed, chunks of √T",
}


def size_of_chunk(config: Config, way: str, time: int) -> int:
    """Steps of a chunk in each of the three ways."""
    return {
        "full": time,
        "truncated": min(config.chunk_size, time),
        "checkpointed": math.isqrt(time),
    }[way]


def peak(config: Config, kind: str, way: str, time: int) -> dict[str, Any]:
    """The most bytes alive at once, and the steps taken, forward and backward."""
    job = Job(config, kind, time)
    size = size_of_chunk(config, way, time)
    method: Callable[[int], list[Tensor]] = getattr(job, way)
    with LiveBytes(job.outside()) as live:
        method(size)
    return {
        "kind": kind,
        "way": way,
        "time": time,
        "chunk": size,
        "peak": live.peak,
        "steps": job.layer.steps,
    }


def kept(config: Config, kind: str, time: int, *, graph: bool = True) -> int:
    """Bytes that autograd keeps after a forward pass over one chunk of `time` steps."""
    job = Job(config, kind, time)

    def forward() -> Tensor:
        with torch.set_grad_enabled(graph):
            state = job.layer.initial_state(len(job.x))
            return job.chunk(job.x, job.target, state)[0]

    return kept_bytes(forward, job.outside())


def exponent(times: tuple[int, ...], sizes: list[int]) -> float:
    """Slope of log bytes against log time over the upper half of the lengths."""
    half = len(times) // 2
    low, high = times[half - 1], times[-1]
    ratio = sizes[-1] / sizes[half - 1]
    return round(math.log(ratio) / math.log(high / low), 9)


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Count everything; nothing here depends on the machine's speed."""
    times = config.times
    jobs = [(way, time) for way in WAYS for time in times]
    peaks = [
        peak(config, "lstm", way, time) for way, time in track(jobs, "bptt_memory")
    ]
    cases: dict[str, Any] = {}
    for way in WAYS:
        rows = [row for row in peaks if row["way"] == way]
        cases[way] = {
            "exponent": exponent(times, [row["peak"] for row in rows]),
            "peak": rows[-1]["peak"],
            "steps_per_input": rows[-1]["steps"] / times[-1],
        }
    slopes = []
    for kind in KINDS:
        found = [kept(config, kind, time) for time in times]
        cases[f"kept_{kind}"] = linear(config, found)
        slopes.append({"kind": kind, "kept": found, **cases[f"kept_{kind}"]})
    nothing = [kept(config, "lstm", time, graph=False) for time in times]
    cases["kept_lstm_no_grad"] = linear(config, nothing)
    series = {"peaks": peaks, "kept": slopes}
    return {"numbers": summary(cases, peaks), "series": series, "cases": cases}


def linear(config: Config, found: list[int]) -> dict[str, Any]:
    """Bytes per step between neighbouring lengths, lowest and highest."""
    times = config.times
    rates = [
        (found[i + 1] - found[i]) / (times[i + 1] - times[i])
        for i in range(len(times) - 1)
    ]
    vector = 4 * config.batch_size * config.hidden_size
    return {
        "rate_low": min(rates),
        "rate_high": max(rates),
        "vectors_per_step": rates[-1] / vector,
    }


def summary(cases: Mapping[str, Any], peaks: list[dict[str, Any]]) -> dict[str, Any]:
    """Scalars for sentences: exponents, shares and vectors kept for each step."""
    found: dict[str, Any] = {}
    for way in WAYS:
        found[f"{way}_exponent"] = cases[way]["exponent"]
        found[f"{way}_mebibytes"] = cases[way]["peak"] / 2**20
        found[f"{way}_share_of_full"] = cases[way]["peak"] / cases["full"]["peak"]
        found[f"{way}_steps_per_input"] = cases[way]["steps_per_input"]
    for kind in KINDS:
        found[f"{kind}_vectors_per_step"] = cases[f"kept_{kind}"]["vectors_per_step"]
        found[f"{kind}_bytes_per_step"] = cases[f"kept_{kind}"]["rate_high"]
    found["longest"] = peaks[-1]["time"]
    found["chunk_at_longest"] = peaks[-1]["chunk"]
    return found


def _linear(case: Mapping[str, Any]) -> Outcome:
    low, high = case["rate_low"], case["rate_high"]
    grows = Outcome.exactly(low, holds=low > 0)
    return Outcome.all_of(high, grows, Outcome.below(high - low, 0.01 * low))


def _constant(case: Mapping[str, Any]) -> Outcome:
    return Outcome.all_of(case["exponent"], Outcome.below(abs(case["exponent"]), 0.05))


def _square_root(case: Mapping[str, Any]) -> Outcome:
    return Outcome.all_of(
        case["exponent"], Outcome.below(abs(case["exponent"] - 0.5), 0.1)
    )


CLAIMS = (
    Claim(
        "C23",
        "What autograd keeps for the backward pass grows by the same number of bytes "
        "with each step, to 1 %.",
        _linear,
        case="kept_lstm",
        control="kept_lstm_no_grad",
    ),
    Claim(
        "C23.checkpointing",
        "With chunks of √T steps that are computed again, the peak of memory grows as "
        "T to a power between 0.4 and 0.6.",
        _square_root,
        case="checkpointed",
        control="full",
    ),
    Claim(
        "C24",
        "With the graph cut between chunks of one size, the peak of memory does not "
        "grow with T: its power of T is below 0.05.",
        _constant,
        case="truncated",
        control="full",
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Peak by length and way; what is kept for each step by kind of layer."""
    rows = []
    for time in record["run"]["config"]["times"]:
        found = {r["way"]: r for r in record["series"]["peaks"] if r["time"] == time}
        cells = [f"{found[way]['peak'] / 1024:,.0f} KiB" for way in WAYS]
        rows.append([number(time), *cells, number(found["checkpointed"]["chunk"])])
    kept_rows = [
        [
            row["kind"].upper(),
            number(int(row["rate_high"])),
            number(row["vectors_per_step"]),
        ]
        for row in record["series"]["kept"]
    ]
    return {
        "peak": table(["T", *WAYS.values(), "√T"], rows),
        "kept": table(
            ["layer, through `scan`", "bytes for each step", "vectors of width D"],
            kept_rows,
        ),
    }


def draw_peak(figure: Any, record: Mapping[str, Any], theme: Theme) -> None:
    """Peak of memory against the length, both axes logarithmic."""
    axes = figure.subplots()
    labels = []
    for i, (way, text) in enumerate(WAYS.items()):
        rows = [row for row in record["series"]["peaks"] if row["way"] == way]
        times = [math.log2(row["time"]) for row in rows]
        sizes = [math.log2(row["peak"] / 1024) for row in rows]
        axes.plot(times, sizes, color=theme.colours[i], linestyle=DASHES[i], marker="o")
        labels.append((sizes[-1], text, theme.colours[i]))
    times = record["run"]["config"]["times"]
    axes.set_xticks([math.log2(time) for time in times], [f"{t:,}" for t in times])
    low, high = (math.floor(edge / 2) * 2 for edge in axes.get_ylim())
    ticks = list(range(low, high + 3, 2))
    names = [f"{2**t:,} KiB" if t < 10 else f"{2 ** (t - 10):,} MiB" for t in ticks]
    axes.set_yticks(ticks, names)
    axes.set_xlim(math.log2(times[0]), math.log2(times[-1]) + 2.6)
    axes.set_xlabel("steps T")
    axes.set_title("Peak of memory, forward and backward")
    label_ends(axes, math.log2(times[-1]), labels)


FIGURES = {"peak": draw_peak}
experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
    figures=FIGURES,
)
