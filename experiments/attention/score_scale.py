r"""How inner products grow with the width, and what that makes of a softmax.

Queries and keys with independent standard normal components, with and without the
factor of one over the root of the width; and the states of two LSTMs as `seqref` makes
them, before training. Of each width: the variance of the scores, the largest weight of
a softmax over the source, and how much its weights still move with their own scores.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments import lab
from seqref import LSTM


@dataclass(frozen=True)
class Config:
    """Sizes; every query is compared with every key of its seed."""

    widths: tuple[int, ...] = (4, 16, 64, 256, 1024)
    n_queries: int = 128
    n_sources: int = 32
    seeds: tuple[int, ...] = tuple(range(10))


def normal(config: Config, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Components that are independent, with mean 0 and variance 1."""
    generator = lab.generator(seed)
    sizes = (config.n_queries, width), (config.n_sources, width)
    query, keys = (
        torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes
    )
    return query, keys


def states(config: Config, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Outputs of two LSTMs over standard normal inputs, as wide as they are."""
    with lab.seeded(seed):
        outputs = []
        for steps in (config.n_queries, config.n_sources):
            layer = LSTM(width, width, dtype=torch.float64)
            x = torch.randn(1, steps, width, dtype=torch.float64)
            outputs.append(layer(x)[0][0])
    return outputs[0], outputs[1]


@dataclass(frozen=True)
class Case:
    """Where vectors come from, and whether their products are divided."""

    label: str
    draw: Callable[[Config, int, int], tuple[Tensor, Tensor]]
    divide: bool = False


CASES = {
    "plain": Case("normal", normal),
    "scaled": Case("normal, divided by the root of the width", normal, divide=True),
    "states": Case("LSTM states before training", states),
}


@torch.no_grad()
def measure_one(case: Case, config: Config, width: int, seed: int) -> dict[str, float]:
    """Variance of the scores, largest weight, and slope of a weight by its score."""
    query, keys = case.draw(config, width, seed)
    scores = query @ keys.T
    if case.divide:
        scores = scores / width**0.5
    weights = scores.softmax(dim=-1)
    # The diagonal of the softmax's Jacobian is a - a^2; its sum is 1 - 1/S where all
    # weights are equal, and 0 where one has it all.
    slope = (weights - weights.square()).sum(dim=-1)
    return {
        "variance": scores.var(correction=0).item(),
        "largest": weights.max(dim=-1).values.mean().item(),
        "slope": slope.mean().item(),
    }


def measure(case: Case, config: Config) -> dict[str, Any]:
    """Each quantity by width, over the seeds, and those of the widest by name."""
    by_width = []
    for width in config.widths:
        runs = [measure_one(case, config, width, seed) for seed in config.seeds]
        each = {key: lab.spread(run[key] for run in runs) for key in runs[0]}
        by_width.append({"width": width, **each})
    widest = by_width[-1]
    of_width = lab.spread(
        value / widest["width"] for value in widest["variance"].values()
    )
    return {"by_width": by_width, "widest": widest, "of_width": of_width}


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Every case, and its medians by width side by side."""
    cases = {
        name: measure(case, config)
        for name, case in track(CASES.items(), "score_scale")
    }
    return {"series": {"rows": rows(cases)}, "cases": cases}


def rows(cases: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each width, with the medians of every case."""
    columns = {name: case["by_width"] for name, case in cases.items()}
    return [
        {
            "width": first["width"],
            **{
                f"{name}_{key}": column[place][key]["median"]
                for name, column in columns.items()
                for key in ("variance", "largest", "slope")
            },
        }
        for place, first in enumerate(columns["plain"])
    ]


experiment = lab.Experiment(
    small=Config(widths=(4, 256), seeds=(0, 1, 2)),
    run=run,
    claims=[
        lab.Claim(
            "C151.variance",
            "The variance of an inner product of independent normal vectors is "
            "their width, to a fifth.",
            lab.between("of_width.median", 0.8, 1.2),
            case="plain",
            control="scaled",
        ),
        lab.Claim(
            "C151.saturated",
            "At the largest width a softmax of such products gives its largest weight "
            "more than 0.7 on average; with the factor it does not.",
            lab.above("widest.largest.low", 0.7, lab.share),
            case="plain",
            control="scaled",
        ),
        lab.Claim(
            "C151.states",
            "Inner products of the states of LSTMs before training have a variance "
            "below 1 at the largest width.",
            lab.below("widest.variance.high", 1.0),
            case="states",
            control="plain",
        ),
    ],
    numbers=[
        lab.each("widest.variance.median", "variance"),
        lab.each("widest.largest.median", "largest"),
        lab.each("widest.slope.median", "slope"),
        lab.each("of_width.median", "of_width"),
    ],
    tables={
        key: lab.Table(
            rows="series.rows",
            columns={
                "width": "width",
                **{
                    case.label: lab.cell(f"{name}_{key}", lab.number, 2)
                    for name, case in CASES.items()
                },
            },
        )
        for key in ("variance", "largest", "slope")
    },
)
