r"""How an exploding gradient turns a loss into NaN, and what clipping does about it.

A tanh network of a large spectral radius runs over random inputs in float32 and in
float64; its gradient is clipped by norm, one step of gradient descent is made, and the
loss is computed again. Beside it: where the slope of tanh becomes zero in each dtype,
at which lag a gradient that doubles at each step becomes infinite, and what
`torch.nn.utils` makes of gradients that explode or vanish.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from experiments.gradients import _overflow_clipping as clipping
from experiments.gradients._overflow_claims import CLAIMS
from experiments.gradients._overflow_pictures import (
    DTYPES,
    LIMITS,
    tables,
)
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.seeding import generator
from experiments.lab.statistics import median
from experiments.lab.tables import power_of_ten
from seqref import RNN, RNNState
from seqref.recurrent.gradients import gradient_norm_by_lag


@dataclass(frozen=True)
class Config:
    """Sizes, lengths and seeds of one run."""

    hidden_size: int
    steps: int
    radius: float
    clip_steps: int
    descent_updates: int
    descent_runs: int
    seeds: tuple[int, ...]


SMALL = Config(
    hidden_size=48,
    steps=250,
    radius=10.0,
    clip_steps=40,
    descent_updates=200,
    descent_runs=32,
    seeds=(0, 1, 2),
)
FULL = Config(
    hidden_size=64,
    steps=300,
    radius=10.0,
    clip_steps=50,
    descent_updates=1000,
    descent_runs=400,
    seeds=tuple(range(10)),
)
DESCENT_RATE, DESCENT_STEPS = 0.03, 50
# A double holds 2 to the power of 1023 and no more.
LONGEST_LAG = 1030


def dtype_of(name: str) -> torch.dtype:
    """The dtype of a name."""
    return getattr(torch, name)


def of_slopes(
    activation: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> dict[str, float]:
    """The slope that autograd computes, from -25 to 25 in steps of 1/64."""
    a = torch.arange(-25 * 64, 25 * 64 + 1, dtype=torch.float64) / 64
    inputs = a.to(dtype).requires_grad_()
    (found,) = torch.autograd.grad(activation(inputs).sum(), inputs)
    zero = a[(found == 0) & (a > 0)]
    return {
        "lowest_to_8_5": found[a.abs() <= 8.5].min().item(),
        "lowest_to_10": found[a.abs() <= 10].min().item(),
        "highest": found.max().item(),
        "zero_from": zero.min().item() if len(zero) else a.max().item(),
    }


def first_infinite_lag(name: str) -> int:
    """For a gradient that doubles at each step back: where it leaves the dtype."""
    layer = RNN(1, 1, bias=False, dtype=dtype_of(name))
    with torch.no_grad():
        layer.cell.weight_hh.fill_(2)
    one = torch.ones(1, 1, dtype=dtype_of(name))
    x = torch.zeros(1, LONGEST_LAG, 1, dtype=dtype_of(name))
    norms = gradient_norm_by_lag(layer, x, RNNState(one))[0]
    return int((~norms.isfinite()).nonzero()[0, 0])


def one_update(
    config: Config, dtype: torch.dtype, seed: int, *, phi: str, skip: bool
) -> dict[str, bool]:
    r"""What is finite before, during and after one clipped step of descent.

    With `skip` the step is left out where the total norm is not finite.
    """
    layer = clipping.exploding_layer(config.hidden_size, dtype, config.radius, seed)
    layer.cell.nonlinearity = phi
    random = generator(seed + 1000)
    size = (1, config.steps, config.hidden_size)
    x = 0.5 * torch.randn(size, generator=random, dtype=torch.float64).to(dtype)
    goal = torch.rand(config.hidden_size, generator=random, dtype=torch.float64)
    goal = goal.to(dtype)
    states, end = layer(x)
    loss = (end.h[0] - goal).square().mean()
    loss.backward()
    gradients = [p.grad for p in layer.parameters() if p.grad is not None]
    finite = all(bool(g.isfinite().all()) for g in gradients)
    norm = nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
    if norm.isfinite() or not skip:
        torch.optim.SGD(layer.parameters(), lr=0.01).step()
    with torch.no_grad():
        after = (layer(x)[1].h[0] - goal).square().mean()
    return {
        "state_bounded": bool((states.abs() <= 1).all()),
        "loss_finite": bool(loss.isfinite()),
        "gradient_finite": finite,
        "loss_after_finite": bool(after.isfinite()),
    }


def of_updates(
    config: Config, dtype: torch.dtype, phi: str = "tanh", *, skip: bool = False
) -> dict[str, int]:
    """In how many of the runs each thing was so."""
    found = [one_update(config, dtype, s, phi=phi, skip=skip) for s in config.seeds]
    counts = {key: sum(f[key] for f in found) for key in found[0]}
    return {"runs": len(found), **counts}


def of_clipping(config: Config) -> dict[str, Any]:
    """Directions, shares and descents, with and without clipping."""
    size, seeds = (config.hidden_size, config.clip_steps), config.seeds
    cases: dict[str, Any] = {
        f"clip_{name}": {
            "cosine": median(
                clipping.cosine(*size, seed, by_norm=name == "norm") for seed in seeds
            )
        }
        for name in ("norm", "value")
    }
    for name in ("default", "orthogonal"):
        cases[f"clipped_{name}"] = {
            "share_of_first_half": median(
                clipping.share_of_first_half(*size, seed, default=name == "default")
                for seed in seeds
            )
        }
    for name in ("float32", "float64"):
        entry = clipping.entry_after_clipping(dtype_of(name))
        cases[f"huge_{name}"] = {"entry_after": entry}
    return cases


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Measure slopes, overflow, updates and clipping."""
    cases: dict[str, Any] = {
        f"slope_{name}": of_slopes(torch.tanh, dtype_of(name)) for name in DTYPES
    }
    cases["slope_relu"] = of_slopes(torch.relu, torch.float64)
    for name in DTYPES:
        cases[f"lag_{name}"] = {"first_infinite_lag": first_infinite_lag(name)}
    for name in track(("float32", "float64"), "updates"):
        cases[f"update_{name}"] = of_updates(config, dtype_of(name))
    cases["update_skipped"] = of_updates(config, torch.float32, skip=True)
    cases["update_relu"] = of_updates(config, torch.float32, "relu")
    cases |= of_clipping(config)
    for name, limit in track(LIMITS.items(), "descents"):
        cases[name] = clipping.descend(
            limit,
            DESCENT_RATE,
            config.descent_updates,
            DESCENT_STEPS,
            config.descent_runs,
            config.seeds[0],
        )
    return {"numbers": summary(cases), "series": {}, "cases": cases}


def summary(cases: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars for sentences, and tiny ones as text."""
    found = {f"{name}_{k}": v for name, case in cases.items() for k, v in case.items()}
    share = cases["clipped_default"]["share_of_first_half"]
    found["clipped_default_share_of_first_half"] = power_of_ten(math.log10(share))
    return found


experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
)
