r"""What a bound on the recurrent weights of an IndRNN does to its gradients over time.

The derivatives of the last state by the first, unit by unit, over T steps in which no
rectifier is off: each is the unit's weight to the power T. Weights as they are drawn,
weights clipped to the T-th root of 2 after growing past it, the same a tenth larger,
and all weights at 1. Beside them a plain RNN whose matrix has that spectral radius.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments import lab
from seqref import RNN, IndRNN
from seqref.recurrent import jacobian_product
from seqref.recurrent.independent import limit_recurrent_

GAMMA = 2.0


@dataclass(frozen=True)
class Config:
    """Width, steps and seeds of one run."""

    hidden_size: int = 64
    steps: int = 100
    seeds: tuple[int, ...] = tuple(range(10))


def clipped(layer: IndRNN, config: Config) -> None:
    """Weights that training took past the bound, and that were clipped."""
    layer.cell.weight_hh.mul_(2)
    limit_recurrent_(layer, config.steps, GAMMA)


def above(layer: IndRNN, config: Config) -> None:
    """The clipped weights, a tenth larger."""
    clipped(layer, config)
    layer.cell.weight_hh.mul_(1.1)


def ones(layer: IndRNN, config: Config) -> None:
    """Every weight at 1."""
    layer.cell.weight_hh.fill_(1.0)


def at_the_radius(layer: RNN, config: Config) -> None:
    """A matrix of positive numbers whose spectral radius is the bound."""
    weight = layer.cell.weight_hh.uniform_()
    weight.mul_(GAMMA ** (1 / config.steps) / torch.linalg.eigvals(weight).abs().max())


@dataclass(frozen=True)
class Case:
    """A layer and what is done to its weights."""

    label: str
    change: Callable[[Any, Config], None] | None = None
    layer: Callable[..., Any] = IndRNN


CASES = {
    "drawn": Case("IndRNN, as drawn"),
    "clipped": Case("IndRNN, clipped", clipped),
    "above": Case("IndRNN, a tenth above", above),
    "ones": Case("IndRNN, all at 1", ones),
    "matrix": Case("RNN, positive, radius at the bound", at_the_radius, RNN),
}


@torch.no_grad()
def derivatives(case: Case, config: Config, seed: int) -> Tensor:
    r"""$\partial h_T / \partial h_0$ with every rectifier on."""
    size = config.hidden_size
    with lab.seeded(seed):
        layer = case.layer(size, size, nonlinearity="relu", dtype=torch.float64)
        if case.change is not None:
            case.change(layer, config)
        x = torch.randn(1, config.steps, size, dtype=torch.float64)
    # Positive from the first step on, and so at every one.
    layer.cell.get_parameter("bias_ih").fill_(10.0)
    layer.cell.get_parameter("bias_hh").zero_()
    return jacobian_product(layer, x)[0]


def measure(case: Case, config: Config) -> dict[str, Any]:
    """The largest derivative, and how many units keep a tenth or more of theirs."""
    products = [derivatives(case, config, seed) for seed in config.seeds]
    kept = [(one.diagonal() >= 0.1).double().mean().item() for one in products]
    return {
        "largest": lab.spread(one.abs().max().item() for one in products),
        "kept": lab.spread(kept),
    }


experiment = lab.Experiment(
    small=Config(hidden_size=32, steps=50, seeds=(0, 1, 2)),
    cases=CASES,
    measure=measure,
    claims=[
        lab.Claim(
            "C149.bound",
            "Clipped to the T-th root of 2, no derivative over T steps exceeds 2.",
            lab.exactly(
                "largest.high", lambda case: case["largest"]["high"] <= GAMMA + 1e-9
            ),
            case="clipped",
            control="above",
        ),
        lab.Claim(
            "C149.vanishing",
            "With weights drawn between 0 and 1, fewer than a quarter of the units "
            "keep a tenth of their gradient over T steps.",
            lab.below("kept.high", 0.25),
            case="drawn",
            control="ones",
        ),
    ],
    numbers=[
        lab.each("largest.high", "largest"),
        lab.each("kept.median", "kept"),
    ],
    tables={
        "derivatives": lab.Table(
            labels={name: case.label for name, case in CASES.items()},
            heading="layer",
            columns={
                "largest derivative, median": "largest.median",
                "range": lab.span("largest"),
                "units that keep a tenth": lab.fixed("kept.median", 2),
            },
        )
    },
)
