r"""Whether the spectral radius of the recurrent matrix decides if gradients vanish.

For $h_t = \tanh(W_{ih} x_t + W_{hh} h_{t-1})$ the Jacobian of one step is
$J_t = \operatorname{diag}(1 - h_t^2) W_{hh}$. The first part of this module
measures products of such Jacobians for networks whose spectral radius says the opposite
of what happens, each with an input that saturates units and without; for larger ones
with noise in all units, whose matrix is far from normal, and for the normal matrix of
the same eigenvalues; and for a linear network whose eigenvalues are not real. The
second part draws random networks, scales each matrix to a list of spectral radii, and
measures the factor by which one more step of lag multiplies the norm of the product,
for inputs of several strengths.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.gradients._networks import (
    products_by_lag,
    slopes,
)
from experiments.gradients._radius_examples import (
    EXAMPLES,
    MARKS,
    log10_norm,
    noisy_blocks,
    of_blocks,
    of_driven,
    of_example,
    of_turn,
    random_matrix,
    tanh_layer,
)
from experiments.gradients._radius_pictures import draw_growth, tables
from experiments.lab.claim import Claim, Outcome, power, share
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.seeding import generator
from experiments.lab.statistics import median, spread
from experiments.lab.tables import power_of_ten
from seqref import RNN


@dataclass(frozen=True)
class Config:
    """Sizes, radii, strengths of the inputs and seeds of one run."""

    hidden_size: int
    warm_up: int
    lags: tuple[int, int]
    radii: tuple[float, ...]
    input_stds: tuple[float, ...]
    block_size: int
    block_stds: tuple[float, ...]
    seeds: tuple[int, ...]


SMALL = Config(
    hidden_size=32,
    warm_up=20,
    lags=(50, 100),
    radii=(0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5),
    input_stds=(0.5, 1.0),
    block_size=32,
    block_stds=(0.1, 1.0),
    seeds=(0, 1, 2),
)
FULL = Config(
    hidden_size=256,
    warm_up=50,
    lags=(100, 200),
    radii=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0, 3.25, 3.5),
    input_stds=(0.1, 0.5, 1.0),
    block_size=64,
    block_stds=(0.1, 0.25, 0.5, 1.0, 2.0),
    seeds=tuple(range(8)),
)


def of_all_blocks(config: Config, *, driven: bool) -> dict[str, float]:
    """Medians and extremes over seeds."""
    found = [of_blocks(config.block_size, s, driven=driven) for s in config.seeds]
    merged = {key: median(f[key] for f in found) for key in found[0]}
    last = [f[f"log10_at_{MARKS[-1]}"] for f in found]
    return {**merged, "log10_low": min(last), "log10_high": max(last)}


def of_noise(config: Config, std: float, *, normal: bool = False) -> dict[str, float]:
    """Blocks with noise in all units: norms, growth, and what the slopes alone say."""
    steps = config.warm_up + max(config.lags)
    found = []
    for seed in config.seeds:
        layer, x = noisy_blocks(config.block_size, seed, std, steps, normal=normal)
        start = layer.initial_state(1)
        factors = growth(layer, x, config.lags)
        found.append({**of_driven(layer, x[:, : max(MARKS)], start), **factors})
    merged = {key: median(f[key] for f in found) for key in found[0]}
    slope = merged.pop("log10_slope")
    factors = [10 ** f["log10_factor"] for f in found]
    return {
        **merged,
        "input_std_of_blocks": std,
        "log10_low": min(f[f"log10_at_{MARKS[-1]}"] for f in found),
        "log10_high": max(f[f"log10_at_{MARKS[-1]}"] for f in found),
        "slope_rule": merged["spectral_radius"] * 10**slope,
        **{f"factor_{key}": value for key, value in spread(factors).items()},
    }


def growth(
    layer: RNN, x: Float[Tensor, "1 time hidden"], lags: tuple[int, int]
) -> dict[str, float]:
    r"""Logarithms of the factor of one step of lag, and of the slopes' part in it.

    Between two lags, so that what the first steps do does not count. The slopes of a
    step count with the root of their mean square.
    """
    with torch.no_grad():
        h = layer(x)[0][0]
        products = products_by_lag(h, layer.cell.weight_hh, "tanh", lags)
    first, second = lags
    more = log10_norm(products[second]) - log10_norm(products[first])
    squares = slopes(h[-second:-first], "tanh").square().mean(1)
    return {
        "log10_factor": more / (second - first),
        "log10_slope": squares.sqrt().log10().mean().item(),
    }


def of_network(config: Config, std: float, seed: int) -> dict[str, list[float]]:
    """Growth at every radius, for one matrix and inputs of one strength."""
    unit = random_matrix(config.hidden_size, seed)
    steps = config.warm_up + max(config.lags)
    size = (1, steps, config.hidden_size)
    random = generator(seed + 1000)
    x = std * torch.randn(size, generator=random, dtype=torch.float64)
    found = [growth(tanh_layer(r * unit), x, config.lags) for r in config.radii]
    return {key: [f[key] for f in found] for key in ("log10_factor", "log10_slope")}


def crossing(radii: Sequence[float], logarithms: Sequence[float]) -> float:
    r"""The radius at which growth starts: linear between the two that enclose it.

    Raises:
        ValueError: The product grows at the first radius, or at none.
    """
    above = [i for i, value in enumerate(logarithms) if value >= 0]
    if not above or above[0] == 0:
        raise ValueError(
            "crossing: `logarithms` must pass from below 0 to 0 or above, "
            f"got {list(logarithms)}"
        )
    i = above[0]
    low, high = logarithms[i - 1], logarithms[i]
    share = -low / (high - low)
    return radii[i - 1] + share * (radii[i] - radii[i - 1])


def name_of(std: float, what: str = "input") -> str:
    """Name of the case of one strength of the inputs."""
    return f"{what}_{std:g}".replace(".", "_") if std else "at_rest"


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Measure the examples and the random networks."""
    cases: dict[str, Any] = {name: of_example(*e) for name, e in EXAMPLES.items()}
    cases["blocks_driven"] = of_all_blocks(config, driven=True)
    cases["blocks_rest"] = of_all_blocks(config, driven=False)
    for std in config.block_stds:
        cases[name_of(std, "blocks_noise")] = of_noise(config, std)
    cases["blocks_normal"] = of_noise(config, 1.0, normal=True)
    cases |= {"turn_1_1": of_turn(1.1), "turn_0_9": of_turn(0.9)}
    series: dict[str, Any] = {"radii": list(config.radii), "factor": {}}
    for std in track((0.0, *config.input_stds), "spectral_radius"):
        found = [of_network(config, std, seed) for seed in config.seeds]
        factors = [[10**v for v in f["log10_factor"]] for f in found]
        starts = [crossing(config.radii, f["log10_factor"]) for f in found]
        series["factor"][name_of(std)] = [
            spread(values) for values in zip(*factors, strict=True)
        ]
        # The slopes' part: what would be left of the radius if nothing else counted.
        gaps = [
            abs(math.log10(radius) + slope - factor)
            for f in found
            for radius, slope, factor in zip(
                config.radii, f["log10_slope"], f["log10_factor"], strict=True
            )
        ]
        cases[name_of(std)] = {
            "input_std": std,
            "largest_gap_to_slope_rule": 10 ** max(gaps) - 1,
            **{f"crossing_{key}": value for key, value in spread(starts).items()},
        }
    return {"numbers": summary(cases), "series": series, "cases": cases}


