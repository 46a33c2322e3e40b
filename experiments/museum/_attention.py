r"""What three faults of attention cost: a finite mask, its meaning, and its dropout."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from experiments import lab

HIDDEN = {"finite": -1e9, "infinite": -math.inf}
MODES = {"training": True, "evaluation": False}
KINDS = ("sdpa", "mha")
WIDTH = 8
Numbers = dict[str, float]


def vectors(rows: int, steps: int, random: torch.Generator) -> Tensor:
    """Normal noise."""
    return torch.randn(rows, steps, WIDTH, generator=random)


def keyless(rows: int, keys: int, kind: str, seed: int) -> Numbers:
    r"""A query all of whose keys are masked: its output and its values' gradient.

    Each is divided by the norm that it has where the output is the mean of the values.
    """
    random = lab.generator(seed + 3000)
    # With heads: torch's fast kernel takes four axes.
    q, k, v = (vectors(rows, keys, random)[:, None].requires_grad_() for _ in "qkv")
    upstream = vectors(rows, 1, random)[:, None]
    mask = torch.full((1, keys), HIDDEN[kind])
    y = scaled_dot_product_attention(q[:, :, :1], k, v, attn_mask=mask)
    (gradient,) = torch.autograd.grad(y, v, upstream)
    mean, of_mean = v.mean(dim=2, keepdim=True), (upstream / keys).expand_as(v)
    return {
        "output": (y.norm() / mean.norm()).item(),
        "gradient": (gradient.norm() / of_mean.norm()).item(),
    }


@torch.no_grad()
def where_true(rows: int, steps: int, kind: str, seed: int) -> Numbers:
    """The share of all weight that lies where a boolean mask is True."""
    random = lab.generator(seed + 4000)
    q, k = vectors(rows, steps, random), vectors(rows, steps, random)
    mask = torch.ones(steps, steps, dtype=torch.bool).triu(1)
    # Each query has keys of both kinds.
    mask[-1, 0] = True
    if kind == "sdpa":
        each = torch.eye(steps).expand(rows, -1, -1)
        weights = scaled_dot_product_attention(q, k, each, attn_mask=mask)
    else:
        with lab.seeded(seed):
            layer = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        _, weights = layer(q, k, k, attn_mask=mask)
    return {"share": ((weights * mask).sum() / weights.sum()).item()}


@torch.no_grad()
def returned(rows: int, steps: int, mode: str, dropout: float, seed: int) -> Numbers:
    """Of weights that torch's layer returns: distance of their sums from 1, zeros."""
    x = vectors(rows, steps, lab.generator(seed + 5000))
    with lab.seeded(seed):
        layer = nn.MultiheadAttention(WIDTH, 1, dropout=dropout, batch_first=True)
        _, weights = layer.train(MODES[mode])(x, x, x)
    return {
        "off": (weights.sum(dim=-1) - 1).abs().mean().item(),
        "zeros": (weights == 0).float().mean().item(),
    }


def measured(
    rows: int,
    steps: int,
    all_keys: Iterable[int],
    dropout: float,
    seeds: tuple[int, ...],
) -> dict[str, list[dict[str, Any]]]:
    """The three measurements, each number a median over the seeds."""

    def medians(measure: Callable[[int], Numbers]) -> Numbers:
        results = [measure(seed) for seed in seeds]
        return {key: lab.median(row[key] for row in results) for key in results[0]}

    return {
        "keyless": [
            {"keys": keys, "mask": kind}
            | medians(
                lambda seed, keys=keys, kind=kind: keyless(rows, keys, kind, seed)
            )
            for keys in all_keys
            for kind in HIDDEN
        ],
        "masked": [
            {"kind": kind}
            | medians(lambda seed, kind=kind: where_true(rows, steps, kind, seed))
            for kind in KINDS
        ],
        "returned": [
            {"mode": mode}
            | medians(
                lambda seed, mode=mode: returned(rows, steps, mode, dropout, seed)
            )
            for mode in MODES
        ],
    }


def numbers_of(series: dict[str, Any]) -> Numbers:
    """Each measurement by its settings."""
    values: Numbers = {}
    for row in series["keyless"]:
        for key in ("output", "gradient"):
            values[f"{key}_{row['mask']}_{row['keys']}"] = row[key]
    for row in series["masked"]:
        values[f"true_{row['kind']}"] = row["share"]
    for row in series["returned"]:
        for key in ("off", "zeros"):
            values[f"{key}_{row['mode']}"] = row[key]
    return values


def cases_of(series: dict[str, Any], keys: int) -> dict[str, Any]:
    """What the claims are checked on."""
    cases: dict[str, Any] = {}
    for row in series["keyless"]:
        if row["keys"] == keys:
            cases[f"mask_{row['mask']}"] = {k: row[k] for k in ("output", "gradient")}
    for row in series["masked"]:
        cases[f"true_{row['kind']}"] = {"share": row["share"]}
    for row in series["returned"]:
        cases[f"returned_{row['mode']}"] = {"off": row["off"]}
    return cases
