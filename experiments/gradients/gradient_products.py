r"""Products of Jacobians: against their bound, by activation, and by tying of weights.

Each network is measured at initialisation: the largest singular value of
$J_T J_{T-1} \cdots J_{T-\text{lag}+1}$, and for the same steps the bound
$(\gamma\, \sigma(W_{hh}))^{\text{lag}}$ with $\gamma$ the largest slope that occurred.
Networks "with slopes 1" are the same with the slopes of the activation replaced by 1.
The chains multiply a hundred random matrices, one and the same or a new one each time.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from experiments import lab
from experiments.gradients._networks import (
    Initialise,
    Network,
    log10_norm,
    norm,
    products_by_lag,
    scaled_identity_,
    scaled_orthogonal_,
    slopes,
    spectral_radius,
    step_jacobian,
)
from experiments.lab.networks import zero_biases_
from seqref import RNN

NOISE = 0.5


@dataclass(frozen=True)
class Config:
    """Width, lags and seeds of one run."""

    hidden_size: int = 128
    warm_up: int = 50
    lags: tuple[int, ...] = (1, 10, 100)
    contraction: float = 0.95
    chain_width: int = 64
    depths: tuple[int, ...] = (1, *range(5, 101, 5))
    chain_seeds: tuple[int, ...] = tuple(range(40))
    seeds: tuple[int, ...] = tuple(range(10))


def normal_(layer: RNN, seed: int) -> None:
    """Independent standard normal entries, biases zero."""
    nn.init.normal_(layer.cell.weight_hh, generator=lab.generator(seed))
    zero_biases_(layer.cell)


def scaled_(
    initialise: Initialise, measure: Callable[[Tensor], float], size: float
) -> Initialise:
    """The recurrent matrix scaled until what `measure` says of it is `size`."""

    def scale(layer: RNN, seed: int) -> None:
        initialise(layer, seed)
        layer.cell.weight_hh.mul_(size / measure(layer.cell.weight_hh))

    return scale


orthogonal_, expanding_identity_ = scaled_orthogonal_(), scaled_identity_(1.1)
random_ = scaled_(normal_, spectral_radius, 3.0)
NETWORKS = {
    "default_tanh": Network("default, tanh"),
    "default_linear": Network("default, slopes 1", activation="linear"),
    "default_relu": Network("default, ReLU", activation="relu"),
    "orthogonal_tanh": Network("orthogonal, tanh", orthogonal_),
    "orthogonal_linear": Network("orthogonal, slopes 1", orthogonal_, "linear"),
    "orthogonal_rest": Network("orthogonal, tanh, no input", orthogonal_, "tanh", 0.0),
    "identity_relu": Network("identity, ReLU", scaled_identity_(), "relu"),
    "expanding_relu": Network("1.1 × identity, ReLU", expanding_identity_, "relu"),
    "expanding_tanh": Network("1.1 × identity, tanh", expanding_identity_),
    "random_tanh": Network("random, radius 3, tanh", random_),
    "stretching_linear": Network(
        "1.1 × orthogonal, slopes 1", scaled_orthogonal_(1.1), "linear"
    ),
}


@torch.no_grad()
def follow(network: Network, config: Config, seed: int) -> dict:
    """Of one seed: norms by lag, the bound and what exceeds it, the largest state."""
    width, longest = config.hidden_size, max(config.lags)
    layer = network.build(width, width, seed)
    x = lab.normal(seed + 1000, 1, config.warm_up + longest, width)
    h, weight_hh = layer(network.input_std * x)[0][0], layer.cell.weight_hh
    products = products_by_lag(h, weight_hh, network.activation, config.lags)
    norms = {lag: log10_norm(product) for lag, product in products.items()}
    slope = math.log10(slopes(h[-longest:], network.activation).max().item())
    by_norm = log10_norm(weight_hh) + slope
    by_radius = math.log10(spectral_radius(weight_hh)) + slope
    return {
        "norms": norms,
        "bound": longest * by_norm,
        "excess_norm": max(norms[lag] - lag * by_norm for lag in norms),
        "excess_radius": max(norms[lag] - lag * by_radius for lag in norms),
        "largest_singular_value": norm(weight_hh),
        "largest_state": h.abs().max().item(),
    }


def of_network(network: Network, config: Config) -> dict:
    """Norms by lag, bounds and states of one network over the seeds."""
    seeds = [follow(network, config, seed) for seed in config.seeds]
    by_lag = {lag: [one["norms"][lag] for one in seeds] for lag in config.lags}
    singular_values = (one["largest_singular_value"] for one in seeds)
    return {
        "log10": {f"lag_{lag}": lab.median(norms) for lag, norms in by_lag.items()},
        "log10_highest": max(by_lag[max(config.lags)]),
        "log10_bound": lab.median(one["bound"] for one in seeds),
        "largest_singular_value": lab.median(singular_values),
        **{
            key: max(one[key] for one in seeds)
            for key in ("excess_norm", "excess_radius", "largest_state")
        },
    }


def of_norm(size: float, config: Config) -> dict[str, float]:
    """The largest product over matrices of one norm, with and without input."""
    highest = max(
        of_network(Network("", scaled_(base, norm, size), "tanh", std), config)[
            "log10_highest"
        ]
        for base in (orthogonal_, normal_)
        for std in (0.0, 1.0)
    )
    return {"norm": size, "log10_highest": highest}


@dataclass(frozen=True)
class Chain:
    """Whether all layers share one matrix, its gain, and the activation."""

    label: str
    tied: bool
    gain: float = 1.0
    activation: str = "linear"


# The deviation of an entry is the gain over the root of the width; 1/√3 is that of a
# uniform draw from (-1, 1) over the root of the width.
SMALL_GAIN, LARGE_GAIN = 1 / math.sqrt(3), 1.5
CHAINS = {
    "tied_linear": Chain("one matrix, linear", tied=True),
    "untied_linear": Chain("new matrices, linear", tied=False),
    "tied_tanh": Chain("one matrix, tanh", tied=True, activation="tanh"),
    "untied_tanh": Chain("new matrices, tanh", tied=False, activation="tanh"),
    "tied_small": Chain("one small matrix, linear", True, SMALL_GAIN),
    "untied_small": Chain("new small matrices, linear", False, SMALL_GAIN),
    "tied_large": Chain("one large matrix, linear", True, LARGE_GAIN),
    "untied_large": Chain("new large matrices, linear", False, LARGE_GAIN),
}


def norms_by_depth(
    chain: Chain, width: int, depths: Sequence[int], seed: int
) -> list[float]:
    """Decimal logarithms of the norm of the Jacobian from the start to each depth."""
    random = lab.generator(seed)
    h = torch.zeros(width, dtype=torch.float64)
    product, weight = torch.eye(width, dtype=torch.float64), None
    norms = []
    for depth in range(1, max(depths) + 1):
        if weight is None or not chain.tied:
            weight = chain.gain / math.sqrt(width) * lab.normal(random, width, width)
        h = weight @ h + NOISE * lab.normal(random, width)
        if chain.activation == "tanh":
            h = h.tanh()
        product = step_jacobian(h, weight, chain.activation) @ product
        if depth in depths:
            norms.append(log10_norm(product))
    return norms


def deviation(values: Sequence[float]) -> float:
    """The standard deviation of a sample; zero for a sample of one."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def of_chain(chain: Chain, config: Config) -> dict:
    """Median and deviation over seeds, and a summary at each depth."""
    of_seeds = [
        norms_by_depth(chain, config.chain_width, config.depths, seed)
        for seed in config.chain_seeds
    ]
    by_depth = dict(zip(config.depths, zip(*of_seeds, strict=True), strict=True))
    return {
        "by_depth": [lab.spread(norms) for norms in by_depth.values()],
        "median": {f"lag_{k}": lab.median(by_depth[k]) for k in config.lags},
        "deviation": {f"lag_{k}": deviation(by_depth[k]) for k in config.lags},
    }