def summary(cases: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars and ready-made text for sentences."""
    found: dict[str, Any] = {}
    for name, case in cases.items():
        for key, value in case.items():
            if key.startswith("log10_"):
                what = key.removeprefix("log10_")
                found[f"{name}_{what}"] = power_of_ten(value)
            else:
                found[f"{name}_{key}"] = value
    return found


def _grows_below_one(case: Mapping[str, Any]) -> Outcome:
    found = case["log10_at_60"]
    return Outcome.all_of(
        found, Outcome.below(case["spectral_radius"], 1), Outcome.above(found, 3, power)
    )


def _blocks_grow(case: Mapping[str, Any]) -> Outcome:
    found = case["log10_low"]
    return Outcome.all_of(
        found, Outcome.below(case["spectral_radius"], 1), Outcome.above(found, 3, power)
    )


def _vanishes_above_one(case: Mapping[str, Any]) -> Outcome:
    found = case["log10_at_60"]
    return Outcome.all_of(
        found,
        Outcome.above(case["spectral_radius"], 1),
        Outcome.below(found, -10, power),
    )


def _starts_later(case: Mapping[str, Any]) -> Outcome:
    found = case["crossing_low"]
    return Outcome.above(found, 1.2)


def _grows_with_small_real_parts(case: Mapping[str, Any]) -> Outcome:
    found = case["log10_at_100"]
    return Outcome.all_of(
        found,
        Outcome.below(case["largest_real_part"], 0, share),
        Outcome.above(found, 3, power),
    )


CLAIMS = (
    Claim(
        "C06.example",
        "A tanh network of spectral radius 0.5, driven by a constant input, has a "
        "product of Jacobians above 1,000 after 60 steps.",
        _grows_below_one,
        case="small_radius_driven",
        control="small_radius_rest",
    ),
    Claim(
        "C06.blocks",
        "Larger tanh networks of spectral radius 0.5 with noise in their inputs have a "
        "product above 1,000 after 60 steps for every seed.",
        _blocks_grow,
        case="blocks_driven",
        control="blocks_rest",
    ),
    Claim(
        "C06.noise",
        "The same matrices of spectral radius 0.5, with standard normal noise in all "
        "units, have a product above 1,000 after 60 steps for every seed; the normal "
        "matrix of the same eigenvalues has not.",
        _blocks_grow,
        case="blocks_noise_1",
        control="blocks_normal",
    ),
    Claim(
        "C07.example",
        "A tanh network of spectral radius 2, driven by a constant input, has a "
        "product of Jacobians below 10⁻¹⁰ after 60 steps.",
        _vanishes_above_one,
        case="large_radius_driven",
        control="large_radius_rest",
    ),
    Claim(
        "C07.crossover",
        "In random tanh networks with noisy inputs of standard deviation 0.5 growth "
        "starts at a spectral radius above 1.2 for every seed.",
        _starts_later,
        case="input_0_5",
        control="at_rest",
    ),
    Claim(
        "C08",
        "The product of a linear network grows though no eigenvalue has a positive "
        "real part: the modulus counts.",
        _grows_with_small_real_parts,
        case="turn_1_1",
        control="turn_0_9",
    ),
)


FIGURES = {"growth": draw_growth}
experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
    figures=FIGURES,
)
