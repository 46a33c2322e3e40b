r"""What layer norm does to an LSTM: gradients by lag, blindness to size, the state.

Three measurements. Gradients by lag: LSTMs at initialisation, plain and with layer
norm, with weights of several scales; the norm of the gradient of a random linear
function of $h_T$ with respect to the state, a number of steps before. Blindness: small
networks learn the mean of a series of width 1. The state: with open forget gates that
read the input alone, the Jacobian of the cell state over many steps, in the form that
carries it as it is and in the form that carries it normalized.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from experiments.lab.claim import Claim, Outcome, power, share
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.seeding import generator, seeded
from experiments.lab.statistics import log10_summary, spread
from experiments.lab.tables import power_of_ten
from experiments.models._variants_carried import jacobian_norm
from experiments.models._variants_pictures import (
    MARKS,
    draw_by_lag,
    tables,
)
from seqref import LSTM, LayerNormLSTM, LSTMState
from seqref.recurrent.gradients import gradient_norm_by_lag


@dataclass(frozen=True)
class Config:
    """Sizes, scales and seeds of one run."""

    width: int
    narrow_width: int
    lags: int
    warm_up: int
    scales: tuple[float, ...]
    carried_steps: int
    series_steps: int
    series_width: int
    batch_size: int
    updates: int
    learning_rate: float
    series_seeds: tuple[int, ...]
    seeds: tuple[int, ...]


SMALL = Config(
    width=32,
    narrow_width=8,
    lags=100,
    warm_up=20,
    scales=(1.0, 4.0, 16.0),
    carried_steps=50,
    series_steps=5,
    series_width=8,
    batch_size=32,
    updates=120,
    learning_rate=0.02,
    series_seeds=(0,),
    seeds=(0, 1, 2),
)
FULL = Config(
    width=64,
    narrow_width=16,
    lags=100,
    warm_up=50,
    scales=(1.0, 4.0, 16.0),
    carried_steps=50,
    series_steps=10,
    series_width=16,
    batch_size=64,
    updates=200,
    learning_rate=0.01,
    series_seeds=(0, 1, 2, 3, 4),
    seeds=tuple(range(10)),
)
KINDS = {"plain": LSTM, "layer_norm": LayerNormLSTM}
# Kind of layer, and whether each input has a constant 1 beside it.
SERIES = {
    "layer_norm_series": ("layer_norm", False),
    "layer_norm_series_with_1": ("layer_norm", True),
    "plain_series": ("plain", False),
}


def scaled(kind: str, width: int, scale: float, seed: int) -> nn.Module:
    """A layer at initialisation, its two matrices multiplied by `scale`."""
    with seeded(seed):
        layer = KINDS[kind](width, width, dtype=torch.float64)
    with torch.no_grad():
        layer.cell.weight_ih.mul_(scale)
        layer.cell.weight_hh.mul_(scale)
    return layer


def by_lag(config: Config, kind: str, scale: float) -> list[dict[str, float]]:
    """What is kept of a gradient at each lag: decimal logarithms over the seeds."""
    kept = []
    for seed in config.seeds:
        layer: Any = scaled(kind, config.width, scale, seed)
        random = generator(seed + 1000)
        shape = (1, config.warm_up + config.lags, config.width)
        x = torch.randn(shape, generator=random, dtype=torch.float64)
        h_bar = torch.randn(1, config.width, generator=random, dtype=torch.float64)
        with torch.no_grad():
            _, start = layer(x[:, : config.warm_up])
        bar = LSTMState(h_bar, torch.zeros_like(h_bar))
        norms = gradient_norm_by_lag(layer, x[:, config.warm_up :], bar, start)[0]
        kept.append((norms / norms[0]).tolist())
    return [log10_summary(values) for values in zip(*kept, strict=True)]


def gradients(config: Config, track: Track) -> dict[str, Any]:
    """All kinds and scales, and what the claims look at."""
    found = {
        kind: [by_lag(config, kind, scale) for scale in config.scales]
        for kind in track(KINDS, "gradients by lag")
    }
    cases = {}
    for kind, curves in found.items():
        medians = {m: [c[m]["median"] for c in curves] for m in MARKS}
        cases[kind] = {
            "at_default": {f"lag_{m}": medians[m][0] for m in MARKS},
            "span_over_scales": {
                f"lag_{m}": max(medians[m]) - min(medians[m]) for m in MARKS
            },
        }
    narrow = by_lag(replace(config, width=config.narrow_width), "layer_norm", 1.0)
    return {"curves": found, "narrow": narrow, "cases": cases}


def batch(
    config: Config, size: int, constant: bool, random: torch.Generator
) -> tuple[Float[Tensor, "batch time input"], Float[Tensor, "batch 1"]]:
    """Series of numbers from 0 to 1; the target is their mean, standardized."""
    x = torch.rand(size, config.series_steps, 1, generator=random)
    target = (x.mean(1) - 0.5) * math.sqrt(12 * config.series_steps)
    return (torch.cat([x, torch.ones_like(x)], 2) if constant else x), target


def explained(config: Config, name: str, seed: int) -> float:
    """Share of the variance of the means that a trained network explains."""
    kind, constant = SERIES[name]
    random = generator(seed)
    with seeded(seed):
        layer = KINDS[kind](2 if constant else 1, config.series_width)
        head = nn.Linear(config.series_width, 1)
    parameters = [*layer.parameters(), *head.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=config.learning_rate)
    for _ in range(config.updates):
        x, target = batch(config, config.batch_size, constant, random)
        loss = (head(layer(x)[0][:, -1]) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        x, target = batch(config, 1000, constant, random)
        error = (head(layer(x)[0][:, -1]) - target).square().mean()
    return 1 - (error / target.var(correction=0)).item()


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Measure all three."""
    found = gradients(config, track)
    cases = found["cases"]
    for name in track(SERIES, "series of width 1"):
        shares = [explained(config, name, seed) for seed in config.series_seeds]
        cases[name] = {"explained": spread(shares)}
    for name, normed in (("carried_normed", True), ("carried_raw", False)):
        norms = [
            jacobian_norm(config.width, config.carried_steps, normed, seed)
            for seed in config.seeds
        ]
        cases[name] = {"jacobian": spread(norms)}
    series = {
        "scales": list(config.scales),
        "by_lag": found["curves"],
        "narrow": found["narrow"],
    }
    return {"numbers": summary(cases, series), "series": series, "cases": cases}


