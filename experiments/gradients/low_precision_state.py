r"""What bfloat16 and float16 do to the cell state of an LSTM over 1,000 steps.

The measure is the relative error of $c_t$ against float64, with the same parameters
and inputs, all of them exact in bfloat16: what differs is the arithmetic alone. The
forget gates are set by their biases to a half-life, $f = 2^{-1/\tau}$, and the input
gates by the opposite biases, so that the state keeps its size.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from experiments.lab.claim import Claim, Outcome
from experiments.lab.drawing import DASHES, Theme, label_ends
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.seeding import generator, seeded
from experiments.lab.statistics import spread
from experiments.lab.tables import number, table
from seqref import LSTM


@dataclass(frozen=True)
class Config:
    """Sizes, half-lives (0: gates as initialised) and seeds of one run."""

    hidden_size: int
    input_size: int
    batch: int
    steps: int
    half_lives: tuple[int, ...]
    seeds: tuple[int, ...]


SMALL = Config(16, 8, batch=2, steps=1000, half_lives=(0, 1000), seeds=(0, 1))
FULL = Config(
    hidden_size=64,
    input_size=32,
    batch=4,
    steps=1000,
    half_lives=(0, 10, 30, 100, 300, 1000),
    seeds=tuple(range(5)),
)
# Steps at which the error is kept; the claims compare the second with the last.
MARKS = (1, 10, 30, 100, 300, 1000)


class Precision(NamedTuple):
    """The dtype of each part of one step."""

    products: torch.dtype
    gates: torch.dtype
    forget: torch.dtype
    state: torch.dtype


_F64, _F32, _F16, _BF16 = torch.float64, torch.float32, torch.float16, torch.bfloat16
EXACT = Precision(_F64, _F64, _F64, _F64)
VARIANTS = {
    "float32": Precision(_F32, _F32, _F32, _F32),
    "float16": Precision(_F16, _F16, _F16, _F16),
    "bfloat16": Precision(_BF16, _BF16, _BF16, _BF16),
    "autocast": Precision(_BF16, _BF16, _BF16, _F32),
    "forget_float32": Precision(_BF16, _BF16, _F32, _F32),
}
LABELS = {
    "float32": "float32",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "autocast": "autocast",
    "forget_float32": "autocast, f in float32",
}


def step(
    x_t: Float[Tensor, "batch input"],
    h_prev: Float[Tensor, "batch hidden"],
    c_prev: Float[Tensor, "batch hidden"],
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    precision: Precision,
) -> tuple[Tensor, Tensor]:
    """One step of an LSTM, each part in its own dtype."""
    low = precision.products
    weight_ih, weight_hh, bias_ih, bias_hh = (weight.to(low) for weight in weights)
    z = F.linear(x_t.to(low), weight_ih, bias_ih)
    z = z + F.linear(h_prev.to(low), weight_hh, bias_hh)
    i_pre, f_pre, g_pre, o_pre = z.chunk(4, dim=1)
    i_t, o_t = (gate.to(precision.gates).sigmoid() for gate in (i_pre, o_pre))
    g_t = g_pre.to(precision.gates).tanh()
    f_t = f_pre.to(precision.forget).sigmoid()
    c_t = f_t * c_prev + i_t * g_t
    h_t = o_t * torch.tanh(c_t)
    return h_t.to(precision.state), c_t.to(precision.state)


def gate_of(half_life: float) -> float:
    r"""The constant forget gate that halves a state in so many steps."""
    return 2 ** (-1 / half_life)


def build(config: Config, seed: int, half_life: int) -> LSTM:
    """A float64 layer whose parameters bfloat16 holds exactly."""
    with seeded(seed):
        layer = LSTM(config.input_size, config.hidden_size, dtype=torch.float64)
    width = config.hidden_size
    with torch.no_grad():
        if half_life:
            gate = gate_of(half_life)
            bias = math.log(gate / (1 - gate))
            layer.cell.bias_ih[:width] = -bias  # pyright: ignore[reportOptionalSubscript]
            layer.cell.bias_ih[width : 2 * width] = bias  # pyright: ignore[reportOptionalSubscript]
            layer.cell.bias_hh[: 2 * width] = 0  # pyright: ignore[reportOptionalSubscript]
        for parameter in layer.parameters():
            parameter.copy_(parameter.to(torch.bfloat16))
    return layer


def inputs(config: Config, seed: int) -> Float[Tensor, "batch time input"]:
    """Standard normal inputs, rounded to bfloat16, as float64."""
    size = (config.batch, config.steps, config.input_size)
    x = torch.randn(size, generator=generator(seed + 1000), dtype=torch.float64)
    return x.to(torch.bfloat16).double()


def follow(
    layer: LSTM, x: Float[Tensor, "batch time input"], precision: Precision
) -> list[Tensor]:
    """The cell states at the marks, in float64."""
    h_t = c_t = x.new_zeros(x.shape[0], layer.hidden_size).to(precision.state)
    weights: Any = layer.cell.weights
    kept = []
    with torch.no_grad():
        for t, x_t in enumerate(x.unbind(1), start=1):
            h_t, c_t = step(x_t, h_t, c_t, weights, precision)
            if t in MARKS:
                kept.append(c_t.double())
    return kept


def relative_error(found: Tensor, truth: Tensor) -> float:
    """Norm of the difference over the norm of the truth."""
    return round(((found - truth).norm() / truth.norm()).item(), 9)


def compare(config: Config, seed: int, half_life: int) -> dict[str, list[float]]:
    """The error of each variant at the marks, and of the whole call at the end."""
    layer, x = build(config, seed, half_life), inputs(config, seed)
    truth = follow(layer, x, EXACT)
    found = {
        name: [
            relative_error(*pair)
            for pair in zip(follow(layer, x, precision), truth, strict=True)
        ]
        for name, precision in VARIANTS.items()
    }
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        _, state = layer.float()(x.float())
    found["whole"] = [relative_error(state.c.double(), truth[-1])]
    return found


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Compare the variants for every half-life and seed."""
    by_half_life = {}
    for half_life in track(config.half_lives, "low_precision_state"):
        runs = [compare(config, seed, half_life) for seed in config.seeds]
        by_half_life[str(half_life)] = {
            name: [
                spread(values) for values in zip(*(r[name] for r in runs), strict=True)
            ]
            for name in runs[0]
        }
    longest = str(max(config.half_lives))
    cases = {
        f"{name}_{length}": _case(by_half_life[half_life][name])
        for length, half_life in (("default", "0"), ("long", longest))
        for name in VARIANTS
    }
    numbers = {
        f"{name}_{half_life}": found[name][-1]["median"]
        for half_life, found in by_half_life.items()
        for name in found
    }
    numbers["longest"] = int(longest)
    return {"numbers": numbers, "series": by_half_life, "cases": cases}