def run(config: Config, track: lab.Track) -> dict:
    """Measure the networks, the bound and the chains."""
    networks = track(NETWORKS.items(), "networks")
    cases: dict = {name: of_network(network, config) for name, network in networks}
    for key in ("norm", "radius"):
        excess = max(cases[name][f"excess_{key}"] for name in NETWORKS)
        # Beyond nine decimals it differs between processors.
        cases[f"bound_by_{key}"] = {"largest_excess": round(excess, 9) + 0.0}
    linear, tanh, rest = (
        cases[f"orthogonal_{name}"]["log10"][f"lag_{config.lags[-1]}"]
        for name in ("linear", "tanh", "rest")
    )
    cases["activation_driven"] = {"log10_gap": linear - tanh}
    cases["activation_rest"] = {"log10_gap": linear - rest}
    cases["contracting"] = of_norm(config.contraction, config)
    cases["expanding"] = of_norm(2 - config.contraction, config)
    chains = track(CHAINS.items(), "chains")
    cases |= {name: of_chain(chain, config) for name, chain in chains}
    by_depth = {name: cases[name].pop("by_depth") for name in CHAINS}
    return {
        "numbers": {"chain_draws": len(config.chain_seeds)},
        "series": {"depths": list(config.depths), "chains": by_depth},
        "cases": cases,
    }


LABELS = {name: case.label for name, case in (NETWORKS | CHAINS).items()}
RECTIFIERS = ("default_relu", "identity_relu", "expanding_relu", "expanding_tanh")
DRAWN = ("tied_linear", "untied_linear", "tied_small", "untied_small")
VANISHES = lab.below("log10.lag_100", -10, lab.power)
LAGS = Config().lags
NORMS = {f"lag {lag}": lab.cell(f"log10.lag_{lag}", lab.power_of_ten) for lag in LAGS}


def over_seeds(lag: int) -> lab.Cell:
    """The median of a chain's norm, with the deviation of its logarithm."""
    median = lab.cell(f"median.lag_{lag}", lab.power_of_ten)
    spread = lab.cell(f"deviation.lag_{lag}", lab.number, 2)
    return lambda chain: f"{median(chain)} ({spread(chain)})"


