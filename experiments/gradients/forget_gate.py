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

from experiments import lab

TIMES = (10, 100, 1000)


@dataclass(frozen=True)
class Config:
    """Biases and gates to evaluate; sizes and seeds of the measured layers."""

    biases: tuple[float, ...] = (0.0, 1.0, 2.0, 3.0, 5.0, 7.0)
    gates: tuple[float, ...] = (0.9, 0.99, 0.999)
    times: tuple[int, ...] = TIMES
    widths: tuple[int, ...] = (16, 64, 256, 1024)
    batch_size: int = 8
    steps: int = 100
    seeds: tuple[int, ...] = tuple(range(5))


def gate_of(bias: float) -> float:
    r"""$\sigma(b)$: the forget gate when the rest of its pre-activation is zero."""
    return 1 / (1 + math.exp(-bias))


def half_life(gate: float) -> float:
    r"""Steps until half is left: $\ln(1/2) / \ln f$."""
    return math.log(0.5) / math.log(gate)


def bias_for(steps: float) -> float:
    r"""The bias whose constant gate has this half-life: $-\ln(2^{1/n} - 1)$."""
    return -math.log(math.expm1(math.log(2) / steps))


def constant_gate(gate: float, times: tuple[int, ...]) -> dict[str, float]:
    """What a constant gate leaves, and its half-life where it has one: closed form."""
    left = {f"log10_at_{t}": t * math.log10(gate) for t in times}
    halved = {"half_life": half_life(gate)} if gate < 1 else {}
    return {"gate": gate, **left, **halved}


def forget_gates(
    layer: nn.LSTM, x: Float[Tensor, "batch time input"]
) -> Float[Tensor, "batch time hidden"]:
    r"""The forget gates of a batch-first, one-layer `torch.nn.LSTM`, step by step.

    torch does not return them; they follow from the outputs, which are the $h_t$:
    $f_t = \sigma(W_{if} x_t + b_{if} + W_{hf} h_{t-1} + b_{hf})$.
    """
    y, _ = layer(x)
    h_prev = torch.cat([torch.zeros_like(y[:, :1]), y[:, :-1]], dim=1)
    w_if, w_hf, b_if, b_hf = (part.chunk(4)[1] for part in layer.parameters())
    return torch.sigmoid(x @ w_if.T + b_if + (h_prev @ w_hf.T + b_hf))


@torch.no_grad()
def drive(config: Config, width: int, seed: int, bias: float) -> tuple[Tensor, Tensor]:
    """The forget biases' sum and the gates of a layer as it comes, `bias` added."""
    with lab.seeded(seed):
        layer = nn.LSTM(width, width, batch_first=True, dtype=torch.float64)
    size = (config.batch_size, config.steps, width)
    x = torch.randn(size, generator=lab.generator(seed + 1000), dtype=torch.float64)
    b_if, b_hf = (
        layer.get_parameter(f"bias_{part}_l0").chunk(4)[1] for part in ("ih", "hh")
    )
    b_if.add_(bias)
    return b_if + b_hf, forget_gates(layer, x)


def measure_width(config: Config, width: int, bias: float = 0.0) -> dict[str, float]:
    """Extremes and medians over seeds."""
    driven = [drive(config, width, seed, bias) for seed in config.seeds]
    mean_gate = lab.median(gates.mean().item() for _, gates in driven)
    return {
        "hidden_size": width,
        "bias_low": min(total.min().item() for total, _ in driven),
        "bias_high": max(total.max().item() for total, _ in driven),
        "bias_bound": 2 / math.sqrt(width),
        "mean_gate": mean_gate,
        "half_life": half_life(mean_gate),
        "log10_product": lab.median(
            gates.log10().sum(dim=1).median().item() for _, gates in driven
        ),
    }