def _case(points: list[dict[str, float]]) -> dict[str, float]:
    ends = {"at_10": points[1]["low"], "at_10_high": points[1]["high"]}
    return {**ends, "final": points[-1]["low"], "final_high": points[-1]["high"]}


def _builds_up(case: Mapping[str, Any]) -> Outcome:
    found = case["final"] / case["at_10_high"]
    return Outcome.above(found, 10)


def _is_lost(case: Mapping[str, Any]) -> Outcome:
    found = case["final"]
    return Outcome.above(found, 0.1)


CLAIMS = (
    Claim(
        "C115",
        "With parameters and state in bfloat16 and forget gates near 1, the error of "
        "the cell state grows more than tenfold between step 10 and the last.",
        _builds_up,
        case="bfloat16_long",
        control="bfloat16_default",
    ),
    Claim(
        "C116",
        "Under autocast to bfloat16, with the state in float32 and forget gates near "
        "1, the cell state ends more than a tenth off.",
        _is_lost,
        case="autocast_long",
        control="forget_float32_long",
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """The error after the last step by half-life."""
    columns = {**LABELS, "whole": "autocast, whole call"}
    rows = []
    for half_life, found in record["series"].items():
        label = "as initialised" if half_life == "0" else number(int(half_life))
        rows.append([label, *[number(found[k][-1]["median"], 2) for k in columns]])
    return {"final": table(["half-life (steps)", *columns.values()], rows)}


def draw_by_step(figure: Any, record: Mapping[str, Any], theme: Theme) -> None:
    """The error against the step, for the longest half-life."""
    axes = figure.subplots()
    found = record["series"][str(record["numbers"]["longest"])]
    labels = []
    for i, (name, label) in enumerate(LABELS.items()):
        middle = [math.log10(max(p["median"], 1e-9)) for p in found[name]]
        colour = theme.colours[i]
        axes.plot(MARKS, middle, color=colour, linestyle=DASHES[i], marker="o")
        labels.append((middle[-1], label, colour))
    axes.set_xscale("log")
    axes.set_xticks(MARKS, [number(mark) for mark in MARKS])
    axes.set_yticks([-8, -6, -4, -2, 0], ["10⁻⁸", "10⁻⁶", "10⁻⁴", "0.01", "1"])
    axes.set_xlim(1, MARKS[-1])
    axes.set_xlabel("steps")
    longest = number(record["numbers"]["longest"])
    axes.set_title(f"Relative error of the cell state, half-life {longest} steps")
    label_ends(axes, MARKS[-1], labels)


FIGURES = {"by_step": draw_by_step}
experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
    figures=FIGURES,
)
