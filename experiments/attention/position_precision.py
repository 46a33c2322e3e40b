r"""What rotary scores lose where positions, frequencies or angles are rounded.

Scores against float64, by how far from the start the query is: with keys that stand
near it, and with keys at the start. In float32 throughout; with sines and cosines
rounded to bfloat16 at the end; with frequencies that were bfloat16 before; with all of
it in bfloat16, positions too. Queries, keys and products stay in float64.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments import lab

F32, F64, B16 = torch.float32, torch.float64, torch.bfloat16
Tables = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Config:
    """Sizes; queries stand at `starts`, keys up to `near` steps before or at 0."""

    d_head: int = 64
    base: float = 10000.0
    starts: tuple[int, ...] = (255, 4095, 65535, 1048575)
    near: int = 16
    draws: int = 200
    seeds: tuple[int, ...] = tuple(range(5))


def frequencies(config: Config, dtype: torch.dtype) -> Tensor:
    """Made in float64, rounded once."""
    exponents = torch.arange(0, config.d_head, 2, dtype=F64) / config.d_head
    return (config.base**-exponents).to(dtype)


def exact(positions: Tensor, config: Config) -> Tables:
    """Cosines and sines in float64."""
    angles = positions[:, None].to(F64) * frequencies(config, F64)
    return angles.cos(), angles.sin()


def in_float32(positions: Tensor, config: Config) -> Tables:
    """Positions, frequencies, angles and tables in float32."""
    angles = positions[:, None].to(F32) * frequencies(config, F32)
    return angles.cos(), angles.sin()


def rounded_tables(positions: Tensor, config: Config) -> Tables:
    """Angles in float32, tables rounded to bfloat16, as in transformers' Llama."""
    cos, sin = in_float32(positions, config)
    return cos.to(B16), sin.to(B16)


def rounded_frequencies(positions: Tensor, config: Config) -> Tables:
    """Frequencies that were a bfloat16 buffer, and float32 from there on."""
    angles = positions[:, None].to(F32) * frequencies(config, B16).to(F32)
    return angles.cos(), angles.sin()


def all_rounded(positions: Tensor, config: Config) -> Tables:
    """Positions, frequencies, angles and tables in bfloat16."""
    angles = positions[:, None].to(B16) * frequencies(config, B16)
    return angles.cos(), angles.sin()


@dataclass(frozen=True)
class Case:
    """How sines and cosines are made."""

    label: str
    tables: Callable[[Tensor, Config], Tables]


CASES = {
    "float32": Case("float32", in_float32),
    "tables": Case("sine and cosine rounded to bfloat16", rounded_tables),
    "frequencies": Case("frequencies rounded to bfloat16", rounded_frequencies),
    "all": Case("positions and all else in bfloat16", all_rounded),
}


def turned(x: Tensor, tables: Tables) -> Tensor:
    """Pairs in halves; x (draws, time, head)."""
    cos, sin = (table.to(F64) for table in tables)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def error_at(case: Case, config: Config, start: int, near: bool, seed: int) -> float:
    """The largest error of a score, as a part of the two norms."""
    generator = lab.generator(seed)
    size = config.draws, config.near + 1, config.d_head
    k = torch.randn(size, generator=generator, dtype=F64)
    q = torch.randn(config.draws, 1, config.d_head, generator=generator, dtype=F64)
    k, q = k / k.norm(dim=-1, keepdim=True), q / q.norm(dim=-1, keepdim=True)
    of_query = torch.tensor([start])
    of_keys = torch.arange(config.near + 1)
    if near:
        of_keys = start - of_keys

    def scores(make: Callable[[Tensor, Config], Tables]) -> Tensor:
        keys = turned(k, make(of_keys, config))
        return turned(q, make(of_query, config)) @ keys.mT

    return (scores(case.tables) - scores(exact)).abs().max().item()


def measure(case: Case, config: Config) -> dict[str, Any]:
    """Errors by position, and how many of the first 4,096 positions are distinct."""
    errors = {
        word: [
            lab.spread(
                error_at(case, config, start, near, seed) for seed in config.seeds
            )
            for start in config.starts
        ]
        for word, near in (("near", True), ("far", False))
    }
    cos, sin = case.tables(torch.arange(4096), config)
    both = torch.cat([cos, sin], dim=-1).to(F32)
    return {**errors, "distinct": len(both.unique(dim=0))}


def columns(config: Config, word: str) -> dict[str, lab.Cell]:
    """Errors at each place of the query."""
    return {
        f"at {start:,}": lab.cell(f"{word}.{place}.high", lab.number, 2)
        for place, start in enumerate(config.starts)
    }


LABELS = {name: case.label for name, case in CASES.items()}

experiment = lab.Experiment(
    small=Config(seeds=(0, 1)),
    cases=CASES,
    measure=measure,
    claims=[
        lab.Claim(
            "C178.bfloat16",
            "At position 4,095 some score with a neighbour, of vectors of length 1, is "
            "wrong by more than 0.2 where positions are bfloat16.",
            lab.above("near.1.low", 0.2),
            case="all",
            control="float32",
        ),
        lab.Claim(
            "C178.distinct",
            "Fewer than a quarter of the first 4,096 positions are told apart in "
            "bfloat16.",
            lab.below("distinct", 1024),
            case="all",
            control="float32",
        ),
        lab.Claim(
            "C178.near",
            "Frequencies that were rounded to bfloat16 leave scores of neighbours "
            "right to 0.05 at position 4,095.",
            lab.below("near.1.high", 0.05),
            case="frequencies",
            control="all",
        ),
        lab.Claim(
            "C178.far",
            "With keys 4,095 positions away they make some score wrong by more than "
            "0.1.",
            lab.above("far.1.low", 0.1),
            case="frequencies",
            control="tables",
        ),
    ],
    numbers=[
        *(
            lab.each(f"{word}.{place}.high", f"{word}_{name}")
            for word in ("near", "far")
            for place, name in ((1, "4k"), (2, "64k"), (3, "1m"))
        ),
        lab.each("distinct"),
    ],
    tables={
        "near": lab.Table(
            labels=LABELS,
            heading="angles",
            columns={
                **columns(Config(), "near"),
                "positions told apart, of 4,096": "distinct",
            },
        ),
        "far": lab.Table(
            labels=LABELS, heading="angles", columns=columns(Config(), "far")
        ),
    },
)
