r"""One linear time-invariant layer in its forms: errors, and how long a chain each is.

The truth is the loop over steps in float64. A chain is the most multiplications of
which each waits for the one before, counted along the way of the last state; the work
is the number of states that are computed. Of a convolution, which has no states, the
levels of two transforms are the chain, and no work is given.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments import lab
from seqref.recurrence import scan
from seqref.ssm import LTI


@dataclass(frozen=True)
class Config:
    """Channels, states and steps of the layers, rows, and the seeds."""

    d_model: int = 8
    d_state: int = 16
    steps: int = 512
    rows: int = 2
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


@torch.no_grad()
def loop(layer: LTI, x: Tensor) -> Tensor:
    """The definition."""
    return scan(layer, x)[0]


@torch.no_grad()
def forward(layer: LTI, x: Tensor) -> Tensor:
    """The scan in chunks that the layer runs."""
    return layer(x)[0]


@torch.no_grad()
def doubling(layer: LTI, x: Tensor) -> Tensor:
    """A tree: at each level a state takes in the run that ends before its own."""
    A_bar, B_bar = layer.discretised()
    h = B_bar * x[..., None].to(B_bar.real.dtype)
    power, span = A_bar, 1
    while span < x.shape[1]:
        h = torch.cat([h[:, :span], h[:, span:] + power * h[:, :-span]], dim=1)
        power, span = power * power, 2 * span
    C = torch.view_as_complex(layer.C)
    return 2 * (C * h).real.sum(dim=-1) + layer.D * x


@torch.no_grad()
def convolution(layer: LTI, x: Tensor) -> Tensor:
    """By the kernel, in padded Fourier transforms."""
    return layer.convolved(x)


@torch.no_grad()
def circular(layer: LTI, x: Tensor) -> Tensor:
    """The same in transforms that are as long as the sequence."""
    kernel = layer.kernel(x.shape[1]).to(x.dtype)
    product = torch.fft.rfft(x, dim=1) * torch.fft.rfft(kernel).T
    return torch.fft.irfft(product, n=x.shape[1], dim=1) + layer.D * x


@dataclass(frozen=True)
class Case:
    """A form; from the number of steps its chain, and the states it computes."""

    label: str
    form: Callable[[LTI, Tensor], Tensor]
    chain: Callable[[int], int]
    work: Callable[[int], int] | None = None


def levels(steps: int) -> int:
    """Doublings until a span is no shorter than the sequence."""
    return math.ceil(math.log2(steps))


def chunked(steps: int) -> int:
    """All chunks once, the loop over chunks, and all chunks again."""
    count = math.isqrt(5 * steps // 2)
    return 2 * math.ceil(steps / count) + count


def tree_work(steps: int) -> int:
    """States that change at each level of the tree."""
    return steps + sum(steps - 2**level for level in range(levels(steps)))


def transforms(steps: int) -> int:
    """Levels of two transforms of twice the length, and the product between."""
    return 2 * levels(2 * steps) + 1


CASES = {
    "loop": Case("recurrence, a loop", loop, lambda t: t, lambda t: t),
    "chunks": Case("scan in chunks, as `forward`", forward, chunked, lambda t: 2 * t),
    "tree": Case("scan, a tree", doubling, levels, tree_work),
    "convolution": Case("convolution, as `convolved`", convolution, transforms),
    "circular": Case("convolution without padding", circular, transforms),
}


def drawn(config: Config, seed: int, dtype: torch.dtype) -> tuple[LTI, Tensor]:
    """A layer and its inputs; numbers that float32 holds."""
    with lab.seeded(seed):
        layer = LTI(config.d_model, config.d_state)
        x = torch.randn(config.rows, config.steps, config.d_model)
    return layer.to(dtype), x.to(dtype)


def measure(case: Case, config: Config) -> dict[str, Any]:
    """Largest errors over the largest output, in both precisions, and the counts."""
    errors: dict[str, list[float]] = {"double": [], "single": []}
    for seed in config.seeds:
        layer, x = drawn(config, seed, torch.float64)
        truth = loop(layer, x)
        double = (case.form(layer, x) - truth).abs().max() / truth.abs().max()
        errors["double"].append(double.item())
        layer, x = drawn(config, seed, torch.float32)
        single = (case.form(layer, x) - truth).abs().max() / truth.abs().max()
        errors["single"].append(single.item())
    return {
        **{name: max(values) for name, values in errors.items()},
        "chain": case.chain(config.steps),
        "chain_share": case.chain(config.steps) / config.steps,
        "work": None if case.work is None else case.work(config.steps),
    }


experiment = lab.Experiment(
    small=Config(d_model=3, d_state=4, steps=48, seeds=(0, 1)),
    cases=CASES,
    measure=measure,
    claims=[
        lab.Claim(
            "C91",
            "In float64 a convolution by padded transforms gives the outputs of the "
            "loop to 1e-12 of the largest; without padding it does not.",
            lab.below("double", 1e-12),
            case="convolution",
            control="circular",
        ),
        lab.Claim(
            "C91.scan",
            "So does a scan in chunks.",
            lab.below("double", 1e-12),
            case="chunks",
            control="circular",
        ),
        lab.Claim(
            "C91.chain",
            "The chain of a tree is less than a fifth of that of the loop.",
            lab.below("chain_share", 0.2),
            case="tree",
            control="loop",
        ),
        lab.Claim(
            "C105",
            "A loop over steps, in float32 too, is within 1e-4 of the largest output "
            "of the convolution; transforms without padding are not.",
            lab.below("single", 1e-4),
            case="convolution",
            control="circular",
        ),
    ],
    numbers=[
        lab.each("double"),
        lab.each("single"),
        lab.each("chain"),
        lab.each("work"),
    ],
    tables={
        "forms": lab.Table(
            labels={name: case.label for name, case in CASES.items()},
            heading="form",
            columns={
                "error, float64": lambda case: f"{case['double']:.0e}",
                "error, float32": lambda case: f"{case['single']:.0e}",
                "longest chain": lab.cell("chain", str),
                "states computed": lambda case: str(case["work"] or "none"),
            },
        )
    },
)
