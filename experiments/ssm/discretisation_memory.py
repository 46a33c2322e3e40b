r"""What is left of a state after a thousand steps, by the size of a step.

States are drawn at random and no input follows. The systems are HiPPO-LegS, the lower
triangular matrix that is made to summarise the past by polynomials; a diagonal whose
real parts are -1/2, from which S4D starts; and the same without real parts.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments import lab
from seqref.ssm import bilinear, euler, zero_order_hold

STEP_SIZES = {"thousandth": 0.001, "hundredth": 0.01, "tenth": 0.1}


@dataclass(frozen=True)
class Config:
    """Number of states and steps, of random states a seed, and the seeds."""

    states: int = 32
    steps: int = 1000
    draws: int = 16
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


def legs(states: int) -> Tensor:
    """HiPPO-LegS: -sqrt(2n + 1) sqrt(2k + 1) below the diagonal, -(n + 1) on it."""
    n = torch.arange(states, dtype=torch.float64)
    roots = (2 * n + 1).sqrt()
    below = (roots[:, None] * roots).tril(-1)
    return -(below + (n + 1).diag()).to(torch.complex128)


def frequencies(states: int, real: float) -> Tensor:
    """A diagonal of equal real parts and imaginary parts that are multiples of pi."""
    turns = math.pi * torch.arange(states, dtype=torch.float64)
    return torch.complex(torch.full_like(turns, real), turns).diag()


@dataclass(frozen=True)
class Case:
    """A system and a rule."""

    label: str
    system: Callable[[int], Tensor]
    rule: Callable[..., tuple[Tensor, Tensor]] = zero_order_hold


CASES = {
    "legs": Case("HiPPO-LegS, zero-order hold", legs),
    "half": Case("real parts -1/2, zero-order hold", lambda n: frequencies(n, -0.5)),
    "half_bilinear": Case(
        "real parts -1/2, bilinear", lambda n: frequencies(n, -0.5), bilinear
    ),
    "half_euler": Case("real parts -1/2, Euler", lambda n: frequencies(n, -0.5), euler),
    "undamped": Case("no real parts, zero-order hold", lambda n: frequencies(n, 0.0)),
}


def measure(case: Case, config: Config) -> dict[str, Any]:
    """By step size the share of a state's norm that is left, as a logarithm."""
    A = case.system(config.states)
    starts = torch.cat(
        [
            lab.normal(seed, config.states, config.draws).to(A.dtype)
            for seed in config.seeds
        ],
        dim=1,
    )
    values: dict[str, Any] = {}
    for name, dt in STEP_SIZES.items():
        A_bar, _ = case.rule(A, torch.zeros_like(A[:, :1]), dt)
        h, logs = starts, torch.zeros(starts.shape[1], dtype=torch.float64)
        for _ in range(config.steps):
            h = A_bar @ h
            # What grows without bound would leave double precision.
            size = h.norm(dim=0)
            h, logs = h / size, logs + size.log10()
        left = logs - starts.norm(dim=0).log10()
        values[name] = lab.spread(left.tolist())
    return values


def left(name: str) -> lab.Cell:
    """A cell: the median share."""

    def write(case: Mapping[str, Any]) -> str:
        return lab.power_of_ten(case[name]["median"])

    return write


experiment = lab.Experiment(
    small=Config(states=8, draws=4, seeds=(0, 1, 2)),
    cases=CASES,
    measure=measure,
    claims=[
        lab.Claim(
            "C101",
            "Of a state of HiPPO-LegS less than a hundredth is left after 1,000 "
            "steps of 0.01; of one without real parts all.",
            lab.below("hundredth.high", -2.0, on=lab.power),
            case="legs",
            control="undamped",
        ),
        lab.Claim(
            "C101.step",
            "With real parts of -1/2 less than a hundredth is left after 1,000 steps "
            "of 0.01; without real parts all.",
            lab.below("hundredth.high", -2.0, on=lab.power),
            case="half",
            control="undamped",
        ),
        lab.Claim(
            "C207",
            "Under Euler's rule with a step of 0.1 a stable system grows to more than "
            "a hundred times its size; under the bilinear rule it does not.",
            lab.above("tenth.low", 2.0, on=lab.power),
            case="half_euler",
            control="half_bilinear",
        ),
    ],
    numbers=[lab.each(f"{name}.median", f"left_{name}") for name in STEP_SIZES],
    tables={
        "left": lab.Table(
            labels={name: case.label for name, case in CASES.items()},
            heading="system and rule",
            columns={f"dt = {dt:g}": left(name) for name, dt in STEP_SIZES.items()},
        )
    },
)
