r"""How long an LSTM's cell state lasts, by forget bias, and what torch.nn sets.

Along the direct path a cell state is multiplied by $f_t$ at each step. With a constant
gate $f = \sigma(b)$ there remains $f^T$ after $T$ steps, half of it after
$\ln(1/2) / \ln f$ steps. The first part of this module evaluates that closed form. The
second builds `torch.nn.LSTM` layers as they come, drives them with standard normal
inputs, and measures the biases, the gates and the product of the gates.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from experiments.lab.claim import Claim, Outcome
from experiments.lab.drawing import DASHES, Theme
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.seeding import generator, seeded
from experiments.lab.statistics import median
from experiments.lab.tables import number, power_of_ten, table


@dataclass(frozen=True)
class Config:
    """Biases and gates to evaluate; sizes and seeds of the measured layers."""

    biases: tuple[float, ...]
    gates: tuple[float, ...]
    times: tuple[int, ...]
    widths: tuple[int, ...]
    batch_size: int
    steps: int
    seeds: tuple[int, ...]


SMALL = Config(
    biases=(0.0, 1.0, 2.0, 3.0, 5.0, 7.0),
    gates=(0.9, 0.99, 0.999),
    times=(10, 100, 1000),
    widths=(16, 64),
    batch_size=4,
    steps=100,
    seeds=(0, 1),
)
FULL = Config(
    biases=(0.0, 1.0, 2.0, 3.0, 5.0, 7.0),
    gates=(0.9, 0.99, 0.999),
    times=(10, 100, 1000),
    widths=(16, 64, 256, 1024),
    batch_size=8,
    steps=100,
    seeds=tuple(range(5)),
)
NEAR_ONE = 0.99


def gate_of(bias: float) -> float:
    r"""$\sigma(b)$: the forget gate when the rest of its pre-activation is zero."""
    return 1 / (1 + math.exp(-bias))


def half_life(gate: int | float) -> float:
    r"""Steps until half is left: $\ln(1/2) / \ln f$.

    Raises:
        ValueError: `gate` is not between 0 and 1.
    """
    if not 0 < gate < 1:
        raise ValueError(f"half_life: `gate` must be between 0 and 1, got {gate}")
    return math.log(0.5) / math.log(gate)


def bias_for(steps: int | float) -> float:
    r"""The bias whose constant gate has this half-life: $-\ln(2^{1/n} - 1)$."""
    if steps <= 0:
        raise ValueError(f"bias_for: `steps` must be positive, got {steps}")
    return -math.log(math.expm1(math.log(2) / steps))


def forget_gates(
    layer: nn.LSTM, x: Float[Tensor, "batch time input"]
) -> Float[Tensor, "batch time hidden"]:
    r"""The forget gates of a batch-first, one-layer `torch.nn.LSTM`, step by step.

    torch does not return them; they follow from the outputs, which are the $h_t$:
    $f_t = \sigma(W_{if} x_t + b_{if} + W_{hf} h_{t-1} + b_{hf})$.
    """
    y, _ = layer(x)
    h_prev = torch.cat([torch.zeros_like(y[:, :1]), y[:, :-1]], dim=1)
    rows = slice(layer.hidden_size, 2 * layer.hidden_size)
    part = {name: p[rows] for name, p in layer.named_parameters()}
    from_input = x @ part["weight_ih_l0"].T + part["bias_ih_l0"]
    from_state = h_prev @ part["weight_hh_l0"].T + part["bias_hh_l0"]
    return torch.sigmoid(from_input + from_state)


def measure_layer(config: Config, width: int, seed: int, bias: float) -> dict:
    """One `torch.nn.LSTM` as it comes, `bias` added to its forget bias."""
    with seeded(seed):
        layer = nn.LSTM(width, width, batch_first=True, dtype=torch.float64)
    rows = slice(width, 2 * width)
    size = (config.batch_size, config.steps, width)
    x = torch.randn(size, generator=generator(seed + 1000), dtype=torch.float64)
    with torch.no_grad():
        parameters = dict(layer.named_parameters())
        parameters["bias_ih_l0"][rows].add_(bias)
        total = parameters["bias_ih_l0"][rows] + parameters["bias_hh_l0"][rows]
        gates = forget_gates(layer, x)
    kept = gates.log10().sum(dim=1)
    return {
        "bias_low": total.min().item(),
        "bias_high": total.max().item(),
        "mean_gate": gates.mean().item(),
        "log10_product": kept.median().item(),
    }


def measure_width(config: Config, width: int, bias: float) -> dict[str, Any]:
    """Extremes and medians over seeds."""
    found = [measure_layer(config, width, seed, bias) for seed in config.seeds]
    gate = median(f["mean_gate"] for f in found)
    return {
        "hidden_size": width,
        "bias_low": min(f["bias_low"] for f in found),
        "bias_high": max(f["bias_high"] for f in found),
        "bias_bound": 2 / math.sqrt(width),
        "mean_gate": gate,
        "half_life": half_life(gate),
        "log10_product": median(f["log10_product"] for f in found),
    }


def constant_gate(gate: float, times: tuple[int, ...]) -> dict[str, float]:
    """What a constant gate leaves: closed form."""
    remaining = {f"log10_at_{t}": t * math.log10(gate) for t in times}
    return {"gate": gate, **remaining}


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Evaluate the closed forms and measure the layers of torch.nn."""
    by_bias = [
        {
            "bias": bias,
            "half_life": half_life(gate_of(bias)),
            **constant_gate(gate_of(bias), config.times),
        }
        for bias in config.biases
    ]
    by_gate = [
        {"half_life": half_life(gate), **constant_gate(gate, config.times)}
        for gate in config.gates
    ]
    widths = track(config.widths, "torch.nn.LSTM by width")
    by_width = [measure_width(config, width, 0.0) for width in widths]
    cases: dict[str, Any] = {f"bias_{row['bias']:.0f}": row for row in by_bias} | {
        f"gate_{row['gate']:g}".replace(".", "_"): row for row in by_gate
    }
    # The constant error carousel of 1997: a self-weight of exactly 1.
    cases["gate_1"] = constant_gate(1.0, config.times)
    for row in by_width:
        cases[f"torch_{row['hidden_size']}"] = row
    cases["torch_64_bias_5"] = measure_width(config, 64, 5.0)
    series = {"by_bias": by_bias, "by_gate": by_gate, "by_width": by_width}
    return {"numbers": summary(cases), "series": series, "cases": cases}


