r"""Memory of backpropagation through time against the length: full, cut, recomputed.

The same layer, step by step through `scan`, and the same loss at each step, in three
ways: one graph over the whole sequence, chunks with the graph cut between them, and
chunks whose inner values `torch.utils.checkpoint` drops and computes again. Two counts:
the bytes that autograd keeps after the forward pass, and the most bytes that are alive
at once in forward and backward pass together. Inputs, targets and parameters are there
in any case and are not counted.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from experiments import lab
from experiments.bptt._job import KINDS, Job
from seqref.testing import LiveBytes


@dataclass(frozen=True)
class Config:
    """Sizes; the lengths are squares, so that a chunk of √T steps divides them."""

    batch_size: int = 8
    hidden_size: int = 32
    times: tuple[int, ...] = (64, 256, 1024, 4096)
    chunk_size: int = 64
    seeds: tuple[int, ...] = (0,)


WAYS = {
    "full": "one graph",
    "truncated": "cut into chunks",
    "checkpointed": "recomputed, chunks of √T",
}


def kept_bytes(run: Callable[[], Any], outside: Iterable[Tensor] = ()) -> int:
    r"""Bytes of the tensors that autograd keeps for the backward pass of `run`.

    Several nodes may keep the same memory, as views or as it is; it counts once. Memory
    of `outside`, such as inputs and parameters, is there anyway and does not count.
    """
    known = {tensor.untyped_storage().data_ptr() for tensor in outside}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        # Held here until the end, so that no address is used a second time.
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor.detach()

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(kept[address].nbytes() for address in kept.keys() - known)


def peak(config: Config, kind: str, way: str, time: int) -> dict[str, Any]:
    """The most bytes alive at once, and the steps taken, forward and backward."""
    job = Job(config, kind, time)
    size = {
        "full": time,
        "truncated": min(config.chunk_size, time),
        "checkpointed": math.isqrt(time),
    }[way]
    with LiveBytes(job.outside()) as live:
        getattr(job, way)(size)
    labels = {"kind": kind, "way": way, "time": time, "chunk": size}
    return {**labels, "peak": live.peak, "steps": job.layer.steps}


def kept(config: Config, kind: str, time: int, *, graph: bool = True) -> int:
    """Bytes that autograd keeps after a forward pass over one chunk of `time` steps."""
    job = Job(config, kind, time)

    def forward() -> Tensor:
        with torch.set_grad_enabled(graph):
            state = job.layer.initial_state(len(job.x))
            return job.chunk(job.x, job.target, state)[0]

    return kept_bytes(forward, job.outside())


def exponent(times: Sequence[int], sizes: Sequence[int]) -> float:
    """Slope of log bytes against log time over the upper half of the lengths."""
    half = len(times) // 2 - 1
    slope = math.log(sizes[-1] / sizes[half]) / math.log(times[-1] / times[half])
    return round(slope, 9)


def rates(config: Config, sizes: Sequence[int]) -> dict[str, Any]:
    """Bytes per step between neighbouring lengths, lowest and highest."""
    points = pairwise(zip(config.times, sizes, strict=True))
    slopes = [(high - low) / (end - start) for (start, low), (end, high) in points]
    vector = 4 * config.batch_size * config.hidden_size
    return {
        "rate_low": min(slopes),
        "rate_high": max(slopes),
        "vectors_per_step": slopes[-1] / vector,
    }


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Count everything; nothing here depends on the machine's speed."""
    times, peaks, slopes, cases = config.times, [], [], {}
    for way in track(WAYS, "bptt_memory"):
        rows = [peak(config, "lstm", way, time) for time in times]
        peaks += rows
        cases[way] = {
            "exponent": exponent(times, [row["peak"] for row in rows]),
            "peak": rows[-1]["peak"],
            "steps_per_input": rows[-1]["steps"] / times[-1],
        }
    for kind in KINDS:
        sizes = [kept(config, kind, time) for time in times]
        cases[f"kept_{kind}"] = rates(config, sizes)
        slopes.append({"kind": kind, "kept": sizes, **cases[f"kept_{kind}"]})
    nothing = [kept(config, "lstm", time, graph=False) for time in times]
    cases["kept_lstm_no_grad"] = rates(config, nothing)
    longest = {"longest": times[-1], "chunk_at_longest": peaks[-1]["chunk"]}
    series = {"peaks": peaks, "kept": slopes}
    return {"numbers": longest, "series": series, "cases": cases}


