r"""Where the norm stands: gradients and outputs before training, and warm-up.

Before training, of stacks of growing depth: the gradient of the last block's second
matrix, which is the quantity of Xiong et al. (2020), theorem 1, and the standard
deviation of the outputs. Then a deep stack learns to write random tokens backwards with
Adam, from the first update at the full rate or with a rate that rises to it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from experiments import lab
from seqref import LearnedPositions, MultiHeadAttention
from seqref.models import (
    AddPositions,
    FeedForward,
    LanguageModel,
    PostNormBlock,
    PreNormBlock,
    Transformer,
)

# Two tokens that are no part of what is reversed: the beginning, and the turn.
MARKS = 2


@dataclass(frozen=True)
class Config:
    """Sizes of both parts; `depths` are those of the first."""

    d_model: int = 32
    n_heads: int = 4
    depths: tuple[int, ...] = (2, 4, 8, 16, 32)
    rows: int = 8
    steps: int = 32
    start_seeds: tuple[int, ...] = tuple(range(10))
    n_tokens: int = 8
    length: int = 6
    batch_size: int = 32
    n_layers: int = 6
    learning_rates: tuple[float, ...] = (0.001, 0.003, 0.01)
    updates: int = 250
    warm_up: int = 100
    last: int = 10
    seeds: tuple[int, ...] = (0, 1, 2)


@dataclass(frozen=True)
class Case:
    """A kind of stack, and whether the rate rises to its value."""

    label: str
    kind: type[PreNormBlock | PostNormBlock]
    last_norm: bool = False
    warm: bool = False


CASES = {
    "post": Case("post-norm", PostNormBlock),
    "post_warm": Case("post-norm, rate warmed up", PostNormBlock, warm=True),
    "pre": Case("pre-norm", PreNormBlock, last_norm=True),
    "pre_bare": Case("pre-norm without a last norm", PreNormBlock),
}


def build(config: Config, case: Case, depth: int, positions: int) -> LanguageModel:
    """A stack of this depth; matrices by Xavier, biases zero, as in the theorem."""
    width = config.d_model
    blocks = [
        case.kind(
            MultiHeadAttention(width, config.n_heads), FeedForward(width, 4 * width)
        )
        for _ in range(depth)
    ]
    for name, parameter in (p for block in blocks for p in block.named_parameters()):
        if "norm" not in name:
            if parameter.dim() == 2:
                nn.init.xavier_uniform_(parameter)
            else:
                nn.init.zeros_(parameter)
    table = AddPositions(LearnedPositions(positions, width))
    last = nn.LayerNorm(width) if case.last_norm else None
    stack = Transformer([table, *blocks], last_norm=last)
    return LanguageModel(config.n_tokens + MARKS, stack)


def at_the_start(
    config: Config, case: Case, depth: int, seed: int
) -> tuple[float, float]:
    """Gradient norm of the last block's second matrix; deviation of the outputs."""
    random = lab.generator(seed + 1000)
    with lab.seeded(seed):
        model = build(config, case, depth, config.steps)
    shape = config.rows, config.steps + 1
    tokens = torch.randint(config.n_tokens, shape, generator=random)
    outputs, _ = model.layer(model.embedding(tokens[:, :-1]))
    scores = model.head(outputs)
    loss = cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten())
    blocks: Any = model.layer.layers
    weight = blocks[-1].feed_forward.outward.weight
    (gradient,) = torch.autograd.grad(loss, [weight])
    return gradient.norm().item(), outputs.std().item()


def slope(depths: tuple[int, ...], values: list[float]) -> float:
    """Exponent of a power of the depth, by least squares on logarithms."""
    x = torch.tensor(depths, dtype=torch.float64).log()
    y = torch.tensor(values, dtype=torch.float64).log()
    x = x - x.mean()
    return float((x * y).sum() / x.square().sum())


def by_depth(config: Config, case: Case) -> dict[str, Any]:
    """Medians over the seeds at each depth, and their exponents."""
    gradients, outputs = [], []
    for depth in config.depths:
        runs = [at_the_start(config, case, depth, s) for s in config.start_seeds]
        gradients.append(lab.median([gradient for gradient, _ in runs]))
        outputs.append(lab.median([output for _, output in runs]))
    return {
        "gradients": gradients,
        "outputs": outputs,
        "gradient_exponent": slope(config.depths, gradients),
        "output_exponent": slope(config.depths, outputs),
    }


