r"""What attention without positions knows of order, with and without a causal mask.

Networks of attention alone, at random weights, over random tokens. Of each: how much
its outputs change when its inputs are permuted, and the outputs back; how well a linear
map, fitted to outputs of some sequences, tells the positions of others; how much the
outputs differ where all tokens are equal; and how much the last output depends on the
order of the tokens before it.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from experiments import lab


@dataclass(frozen=True)
class Config:
    """Sizes; `sequences` fit the linear map, as many others judge it."""

    width: int = 64
    heads: int = 4
    steps: int = 64
    tokens: int = 16
    sequences: int = 64
    seeds: tuple[int, ...] = tuple(range(10))


@dataclass(frozen=True)
class Case:
    """A network, and whether its first token is one that comes nowhere else."""

    label: str
    causal: bool
    depth: int = 2
    marked: bool = True


CASES = {
    "full": Case("full", causal=False),
    "causal": Case("causal", causal=True),
    "unmarked": Case("causal, no first token of its own", causal=True, marked=False),
    "shallow": Case("causal, one layer", causal=True, depth=1),
}


def attention(x: Tensor, weights: Tensor, heads: int, causal: bool) -> Tensor:
    """Heads of attention without positions."""
    q, k, v = (
        (x @ weight).unflatten(-1, (heads, -1)).transpose(1, 2)
        for weight in weights[:3]
    )
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2) @ weights[3]


def outputs(case: Case, config: Config, weights: Tensor, x: Tensor) -> Tensor:
    """Residual layers of attention, each behind a norm, and a norm at the end."""
    for layer in weights:
        normed = layer_norm(x, x.shape[-1:])
        x = x + attention(normed, layer, config.heads, case.causal)
    return layer_norm(x, x.shape[-1:])


def share_told(y: Tensor, config: Config) -> float:
    """Part of the variance of the logarithm of positions that a linear map explains."""
    features = torch.cat([y[:, 1:], torch.ones_like(y[:, 1:, :1])], dim=-1)
    steps = torch.arange(1, config.steps, dtype=y.dtype)
    wanted = steps.log().expand(len(y), -1)
    fitted, judged = features.split(config.sequences)
    target = wanted[: config.sequences].reshape(-1, 1)
    # Outputs of a norm sum to 0, so a fit without a ridge has more than one solution,
    # and which one is found depends on where a tensor lies in memory.
    rows = fitted.flatten(0, 1)
    ridge = 1e-6 * len(rows) * torch.eye(rows.shape[1], dtype=rows.dtype)
    solution = torch.linalg.solve(rows.T @ rows + ridge, rows.T @ target)
    rest = (judged @ solution)[..., 0] - wanted[config.sequences :]
    return 1 - (rest.square().mean() / steps.log().var(correction=0)).item()


def rms(difference: Tensor) -> float:
    """Root mean square; outputs themselves have one of 1, by their norm."""
    return difference.square().mean().sqrt().item()


def measure_one(case: Case, config: Config, seed: int) -> dict[str, float]:
    """Each quantity of one network."""
    generator = lab.generator(seed)
    width, steps = config.width, config.steps

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    weights = normal(case.depth, 4, width, width) / width**0.5
    embedding = normal(config.tokens + 1, width)
    size = 2 * config.sequences, steps
    tokens = torch.randint(config.tokens, size, generator=generator)
    if case.marked:
        tokens[:, 0] = config.tokens
    x = embedding[tokens]
    order = torch.randperm(steps, generator=generator)
    y = outputs(case, config, weights, x)
    moved = outputs(case, config, weights, x[:, order]) - y[:, order]
    # The first token stays where it is, and so does the last.
    middle = 1 + torch.randperm(steps - 2, generator=generator)
    kept = torch.cat([torch.tensor([0]), middle, torch.tensor([steps - 1])])
    again = outputs(case, config, weights, x[:, kept])
    alike = outputs(case, config, weights, embedding[:1].expand(1, steps, width))
    return {
        "moved": rms(moved),
        "told": round(share_told(y, config), 6),
        # The difference from the first position is 0 there by definition.
        "alike": rms(alike[:, 1:] - alike[:, :1]),
        "last": rms((again - y)[:, -1]),
    }


def measure(case: Case, config: Config) -> dict[str, Any]:
    """Each quantity over the seeds."""
    runs = [measure_one(case, config, seed) for seed in config.seeds]
    return {key: lab.spread(run[key] for run in runs) for key in runs[0]}


def zero(quantity: str) -> lab.Check:
    """That a difference between outputs, which have a variance of 1, is rounding."""
    return lab.below(f"{quantity}.high", 1e-9)


def shown(quantity: str) -> lab.Cell:
    """A difference between outputs; what is rounding is written as that."""

    def write(row: dict[str, Any]) -> str:
        found = row[quantity]
        return "rounding" if found["high"] < 1e-9 else lab.number(found["median"], 2)

    return write


experiment = lab.Experiment(
    small=Config(seeds=(0, 1, 2)),
    cases=CASES,
    measure=measure,
    claims=[
        lab.Claim(
            "C96.equivariant",
            "Permuted inputs of full attention without positions give the same "
            "outputs, permuted.",
            zero("moved"),
            case="full",
            control="causal",
        ),
        lab.Claim(
            "C96.told",
            "A linear map of the outputs of causal attention without positions, at "
            "random weights, explains more than half of the variance of the logarithm "
            "of positions behind a token that comes nowhere else.",
            lab.above("told.low", 0.5, lab.share),
            case="causal",
            control="full",
        ),
        lab.Claim(
            "C96.last",
            "One causal layer without positions has the same last output whatever the "
            "order of the tokens before it.",
            zero("last"),
            case="shallow",
            control="causal",
        ),
    ],
    numbers=[
        lab.each("moved.median", "moved"),
        lab.each("told.median", "told"),
        lab.each("told.low", "told_low"),
        lab.each("last.median", "last"),
    ],
    tables={
        "order": lab.Table(
            labels={name: case.label for name, case in CASES.items()},
            heading="attention",
            columns={
                "inputs permuted, outputs back": shown("moved"),
                "order before the last token": shown("last"),
                "all tokens equal, between positions": shown("alike"),
                "variance of log position explained": lab.fixed("told.median", 2),
            },
        )
    },
)
