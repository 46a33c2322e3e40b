r"""What a transformer does with a part of its block taken away.

The task needs both of what a block has: at each step the sum of the token and the one
before it, modulo their number. Attention has to fetch the token before, by its
position, and something has to add the two on a circle. Each case trains the same small
stack with one part replaced: attention or feed-forward network by zero, the sum around
a sublayer by the sublayer alone, the norms by nothing, the positions left out.
"""

import math
from collections.abc import Callable
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
    PreNormBlock,
    Transformer,
)


@dataclass(frozen=True)
class Config:
    """The stack, the task and the training of one run."""

    d_model: int = 32
    n_heads: int = 4
    n_layers: int = 2
    n_tokens: int = 16
    steps: int = 16
    batch_size: int = 32
    updates: int = 400
    learning_rate: float = 0.003
    heldout_size: int = 256
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    left_out: tuple[str, ...] = ()


class NoAttention(nn.Module):
    """A layer of zeros in the place of attention."""

    def __init__(self, d_model: int):
        super().__init__()
        self.input_size = self.output_size = d_model

    def initial_state(self, batch_size: int) -> tuple[()]:
        return ()

    def step(self, x_t: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        return torch.zeros_like(x_t), state

    def forward(
        self, x: Tensor, state: tuple[()] = (), lengths: Tensor | None = None
    ) -> tuple[Tensor, tuple[()]]:
        return torch.zeros_like(x), state


class NoNetwork(nn.Module):
    """Zeros in the place of the feed-forward network."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


def without_sum(block: PreNormBlock) -> PreNormBlock:
    """The block with each sublayer in place of the sum of input and sublayer."""

    def alone(norm: nn.Module, x: Tensor, sublayer: Callable) -> tuple[Tensor, Any]:
        return sublayer(norm(x))

    # On this one block, not on its class.
    block.residual = alone
    return block


def block(config: Config, left_out: str) -> PreNormBlock:
    """One block, without the part that is left out."""
    width = config.d_model
    attention = MultiHeadAttention(width, config.n_heads)
    made = PreNormBlock(
        NoAttention(width) if left_out == "attention" else attention,
        NoNetwork() if left_out == "network" else FeedForward(width, 4 * width),
        norm=(lambda width: nn.Identity()) if left_out == "norms" else nn.LayerNorm,
    )
    return without_sum(made) if left_out == "sums" else made


def network(config: Config, left_out: str, seed: int) -> LanguageModel:
    """The whole model; what it scores is the sum, at the step itself."""
    width = config.d_model
    with lab.seeded(seed):
        layers: list[nn.Module] = [
            block(config, left_out) for _ in range(config.n_layers)
        ]
        if left_out != "positions":
            positions = LearnedPositions(config.steps, width)
            layers.insert(0, AddPositions(positions))
        last = nn.Identity() if left_out == "norms" else nn.LayerNorm(width)
        return LanguageModel(config.n_tokens, Transformer(layers, last_norm=last))


def batch(
    config: Config, size: int, random: torch.Generator
) -> tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]]:
    """Random tokens, and from the second step on the sum with the one before."""
    shape = size, config.steps
    tokens = torch.randint(config.n_tokens, shape, generator=random)
    return tokens, (tokens[:, 1:] + tokens[:, :-1]) % config.n_tokens


def trained(config: Config, left_out: str, seed: int) -> tuple[float, float]:
    """Held-out loss in nats and share of right sums after training."""
    model = network(config, left_out, seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    random, others = lab.generator(seed + 1000), lab.generator(seed + 2000)

    def scored(size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        tokens, sums = batch(config, size, generator)
        scores = model(tokens)[0][:, 1:]
        right = (scores.argmax(-1) == sums).double().mean()
        return cross_entropy(scores.flatten(0, 1), sums.flatten()), right

    for _ in range(config.updates):
        loss, _ = scored(config.batch_size, random)
        lab.descend(optimizer, loss, 1.0)
    with torch.no_grad():
        loss, right = scored(config.heldout_size, others)
    return loss.item(), right.item()


CASES = {
    "full": ("", "all of it"),
    "no_positions": ("positions", "without positions"),
    "no_network": ("network", "without the feed-forward networks"),
    "no_norms": ("norms", "without the norms"),
    "no_sums": ("sums", "without the residual sums"),
    "no_attention": ("attention", "without attention"),
}


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Each case over the seeds, its loss beside that of the whole stack."""
    cases = {}
    wanted = {n: c for n, c in CASES.items() if c[0] not in config.left_out}
    for name, (left_out, label) in track(wanted.items(), "transformer_parts"):
        runs = [trained(config, left_out, seed) for seed in config.seeds]
        cases[name] = {
            "label": label,
            "loss": lab.spread(loss for loss, _ in runs),
            "right": lab.spread(right for _, right in runs),
        }
    whole = cases["full"]["loss"]["median"]
    for case in cases.values():
        median = case["loss"]["median"]
        case["times_full"] = median / whole
        case["of_chance"] = median / math.log(config.n_tokens)
    return {"series": {"rows": list(cases.values())}, "cases": cases}


def percent(value: float) -> str:
    """A share in per cent."""
    return f"{value:.0%}"


experiment = lab.Experiment(
    small=Config(
        n_tokens=8,
        steps=8,
        updates=150,
        learning_rate=0.01,
        heldout_size=128,
        seeds=(0,),
        left_out=("network", "norms", "attention"),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C58.positions",
            "Without positions the loss is more than half as high again.",
            lab.above("times_full", 1.5),
            case="no_positions",
            control="full",
        ),
        lab.Claim(
            "C58.sums",
            "Without the residual sums the loss stays above 0.85 of what "
            "guessing gives.",
            lab.above("of_chance", 0.85),
            case="no_sums",
            control="full",
        ),
    ],
    numbers=[
        lab.each("right.median", "right"),
        lab.each("loss.median", "loss"),
        lab.each("times_full"),
    ],
    tables={
        "parts": lab.Table(
            {
                "stack": lab.cell("label", str),
                "held-out loss, nats: median (range)": lab.with_span(
                    "loss", "{:.2f}".format
                ),
                "right sums: median (range)": lab.with_span("right", percent),
            }
        )
    },
)
