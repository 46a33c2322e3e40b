r"""The cell state of 1997 on an endless stream, and what its learning rule drops.

The cell of 1997 adds to its state and never takes a share of it away. Here it runs on
one long stream of noise, without resets, with weights as initialised: how large is the
state after so many steps, and how much of it does the output still show? Beside it run
the remedies: a negative bias of the input gates, resets at marked ends, and the forget
gate, with all other weights the same. Two more measurements: the angle between the
truncated gradient of 1997 and the whole one, and trained cells on a stream a hundred
times as long as what they were trained on, as they are and with the cell state held
within the range that it had over the trained length.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments import lab
from experiments.models._continual_latch import trained
from seqref import LSTM, LSTM1997, CoupledGateLSTM

TRAINED = {
    "whole": "1997, whole gradient",
    "truncated": "1997, truncated",
    "lstm": "LSTM",
}


@dataclass(frozen=True)
class Config:
    """Sizes, steps at which to look, biases, lengths for the gradients, training."""

    hidden_size: int = 32
    input_size: int = 32
    batch_size: int = 8
    marks: tuple[int, ...] = (*(m * 10**k for k in range(4) for m in (1, 2, 5)), 10_000)
    reset_every: int = 100
    input_gate_bias: float = -4.0
    forget_bias: float = 5.0
    gradient_steps: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100)
    train_width: int = 8
    train_batch: int = 32
    train_steps: int = 60
    train_updates: int = 400
    test_steps: int = 6000
    train_seeds: tuple[int, ...] = (0, 1, 2)
    seeds: tuple[int, ...] = tuple(range(5))


@torch.no_grad()
def lstm_1997(
    config: Config, seed: int, input_gate_bias: float = 0.0, gradient: str = "whole"
) -> LSTM1997:
    """The layer as it comes; a negative bias is the paper's remedy for drift."""
    sizes = (config.input_size, config.hidden_size)
    with lab.seeded(seed):
        layer = LSTM1997(*sizes, gradient=gradient, dtype=torch.float64)
    layer.cell.get_parameter("bias_ih")[: config.hidden_size] += input_gate_bias
    return layer


@torch.no_grad()
def with_forget_gate(config: Config, seed: int, bias: float) -> LSTM:
    r"""The layer of 1997 with a forget gate, as an `LSTM`.

    With $c = 2 c'$ the cell of 1997 is $h_t = o_t \odot \tanh c'_t$ and
    $c'_t = c'_{t-1} + i_t \odot \tanh(a / 2)$, $a$ the candidate's pre-activation. So
    halving the candidate's weights makes an LSTM of it, with $f_t = 1$ and state $c'$.
    Here $f_t$ gets weights of its own, drawn as in a new `LSTM`, and `bias` on top.
    """
    with lab.seeded(seed + 500):
        layer = LSTM(config.input_size, config.hidden_size, dtype=torch.float64)
    layer.cell.get_parameter("bias_ih").chunk(4)[1].add_(bias)
    old = lstm_1997(config, seed).cell
    for name, parameter in layer.cell.named_parameters():
        i, g, o = old.get_parameter(name).chunk(3)
        forget = parameter.chunk(4)[1]
        parameter.copy_(torch.cat([i, forget, g / 2, o]))
    return layer


def coupled(config: Config, seed: int) -> CoupledGateLSTM:
    """Coupled gates as they come: weights of their own, other squashing functions."""
    sizes = (config.input_size, config.hidden_size)
    with lab.seeded(seed):
        return CoupledGateLSTM(*sizes, dtype=torch.float64)


@dataclass(frozen=True)
class Case:
    r"""A layer that shows $\tanh(\text{slope} \cdot c)$ before its output gate.

    Its cell state times `scale` is comparable with that of the others.
    """

    label: str
    build: Callable[[Config, int], LSTM1997 | LSTM | CoupledGateLSTM] = lstm_1997
    scale: float = 1.0
    slope: float = 0.5
    resets: bool = False


