r"""How much of a batch is padding, by the way in which rows are put together."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from experiments.lab.seeding import generator
from experiments.lab.statistics import median
from seqref.recurrent.variable_length import (
    bucket_batches,
    padding_fraction,
    token_batches,
)

Batches = list[list[int]]


def skewed_lengths(rows: int, seed: int) -> Int[Tensor, " rows"]:
    """Lengths with a normal logarithm: many short rows, few long ones, about 20."""
    drawn = torch.randn(rows, generator=generator(seed))
    return (3 + 0.6 * drawn).exp().round().long() + 1


def random_batches(lengths: Tensor, size: int, random: torch.Generator) -> Batches:
    """Rows as a shuffled data set gives them."""
    order = torch.randperm(len(lengths), generator=random)
    return [part.tolist() for part in order.split(size)]


def fixed_buckets(
    lengths: Tensor, width: int, size: int, random: torch.Generator
) -> Batches:
    """Lengths 1 to width in one bucket, width + 1 to twice the width in the next."""
    buckets: defaultdict[int, list[int]] = defaultdict(list)
    for row in torch.randperm(len(lengths), generator=random).tolist():
        buckets[(int(lengths[row]) - 1) // width].append(row)
    return [
        rows[at : at + size]
        for rows in buckets.values()
        for at in range(0, len(rows), size)
    ]


def between(lengths: Tensor, batches: Batches) -> float:
    """The share of the lengths' variance that lies between the batches."""
    known = lengths.double()
    total = (known - known.mean()).square().sum()
    inner = sum(
        (known[rows] - known[rows].mean()).square().sum()
        for rows in map(_index, batches)
    )
    return 1 - float(inner / total)


def _index(rows: list[int]) -> Tensor:
    return torch.tensor(rows)


def describe(lengths: Tensor, batches: Batches) -> dict[str, float]:
    """Padding, number and sizes of the batches, and what they have lost in chance."""
    known = lengths.tolist()
    sizes = [len(rows) for rows in batches]
    steps = [len(rows) * max(known[row] for row in rows) for rows in batches]
    return {
        "padding": padding_fraction(lengths, batches),
        "batches": len(batches),
        "fewest_rows": min(sizes),
        "most_rows": max(sizes),
        "most_steps": max(steps),
        "between": between(lengths, batches),
    }


def ways(config: Any, seed: int) -> dict[str, dict[str, float]]:
    """Every way of batching on one draw of lengths."""
    lengths = skewed_lengths(config.rows, seed)
    random, size = generator(seed + 1000), config.batch_size
    found = {"random": random_batches(lengths, size, random)}
    for width in config.bucket_widths:
        found[f"width_{width}"] = fixed_buckets(lengths, width, size, random)
    found["sorted"] = bucket_batches(lengths, size, generator=random)
    budget = config.max_tokens
    found["tokens"] = token_batches(lengths, budget, generator=random)
    return {way: describe(lengths, batches) for way, batches in found.items()}


def over_seeds(config: Any) -> dict[str, dict[str, float]]:
    """Medians over the draws of lengths."""
    runs = [ways(config, seed) for seed in config.seeds]
    return {
        way: {key: median(run[way][key] for run in runs) for key in runs[0][way]}
        for way in runs[0]
    }


def case_of(found: Mapping[str, Mapping[str, float]], way: str) -> dict[str, float]:
    """One way beside random batches."""
    return {
        "padding": found[way]["padding"],
        "random_padding": found["random"]["padding"],
        "between": found[way]["between"],
    }
