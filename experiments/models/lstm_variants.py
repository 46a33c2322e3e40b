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
from torch import Tensor, nn

from experiments import lab
from seqref import LSTM, LayerNormLSTM, LSTMState
from seqref.recurrent import gradient_norm_by_lag

KINDS = {"plain": LSTM, "layer_norm": LayerNormLSTM}
LABELS = {"plain": "plain", "layer_norm": "layer norm"}
# Kind of layer, and whether each input has a constant 1 beside it.
SERIES = {
    "layer_norm_series": ("layer_norm", False),
    "layer_norm_series_with_1": ("layer_norm", True),
    "plain_series": ("plain", False),
}
MARKS = (10, 50, 100)
# A forget bias whose sigmoid is 1 in float64.
OPEN = 40.0


@dataclass(frozen=True)
class Config:
    """Sizes, scales and seeds of one run."""

    width: int = 64
    narrow_width: int = 16
    lags: int = 100
    warm_up: int = 50
    scales: tuple[float, ...] = (1.0, 4.0, 16.0)
    carried_steps: int = 50
    series_steps: int = 10
    series_width: int = 16
    batch_size: int = 64
    updates: int = 200
    learning_rate: float = 0.01
    series_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    seeds: tuple[int, ...] = tuple(range(10))


@torch.no_grad()
def scaled(kind: str, width: int, scale: float, seed: int) -> LSTM | LayerNormLSTM:
    """A layer at initialisation, its two matrices multiplied by `scale`."""
    with lab.seeded(seed):
        layer = KINDS[kind](width, width, dtype=torch.float64)
    layer.cell.weight_ih.mul_(scale)
    layer.cell.weight_hh.mul_(scale)
    return layer


@torch.no_grad()
def by_lag(config: Config, kind: str, scale: float) -> list[dict[str, float]]:
    """What is kept of a gradient at each lag: decimal logarithms over the seeds."""
    kept = []
    for seed in config.seeds:
        layer = scaled(kind, config.width, scale, seed)
        random = lab.generator(seed + 1000)
        shape = (1, config.warm_up + config.lags, config.width)
        x = torch.randn(shape, generator=random, dtype=torch.float64)
        h_bar = torch.randn(1, config.width, generator=random, dtype=torch.float64)
        bar = LSTMState(h_bar, torch.zeros_like(h_bar))
        _, start = layer(x[:, : config.warm_up])
        norms = gradient_norm_by_lag(layer, x[:, config.warm_up :], bar, start)[0]
        kept.append((norms / norms[0]).tolist())
    return lab.log10_summaries(kept)


