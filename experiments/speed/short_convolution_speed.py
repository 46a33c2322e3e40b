r"""A short causal convolution by the op, by torch's convolution and as a loop.

In float32 on one thread, forward alone, and forward and backward to inputs, weights and
biases. The ratio is of processor times in the same round, to `conv1d` with a group for
each channel on inputs (batch, time, channels), as the layers around it have them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments import lab
from experiments.lab import ratio_cells, timing
from experiments.lab.timing import Contestant
from seqref.ops.short_convolution import short_convolution


@dataclass(frozen=True)
class Config:
    """Sizes (batch, time, channels), width, rounds, threads, seed."""

    sizes: tuple[tuple[int, int, int], ...] = (
        (2, 512, 512),
        (2, 2048, 512),
        (4, 256, 128),
    )
    width: int = 4
    rounds: int = 15
    threads: int = 1
    seeds: tuple[int, ...] = (0,)


# What the sizes are called, in order.
LABELS = ("short", "long", "small")
PASSES = {"forward": False, "both": True}
TITLES = {"parallel": "sums", "reference": "loop"}


def contestants(
    size: tuple[int, int, int], width: int, seed: int, *, train: bool
) -> dict[str, Contestant]:
    """The op by each backend."""
    generator = lab.generator(seed)
    shapes = size, (size[2], width), (size[2],)
    inputs = [torch.randn(s, generator=generator).requires_grad_() for s in shapes]

    def call(name: str) -> Callable[[], Tensor]:
        return lambda: short_convolution(*inputs, backend=name)[0]

    return {
        name: timing.passes(call(name), inputs, train=train)
        for name in ("torch", *TITLES)
    }


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Time every size in both kinds of passes."""
    grid = [
        (f"{label}_{kind}", size, kind)
        for label, size in zip(LABELS, config.sizes, strict=True)
        for kind in PASSES
    ]
    rows = []
    cases: dict[str, Any] = {name: {} for name in TITLES}
    with timing.setting(config.threads):
        for name, size, kind in track(grid, "short_convolution_speed"):
            runs = contestants(size, config.width, config.seeds[0], train=PASSES[kind])
            compared = timing.compare(runs, "torch", config.rounds)
            rows.append({"name": name, "size": size, "kind": kind, **compared})
            for form, case in cases.items():
                case[name] = compared["ratios"][form]["median"]
    return {"numbers": {}, "series": {"rows": rows}, "cases": cases}


def milliseconds(row: Mapping[str, Any]) -> str:
    """Of the base."""
    return f"{1000 * row['seconds']:.2f}"


experiment = lab.Experiment(
    small=Config(sizes=((2, 12, 4), (2, 16, 4), (1, 8, 4)), rounds=2),
    run=run,
    claims=[
        lab.Claim(
            "C217",
            "Forward and backward over 2 rows of 512 steps and 512 channels, 4 sums of "
            "the sequence, moved by a step each, take at most 0.9 of the time of "
            "torch's convolution by channel; a loop over steps takes more.",
            lab.below("short_both", 0.9),
            case="parallel",
            control="reference",
            timed=True,
        ),
    ],
    numbers=[lab.each(f"{label}_{kind}") for label in LABELS for kind in PASSES],
    tables={
        "times": lab.Table(
            rows="series.rows",
            columns={
                **ratio_cells.SIZE,
                "passes": lab.cell("kind", str),
                "ms, `conv1d`": milliseconds,
                **{text: ratio_cells.ratio(name) for name, text in TITLES.items()},
                "`conv1d` again": ratio_cells.ratio("again"),
            },
        ),
    },
)
