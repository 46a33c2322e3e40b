r"""A long convolution in blocks of channels beside Fourier transforms of all at once.

Forward and backward in float32 on one thread, with a kernel as long as the sequence.
The base transforms (batch, channels, time), as published state space models do, with
autograd for the gradients; the same over the axis of steps of (batch, time, channels)
stands beside it. The ratio is of processor times in the same round, the memory the most
bytes that tensors take at one time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments import lab
from experiments.lab import ratio_cells, timing
from experiments.lab.timing import Contestant
from seqref.ops.long_convolution import long_convolution

# Batch, time, channels.
Size = tuple[int, int, int]


@dataclass(frozen=True)
class Config:
    """Sizes (batch, time, channels), rounds, threads, seeds."""

    sizes: tuple[Size, ...] = ((4, 4096, 256), (8, 4096, 128), (1, 4096, 256))
    rounds: int = 5
    threads: int = 1
    seeds: tuple[int, ...] = (0,)


LABELS = ("wide", "rows", "single")
TITLES = {"blocks": "`long_convolution`", "steps": "over the axis of steps"}


def channels_first(x: Tensor, kernel: Tensor) -> Tensor:
    """Of (batch, channels, time), all at once."""
    size = x.shape[-1] + kernel.shape[-1]
    product = torch.fft.rfft(x, n=size) * torch.fft.rfft(kernel, n=size)
    return torch.fft.irfft(product, n=size)[..., : x.shape[-1]]


def over_steps(x: Tensor, kernel: Tensor) -> Tensor:
    """Of (batch, time, channels), all at once, over the axis in the middle."""
    size = x.shape[1] + kernel.shape[-1]
    product = torch.fft.rfft(x, n=size, dim=1) * torch.fft.rfft(kernel, n=size).T
    return torch.fft.irfft(product, n=size, dim=1)[:, : x.shape[1]]


def contestants(size: Size, seed: int) -> dict[str, Contestant]:
    """The forms, with equal inputs."""
    _, time, channels = size
    generator = lab.generator(seed)
    kernel = torch.randn(channels, time, generator=generator).requires_grad_()
    x, grad = (torch.randn(size, generator=generator) for _ in range(2))

    def both(form: Callable[[Tensor, Tensor], Tensor], first: bool) -> Contestant:
        own, above = (z.mT.contiguous() if first else z for z in (x, grad))
        own = own.detach().requires_grad_()

        def call() -> tuple[Tensor, ...]:
            return torch.autograd.grad(form(own, kernel), (own, kernel), above)

        return Contestant(call, [own, kernel, above])

    return {
        "first": both(channels_first, True),
        "blocks": both(long_convolution, False),
        "steps": both(over_steps, False),
    }


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Time every size."""
    rows = []
    grid = list(zip(LABELS, config.sizes, strict=True))
    with timing.setting(config.threads):
        for name, size in track(grid, "long_convolution_speed"):
            runs = contestants(size, config.seeds[0])
            compared = timing.compare(runs, "first", config.rounds)
            rows.append({"name": name, "size": size, **compared})
    cases: dict[str, Any] = {name: {} for name in TITLES}
    for row in rows:
        for name, case in cases.items():
            case[row["name"]] = row["ratios"][name]["median"]
            case[f"{row['name']}_memory"] = ratio_cells.memory_ratio(row, name)
    return {"numbers": {}, "series": {"rows": rows}, "cases": cases}


def milliseconds(row: Mapping[str, Any]) -> str:
    """Of the base."""
    return f"{1000 * row['seconds']:.0f}"


experiment = lab.Experiment(
    small=Config(sizes=((2, 32, 4), (2, 48, 4), (1, 32, 2)), rounds=2),
    run=run,
    claims=[
        lab.Claim(
            "C208",
            "In blocks of channels, with a backward pass by hand, a convolution over "
            "4,096 steps of 4 rows of 256 channels takes at most 0.75 of the time of "
            "transforms of all at once; over the axis of steps these take more.",
            lab.below("wide", 0.75),
            case="blocks",
            control="steps",
            timed=True,
        ),
        lab.Claim(
            "C208.memory",
            "It has at most half of their tensors at one time.",
            lab.below("wide_memory", 0.5),
            case="blocks",
            control="steps",
            timed=True,
        ),
    ],
    numbers=[
        *(lab.each(label) for label in LABELS),
        *(lab.each(f"{label}_memory") for label in LABELS),
    ],
    tables={
        "times": lab.Table(
            rows="series.rows",
            columns={
                **ratio_cells.SIZE,
                "ms, all at once": milliseconds,
                **{text: ratio_cells.ratio(name) for name, text in TITLES.items()},
                "all at once again": ratio_cells.ratio("again"),
                "memory of `long_convolution`": ratio_cells.memory("blocks"),
            },
        ),
    },
)
