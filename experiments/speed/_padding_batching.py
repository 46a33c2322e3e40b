r"""How much of a batch is padding, by the way in which rows are put together."""

from collections import defaultdict
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from experiments import lab
from seqref.recurrent.variable_length import (
    bucket_batches,
    padding_fraction,
    token_batches,
)

Batches = list[list[int]]


def skewed_lengths(rows: int, seed: int) -> Int[Tensor, " rows"]:
    """Lengths with a normal logarithm: many short rows, few long ones, about 20."""
    drawn = torch.randn(rows, generator=lab.generator(seed))
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
    parts = [known[torch.tensor(rows)] for rows in batches]
    inner = sum((part - part.mean()).square().sum() for part in parts)
    return 1 - float(inner / total)


def describe(lengths: Tensor, batches: Batches) -> dict[str, float]:
    """Padding, number and sizes of the batches, and what they have lost in chance."""
    sizes = [len(rows) for rows in batches]
    steps = [len(rows) * int(lengths[torch.tensor(rows)].max()) for rows in batches]
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
    random, size = lab.generator(seed + 1000), config.batch_size
    batched = {"random": random_batches(lengths, size, random)}
    for width in config.bucket_widths:
        batched[f"width_{width}"] = fixed_buckets(lengths, width, size, random)
    batched["sorted"] = bucket_batches(lengths, size, generator=random)
    batched["tokens"] = token_batches(lengths, config.max_tokens, generator=random)
    return {way: describe(lengths, batches) for way, batches in batched.items()}


def over_seeds(config: Any) -> dict[str, dict[str, float]]:
    """Medians over the draws of lengths, counts as whole numbers."""
    runs = [ways(config, seed) for seed in config.seeds]
    medians = {
        way: {key: lab.median(run[way][key] for run in runs) for key in runs[0][way]}
        for way in runs[0]
    }
    for of_way in medians.values():
        of_way |= {
            key: round(of_way[key])
            for key in ("batches", "fewest_rows", "most_rows", "most_steps")
        }
        of_way["padding_over_random"] = of_way["padding"] / medians["random"]["padding"]
    return medians