experiment = lab.Experiment(
    small=Config(
        hidden_size=24,
        warm_up=20,
        chain_width=24,
        depths=(1, 10, 50, 100),
        chain_seeds=tuple(range(12)),
        seeds=(0, 1, 2),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C09",
            "No product exceeds the largest singular value of the matrix times the "
            "largest slope, to the power of the lag.",
            lab.below("largest_excess", 1e-6),
            case="bound_by_norm",
            control="bound_by_radius",
        ),
        lab.Claim(
            "C10",
            "With a largest singular value of 0.95 every product of a tanh network is "
            "below a hundredth after 100 steps.",
            lab.below("log10_highest", -2, lab.power),
            case="contracting",
            control="expanding",
        ),
        lab.Claim(
            "C16.spread",
            "Over draws of the matrix the logarithm of the product has a deviation "
            "above 1.5 after 100 factors, if they are all the same matrix.",
            lab.above("deviation.lag_100", 1.5),
            case="tied_linear",
            control="untied_linear",
        ),
        lab.Claim(
            "C16.feedforward",
            "A chain of 100 different matrices of the default size vanishes too.",
            lab.below("median.lag_100", -10, lab.power),
            case="untied_small",
            control="untied_large",
        ),
        lab.Claim(
            "C17.default",
            "A default tanh network keeps less than 10⁻¹⁰ over 100 steps.",
            VANISHES,
            case="default_tanh",
            control="random_tanh",
        ),
        lab.Claim(
            "C17.matrix",
            "So does the default matrix without tanh.",
            VANISHES,
            case="default_linear",
            control="orthogonal_linear",
        ),
        lab.Claim(
            "C18.default",
            "A ReLU network with the default matrix keeps less than 10⁻¹⁰ over 100 "
            "steps.",
            VANISHES,
            case="default_relu",
            control="identity_relu",
        ),
        lab.Claim(
            "C18.identity",
            "With the identity matrix it keeps everything, in some direction.",
            lab.all_of(
                lab.below(lambda case: abs(case["log10"]["lag_100"]), 0.01),
                number="log10.lag_100",
            ),
            case="identity_relu",
            control="default_relu",
        ),
        lab.Claim(
            "C18.forward",
            "With 1.1 times the identity the states of a ReLU network explode.",
            lab.above("largest_state", 100),
            case="expanding_relu",
            control="expanding_tanh",
        ),
        lab.Claim(
            "C21",
            "With one orthogonal matrix the slopes of tanh alone cost more than five "
            "orders of magnitude over 100 steps.",
            lab.above("log10_gap", 5, lab.power),
            case="activation_driven",
            control="activation_rest",
        ),
    ],
    numbers=[
        *(lab.each(f"log10.lag_{k}", f"lag_{k}", lab.power_of_ten) for k in LAGS),
        *(lab.each(f"median.lag_{k}", write=lab.power_of_ten) for k in LAGS),
        *(lab.each(f"deviation.lag_{k}") for k in LAGS),
        lab.each("log10_highest", "highest", lab.power_of_ten),
        lab.each("log10_bound", "bound", lab.power_of_ten),
        {
            "bound_broken_by": lambda cases: lab.power_of_ten(
                cases["bound_by_radius"]["largest_excess"]
            ),
            "default_share_of_matrix": lambda cases: (
                cases["default_linear"]["log10"]["lag_100"]
                / cases["default_tanh"]["log10"]["lag_100"]
            ),
        },
    ],
    tables={
        "bound": lab.Table(
            labels={name: LABELS[name] for name in NETWORKS},
            heading="network",
            columns={
                "largest singular value": "largest_singular_value",
                "bound, lag 100": lab.cell("log10_bound", lab.power_of_ten),
                "norm, lag 100": NORMS["lag 100"],
            },
        ),
        "ablation": lab.Table(
            rows=lambda record: {
                matrix: {
                    slope: record["cases"][f"{matrix}_{slope}"]["log10"]["lag_100"]
                    for slope in ("tanh", "linear")
                }
                for matrix in ("default", "orthogonal")
            },
            columns={
                "matrix": lab.cell("name", str),
                "slopes of tanh": lab.cell("tanh", lab.power_of_ten),
                "slopes of 1": lab.cell("linear", lab.power_of_ten),
            },
        ),
        "relu": lab.Table(
            labels={name: LABELS[name] for name in RECTIFIERS},
            heading="network",
            columns={**NORMS, "largest state": "largest_state"},
        ),
        "chains": lab.Table(
            labels={name: LABELS[name] for name in CHAINS},
            heading="chain",
            columns={f"depth {lag}": over_seeds(lag) for lag in LAGS},
        ),
    },
    figures={
        "chains": lab.Lines(
            x="series.depths",
            y="series.chains",
            labels={name: LABELS[name] for name in DRAWN},
            xlabel="layers, or steps of lag",
            title="Norm of the product of Jacobians",
            start=0,
            ticks=range(-30, 11, 10),
        )
    },
)
