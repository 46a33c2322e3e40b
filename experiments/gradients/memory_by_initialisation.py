r"""How far a gradient reaches back in layers before training, by initialisation.

A random gradient $\bar h_T$ arrives at the last output of an untrained layer, which has
read standard normal inputs. Two things are measured of its way back, both over the norm
of $\bar h_T$: the norm of the gradient by the state $k$ steps earlier, and that of the
gradient by the input $k$ steps earlier. Beside them stands what the biases of the gates
alone would leave between 1 and $k$ steps back: the root mean square of $f^{k-1}$ over
the units, $f$ being $\sigma$ of a gate's bias.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from experiments import lab
from seqref import GRU, LSTM, RNN
from seqref.recurrent import (
    chrono_,
    forget_bias_,
    gradient_norm_by_lag,
    identity_,
    orthogonal_,
)

MARKS = (1, 10, 20, 50, 100, 500, 1000)
# Below this float64 has no more digits to lose, and a logarithm needs a number.
FLOOR = 1e-300
# The least power of ten in the figures.
BOTTOM = -4
# Lags that tables and figures name.
BACK = {lag: f"{lag:,} step{'s' * (lag > 1)} back" for lag in (1, 10, 100, 1000)}


@dataclass(frozen=True)
class Case:
    """A class of layers and what is done to a new one."""

    label: str
    layer: Callable[..., Any]
    initialise: Callable[..., Any] = lambda layer: None

    def build(self, input_size: int, hidden_size: int, seed: int) -> Any:
        """The layer, its parameters drawn from `seed`."""
        with lab.seeded(seed):
            layer = self.layer(input_size, hidden_size, dtype=torch.float64)
            self.initialise(layer)
        return layer


chrono_200_, chrono_1000_ = (partial(chrono_, horizon=k) for k in (200, 1000))
relu = partial(RNN, nonlinearity="relu")
CASES = {
    "rnn_default": Case("RNN tanh, default", RNN),
    "rnn_orthogonal": Case("RNN tanh, orthogonal", RNN, orthogonal_),
    "rnn_identity": Case("RNN ReLU, identity", relu, identity_),
    "lstm_default": Case("LSTM, default", LSTM),
    "lstm_orthogonal": Case("LSTM, orthogonal", LSTM, orthogonal_),
    "lstm_bias_1": Case("LSTM, forget bias 1", LSTM, forget_bias_),
    "lstm_bias_5": Case("LSTM, forget bias 5", LSTM, partial(forget_bias_, value=5.0)),
    "lstm_chrono_200": Case("LSTM, chrono 200", LSTM, chrono_200_),
    "lstm_chrono_1000": Case("LSTM, chrono 1,000", LSTM, chrono_1000_),
    "gru_default": Case("GRU, default", GRU),
    "gru_orthogonal": Case("GRU, orthogonal", GRU, orthogonal_),
    "gru_chrono_200": Case("GRU, chrono 200", GRU, chrono_200_),
    "gru_chrono_1000": Case("GRU, chrono 1,000", GRU, chrono_1000_),
}
LABELS = {name: case.label for name, case in CASES.items()}
GATES = {"gate_0_99": 0.99, "gate_0_995": 0.995, "gate_0_999": 0.999}


@dataclass(frozen=True)
class Config:
    """Which layers, their sizes, the lags to record and the seeds."""

    cases: tuple[str, ...] = tuple(CASES)
    input_size: int = 16
    hidden_size: int = 64
    batch_size: int = 4
    warm_up: int = 200
    lags: tuple[int, ...] = (
        *(1, 2, 3, 5, 7, 10, 14, 20, 30, 50, 70),
        *(100, 140, 200, 300, 500, 700, 1000),
    )
    seeds: tuple[int, ...] = tuple(range(16))


def gates_of_biases(layer: Any) -> Float[Tensor, " hidden"] | None:
    r"""$\sigma$ of the bias of the gate that keeps, in each unit; None without one."""
    if isinstance(layer, RNN):
        return None
    total = (layer.cell.bias_ih + layer.cell.bias_hh).detach()
    # f of an LSTM's i, f, g, o and z of a GRU's r, z, n: the second of both.
    return total.chunk(layer.cell.n_blocks)[1].sigmoid()


def measure_layer(layer: Any, config: Config, seed: int) -> dict[str, Any]:
    """One layer on one batch of inputs drawn from `seed`: medians over its rows."""
    lags, random = list(config.lags), lab.generator(seed)
    size = (config.batch_size, config.warm_up + max(lags), layer.input_size)
    x = lab.normal(random, *size).requires_grad_()
    _, state = layer(x)
    bar = lab.normal(random, *state.h.shape)
    (x_bar,) = torch.autograd.grad((state.h * bar).sum(), x)
    state_bar = type(state)(*map(torch.zeros_like, state))._replace(h=bar)
    norms = gradient_norm_by_lag(layer, x.detach(), state_bar)
    states = (norms / norms[:, :1]).median(dim=0).values
    # Entry k belongs to the input k steps before the last.
    inputs = (x_bar.norm(dim=2).flip(1) / norms[:, :1]).median(dim=0).values
    below = (states[: max(lags) + 1] < 0.01).nonzero()
    by_lag = {"state": states[lags].tolist(), "input": inputs[lags].tolist()}
    gates, saturation = gates_of_biases(layer), {}
    if gates is not None:
        powers = [gates.pow(2 * (lag - 1)) for lag in lags]
        by_lag["biases"] = [power.mean().sqrt().item() for power in powers]
    if isinstance(layer, LSTM):
        saturation["slope"] = (1 - state.c.tanh() ** 2).mean().item()
        saturation["cell"] = state.c.abs().mean().item()
    return {
        "by_lag": by_lag,
        "one_percent": float(below[0]) if len(below) else max(lags) + 1.0,
        "saturation": saturation,
    }


def log10_of_small(column: Iterable[float]) -> dict[str, float]:
    """`lab.log10_summary`, of what is too small to have a logarithm too."""
    return lab.log10_summary(max(value, FLOOR) for value in column)


def measure(case: Case | float, config: Config) -> dict[str, Any]:
    """Medians and extremes over seeds; of a constant gate what it leaves."""
    lags = list(config.lags)
    if not isinstance(case, Case):
        left = [round(lag * math.log10(case), 9) for lag in lags]
        return {"gate": case, "lags": lags, "state": {"median": left}}
    sizes = (config.input_size, config.hidden_size)
    seeds = [
        measure_layer(case.build(*sizes, seed), config, seed + 1000)
        for seed in config.seeds
    ]
    by_lag = lab.by_place([one["by_lag"] for one in seeds], log10_of_small)
    return {
        "lags": lags,
        **{
            part: {key: [point[key] for point in points] for key in points[0]}
            for part, points in by_lag.items()
        },
        "one_percent": lab.spread(one["one_percent"] for one in seeds),
        **{
            part: round(lab.median(one["saturation"][part] for one in seeds), 6)
            for part in seeds[0]["saturation"]
        },
    }


def at(case: Mapping[str, Any], part: str, lag: int) -> float:
    """The median of a decimal logarithm at a lag."""
    return case[part]["median"][case["lags"].index(lag)]


def after_the_first(case: Mapping[str, Any], lag: int) -> float:
    """What is left between 1 and so many steps back, as a decimal logarithm."""
    return at(case, "state", lag) - at(case, "state", 1)


def measured_over_predicted(case: Mapping[str, Any]) -> float:
    """What is left between 1 and 1,000 steps back, over what the biases predict."""
    return 10 ** (after_the_first(case, 1000) - at(case, "biases", 1000))


def text_of(logarithm: float) -> str:
    """A power of ten, or that it is too small to matter."""
    return "below 10⁻⁹⁹" if logarithm < -99 else lab.power_of_ten(logarithm)


def one_percent_text(case: Mapping[str, Any]) -> str:
    """The lag at which 1 % is left, with its range over seeds: 7 (6 to 8)."""
    longest = max(case["lags"])
    median, low, high = (
        f"over {longest:,}" if lag > longest else f"{round(lag):,}"
        for lag in map(case["one_percent"].get, ("median", "low", "high"))
    )
    return median if low == high else f"{median} ({low} to {high})"


def texts(cases: Mapping[str, Any]) -> dict[str, Any]:
    """What is left of a layer's gradients, and of a state behind a constant gate."""
    by_lag = {
        f"{name}_{part}_{lag}": text_of(at(case, part, lag))
        for name, case in cases.items()
        for part in ("state", "input")
        for lag in MARKS
        if part in case and lag in case["lags"]
    }
    reached = {
        f"{name}_one_percent": one_percent_text(case)
        for name, case in cases.items()
        if "one_percent" in case
    }
    return by_lag | reached


