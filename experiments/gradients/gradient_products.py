r"""Products of Jacobians: against their bound, by activation, and by tying of weights.

Each network is measured at initialisation: the largest singular value of
$J_T J_{T-1} \cdots J_{T-\text{lag}+1}$, and for the same steps the bound
$(\gamma\, \sigma(W_{hh}))^{\text{lag}}$ with $\gamma$ the largest slope that occurred.
Networks "with slopes 1" are the same with the slopes of the activation replaced by 1.
The chains multiply a hundred random matrices, one and the same or a new one each time.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.gradients._products_chains import CHAINS, norms_by_depth
from experiments.gradients._products_networks import (
    NETWORKS,
    Network,
    measure,
    of_norm_,
)
from experiments.gradients._products_pictures import (
    draw_chains,
    tables,
)
from experiments.lab.claim import Claim, Outcome, power
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.statistics import median, spread
from experiments.lab.tables import power_of_ten


@dataclass(frozen=True)
class Config:
    """Width, lags and seeds of one run."""

    hidden_size: int
    warm_up: int
    lags: tuple[int, ...]
    contraction: float
    chain_width: int
    depths: tuple[int, ...]
    chain_seeds: tuple[int, ...]
    seeds: tuple[int, ...]


SMALL = Config(
    hidden_size=24,
    warm_up=20,
    lags=(1, 10, 100),
    contraction=0.95,
    chain_width=24,
    depths=(1, 10, 50, 100),
    chain_seeds=tuple(range(12)),
    seeds=(0, 1, 2),
)
FULL = Config(
    hidden_size=128,
    warm_up=50,
    lags=(1, 10, 100),
    contraction=0.95,
    chain_width=64,
    depths=(1, *range(5, 101, 5)),
    chain_seeds=tuple(range(40)),
    seeds=tuple(range(10)),
)


def of_network(network: Network, config: Config) -> dict[str, Any]:
    """Norms by lag, bounds and states of one network: medians over seeds."""
    found = [
        measure(network, config.hidden_size, config.lags, config.warm_up, seed)
        for seed in config.seeds
    ]
    last = len(config.lags) - 1
    norms = [median(f["norms"][i] for f in found) for i in range(len(config.lags))]
    return {
        "log10": {f"lag_{k}": v for k, v in zip(config.lags, norms, strict=True)},
        "log10_highest": max(f["norms"][last] for f in found),
        "log10_bound": median(f["bound"][last] for f in found),
        "largest_singular_value": median(f["singular"][0] for f in found),
        "largest_state": max(f["largest_state"][0] for f in found),
        "excess_norm": max(max(f["excess_norm"]) for f in found),
        "excess_radius": max(max(f["excess_radius"]) for f in found),
    }


def of_chain(name: str, config: Config) -> dict[str, Any]:
    """Median and deviation over seeds, and a summary at each depth."""
    chain = CHAINS[name]
    found = [
        norms_by_depth(chain, config.chain_width, config.depths, seed)
        for seed in config.chain_seeds
    ]
    by_depth = dict(zip(config.depths, zip(*found, strict=True), strict=True))
    return {
        "series": [spread(values) for values in by_depth.values()],
        "median": {f"lag_{k}": median(by_depth[k]) for k in config.lags},
        "deviation": {f"lag_{k}": statistics.stdev(by_depth[k]) for k in config.lags},
    }


def of_norm(norm: float, config: Config) -> dict[str, float]:
    """The largest product over matrices of one norm, with and without input."""
    highest = [
        of_network(
            Network("", of_norm_(norm, orthogonal=orthogonal), "tanh", std), config
        )["log10_highest"]
        for orthogonal in (True, False)
        for std in (0.0, 1.0)
    ]
    return {"norm": norm, "log10_highest": max(highest)}


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Measure the networks, the bound and the chains."""
    networks = track(NETWORKS.items(), "networks")
    cases: dict[str, Any] = {name: of_network(n, config) for name, n in networks}
    for key in ("norm", "radius"):
        excess = [cases[name][f"excess_{key}"] for name in NETWORKS]
        # Beyond nine decimals it differs between processors.
        cases[f"bound_by_{key}"] = {"largest_excess": round(max(excess), 9) + 0.0}
    cases["contracting"] = of_norm(config.contraction, config)
    cases["expanding"] = of_norm(2 - config.contraction, config)
    for case, with_slopes, without in (
        ("activation_driven", "orthogonal_tanh", "orthogonal_linear"),
        ("activation_rest", "orthogonal_rest", "orthogonal_linear"),
    ):
        last = f"lag_{config.lags[-1]}"
        gap = cases[without]["log10"][last] - cases[with_slopes]["log10"][last]
        cases[case] = {"log10_gap": gap}
    series: dict[str, Any] = {"depths": list(config.depths), "chains": {}}
    for name in track(CHAINS, "chains"):
        found = of_chain(name, config)
        series["chains"][name] = found.pop("series")
        cases[name] = found
    numbers = {**summary(cases), "chain_draws": len(config.chain_seeds)}
    return {"numbers": numbers, "series": series, "cases": cases}


