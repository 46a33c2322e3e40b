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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from experiments import lab
from experiments.gradients._networks import log10_norm, products_by_lag, slopes
from experiments.gradients._radius_examples import (
    EXAMPLES,
    MARKS,
    noisy_blocks,
    of_blocks,
    of_driven,
    of_example,
    of_turn,
    random_matrix,
    tanh_layer,
)
from seqref import RNN


@dataclass(frozen=True)
class Config:
    """Sizes, radii, strengths of the inputs and seeds of one run."""

    hidden_size: int = 256
    warm_up: int = 50
    lags: tuple[int, int] = (100, 200)
    radii: tuple[float, ...] = tuple(radius / 4 for radius in range(2, 15))
    input_stds: tuple[float, ...] = (0.1, 0.5, 1.0)
    block_size: int = 64
    block_stds: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0, 2.0)
    seeds: tuple[int, ...] = tuple(range(8))


@torch.no_grad()
def growth(
    layer: RNN, x: Float[Tensor, "1 time hidden"], lags: tuple[int, int]
) -> dict[str, float]:
    r"""Logarithms of the factor of one step of lag, and of the slopes' part in it.

    Between two lags, so that what the first steps do does not count. The slopes of a
    step count with the root of their mean square.
    """
    h, (first, second) = layer(x)[0][0], lags
    products = products_by_lag(h, layer.cell.weight_hh, "tanh", lags)
    more = log10_norm(products[second]) - log10_norm(products[first])
    squares = slopes(h[-second:-first], "tanh").square().mean(1)
    return {
        "log10_factor": more / (second - first),
        "log10_slope": squares.sqrt().log10().mean().item(),
    }