def left(part: str, lag: int) -> lab.Cell:
    """What is left so many steps back."""
    return lambda case: text_of(at(case, part, lag))


def beside(lag: int) -> lab.Cell:
    """What is measured between 1 and so many steps back, and what the biases say."""
    return lambda case: (
        f"{text_of(after_the_first(case, lag))}, {text_of(at(case, 'biases', lag))}"
    )


def having(part: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """The cases of a record of which something was measured."""
    return lambda record: {n: c for n, c in record["cases"].items() if part in c}


def points(columns: Mapping[str, list[float]]) -> list[dict[str, float]]:
    """A dictionary for each place of lists that are as long as one another."""
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def draw(figure: Any, record: Mapping[str, Any], theme: lab.Theme, kinds: str) -> None:
    """What is left of a gradient against the lag, both on logarithmic scales."""
    axes, lags = figure.subplots(), record["run"]["config"]["lags"]
    # Six lines can be told apart; that of gru_orthogonal lies close to the default's.
    names = [n for n in CASES if n.split("_")[0] in kinds and n != "gru_orthogonal"]
    states = {
        LABELS[name].replace("forget ", ""): record["cases"][name]["state"]
        for name in names
        if name in record["cases"]
    }
    ends = lab.lines(axes, lags, {n: points(c) for n, c in states.items()}, theme)
    inside = [end for end in ends if end[0] > BOTTOM]
    outside = {
        end[1]: line
        for line, end in zip(axes.lines, ends, strict=True)
        if end not in inside
    }
    axes.set_xscale("log")
    axes.set_xticks(list(BACK), [f"{lag:,}" for lag in BACK])
    axes.set_xlim(1, max(lags))
    axes.set_ylim(BOTTOM, 1)
    lab.power_ticks(axes, range(BOTTOM, 2))
    lab.label_ends(axes, lags[-1], inside)
    # A line that leaves the frame is named in the legend.
    style = {"frameon": False, "labelcolor": theme.ink, "handlelength": 3}
    place = {"loc": "lower right", "bbox_to_anchor": (0.97, 0.0)}
    axes.legend(outside.values(), outside, **place, **style)
    axes.set_xlabel("steps back")
    axes.set_title("Gradient by the state, over that by the last output")


of_layers = partial(lab.Table, labels=LABELS, heading="layer")
experiment = lab.Experiment(
    small=Config(
        cases=("rnn_default", "lstm_default", "lstm_bias_5", "lstm_chrono_1000"),
        input_size=8,
        hidden_size=32,
        batch_size=2,
        warm_up=50,
        lags=(1, 10, 20, 100, 500, 1000),
        seeds=(0,),
    ),
    cases=lambda config: {name: CASES[name] for name in config.cases} | GATES,
    measure=measure,
    claims=[
        lab.Claim(
            "C34",
            "A forget gate of 0.99 at every step leaves less than 1 % of a cell state "
            "after 500 steps.",
            lab.below(lambda case: 10 ** at(case, "state", 500), 0.01),
            case="gate_0_99",
            control="gate_0_999",
        ),
        lab.Claim(
            "C34.default",
            "In an LSTM with torch's default law less than 1 % of a gradient is left "
            "after 20 steps.",
            lab.below(lambda case: 10 ** at(case, "state", 20), 0.01),
            case="lstm_default",
            control="lstm_chrono_1000",
        ),
        lab.Claim(
            "C34.chrono",
            "In an LSTM with chrono biases of horizon 1,000 more than 1 % of a "
            "gradient is left after 1,000 steps.",
            lab.above(lambda case: 10 ** at(case, "state", 1000), 0.01),
            case="lstm_chrono_1000",
            control="lstm_default",
        ),
        lab.Claim(
            "C34.biases",
            "Between 1 and 1,000 steps back, an LSTM with chrono biases of horizon "
            "1,000 leaves of a gradient what the biases alone predict, within a factor "
            "of 2.",
            lab.between(
                lambda case: (
                    10 ** (after_the_first(case, 1000) - at(case, "biases", 1000))
                ),
                0.5,
                2,
            ),
            case="lstm_chrono_1000",
            control="lstm_bias_5",
        ),
    ],
    numbers=[texts, lab.each("slope")],
    tables={
        "state": of_layers(
            columns={
                **{header: left("state", lag) for lag, header in BACK.items()},
                "below 1 % at": one_percent_text,
            },
        ),
        "input": of_layers(
            columns={header: left("input", lag) for lag, header in BACK.items()}
        ),
        "biases": of_layers(
            columns={f"{lag:,} steps": beside(lag) for lag in (10, 100, 1000)},
            rows=having("biases"),
        ),
        "saturation": of_layers(
            columns={
                "mean size of c": lab.cell("cell", lab.number, 2),
                "mean slope": lab.cell("slope", lab.number, 2),
            },
            rows=having("slope"),
        ),
        "gates": lab.Table(
            columns={
                "gate": lab.cell("gate", "{:g}".format),
                **{
                    f"left after {lag:,}": left("state", lag)
                    for lag in (10, 100, 500, 1000)
                },
            },
            rows=having("gate"),
        ),
    },
    figures={
        "lstm": partial(draw, kinds="lstm"),
        "others": partial(draw, kinds="rnn gru"),
    },
)
