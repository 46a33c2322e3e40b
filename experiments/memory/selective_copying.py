r"""Selective copying by one layer of Mamba with parts of its selection taken away.

Symbols stand among blanks, at places that change from row to row, and are to be written
in order when markers come. Each case trains one residual block from scratch and takes
from the layer what depends on the input: the step size, the map that writes, the map
that reads, or all three. In its place stands a parameter, so that it is learned and the
same at every step. What is left in each case is the convolution, the gate and the
state.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus

from experiments import lab
from seqref import Mamba
from seqref.models import ResidualBlock, Transformer, TransformerLM


@dataclass(frozen=True)
class Config:
    """The task, the block and the training of one run."""

    symbols: int = 6
    length: int = 3
    blanks: int = 29
    d_model: int = 16
    d_state: int = 4
    batch_size: int = 32
    updates: int = 1000
    learning_rate: float = 0.01
    max_norm: float = 1.0
    heldout_size: int = 512
    seeds: tuple[int, ...] = (0, 1, 2)
    left_out: tuple[str, ...] = ()
    keep: str | None = "runs/selective_copying"


class Fixed(Mamba):
    """A layer in which some of step size, writing and reading are parameters."""

    def __init__(self, d_model: int, d_state: int, fixed: str):
        super().__init__(d_model, d_state)
        self.fixed = fixed
        # In all cases, so that all draw the same numbers.
        self.constant_B = nn.Parameter(torch.randn(d_state))
        self.constant_C = nn.Parameter(torch.randn(d_state))

    def _selected(self, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dt, B, C = super()._selected(v)
        if "t" in self.fixed:
            dt = softplus(self.dt_proj.bias).expand_as(dt)
        if "B" in self.fixed:
            B = self.constant_B.expand_as(B)
        if "C" in self.fixed:
            C = self.constant_C.expand_as(C)
        return dt, B, C


def batch(
    config: Config, size: int, random: torch.Generator
) -> tuple[Int[Tensor, "batch time"], Int[Tensor, "batch length"]]:
    """Symbols 1 and up among zeros, then markers; and the symbols in order."""
    time = config.blanks + config.length
    places = torch.rand(size, time, generator=random).argsort(dim=1)
    places = places[:, : config.length].sort(dim=1).values
    shape = size, config.length
    symbols = torch.randint(1, config.symbols + 1, shape, generator=random)
    read = torch.zeros(size, time, dtype=torch.int64).scatter(1, places, symbols)
    markers = torch.full(shape, config.symbols + 1)
    return torch.cat([read, markers], dim=1), symbols


def network(config: Config, fixed: str, seed: int) -> TransformerLM:
    """One block between an embedding and a head of its own."""
    width, tokens = config.d_model, config.symbols + 2
    with lab.seeded(seed):
        block = ResidualBlock(Fixed(width, config.d_state, fixed), norm=nn.RMSNorm)
        layer = Transformer([block], last_norm=nn.RMSNorm(width))
        model = TransformerLM(tokens, layer, head=nn.Linear(width, tokens))
        nn.init.normal_(model.embedding.weight)
    return model


def trained(config: Config, fixed: str, seed: int) -> dict[str, float]:
    """Share of right symbols on rows that were not trained on."""
    model = network(config, fixed, seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    random, others = lab.generator(seed + 1000), lab.generator(seed + 2000)
    time = config.blanks + config.length
    for _ in range(config.updates):
        tokens, symbols = batch(config, config.batch_size, random)
        scores = model(tokens)[0][:, time:]
        loss = cross_entropy(scores.flatten(0, 1), symbols.flatten())
        lab.descend(optimizer, loss, config.max_norm)
    with torch.no_grad():
        tokens, symbols = batch(config, config.heldout_size, others)
        scores = model(tokens)[0][:, time:]
        return {"right": (scores.argmax(-1) == symbols).double().mean().item()}


CASES = {
    "full": ("", "all depend on the input"),
    "dt": ("t", "fixed step size"),
    "B": ("B", "fixed B"),
    "C": ("C", "fixed C"),
    "none": ("tBC", "all three fixed"),
}


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Each case over the seeds, beside the whole layer."""
    wanted = {n: c for n, c in CASES.items() if n not in config.left_out}
    rights: dict[str, list[float]] = {}
    for name, (fixed, _) in track(wanted.items(), "selective_copying"):
        rights[name] = []
        for seed in config.seeds:
            make = partial(trained, config, fixed, seed)
            one = lab.kept(config, __name__, f"{name}-{seed}", make)
            rights[name].append(one["right"])
    cases: dict[str, Any] = {}
    for name, runs in rights.items():
        lost = [one - two for one, two in zip(rights["full"], runs, strict=True)]
        cases[name] = {
            "label": CASES[name][1],
            "right": lab.spread(runs),
            "lost": lab.spread(lost),
            "of_full": lab.median(runs) / lab.median(rights["full"]),
        }
    return {"series": {"rows": list(cases.values())}, "cases": cases}


def percent(value: float) -> str:
    """A share in per cent."""
    return f"{value:.0%}"


experiment = lab.Experiment(
    small=Config(
        symbols=4,
        length=2,
        blanks=14,
        updates=170,
        learning_rate=0.03,
        heldout_size=256,
        seeds=(0,),
        left_out=("dt", "B", "C"),
        keep=None,
    ),
    run=run,
    claims=[
        lab.Claim(
            "C222",
            "With all three fixed, the share of right symbols is below 0.95 of the "
            "whole layer's.",
            lab.below("of_full", 0.95),
            case="none",
            control="full",
        ),
    ],
    numbers=[lab.each("right.median", "right"), lab.each("lost.median", "lost")],
    tables={
        "parts": lab.Table(
            {
                "layer": lab.cell("label", str),
                "right symbols: median (range)": lab.with_span("right", percent),
                "less than the whole, of the same seed": lab.with_span("lost", percent),
            }
        )
    },
)
