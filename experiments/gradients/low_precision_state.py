r"""What bfloat16 and float16 do to the cell state of an LSTM over 1,000 steps.

The measure is the relative error of $c_t$ against float64, with the same parameters
and inputs, all of them exact in bfloat16: what differs is the arithmetic alone. The
forget gates are set by their biases to a half-life, $f = 2^{-1/\tau}$, and the input
gates by the opposite biases, so that the state keeps its size.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from experiments import lab
from seqref import LSTM, LSTMState


@dataclass(frozen=True)
class Config:
    """Sizes, half-lives (0: gates as initialised) and seeds of one run."""

    hidden_size: int = 64
    input_size: int = 32
    batch: int = 4
    steps: int = 1000
    half_lives: tuple[int, ...] = (0, 10, 30, 100, 300, 1000)
    seeds: tuple[int, ...] = tuple(range(5))


# Steps at which the error is kept; the claims compare the second with the last.
MARKS = (1, 10, 30, 100, 300, 1000)


class Precision(NamedTuple):
    """The dtype of each part of one step; the other gates have that of the products."""

    products: torch.dtype
    forget: torch.dtype
    state: torch.dtype


F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
EXACT = Precision(F64, F64, F64)
VARIANTS = {
    "float32": Precision(F32, F32, F32),
    "float16": Precision(F16, F16, F16),
    "bfloat16": Precision(BF16, BF16, BF16),
    "autocast": Precision(BF16, BF16, F32),
    "forget_float32": Precision(BF16, F32, F32),
}
LABELS = {name: name for name in VARIANTS}
LABELS["forget_float32"] = "autocast, f in float32"
COLUMNS = {**LABELS, "whole": "autocast, whole call"}


def step(
    x_t: Float[Tensor, "batch input"],
    state: LSTMState,
    weights: Sequence[Tensor],
    precision: Precision,
) -> LSTMState:
    """One step of an LSTM, each part in its own dtype."""
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    pre = F.linear(x_t, weight_ih, bias_ih)
    pre = pre + F.linear(state.h.to(precision.products), weight_hh, bias_hh)
    i_pre, f_pre, g_pre, o_pre = pre.chunk(4, dim=1)
    f_t = f_pre.to(precision.forget).sigmoid()
    c_t = f_t * state.c + i_pre.sigmoid() * g_pre.tanh()
    h_t = o_pre.sigmoid() * c_t.tanh()
    return LSTMState(h_t.to(precision.state), c_t.to(precision.state))


@torch.no_grad()
def build(config: Config, seed: int, half_life: int) -> LSTM:
    """A float64 layer whose parameters bfloat16 holds exactly."""
    with lab.seeded(seed):
        layer = LSTM(config.input_size, config.hidden_size, dtype=F64)
    if half_life:
        gate = 2 ** (-1 / half_life)
        bias = math.log(gate / (1 - gate))
        i_bias, f_bias = layer.cell.get_parameter("bias_ih").chunk(4)[:2]
        i_bias.fill_(-bias)
        f_bias.fill_(bias)
        layer.cell.get_parameter("bias_hh").chunk(2)[0].zero_()
    for parameter in layer.parameters():
        parameter.copy_(parameter.to(BF16))
    return layer


def inputs(config: Config, seed: int) -> Float[Tensor, "batch time input"]:
    """Standard normal inputs, rounded to bfloat16, as float64."""
    size = (config.batch, config.steps, config.input_size)
    x = torch.randn(size, generator=lab.generator(seed + 1000), dtype=F64)
    return x.to(BF16).double()


@torch.no_grad()
def follow(
    layer: LSTM, x: Float[Tensor, "batch time input"], precision: Precision
) -> list[Tensor]:
    """The cell states at the marks, in float64."""
    zeros = x.new_zeros(len(x), layer.hidden_size, dtype=precision.state)
    state, kept = LSTMState(zeros, zeros), []
    weights = [weight.to(precision.products) for weight in layer.parameters()]
    for t, x_t in enumerate(x.to(precision.products).unbind(1), start=1):
        state = step(x_t, state, weights, precision)
        if t in MARKS:
            kept.append(state.c.double())
    return kept


def errors(kept: Sequence[Tensor], truth: Sequence[Tensor]) -> list[float]:
    """Norms of the differences over those of the truth."""
    pairs = zip(kept, truth, strict=True)
    return [round(((c - true).norm() / true.norm()).item(), 9) for c, true in pairs]


def compare(config: Config, seed: int, half_life: int) -> dict[str, list[float]]:
    """The error of each variant at the marks, and of the whole call at the end."""
    layer, x = build(config, seed, half_life), inputs(config, seed)
    truth = follow(layer, x, EXACT)
    by_variant = {
        name: errors(follow(layer, x, precision), truth)
        for name, precision in VARIANTS.items()
    }
    with torch.no_grad(), torch.autocast("cpu", BF16):
        _, state = layer.float()(x.float())
    return {**by_variant, "whole": errors([state.c.double()], truth[-1:])}


def run(config: Config, track: lab.Track) -> dict:
    """Compare the variants for every half-life and seed."""
    series = {}
    for half_life in track(config.half_lives, "half-lives"):
        compared = [compare(config, seed, half_life) for seed in config.seeds]
        series[str(half_life)] = {
            name: [*map(lab.spread, zip(*(one[name] for one in compared), strict=True))]
            for name in compared[0]
        }
    longest = max(config.half_lives)
    numbers = {
        f"{name}_{half_life}": points[-1]["median"]
        for half_life, by_variant in series.items()
        for name, points in by_variant.items()
    }
    cases = {}
    for length, half_life in (("default", 0), ("long", longest)):
        for name in VARIANTS:
            points = series[str(half_life)][name]
            at_10, final = points[1], points[-1]
            cases[f"{name}_{length}"] = {
                "at_10": at_10["low"],
                "at_10_high": at_10["high"],
                "final": final["low"],
                "final_high": final["high"],
            }
    return {"numbers": numbers | {"longest": longest}, "series": series, "cases": cases}


def half_life_text(half_life: str) -> str:
    """A half-life in the table."""
    return "as initialised" if half_life == "0" else lab.number(int(half_life))


def draw_by_step(figure: Any, record: Mapping[str, Any], theme: lab.Theme) -> None:
    """The error against the step, for the longest half-life."""
    axes, longest = figure.subplots(), record["numbers"]["longest"]
    ends = []
    for i, (name, label) in enumerate(LABELS.items()):
        points, colour = record["series"][str(longest)][name], theme.colours[i]
        middle = [math.log10(max(point["median"], 1e-9)) for point in points]
        axes.plot(MARKS, middle, color=colour, linestyle=lab.DASHES[i], marker="o")
        ends.append((middle[-1], label, colour))
    axes.set_xscale("log")
    axes.set_xticks(MARKS, map(lab.number, MARKS))
    axes.set_yticks([-8, -6, -4, -2, 0], ["10⁻⁸", "10⁻⁶", "10⁻⁴", "0.01", "1"])
    axes.set_xlim(1, MARKS[-1])
    axes.set_xlabel("steps")
    title = "Relative error of the cell state, half-life"
    axes.set_title(f"{title} {lab.number(longest)} steps")
    lab.label_ends(axes, MARKS[-1], ends)


experiment = lab.Experiment(
    small=Config(16, 8, batch=2, half_lives=(0, 1000), seeds=(0, 1)),
    run=run,
    claims=[
        lab.Claim(
            "C115",
            "With parameters and state in bfloat16 and forget gates near 1, the error "
            "of the cell state grows more than tenfold between step 10 and the last.",
            lab.above(lambda case: case["final"] / case["at_10_high"], 10),
            case="bfloat16_long",
            control="bfloat16_default",
        ),
        lab.Claim(
            "C116",
            "Under autocast to bfloat16, with the state in float32 and forget gates "
            "near 1, the cell state ends more than a tenth off.",
            lab.above("final", 0.1),
            case="autocast_long",
            control="forget_float32_long",
        ),
    ],
    tables={
        "final": lab.Table(
            rows="series",
            columns={
                "half-life (steps)": lab.cell("name", half_life_text),
                **{
                    label: lab.cell(f"{name}.-1.median", lab.number, 2)
                    for name, label in COLUMNS.items()
                },
            },
        )
    },
    figures={"by_step": draw_by_step},
)
