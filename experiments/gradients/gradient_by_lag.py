r"""How fast the gradient of a plain recurrent network falls with the lag.

For $h_t = \phi(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh})$ the Jacobian of one step
is $J_t = \operatorname{diag}(\phi'_t) W_{hh}$, where $\phi'_t = 1 - h_t^2$ for tanh.
Over a lag it is the product $J_T J_{T-1} \cdots J_{T-\text{lag}+1}$. This module takes
that product and measures two things of it: its largest singular value, the most that
any gradient can keep, and what the gradient of one random linear loss of $h_T$ keeps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments import lab
from experiments.gradients._networks import (
    Network,
    norm,
    products_by_lag,
    scaled_identity_,
    scaled_orthogonal_,
    spectral_radius,
)

MARKS = (10, 20, 50, 100, 200)


@dataclass(frozen=True)
class Config:
    """Sizes, lags and seeds of one run."""

    hidden_size: int = 128
    input_size: int = 128
    warm_up: int = 50
    lags: tuple[int, ...] = (*range(0, 20, 2), *range(20, 201, 10))
    small_input: float = 0.1
    widths: tuple[int, ...] = (64, 256, 1024)
    width_seeds: tuple[int, ...] = tuple(range(5))
    seeds: tuple[int, ...] = tuple(range(10))


def networks(config: Config) -> dict[str, Network]:
    """The networks that are compared."""
    orthogonal_, small = scaled_orthogonal_(), config.small_input
    return {
        "default_tanh": Network("tanh, default"),
        "default_tanh_small": Network("tanh, default, small x", input_std=small),
        "orthogonal_tanh": Network("tanh, orthogonal", orthogonal_),
        "orthogonal_tanh_small": Network(
            "tanh, orthogonal, small x", orthogonal_, input_std=small
        ),
        "identity_relu": Network("ReLU, identity", scaled_identity_(), "relu"),
        "orthogonal_linear": Network("linear, orthogonal", orthogonal_, "linear"),
        "expanding_linear": Network(
            "linear, 1.1 × orthogonal", scaled_orthogonal_(1.1), "linear"
        ),
    }


@torch.no_grad()
def norms_by_lag(network: Network, config: Config, seed: int) -> dict[str, list[float]]:
    """For each lag: the spectral norm, and what a random linear loss keeps."""
    layer = network.build(config.input_size, config.hidden_size, seed)
    random, steps = lab.generator(seed + 1000), config.warm_up + max(config.lags)
    x = network.input_std * lab.normal(random, 1, steps, config.input_size)
    loss = lab.normal(random, config.hidden_size)
    h, weight_hh = layer(x)[0][0], layer.cell.weight_hh
    products = products_by_lag(h, weight_hh, network.activation, config.lags).values()
    return {
        "spectral": [norm(p) for p in products],
        "loss": [
            ((loss @ product).norm() / loss.norm()).item() for product in products
        ],
    }


def measure(network: Network, config: Config) -> dict:
    """Norms at every lag over the seeds, at some of them, and the matrices."""
    seeds = [norms_by_lag(network, config, seed) for seed in config.seeds]
    by_lag = lab.by_place(seeds, lab.log10_summary)
    at = {f"lag_{mark}": config.lags.index(mark) for mark in MARKS}
    sizes = (config.input_size, config.hidden_size)
    matrices = [network.build(*sizes, seed).cell.weight_hh for seed in config.seeds]
    return {
        "by_lag": by_lag,
        **{
            f"log10_{what}": {lag: norms[i]["median"] for lag, i in at.items()}
            for what, norms in by_lag.items()
        },
        **sizes_of(matrices),
        **distances_from_1(matrices),
    }


def sizes_of(matrices: Sequence[Tensor]) -> dict[str, float]:
    """Spectral radius and largest singular value: medians over the seeds."""
    return {
        "spectral_radius": lab.median(map(spectral_radius, matrices)),
        "largest_singular_value": lab.median(map(norm, matrices)),
    }


def distances_from_1(matrices: Sequence[Tensor]) -> dict[str, float]:
    """The most by which an eigenvalue, and its modulus, differ from 1."""
    eigenvalues = torch.cat([torch.linalg.eigvals(matrix) for matrix in matrices])
    farthest = {
        "modulus_farthest_from_1": eigenvalues.abs() - 1,
        "eigenvalue_farthest_from_1": eigenvalues - 1,
    }
    # What is left of rounding in float64 would differ between processors.
    return {name: round(d.abs().max().item(), 9) for name, d in farthest.items()}


@torch.no_grad()
def by_width(config: Config) -> list[dict[str, float]]:
    """Spectral radius and largest singular value of the default matrix by width."""
    default = Network("default")
    return [
        {
            "hidden_size": width,
            **sizes_of(
                [default.build(1, width, s).cell.weight_hh for s in config.width_seeds]
            ),
        }
        for width in config.widths
    ]


LABELS = {name: network.label for name, network in networks(Config()).items()}
experiment = lab.Experiment(
    small=Config(
        hidden_size=32,
        input_size=32,
        warm_up=20,
        lags=(0, 1, 2, 5, 10, 20, 50, 100, 200),
        widths=(32, 64),
        width_seeds=(0, 1),
        seeds=(0, 1, 2),
    ),
    cases=networks,
    measure=measure,
    series=["by_lag"],
    axes=lambda config: {"lags": list(config.lags), "by_width": by_width(config)},
    claims=[
        lab.Claim(
            "C11",
            "A default tanh network has a largest singular value above 1 and still "
            "keeps less than 10⁻¹⁰ of any gradient over 100 steps.",
            lab.all_of(
                lab.below("log10_spectral.lag_100", -10, lab.power),
                lab.above("largest_singular_value", 1),
            ),
            case="default_tanh",
            control="expanding_linear",
        ),
        lab.Claim(
            "C14.default",
            "At default initialisation a tanh network keeps less than a thousandth of "
            "any gradient over 20 steps.",
            lab.below("log10_spectral.lag_20", -3, lab.power),
            case="default_tanh",
            control="orthogonal_tanh_small",
        ),
        lab.Claim(
            "C14.initialisation",
            "The same network with an orthogonal recurrent matrix and small inputs "
            "keeps more than a hundredth over 100 steps.",
            lab.above("log10_spectral.lag_100", -2, lab.power),
            case="orthogonal_tanh_small",
            control="default_tanh_small",
        ),
        lab.Claim(
            "C19.eigenvalues",
            "The eigenvalues of a random orthogonal matrix lie on the unit circle; "
            "some are farther than 1 from the number 1.",
            lab.all_of(
                lab.above("eigenvalue_farthest_from_1", 1),
                lab.below("modulus_farthest_from_1", 1e-6),
            ),
            case="orthogonal_linear",
            control="identity_relu",
        ),
        lab.Claim(
            "C19.linear",
            "A linear network with an orthogonal matrix loses nothing of a gradient "
            "over 200 steps.",
            lab.all_of(
                lab.below(lambda case: abs(case["log10_loss"]["lag_200"]), 1e-6),
                number="log10_loss.lag_200",
            ),
            case="orthogonal_linear",
            control="orthogonal_tanh",
        ),
        lab.Claim(
            "C19.tanh",
            "A tanh network with an orthogonal matrix and inputs of unit variance "
            "keeps less than 10⁻¹⁰ over 200 steps.",
            lab.below("log10_spectral.lag_200", -10, lab.power),
            case="orthogonal_tanh",
            control="orthogonal_linear",
        ),
    ],
    numbers=[
        *(
            lab.each(f"log10_{norm}.lag_{mark}", f"{word}at_{mark}", lab.power_of_ten)
            for norm, word in (("spectral", ""), ("loss", "loss_"))
            for mark in MARKS
        ),
        {
            f"default_{what}_{end}": lambda run, what=what, pick=pick: pick(
                row[what] for row in run["series"]["by_width"]
            )
            for what in ("spectral_radius", "largest_singular_value")
            for end, pick in (("low", min), ("high", max))
        },
    ],
    tables={
        **{
            name: lab.Table(
                labels=LABELS,
                heading="network",
                columns={
                    f"lag {mark}": lab.cell(
                        f"log10_{name}.lag_{mark}", lab.power_of_ten
                    )
                    for mark in MARKS
                },
            )
            for name in ("spectral", "loss")
        },
        "width": lab.Table(
            rows="series.by_width",
            columns={
                "hidden size": "hidden_size",
                "spectral radius": "spectral_radius",
                "largest singular value": "largest_singular_value",
            },
        ),
    },
    figures={
        "by_lag": lab.Lines(
            x="series.lags",
            y=lambda record: {
                name: norms["spectral"]
                for name, norms in record["series"]["by_lag"].items()
            },
            labels={name: LABELS[name] for name in list(LABELS)[:6]},
            xlabel="lag (steps)",
            title="What the gradient can keep, at most",
            ticks=range(-70, 1, 10),
        )
    },
)
