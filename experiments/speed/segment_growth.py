r"""What a layer with a memory costs by length: training in segments, and a step.

Forward and backward over a sequence and over one four times as long, once in segments,
each with its backward pass before the next, and once as a single segment. And steps
without gradients, early and after many others whose state they carry on, beside steps
of attention with a cache of all keys. One row, one thread, float32.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments import lab
from experiments.lab import timing
from seqref import MultiHeadAttention, TransformerXLAttention


@dataclass(frozen=True)
class Config:
    """Sizes; the longer sequence has four times the steps, and a late step follows."""

    width: int = 64
    heads: int = 4
    segment: int = 64
    steps: int = 512
    late: int = 4096
    calls: int = 20
    rounds: int = 15
    seeds: tuple[int, ...] = (0,)


def training(layer: Any, x: Tensor, segment: int) -> timing.Contestant:
    """Gradients of all weights, added up over the segments."""
    parameters = list(layer.parameters())

    def run() -> None:
        state = None
        total = [torch.zeros_like(p) for p in parameters]
        for part in x.split(segment, dim=1):
            y, state = layer(part, state)
            found = torch.autograd.grad(y.square().sum(), parameters)
            for one, more in zip(total, found, strict=True):
                one.add_(more)

    return timing.Contestant(run, [x, *parameters])


def steps(layer: Any, state: Any, x_t: Tensor, calls: int) -> timing.Contestant:
    """So many steps, the first from this state, each next from that of the last."""

    def run() -> None:
        with torch.no_grad():
            carried = state
            for _ in range(calls):
                _, carried = layer.step(x_t, carried)

    return timing.Contestant(run, units=calls, counted=False)


def contestants(config: Config) -> dict[str, timing.Contestant]:
    """Both lengths of both ways to train, and both steps early and late."""
    layer = TransformerXLAttention(config.width, config.heads, memory=config.segment)
    cached = MultiHeadAttention(config.width, config.heads)
    runs = {}
    for name, time in (("short", config.steps), ("long", 4 * config.steps)):
        x = torch.randn(1, time, config.width)
        runs[f"segments_{name}"] = training(layer, x, config.segment)
        runs[f"whole_{name}"] = training(layer, x, time)
    x_t = torch.randn(1, config.width)
    for name, time in (("early", config.segment), ("late", config.late)):
        x = torch.randn(1, time, config.width)
        with torch.no_grad():
            _, cache = cached(x)
            state = None
            for part in x.split(config.segment, dim=1):
                _, state = layer(part, state)
        runs[f"step_{name}"] = steps(layer, state, x_t, config.calls)
        runs[f"cached_{name}"] = steps(cached, cache, x_t, config.calls)
    return runs


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Time every contestant in one run, and how each grows."""
    with timing.setting(), lab.seeded(config.seeds[0]):
        compared = timing.compare(contestants(config), "step_early", config.rounds)
    ratios = {name: one["median"] for name, one in compared["ratios"].items()}
    peaks = {name: one["peak"] for name, one in compared["ratios"].items()}
    cases: dict[str, Any] = {
        name: {
            "growth": ratios[f"{name}_long"] / ratios[f"{name}_short"],
            "memory": peaks[f"{name}_long"] / peaks[f"{name}_short"],
            "peak": peaks[f"{name}_long"],
        }
        for name in ("segments", "whole")
    }
    cases["step"] = {"growth": ratios["step_late"]}
    cases["cached"] = {"growth": ratios["cached_late"] / ratios["cached_early"]}
    numbers = {
        "step_over_cached_early": 1 / ratios["cached_early"],
        "step_over_cached_late": ratios["step_late"] / ratios["cached_late"],
        "long": 4 * config.steps,
    }
    return {
        "numbers": numbers,
        "series": {"ratios": compared["ratios"]},
        "cases": cases,
    }


experiment = lab.Experiment(
    small=Config(width=32, steps=256, late=2048, calls=5, rounds=3),
    run=run,
    claims=[
        lab.Claim(
            "C182.training",
            "A sequence four times as long takes less than 4.6 times as long to train "
            "on in segments; as one segment it takes longer than that.",
            lab.below("growth", 4.6),
            case="segments",
            control="whole",
            timed=True,
        ),
        lab.Claim(
            "C182.memory",
            "In segments it takes less than 1.5 times the memory; as one segment more.",
            lab.below("memory", 1.5),
            case="segments",
            control="whole",
            timed=True,
        ),
        lab.Claim(
            "C182.step",
            "A step after many others takes less than 1.2 times as long as an early "
            "one; with a cache of all keys it takes longer than that.",
            lab.below("growth", 1.2),
            case="step",
            control="cached",
            timed=True,
        ),
    ],
    numbers=[
        lab.each("growth", "growth"),
        lab.each("memory", "memory"),
    ],
    tables={
        "growth": lab.Table(
            columns={
                "time, four times the steps": lab.fixed("growth", 2),
                "memory": lab.fixed("memory", 2),
                "memory of the longer one, MiB": lambda row: (
                    f"{row['peak'] / 2**20:.1f}"
                ),
            },
            labels={"segments": "in segments", "whole": "as one segment"},
            heading="training",
        ),
    },
)
