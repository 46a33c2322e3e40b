r"""Tables and the figure of `gradient_products`."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.gradients._products_chains import CHAINS
from experiments.gradients._products_networks import NETWORKS
from experiments.lab.drawing import (
    DASHES,
    Theme,
    label_ends,
    power_ticks,
)
from experiments.lab.tables import number, power_of_ten, table

ABLATION = (
    ("default", "default_tanh", "default_linear"),
    ("orthogonal", "orthogonal_tanh", "orthogonal_linear"),
)
RECTIFIERS = ("default_relu", "identity_relu", "expanding_relu", "expanding_tanh")
DRAWN = ("tied_linear", "untied_linear", "tied_small", "untied_small")


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Norms against the bound, the ablation, the rectifiers and the chains."""
    cases, config = record["cases"], record["run"]["config"]
    marks = [f"lag_{lag}" for lag in config["lags"]]
    bound = [
        [
            network.label,
            number(cases[name]["largest_singular_value"]),
            power_of_ten(cases[name]["log10_bound"]),
            power_of_ten(cases[name]["log10"][marks[-1]]),
        ]
        for name, network in NETWORKS.items()
    ]
    ablation = [
        [matrix, *[power_of_ten(cases[name]["log10"][marks[-1]]) for name in names]]
        for matrix, *names in ABLATION
    ]
    rectifiers = [
        [
            NETWORKS[name].label,
            *[power_of_ten(cases[name]["log10"][mark]) for mark in marks],
            number(cases[name]["largest_state"]),
        ]
        for name in RECTIFIERS
    ]
    lags = [f"lag {lag}" for lag in config["lags"]]
    depths = [f"depth {lag}" for lag in config["lags"]]
    last = lags[-1]
    return {
        "bound": table(
            ["network", "largest singular value", f"bound, {last}", f"norm, {last}"],
            bound,
        ),
        "ablation": table(["matrix", "slopes of tanh", "slopes of 1"], ablation),
        "relu": table(["network", *lags, "largest state"], rectifiers),
        "chains": table(["chain", *depths], _chain_rows(cases, marks)),
    }


def _chain_rows(cases: Mapping[str, Any], marks: Sequence[str]) -> list[list[str]]:
    """Median of the norm at each depth, and the deviation of its logarithm."""
    return [
        [
            chain.label,
            *[
                f"{power_of_ten(cases[name]['median'][mark])} "
                f"({number(cases[name]['deviation'][mark], 2)})"
                for mark in marks
            ],
        ]
        for name, chain in CHAINS.items()
    ]


def draw_chains(figure: Any, record: Mapping[str, Any], theme: Theme) -> None:
    """Norm of the product against the depth, one matrix or many, over seeds."""
    axes = figure.subplots()
    depths = record["series"]["depths"]
    labels = []
    for i, name in enumerate(DRAWN):
        points = record["series"]["chains"][name]
        colour = theme.colours[i]
        low, high = ([p[key] for p in points] for key in ("low", "high"))
        axes.fill_between(depths, low, high, color=colour, alpha=0.2, linewidth=0)
        middle = [p["median"] for p in points]
        axes.plot(depths, middle, color=colour, linestyle=DASHES[i])
        labels.append((middle[-1], CHAINS[name].label, colour))
    power_ticks(axes, range(-30, 11, 10))
    axes.set_xlim(0, depths[-1])
    axes.set_xlabel("layers, or steps of lag")
    axes.set_title("Norm of the product of Jacobians")
    label_ends(axes, depths[-1], labels)