def is_linear(case: Mapping[str, Any]) -> lab.Outcome:
    """The same bytes with each step, and some."""
    low, high = case["rate_low"], case["rate_high"]
    grows = lab.Outcome.exactly(low, holds=low > 0)
    return lab.Outcome.all_of(high, grows, lab.Outcome.below(high - low, 0.01 * low))


def is_power(expected: float, within: float) -> Callable[[Any], lab.Outcome]:
    """The peak grows as T to a power near `expected`."""
    distance = lab.below(lambda case: abs(case["exponent"] - expected), within)
    return lab.all_of(distance, number="exponent")


def kibibytes(path: str) -> Callable[[Any], str]:
    """A cell of the table: a number of bytes."""
    return lab.cell(path, lambda size: f"{size / 1024:,.0f} KiB")


def by_time(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of each length, by way."""
    rows = record["series"]["peaks"]
    times = record["run"]["config"]["times"]
    return [{row["way"]: row for row in rows if row["time"] == time} for time in times]


def draw_peak(figure: Any, record: Mapping[str, Any], theme: lab.Theme) -> None:
    """Peak of memory against the length, both axes logarithmic."""
    axes, labels = figure.subplots(), []
    times = record["run"]["config"]["times"]
    places = [math.log2(time) for time in times]
    for i, (way, text) in enumerate(WAYS.items()):
        rows = [row for row in record["series"]["peaks"] if row["way"] == way]
        sizes = [math.log2(row["peak"] / 1024) for row in rows]
        colour, dashes = theme.colours[i], lab.DASHES[i]
        axes.plot(places, sizes, color=colour, linestyle=dashes, marker="o")
        labels.append((sizes[-1], text, colour))
    axes.set_xticks(places, [f"{time:,}" for time in times])
    low, high = (math.floor(edge / 2) * 2 for edge in axes.get_ylim())
    ticks = range(low, high + 3, 2)
    names = [f"{2**t:,} KiB" if t < 10 else f"{2 ** (t - 10):,} MiB" for t in ticks]
    axes.set_yticks(ticks, names)
    axes.set_xlim(places[0], places[-1] + 2.6)
    axes.set_xlabel("steps T")
    axes.set_title("Peak of memory, forward and backward")
    lab.label_ends(axes, places[-1], labels)


experiment = lab.Experiment(
    small=Config(batch_size=16, hidden_size=8, times=(64, 256), chunk_size=16),
    run=run,
    claims=[
        lab.Claim(
            "C23",
            "What autograd keeps for the backward pass grows by the same number of "
            "bytes with each step, to 1 %.",
            is_linear,
            case="kept_lstm",
            control="kept_lstm_no_grad",
        ),
        lab.Claim(
            "C23.checkpointing",
            "With chunks of √T steps that are computed again, the peak of memory grows "
            "as T to a power between 0.4 and 0.6.",
            is_power(0.5, within=0.1),
            case="checkpointed",
            control="full",
        ),
        lab.Claim(
            "C24",
            "With the graph cut between chunks of one size, the peak of memory does "
            "not grow with T: its power of T is below 0.05.",
            is_power(0, within=0.05),
            case="truncated",
            control="full",
        ),
    ],
    numbers=[
        lab.each("exponent"),
        lab.each("peak", "mebibytes", lambda size: size / 2**20),
        lab.each("steps_per_input"),
        lambda cases: {
            f"{way}_share_of_full": cases[way]["peak"] / cases["full"]["peak"]
            for way in WAYS
        },
        {f"{k}_vectors_per_step": f"kept_{k}.vectors_per_step" for k in KINDS},
        {f"{kind}_bytes_per_step": f"kept_{kind}.rate_high" for kind in KINDS},
    ],
    tables={
        "peak": lab.Table(
            rows=by_time,
            columns={
                "T": "full.time",
                **{text: kibibytes(f"{way}.peak") for way, text in WAYS.items()},
                "√T": "checkpointed.chunk",
            },
        ),
        "kept": lab.Table(
            rows="series.kept",
            columns={
                "layer, through `scan`": lab.cell("kind", str.upper),
                "bytes for each step": lab.fixed("rate_high", 0),
                "vectors of width D": "vectors_per_step",
            },
        ),
    },
    figures={"peak": draw_peak},
)