def over_seeds(seeds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Medians, and extremes of the product over the most steps."""
    last = [one[f"log10_at_{MARKS[-1]}"] for one in seeds]
    medians = {key: lab.median(one[key] for one in seeds) for key in seeds[0]}
    return {**medians, "log10_low": min(last), "log10_high": max(last)}


def of_noise(config: Config, std: float, *, normal: bool = False) -> dict[str, float]:
    """Blocks with noise in all units: norms, growth, and what the slopes alone say."""
    size, steps = config.block_size, config.warm_up + max(config.lags)
    seeds = []
    for seed in config.seeds:
        layer, noise = noisy_blocks(size, seed, steps, normal=normal)
        products = of_driven(layer, std * noise, torch.zeros(2 * size).double())
        seeds.append({**products, **growth(layer, std * noise, config.lags)})
    merged = over_seeds(seeds)
    slope = merged.pop("log10_slope")
    factors = lab.spread(10 ** one["log10_factor"] for one in seeds)
    return {
        **merged,
        "input_std_of_blocks": std,
        "slope_rule": merged["spectral_radius"] * 10**slope,
        **{f"factor_{key}": value for key, value in factors.items()},
    }


def of_network(config: Config, std: float, seed: int) -> list[dict[str, float]]:
    """Growth at every radius, for one matrix and inputs of one strength."""
    width, steps = config.hidden_size, config.warm_up + max(config.lags)
    unit, x = random_matrix(width, seed), lab.normal(seed + 1000, 1, steps, width)
    return [growth(tanh_layer(r * unit), std * x, config.lags) for r in config.radii]


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
    return radii[i - 1] + -low / (high - low) * (radii[i] - radii[i - 1])


def of_random(config: Config, std: float) -> dict[str, Any]:
    """Random networks under inputs of one strength: factors, and where growth starts.

    The rule of the slopes: what would be left of the radius if nothing else counted.
    """
    seeds = [of_network(config, std, seed) for seed in config.seeds]
    logarithms = [[one["log10_factor"] for one in by_radius] for by_radius in seeds]
    starts = lab.spread(crossing(config.radii, row) for row in logarithms)
    gaps = (
        abs(math.log10(radius) + one["log10_slope"] - one["log10_factor"])
        for by_radius in seeds
        for radius, one in zip(config.radii, by_radius, strict=True)
    )
    return {
        "factor": [
            lab.spread(10**value for value in column)
            for column in zip(*logarithms, strict=True)
        ],
        "input_std": std,
        "largest_gap_to_slope_rule": 10 ** max(gaps) - 1,
        **{f"crossing_{key}": value for key, value in starts.items()},
    }


def name_of(std: float, what: str = "input") -> str:
    """Name of the case of one strength of the inputs."""
    return f"{what}_{std:g}".replace(".", "_") if std else "at_rest"


def run(config: Config, track: lab.Track) -> dict:
    """Measure the examples and the random networks."""
    strengths = track((0.0, *config.input_stds), "spectral_radius")
    random = {name_of(std): of_random(config, std) for std in strengths}
    factor = {name: case.pop("factor") for name, case in random.items()}
    blocks = {
        name: over_seeds(
            [of_blocks(config.block_size, s, driven=driven) for s in config.seeds]
        )
        for name, driven in (("blocks_driven", True), ("blocks_rest", False))
    }
    noises = {
        name_of(std, "blocks_noise"): of_noise(config, std) for std in config.block_stds
    }
    cases = {
        **{name: of_example(*example) for name, example in EXAMPLES.items()},
        **blocks,
        **noises,
        "blocks_normal": of_noise(config, 1.0, normal=True),
        "turn_1_1": of_turn(1.1),
        "turn_0_9": of_turn(0.9),
        **random,
    }
    return {"series": {"radii": list(config.radii), "factor": factor}, "cases": cases}


def texts(cases: Mapping[str, Mapping[str, float]]) -> dict[str, float | str]:
    """Every number of every case, logarithms as powers of ten."""
    return {
        f"{name}_{key.removeprefix('log10_')}": (
            lab.power_of_ten(value) if key.startswith("log10_") else value
        )
        for name, case in cases.items()
        for key, value in case.items()
    }


def part(prefix: str) -> Callable[[Mapping[str, float]], dict[str, float]]:
    """The spread that a case holds under names that begin like this."""
    return lambda case: {
        key: case[f"{prefix}_{key}"] for key in ("median", "low", "high")
    }


def inputs(case: Mapping[str, Any]) -> str:
    """What drives the random networks of a case."""
    std = case["input_std"]
    return f"inputs of standard deviation {std:g}" if std else "no input, at rest"


def draw_growth(figure: Any, record: Mapping[str, Any], theme: lab.Theme) -> None:
    """Factor of one more step of lag against the spectral radius, by input."""
    axes, radii = figure.subplots(), record["series"]["radii"]
    axes.axhline(1, color=theme.ink, linewidth=0.9)
    curves = {
        inputs(record["cases"][name]).replace("standard deviation", "std"): points
        for name, points in record["series"]["factor"].items()
    }
    lab.lines(axes, radii, curves, theme)
    axes.set_xlim(radii[0], radii[-1])
    axes.set_ylim(0.3, 2.0)
    axes.set_xlabel("spectral radius of the recurrent matrix")
    axes.set_title("Factor by which one more step of lag multiplies the norm")
    axes.legend(axes.lines[1:], curves, frameon=False, loc="upper right")


BELOW_1, ABOVE_1 = lab.below("spectral_radius", 1), lab.above("spectral_radius", 1)
experiment = lab.Experiment(
    small=Config(
        hidden_size=32,
        warm_up=20,
        lags=(50, 100),
        radii=(0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5),
        input_stds=(0.5, 1.0),
        block_size=32,
        block_stds=(0.1, 1.0),
        seeds=(0, 1, 2),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C06.example",
            "A tanh network of spectral radius 0.5, driven by a constant input, has a "
            "product of Jacobians above 1,000 after 60 steps.",
            lab.all_of(lab.above("log10_at_60", 3, lab.power), BELOW_1),
            case="small_radius_driven",
            control="small_radius_rest",
        ),
        lab.Claim(
            "C06.blocks",
            "Larger tanh networks of spectral radius 0.5 with noise in their inputs "
            "have a product above 1,000 after 60 steps for every seed.",
            lab.all_of(lab.above("log10_low", 3, lab.power), BELOW_1),
            case="blocks_driven",
            control="blocks_rest",
        ),
        lab.Claim(
            "C06.noise",
            "The same matrices of spectral radius 0.5, with standard normal noise in "
            "all units, have a product above 1,000 after 60 steps for every seed; the "
            "normal matrix of the same eigenvalues has not.",
            lab.all_of(lab.above("log10_low", 3, lab.power), BELOW_1),
            case="blocks_noise_1",
            control="blocks_normal",
        ),
        lab.Claim(
            "C07.example",
            "A tanh network of spectral radius 2, driven by a constant input, has a "
            "product of Jacobians below 10⁻¹⁰ after 60 steps.",
            lab.all_of(
                lab.below("log10_at_60", -10, lab.power),
                lab.above("spectral_radius", 1),
            ),
            case="large_radius_driven",
            control="large_radius_rest",
        ),
        lab.Claim(
            "C07.crossover",
            "In random tanh networks with noisy inputs of standard deviation 0.5 "
            "growth starts at a spectral radius above 1.2 for every seed.",
            lab.above("crossing_low", 1.2),
            case="input_0_5",
            control="at_rest",
        ),
        lab.Claim(
            "C08",
            "The product of a linear network grows though no eigenvalue has a positive "
            "real part: the modulus counts.",
            lab.all_of(
                lab.above("log10_at_100", 3, lab.power),
                lab.below("largest_real_part", 0, lab.share),
            ),
            case="turn_1_1",
            control="turn_0_9",
        ),
    ],
    numbers=[texts],
    tables={
        "examples": lab.Table(
            labels={
                "small_radius_driven": "2 units, driven",
                "small_radius_rest": "2 units, at rest",
                "blocks_noise_1": "128 units, noise in all",
                "blocks_driven": "128 units, half of them held in saturation",
                "blocks_rest": "128 units, at rest",
                "blocks_normal": "128 units, normal matrix, noise in all",
                "large_radius_driven": "2 other units, driven",
                "large_radius_rest": "2 other units, at rest",
            },
            heading="network",
            columns={
                "spectral radius": "spectral_radius",
                "largest singular value": "largest_singular_value",
                **{
                    f"norm after {mark} steps": lab.cell(
                        f"log10_at_{mark}", lab.power_of_ten
                    )
                    for mark in MARKS
                },
            },
        ),
        "blocks": lab.Table(
            rows=lambda record: [
                case
                for name, case in record["cases"].items()
                if name.startswith("blocks_noise")
            ],
            columns={
                "std of the noise": lab.cell("input_std_of_blocks", "{:g}".format),
                "factor for each step": lab.with_span(part("factor")),
                "radius × root mean square of the slopes": "slope_rule",
                "norm after 60 steps": lab.cell("log10_at_60", lab.power_of_ten),
            },
        ),
        "crossing": lab.Table(
            rows=lambda record: [
                case for case in record["cases"].values() if "input_std" in case
            ],
            columns={
                "random networks": inputs,
                "growth starts at a radius of": "crossing_median",
                "over the seeds": lab.span(part("crossing")),
            },
        ),
    },
    figures={"growth": draw_growth},
)
