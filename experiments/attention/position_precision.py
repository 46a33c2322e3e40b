r"""What rotary scores lose where positions, frequencies or angles are rounded.

The worst case over all queries and keys of length 1 against float64, by how far from
the start the query is: with keys that stand near it, and with keys at the start. In
float32 throughout; with sines and cosines rounded to bfloat16 at the end; with
frequencies that were bfloat16 before; with all of it in bfloat16, positions too.
Queries, keys and products are exact.
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
    seeds: tuple[int, ...] = (0,)


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


def factors(tables: Tables) -> Tensor:
    """What each pair is multiplied by, as a complex number; (time, pairs)."""
    cos, sin = (table.to(F64) for table in tables)
    return torch.complex(cos, sin)


def worst_at(case: Case, config: Config, start: int, near: bool) -> float:
    r"""The largest error that a score of two vectors of length 1 can have.

    A score is the sum over pairs of the real parts of $q \bar k$ times the factor of
    the query times the conjugate one of the key. A query and a key that lie in the pair
    where the error of that product is largest, with the phase that makes it real, reach
    it, and no others go beyond.
    """
    of_query = torch.tensor([start])
    of_keys = torch.arange(config.near + 1)
    if near:
        of_keys = start - of_keys

    def products(make: Callable[[Tensor, Config], Tables]) -> Tensor:
        of_key = factors(make(of_keys, config))
        return factors(make(of_query, config)) * of_key.conj()

    return (products(case.tables) - products(exact)).abs().max().item()


def measure(case: Case, config: Config) -> dict[str, Any]:
    """Errors by position, and how many of the first 4,096 positions are distinct."""
    errors = {
        word: [worst_at(case, config, start, near) for start in config.starts]
        for word, near in (("near", True), ("far", False))
    }
    cos, sin = case.tables(torch.arange(4096), config)
    both = torch.cat([cos, sin], dim=-1).to(F32)
    return {**errors, "distinct": len(both.unique(dim=0))}


def columns(config: Config, word: str) -> dict[str, lab.Cell]:
    """Errors at each place of the query."""
    return {
        f"at {start:,}": lab.cell(f"{word}.{place}", lab.number, 2)
        for place, start in enumerate(config.starts)
    }


LABELS = {name: case.label for name, case in CASES.items()}

experiment = lab.Experiment(
    small=Config(),
    cases=CASES,
    measure=measure,
    claims=[
        lab.Claim(
            "C178.bfloat16",
            "At position 4,095 the score of some query and a key at most 16 positions "
            "before it, of length 1, is wrong by more than 1 where positions are "
            "bfloat16.",
            lab.above("near.1", 1.0),
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
            "Frequencies that were rounded to bfloat16 leave every score of vectors of "
            "length 1 at most 16 positions apart right to 0.05 at position 4,095.",
            lab.below("near.1", 0.05),
            case="frequencies",
            control="all",
        ),
        lab.Claim(
            "C178.far",
            "With keys at the start they make some score at position 4,095 wrong by "
            "more than 1.",
            lab.above("far.1", 1.0),
            case="frequencies",
            control="tables",
        ),
    ],
    numbers=[
        *(
            lab.each(f"{word}.{place}", f"{word}_{name}")
            for word in ("near", "far")
            for place, name in ((0, "256"), (1, "4k"), (2, "64k"), (3, "1m"))
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