def summary(cases: Mapping[str, Any], series: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars and ready-made text for sentences."""
    found: dict[str, Any] = {}
    for name, curve in (
        ("layer_norm", series["by_lag"]["layer_norm"][0]),
        ("narrow", series["narrow"]),
    ):
        for key in ("median", "low", "high"):
            found[f"{name}_{key}_100"] = power_of_ten(curve[100][key])
    for kind in KINDS:
        for mark in MARKS:
            value = cases[kind]["at_default"][f"lag_{mark}"]
            found[f"{kind}_at_{mark}"] = power_of_ten(value)
            span = cases[kind]["span_over_scales"][f"lag_{mark}"]
            found[f"{kind}_span_{mark}"] = span
    for name in SERIES:
        found[f"{name}_explained"] = cases[name]["explained"]["median"]
        found[f"{name}_highest"] = cases[name]["explained"]["high"]
    for name in ("carried_normed", "carried_raw"):
        found[name] = cases[name]["jacobian"]["median"]
    return found


def _same_for_all_scales(case: Mapping[str, Any]) -> Outcome:
    found = case["span_over_scales"]["lag_50"]
    return Outcome.below(found, 1.5, power)


def _reaches(case: Mapping[str, Any]) -> Outcome:
    found = case["at_default"]["lag_100"]
    return Outcome.above(found, -5, power)


def _blind(case: Mapping[str, Any]) -> Outcome:
    found = case["explained"]["high"]
    return Outcome.below(found, 0.2, share)


def _forgets(case: Mapping[str, Any]) -> Outcome:
    found = case["jacobian"]["high"]
    return Outcome.below(found, 0.3)


CLAIMS = (
    Claim(
        "C138.scale",
        "What an LSTM with layer norm keeps of a gradient over 50 steps differs by "
        "less than 1.5 powers of ten between its weights and 4 and 16 times these.",
        _same_for_all_scales,
        case="layer_norm",
        control="plain",
    ),
    Claim(
        "C138.reach",
        "At initialisation an LSTM with layer norm keeps more than 10⁻⁵ of a gradient "
        "over 100 steps; a plain one does not.",
        _reaches,
        case="layer_norm",
        control="plain",
    ),
    Claim(
        "C139",
        "An LSTM with layer norm explains less than a fifth of the variance of the "
        "mean of a positive series of width 1; with a constant 1 beside it, more.",
        _blind,
        case="layer_norm_series",
        control="layer_norm_series_with_1",
    ),
    Claim(
        "C140",
        "Where the normalized cell state is carried, less than 0.3 of a change is left "
        "after 50 steps under open forget gates; where it is carried as it is, all.",
        _forgets,
        case="carried_normed",
        control="carried_raw",
    ),
)


FIGURES = {"by_lag": draw_by_lag}
experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
    figures=FIGURES,
)