def summary(cases: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars and ready-made text for sentences."""
    found: dict[str, Any] = {}
    for name, case in cases.items():
        for key, value in case.get("log10", {}).items():
            found[f"{name}_{key}"] = power_of_ten(value)
        for part in ("median", "deviation"):
            for key, value in case.get(part, {}).items():
                as_text = power_of_ten(value) if part == "median" else value
                found[f"{name}_{part}_{key}"] = as_text
        for key in ("log10_highest", "log10_bound"):
            if key in case:
                found[f"{name}_{key.removeprefix('log10_')}"] = power_of_ten(case[key])
    found["bound_broken_by"] = power_of_ten(cases["bound_by_radius"]["largest_excess"])
    tanh = cases["default_tanh"]["log10"]["lag_100"]
    linear = cases["default_linear"]["log10"]["lag_100"]
    found["default_share_of_matrix"] = linear / tanh
    return found


def _within(case: Mapping[str, Any]) -> Outcome:
    found = case["largest_excess"]
    return Outcome.below(found, 1e-6)


def _all_shrink(case: Mapping[str, Any]) -> Outcome:
    found = case["log10_highest"]
    return Outcome.below(found, -2, power)


def _spreads(case: Mapping[str, Any]) -> Outcome:
    found = case["deviation"]["lag_100"]
    return Outcome.above(found, 1.5)


def _chain_vanishes(case: Mapping[str, Any]) -> Outcome:
    found = case["median"]["lag_100"]
    return Outcome.below(found, -10, power)


def _vanishes(case: Mapping[str, Any]) -> Outcome:
    found = case["log10"]["lag_100"]
    return Outcome.below(found, -10, power)


def _keeps(case: Mapping[str, Any]) -> Outcome:
    found = case["log10"]["lag_100"]
    return Outcome.all_of(found, Outcome.below(abs(found), 0.01))


def _state_explodes(case: Mapping[str, Any]) -> Outcome:
    found = case["largest_state"]
    return Outcome.above(found, 100)


def _activation_matters(case: Mapping[str, Any]) -> Outcome:
    found = case["log10_gap"]
    return Outcome.above(found, 5, power)


CLAIMS = (
    Claim(
        "C09",
        "No product exceeds the largest singular value of the matrix times the largest "
        "slope, to the power of the lag.",
        _within,
        case="bound_by_norm",
        control="bound_by_radius",
    ),
    Claim(
        "C10",
        "With a largest singular value of 0.95 every product of a tanh network is "
        "below a hundredth after 100 steps.",
        _all_shrink,
        case="contracting",
        control="expanding",
    ),
    Claim(
        "C16.spread",
        "Over draws of the matrix the logarithm of the product has a deviation above "
        "1.5 after 100 factors, if they are all the same matrix.",
        _spreads,
        case="tied_linear",
        control="untied_linear",
    ),
    Claim(
        "C16.feedforward",
        "A chain of 100 different matrices of the default size vanishes too.",
        _chain_vanishes,
        case="untied_small",
        control="untied_large",
    ),
    Claim(
        "C17.default",
        "A default tanh network keeps less than 10⁻¹⁰ over 100 steps.",
        _vanishes,
        case="default_tanh",
        control="random_tanh",
    ),
    Claim(
        "C17.matrix",
        "So does the default matrix without tanh.",
        _vanishes,
        case="default_linear",
        control="orthogonal_linear",
    ),
    Claim(
        "C18.default",
        "A ReLU network with the default matrix keeps less than 10⁻¹⁰ over 100 steps.",
        _vanishes,
        case="default_relu",
        control="identity_relu",
    ),
    Claim(
        "C18.identity",
        "With the identity matrix it keeps everything, in some direction.",
        _keeps,
        case="identity_relu",
        control="default_relu",
    ),
    Claim(
        "C18.forward",
        "With 1.1 times the identity the states of a ReLU network explode.",
        _state_explodes,
        case="expanding_relu",
        control="expanding_tanh",
    ),
    Claim(
        "C21",
        "With one orthogonal matrix the slopes of tanh alone cost more than five "
        "orders of magnitude over 100 steps.",
        _activation_matters,
        case="activation_driven",
        control="activation_rest",
    ),
)
FIGURES = {"chains": draw_chains}
experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
    figures=FIGURES,
)