CASES = {
    "lstm_1997": Case("1997"),
    "shut_gates": Case(
        "1997, input gates biased shut",
        lambda config, seed: lstm_1997(config, seed, config.input_gate_bias),
    ),
    "resets": Case("1997, reset at marked ends", resets=True),
    "forget_open": Case(
        "forget gate near 1",
        lambda config, seed: with_forget_gate(config, seed, config.forget_bias),
        scale=2.0,
        slope=1.0,
    ),
    "forget": Case(
        "forget gate near 1/2",
        lambda config, seed: with_forget_gate(config, seed, 0.0),
        scale=2.0,
        slope=1.0,
    ),
    "coupled": Case("coupled gates", coupled, slope=1.0),
}


@torch.no_grad()
def states(case: Case, config: Config, seed: int) -> list[Tensor]:
    """Cell states at the marks, on a stream of standard normal numbers."""
    layer, random = case.build(config, seed), lab.generator(seed + 1000)
    state, done, at_marks = layer.initial_state(config.batch_size), 0, []
    ends = set(config.marks)
    if case.resets:
        ends |= set(range(config.reset_every, config.marks[-1], config.reset_every))
    for end in sorted(ends):
        size = (config.batch_size, end - done, config.input_size)
        x = torch.randn(size, generator=random, dtype=torch.float64)
        _, state = layer(x, state)
        done = end
        if end in config.marks:
            at_marks.append(state.c)
        if case.resets and end % config.reset_every == 0:
            state = layer.initial_state(config.batch_size)
    return at_marks


def growth(case: Case, config: Config) -> dict[str, list]:
    """Size of the state and share of saturated units at each mark, over the seeds."""
    sizes, saturated = [], []
    for seed in config.seeds:
        at_marks = states(case, config, seed)
        sizes.append([(case.scale * c).pow(2).mean().sqrt().item() for c in at_marks])
        shown = [torch.tanh(case.slope * c).abs() for c in at_marks]
        saturated.append([(y > 0.99).double().mean().item() for y in shown])
    return {
        "log10_size": lab.log10_summaries(sizes),
        "saturated": [lab.median(at) for at in zip(*saturated, strict=True)],
    }


def weight_gradient(config: Config, steps: int, seed: int, rule: str) -> Tensor:
    """That of a random linear loss by all weights, as one vector."""
    layer = lstm_1997(config, seed, gradient=rule)
    random, size = lab.generator(seed + 3000), (config.batch_size, steps)
    x = torch.randn(*size, config.input_size, generator=random, dtype=torch.float64)
    y, _ = layer(x)
    y_bar = torch.randn(y.shape, generator=random, dtype=torch.float64)
    parts = torch.autograd.grad(y, tuple(layer.parameters()), y_bar)
    return torch.cat([part.flatten() for part in parts])


def cosine(config: Config, steps: int, seed: int) -> float:
    """Between the truncated and the whole gradient."""
    rules = ("truncated", "whole")
    both = (weight_gradient(config, steps, seed, rule) for rule in rules)
    return torch.cosine_similarity(*both, dim=0).item()


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Grow the states, compare the gradients, train and test."""
    by_case, angles, learned, cases = {}, [], {}, {}
    last, before = config.marks[-1], config.marks.index(config.marks[-1] // 10)
    for name, case in track(CASES.items(), "cell state on a stream"):
        by_case[name] = growth(case, config)
        sizes = by_case[name]["log10_size"]
        cases[name] = {
            "steps": last,
            "log10_growth": sizes[-1]["median"] - sizes[before]["median"],
            "log10_largest": sizes[-1]["high"],
            "saturated": by_case[name]["saturated"][-1],
        }
    for steps in track(config.gradient_steps, "angle of the gradients"):
        values = lab.spread(cosine(config, steps, seed) for seed in config.seeds)
        angles.append({key: round(value, 9) for key, value in values.items()})
        cases[f"gradient_{steps}"] = {"steps": steps, "cosine": angles[-1]["median"]}
    for kind in track(TRAINED, "training"):
        runs = [trained(config, kind, seed) for seed in config.train_seeds]
        learned[kind] = {key: lab.spread(r[key] for r in runs) for key in runs[0]}
    series = {"by_case": by_case, "angles": angles, "learned": learned}
    return {"numbers": numbers(config, series), "series": series, "cases": cases}


def numbers(config: Config, series: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars for sentences."""
    scalars: dict[str, Any] = {}
    for name, case in series["by_case"].items():
        for mark in {100, 1000, 10_000}.intersection(config.marks):
            at = config.marks.index(mark)
            scalars[f"{name}_size_{mark}"] = 10 ** case["log10_size"][at]["median"]
            scalars[f"{name}_saturated_{mark}"] = case["saturated"][at]
    for steps, angle in zip(config.gradient_steps, series["angles"], strict=True):
        scalars[f"cosine_{steps}"] = angle["median"]
    for kind, case in series["learned"].items():
        for key in ("first", "last", "held"):
            scalars[f"{kind}_{key}_lowest"] = case[key]["low"]
        scalars[f"{kind}_largest"] = case["largest"]["median"]
    return scalars