def run(config: Config, track: lab.Track) -> dict:
    """Evaluate the closed forms and measure the layers of torch.nn."""
    by_bias = [
        {"bias": bias, **constant_gate(gate_of(bias), config.times)}
        for bias in config.biases
    ]
    by_gate = [constant_gate(gate, config.times) for gate in config.gates]
    widths = track(config.widths, "torch.nn.LSTM by width")
    by_width = [measure_width(config, width) for width in widths]
    cases = {
        **{f"bias_{row['bias']:.0f}": row for row in by_bias},
        **{f"gate_{row['gate']:g}".replace(".", "_"): row for row in by_gate},
        **{f"torch_{row['hidden_size']}": row for row in by_width},
        # The constant error carousel of 1997: a self-weight of exactly 1.
        "gate_1": constant_gate(1.0, config.times),
        "torch_64_bias_5": measure_width(config, 64, 5.0),
    }
    series = {"by_bias": by_bias, "by_gate": by_gate, "by_width": by_width}
    return {"series": series, "cases": cases}


def draw_by_bias(figure: Any, record: Mapping[str, Any], theme: lab.Theme) -> None:
    """What a constant gate leaves against the number of steps, by forget bias."""
    axes = figure.subplots()
    steps = [10 ** (i / 50) for i in range(175)]
    for row, colour, dash in zip(
        record["series"]["by_bias"], theme.colours, lab.DASHES, strict=True
    ):
        left = [row["gate"] ** step for step in steps]
        axes.plot(steps, left, color=colour, linestyle=dash)
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


LEFT = {
    "forget gate": lab.cell("gate", lab.number, 4),
    "half-life (steps)": "half_life",
    **{f"left after {t}": lab.cell(f"log10_at_{t}", lab.power_of_ten) for t in TIMES},
}
experiment = lab.Experiment(
    small=Config(widths=(16, 64), batch_size=4, seeds=(0, 1)),
    run=run,
    claims=[
        lab.Claim(
            "C30",
            "A forget gate of 0.99 at every step leaves less than half of a gradient "
            "after 100 steps: along the direct path it does decay multiplicatively.",
            lab.below(lambda case: 10 ** case["log10_at_100"], 0.5),
            case="gate_0_99",
            control="gate_1",
        ),
        lab.Claim(
            "C31",
            "A forget bias of 1 gives a gate below 0.99 and a half-life below 3 steps.",
            lab.all_of(
                lab.below("half_life", 3),
                lab.above(lambda case: 1 - case["gate"], 1 - 0.99),
            ),
            case="bias_1",
            control="bias_5",
        ),
        lab.Claim(
            "C32",
            "In torch.nn.LSTM as it comes the two forget biases sum to less than 2/√D "
            "in size, and the mean forget gate lies between 0.4 and 0.6.",
            lab.all_of(
                lab.exactly(
                    "mean_gate",
                    lambda case: (
                        max(-case["bias_low"], case["bias_high"]) < case["bias_bound"]
                    ),
                ),
                lab.below(lambda case: abs(case["mean_gate"] - 0.5), 0.1),
            ),
            case="torch_64",
            control="torch_64_bias_5",
        ),
    ],
    numbers=[
        *map(lab.each, ("gate", "half_life", "mean_gate", "bias_low", "bias_high")),
        *(
            lab.each(f"log10_at_{t}", f"left_after_{t}", lab.power_of_ten)
            for t in TIMES
        ),
        lab.each("log10_product", "product_of_100", lab.power_of_ten),
        lambda cases: {f"bias_for_half_life_{n}": bias_for(n) for n in TIMES},
    ],
    tables={
        "by_bias": lab.Table(
            rows="series.by_bias",
            columns={"forget bias": lab.cell("bias", lab.number, 1), **LEFT},
        ),
        "by_gate": lab.Table(rows="series.by_gate", columns=LEFT),
        "torch": lab.Table(
            rows="series.by_width",
            columns={
                "hidden size": "hidden_size",
                "b_ih + b_hh, forget part": lambda row: (
                    f"{lab.number(row['bias_low'])} to {lab.number(row['bias_high'])}"
                ),
                "mean forget gate": "mean_gate",
                "half-life at that gate": "half_life",
                "product of 100 gates, median unit": lab.cell(
                    "log10_product", lab.power_of_ten
                ),
            },
        ),
    },
    figures={"by_bias": draw_by_bias},
)