def summary(cases: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars and ready-made text for sentences."""
    found: dict[str, Any] = {}
    for name, case in cases.items():
        for key in ("gate", "half_life", "mean_gate", "bias_low", "bias_high"):
            if key in case:
                found[f"{name}_{key}"] = case[key]
        for key, value in case.items():
            if key.startswith("log10_at_"):
                label = key.removeprefix("log10_at_")
                found[f"{name}_left_after_{label}"] = power_of_ten(value)
        if "log10_product" in case:
            found[f"{name}_product_of_100"] = power_of_ten(case["log10_product"])
    for steps in (10, 100, 1000):
        found[f"bias_for_half_life_{steps}"] = bias_for(steps)
    return found


def _decays(case: Mapping[str, Any]) -> Outcome:
    found = 10 ** case["log10_at_100"]
    return Outcome.below(found, 0.5)


def _short(case: Mapping[str, Any]) -> Outcome:
    found = case["half_life"]
    return Outcome.all_of(
        found, Outcome.below(found, 3), Outcome.above(1 - case["gate"], 1 - NEAR_ONE)
    )


def _half_open(case: Mapping[str, Any]) -> Outcome:
    found = case["mean_gate"]
    bound = case["bias_bound"]
    within = -bound < case["bias_low"] <= case["bias_high"] < bound
    by_law = Outcome.exactly(found, holds=within)
    return Outcome.all_of(found, by_law, Outcome.below(abs(found - 0.5), 0.1))


CLAIMS = (
    Claim(
        "C30",
        "A forget gate of 0.99 at every step leaves less than half of a gradient after "
        "100 steps: along the direct path it does decay multiplicatively.",
        _decays,
        case="gate_0_99",
        control="gate_1",
    ),
    Claim(
        "C31",
        "A forget bias of 1 gives a gate below 0.99 and a half-life below 3 steps.",
        _short,
        case="bias_1",
        control="bias_5",
    ),
    Claim(
        "C32",
        "In torch.nn.LSTM as it comes the two forget biases sum to less than 2/√D in "
        "size, and the mean forget gate lies between 0.4 and 0.6.",
        _half_open,
        case="torch_64",
        control="torch_64_bias_5",
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Gate, half-life and what is left by bias and by gate; torch.nn by width."""
    times = record["run"]["config"]["times"]
    headers = ["forget gate", "half-life (steps)", *[f"left after {t}" for t in times]]

    def cells(row: Mapping[str, Any]) -> list[str]:
        left = [power_of_ten(row[f"log10_at_{t}"]) for t in times]
        return [number(row["gate"], 4), number(row["half_life"]), *left]

    series = record["series"]
    widths = [
        [
            number(row["hidden_size"]),
            f"{number(row['bias_low'])} to {number(row['bias_high'])}",
            number(row["mean_gate"]),
            number(row["half_life"]),
            power_of_ten(row["log10_product"]),
        ]
        for row in series["by_width"]
    ]
    return {
        "by_bias": table(
            ["forget bias", *headers],
            [[number(row["bias"], 1), *cells(row)] for row in series["by_bias"]],
        ),
        "by_gate": table(headers, [cells(row) for row in series["by_gate"]]),
        "torch": table(
            [
                "hidden size",
                "b_ih + b_hh, forget part",
                "mean forget gate",
                "half-life at that gate",
                "product of 100 gates, median unit",
            ],
            widths,
        ),
    }


def draw_by_bias(figure: Any, record: Mapping[str, Any], theme: Theme) -> None:
    """What a constant gate leaves against the number of steps, by forget bias."""
    axes = figure.subplots()
    steps = [10 ** (i / 50) for i in range(175)]
    for i, row in enumerate(record["series"]["by_bias"]):
        left = [row["gate"] ** step for step in steps]
        colour = theme.colours[i]
        axes.plot(steps, left, color=colour, linestyle=DASHES[i])
        # Each name stands where its own curve passes one half.
        axes.annotate(
            f"b = {row['bias']:g}",
            (row["half_life"], 0.5),
            xytext=(5, 4),
            textcoords="offset points",
            color=colour,
        )
    axes.set_xscale("log")
    axes.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
    axes.set_xlim(1, steps[-1])
    axes.set_ylim(0, 1)
    axes.set_xlabel("steps")
    axes.set_title("What is left of a cell state, forget gate σ(b) at every step")


FIGURES = {"by_bias": draw_by_bias}
experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
    figures=FIGURES,
)