def batches(
    config: Config, random: torch.Generator
) -> Iterator[Int[Tensor, "batch time"]]:
    """A mark, random tokens, a mark, and the tokens from the last to the first."""
    shape = config.batch_size, config.length
    while True:
        word = MARKS + torch.randint(config.n_tokens, shape, generator=random)
        begin, turn = word.new_zeros(len(word), 1), word.new_ones(len(word), 1)
        yield torch.cat([begin, word, turn, word.flip(1)], dim=1)


def final_loss(config: Config, case: Case, rate: float, seed: int) -> float:
    """Mean loss of the last updates, over what is written backwards."""
    with lab.seeded(seed):
        model = build(config, case, config.n_layers, 2 * config.length + 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, 0.98))
    random, losses = lab.generator(seed + 1000), []
    first = config.length + 1
    for update, tokens in zip(
        range(1, config.updates + 1), batches(config, random), strict=False
    ):
        rising = min(1.0, update / config.warm_up) if case.warm else 1.0
        optimizer.param_groups[0]["lr"] = rate * rising
        scores = model(tokens[:, :-1])[0][:, first:]
        targets = tokens[:, first + 1 :]
        loss = cross_entropy(scores.flatten(0, 1), targets.flatten())
        lab.descend(optimizer, loss)
        losses.append(loss.item())
    return sum(losses[-config.last :]) / config.last


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Both parts for each case; the rates of training side by side."""
    cases: dict[str, Any] = {}
    for name, case in track(CASES.items(), "norm_place"):
        cases[name] = {"label": case.label}
        if not case.warm:
            cases[name] |= by_depth(config, case)
        if name != "pre_bare":
            cases[name]["losses"] = losses = [
                lab.spread(final_loss(config, case, rate, s) for s in config.seeds)
                for rate in config.learning_rates
            ]
            guessed = math.log(config.n_tokens)
            cases[name]["fastest_of_chance"] = losses[-1]["median"] / guessed
    return {"series": {}, "cases": cases}


def starts(record: dict[str, Any]) -> lab.Table | str:
    """The quantities before training, a row for each depth."""
    shown = {n: c for n, c in record["cases"].items() if "gradients" in c}
    depths = record["run"]["config"]["depths"]
    headers = ["blocks"]
    for what in ("gradient", "outputs"):
        headers += [f"{what}, {case['label']}" for case in shown.values()]
    rows = [
        [
            str(depth),
            *(f"{c['gradients'][i]:.3f}" for c in shown.values()),
            *(f"{c['outputs'][i]:.2f}" for c in shown.values()),
        ]
        for i, depth in enumerate(depths)
    ]
    return lab.table(headers, rows)


def trainings(record: dict[str, Any]) -> str:
    """The losses after training, a row for each rate."""
    shown = [c for c in record["cases"].values() if "losses" in c]
    rates = record["run"]["config"]["learning_rates"]
    rows = []
    for i, rate in enumerate(rates):
        cells = [c["losses"][i] for c in shown]
        texts = [
            f"{c['median']:.2f} ({c['low']:.2f} to {c['high']:.2f})" for c in cells
        ]
        rows.append([f"{rate:g}", *texts])
    return lab.table(["rate", *(c["label"] for c in shown)], rows)


experiment = lab.Experiment(
    small=Config(
        depths=(2, 8, 32),
        start_seeds=(0, 1, 2),
        rows=4,
        steps=16,
        length=4,
        learning_rates=(0.01,),
        updates=45,
        warm_up=30,
        last=5,
        seeds=(0,),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C97.gradient",
            "In a pre-norm stack the gradient of the last block falls with depth, by "
            "an exponent below -0.15; in a post-norm stack it does not.",
            lab.below("gradient_exponent", -0.15, lab.share),
            case="pre",
            control="post",
        ),
        lab.Claim(
            "C97.warm_up",
            "At the largest rate a deep post-norm stack without warm-up stays above "
            "0.88 of the loss of guessing; with warm-up it does not.",
            lab.above("fastest_of_chance", 0.88),
            case="post",
            control="post_warm",
        ),
        lab.Claim(
            "C97.pre_norm",
            "At that rate and without warm-up a pre-norm stack does not stay there.",
            lab.below("fastest_of_chance", 0.88),
            case="pre",
            control="post",
        ),
        lab.Claim(
            "C187",
            "Without a last norm the outputs of a pre-norm stack grow with depth, by "
            "an exponent above 0.25.",
            lab.above("output_exponent", 0.25, lab.share),
            case="pre_bare",
            control="pre",
        ),
    ],
    numbers=[
        lab.each("gradient_exponent"),
        lab.each("output_exponent"),
        lab.each("fastest_of_chance"),
    ],
    tables={"start": starts, "training": trainings},
)