def lag_case(curves: list[list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """What is kept by default weights, and how far the scales lie apart."""
    kept = {
        f"lag_{mark}": [curve[mark]["median"] for curve in curves] for mark in MARKS
    }
    return {
        "at_default": {lag: medians[0] for lag, medians in kept.items()},
        "span_over_scales": {
            lag: max(medians) - min(medians) for lag, medians in kept.items()
        },
    }


def batch(
    config: Config, size: int, constant: bool, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Series of numbers from 0 to 1; the target is their mean, standardized."""
    x = torch.rand(size, config.series_steps, 1, generator=random)
    target = (x.mean(1) - 0.5) * math.sqrt(12 * config.series_steps)
    return (torch.cat([x, torch.ones_like(x)], 2) if constant else x), target


def explained(config: Config, name: str, seed: int) -> float:
    """Share of the variance of the means that a trained network explains."""
    kind, constant = SERIES[name]
    random = lab.generator(seed)
    with lab.seeded(seed):
        layer = KINDS[kind](2 if constant else 1, config.series_width)
        head = nn.Linear(config.series_width, 1)
    optimizer = torch.optim.Adam(
        [*layer.parameters(), *head.parameters()], lr=config.learning_rate
    )

    def squared_error(x: Tensor, target: Tensor) -> Tensor:
        return (head(layer(x)[0][:, -1]) - target).square().mean()

    for _ in range(config.updates):
        x, target = batch(config, config.batch_size, constant, random)
        lab.descend(optimizer, squared_error(x, target))
    x, target = batch(config, 1000, constant, random)
    with torch.no_grad():
        return 1 - (squared_error(x, target) / target.var(correction=0)).item()


@torch.no_grad()
def open_layer(width: int, seed: int) -> LayerNormLSTM:
    """Forget gates open; the other gates and the candidate read the input alone."""
    with lab.seeded(seed):
        layer = LayerNormLSTM(width, width, dtype=torch.float64)
    layer.cell.norm_ih.bias[width : 2 * width] = OPEN
    layer.cell.norm_hh.weight.zero_()
    return layer


def final_cell_state(
    layer: LayerNormLSTM, x: Tensor, c_0: Tensor, normed: bool
) -> Tensor:
    """The cell state after all steps; `normed` carries the output of its norm."""
    state = layer.initial_state(1)._replace(c=c_0[None])
    for x_t in x:
        _, state = layer.step(x_t[None], state)
        if normed:
            state = state._replace(c=layer.cell.norm_c(state.c))
    return state.c[0]


def jacobian_norm(width: int, steps: int, normed: bool, seed: int) -> float:
    r"""Spectral norm of $\mathrm{d} c_T / \mathrm{d} c_0$ on random inputs."""
    layer, random = open_layer(width, seed), lab.generator(seed + 1000)
    x = torch.randn(steps, width, generator=random, dtype=torch.float64)
    c_0 = torch.randn(width, generator=random, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(
        lambda c: final_cell_state(layer, x, c, normed), c_0
    )
    return torch.linalg.matrix_norm(jacobian, 2).item()


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Measure all three."""
    curves = {
        kind: [by_lag(config, kind, scale) for scale in config.scales]
        for kind in track(KINDS, "gradients by lag")
    }
    narrow = by_lag(replace(config, width=config.narrow_width), "layer_norm", 1.0)
    cases: dict[str, Any] = {kind: lag_case(curves[kind]) for kind in KINDS}
    for name in track(SERIES, "series of width 1"):
        shares = (explained(config, name, seed) for seed in config.series_seeds)
        cases[name] = {"explained": lab.spread(shares)}
    for name, normed in (("carried_normed", True), ("carried_raw", False)):
        norms = (
            jacobian_norm(config.width, config.carried_steps, normed, seed)
            for seed in config.seeds
        )
        cases[name] = {"jacobian": lab.spread(norms)}
    series = {"scales": list(config.scales), "by_lag": curves, "narrow": narrow}
    widths = {"layer_norm": curves["layer_norm"][0], "narrow": narrow}
    numbers = {
        f"{name}_{key}_100": lab.power_of_ten(value)
        for name, curve in widths.items()
        for key, value in curve[100].items()
    }
    return {"numbers": numbers, "series": series, "cases": cases}


def by_label(record: Mapping[str, Any], sign: str = "×") -> dict[str, list]:
    """The gradients by lag of each kind of LSTM and scale of its weights."""
    series = record["series"]
    return {
        f"{LABELS[kind]}, {sign} {scale:g}": curve
        for kind, curves in series["by_lag"].items()
        for scale, curve in zip(series["scales"], curves, strict=True)
    }


def lag_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same and that of the narrow layer, as rows of a table."""
    width = record["run"]["config"]["narrow_width"]
    curves = by_label(record, "weights ×")
    curves[f"layer norm, weights × 1, width {width}"] = record["series"]["narrow"]
    return [{"label": label, "at": curve} for label, curve in curves.items()]


experiment = lab.Experiment(
    small=Config(
        width=32,
        narrow_width=8,
        warm_up=20,
        series_steps=5,
        series_width=8,
        batch_size=32,
        updates=120,
        learning_rate=0.02,
        series_seeds=(0,),
        seeds=(0, 1, 2),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C138.scale",
            "What an LSTM with layer norm keeps of a gradient over 50 steps differs by "
            "less than 1.5 powers of ten between its weights and 4 and 16 times these.",
            lab.below("span_over_scales.lag_50", 1.5, lab.power),
            case="layer_norm",
            control="plain",
        ),
        lab.Claim(
            "C138.reach",
            "At initialisation an LSTM with layer norm keeps more than 10⁻⁵ of a "
            "gradient over 100 steps; a plain one does not.",
            lab.above("at_default.lag_100", -5, lab.power),
            case="layer_norm",
            control="plain",
        ),
        lab.Claim(
            "C139",
            "An LSTM with layer norm explains less than a fifth of the variance of the "
            "mean of a positive series of width 1; with a constant 1 beside it, more.",
            lab.below("explained.high", 0.2, lab.share),
            case="layer_norm_series",
            control="layer_norm_series_with_1",
        ),
        lab.Claim(
            "C140",
            "Where the normalized cell state is carried, less than 0.3 of a change is "
            "left after 50 steps under open forget gates; where it is carried as it "
            "is, all.",
            lab.below("jacobian.high", 0.3),
            case="carried_normed",
            control="carried_raw",
        ),
    ],
    numbers=[
        *(lab.each(f"at_default.lag_{m}", f"at_{m}", lab.power_of_ten) for m in MARKS),
        *(lab.each(f"span_over_scales.lag_{m}", f"span_{m}") for m in MARKS),
        lab.each("explained.median", "explained"),
        lab.each("explained.high", "highest"),
        lab.each("jacobian.median", ""),
    ],
    tables={
        "lags": lab.Table(
            rows=lag_rows,
            columns={
                "LSTM": lab.cell("label", str),
                **{
                    f"lag {m}": lab.cell(f"at.{m}.median", lab.power_of_ten)
                    for m in MARKS
                },
                "lag 100, lowest to highest": lambda row: " to ".join(
                    lab.power_of_ten(row["at"][100][key]) for key in ("low", "high")
                ),
            },
        ),
        "series": lab.Table(
            labels={
                "layer_norm_series": "layer norm",
                "layer_norm_series_with_1": "layer norm, a constant 1 beside the input",
                "plain_series": "plain",
            },
            heading="LSTM",
            columns=lab.spread_columns("explained"),
        ),
        "carried": lab.Table(
            labels={"carried_raw": "as it is", "carried_normed": "normalized"},
            heading="cell state carried",
            columns=lab.spread_columns("jacobian"),
        ),
    },
    figures={
        "by_lag": lab.Lines(
            x=lambda record: range(record["run"]["config"]["lags"] + 1),
            y=by_label,
            xlabel="lag (steps)",
            title="What is left of a gradient, by scale of the weights",
            draw=lab.line,
            ticks=range(-25, 1, 5),
        )
    },
)