def powers_of_ten(record: Mapping[str, Any]) -> dict[int, int]:
    """Those among the marks, and their places."""
    marks = record["run"]["config"]["marks"]
    return {m: i for i, m in enumerate(marks) if m in (1, 10, 100, 1000, 10_000)}


def size_table(record: Mapping[str, Any]) -> lab.Table:
    """Size of the cell state by step, and saturation."""
    return lab.Table(
        rows="series.by_case",
        labels={name: case.label for name, case in CASES.items()},
        heading="cell",
        columns={
            **{
                f"step {mark:,}": lab.cell(
                    f"log10_size.{at}.median", lambda log10: lab.number(10**log10)
                )
                for mark, at in powers_of_ten(record).items()
            },
            "saturated at the end": lambda row: f"{row['saturated'][-1]:.0%}",
        },
    )


def angle_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The cosines, each with its number of steps."""
    steps = record["run"]["config"]["gradient_steps"]
    angles = record["series"]["angles"]
    return [{"steps": n, **angle} for n, angle in zip(steps, angles, strict=True)]


def draw_growth(figure: Any, record: Mapping[str, Any], theme: lab.Theme) -> None:
    """Root mean square of the cell state against the number of steps."""
    axes, marks = figure.subplots(), record["run"]["config"]["marks"]
    by_case = record["series"]["by_case"]
    curves = {case.label: by_case[name]["log10_size"] for name, case in CASES.items()}
    ends = lab.lines(axes, marks, curves, theme)
    axes.set_xscale("log")
    ticks = list(powers_of_ten(record))
    axes.set_xticks(ticks, [f"{mark:,}" for mark in ticks])
    lab.power_ticks(axes, range(-1, 4))
    axes.set_xlim(1, marks[-1])
    axes.set_xlabel("steps without a reset")
    axes.set_title("Size of the cell state (root mean square)")
    lab.label_ends(axes, marks[-1], ends)


FIVEFOLD = lab.above(lambda case: 10 ** case["log10_growth"], 5)
PERCENT = "{:.1%}".format
experiment = lab.Experiment(
    small=Config(
        batch_size=4,
        marks=(1, 10, 100, 1000),
        gradient_steps=(1, 100),
        train_width=4,
        train_batch=4,
        train_steps=5,
        train_updates=2,
        test_steps=20,
        train_seeds=(0,),
        seeds=(0, 1),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C28",
            "Over ten times as many steps of a stream without resets the cell state of "
            "the 1997 cell becomes more than five times as large.",
            FIVEFOLD,
            case="lstm_1997",
            control="forget",
        ),
        lab.Claim(
            "C136",
            "It also does with its input gates biased shut.",
            FIVEFOLD,
            case="shut_gates",
            control="resets",
        ),
        lab.Claim(
            "C137",
            "Over 100 steps the truncated gradient of 1997 has a cosine below 0.9 with "
            "the whole gradient.",
            lab.below("cosine", 0.9, lab.share),
            case="gradient_100",
            control="gradient_1",
        ),
    ],
    tables={
        "size": size_table,
        "cosine": lab.Table(
            rows=angle_rows,
            columns={
                "steps": "steps",
                "median cosine": "median",
                "lowest": "low",
                "highest": "high",
            },
        ),
        "trained": lab.Table(
            rows="series.learned",
            labels=TRAINED,
            heading="network",
            columns={
                "right, as far as it was trained": lab.cell("first.low", PERCENT),
                "right, last tenth of the stream": lab.cell("last.low", PERCENT),
                "the same, state held in range": lab.cell("held.low", PERCENT),
                "largest cell state at the end": "largest.median",
            },
        ),
    },
    figures={"growth": draw_growth},
)
