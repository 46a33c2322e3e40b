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

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments.lab.claim import Claim, Outcome, share
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.seeding import generator
from experiments.lab.statistics import log10_summary, median, spread
from experiments.models._continual_cells import (
    CASES,
    Case,
    lstm_1997,
    squashed,
)
from experiments.models._continual_latch import trained
from experiments.models._continual_pictures import (
    KINDS,
    draw_growth,
    tables,
)
from seqref import LSTM1997


@dataclass(frozen=True)
class Config:
    """Sizes, steps at which to look, biases, lengths for the gradients, training."""

    hidden_size: int
    input_size: int
    batch_size: int
    marks: tuple[int, ...]
    reset_every: int
    input_gate_bias: float
    forget_bias: float
    gradient_steps: tuple[int, ...]
    train_width: int
    train_batch: int
    train_steps: int
    train_updates: int
    test_steps: int
    train_seeds: tuple[int, ...]
    seeds: tuple[int, ...]


SMALL = Config(
    hidden_size=32,
    input_size=32,
    batch_size=4,
    marks=(1, 10, 100, 1000),
    reset_every=100,
    input_gate_bias=-4.0,
    forget_bias=5.0,
    gradient_steps=(1, 100),
    train_width=4,
    train_batch=4,
    train_steps=5,
    train_updates=2,
    test_steps=20,
    train_seeds=(0,),
    seeds=(0, 1),
)
FULL = Config(
    hidden_size=32,
    input_size=32,
    batch_size=8,
    marks=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000),
    reset_every=100,
    input_gate_bias=-4.0,
    forget_bias=5.0,
    gradient_steps=(1, 2, 5, 10, 20, 50, 100),
    train_width=8,
    train_batch=32,
    train_steps=60,
    train_updates=400,
    test_steps=6000,
    train_seeds=(0, 1, 2),
    seeds=tuple(range(5)),
)


def states(case: Case, config: Config, seed: int) -> list[Tensor]:
    """Cell states at the marks, on a stream of standard normal numbers."""
    layer, random = case.build(config, seed), generator(seed + 1000)
    state, done, found = layer.initial_state(config.batch_size), 0, []
    ends = set(config.marks)
    if case.resets:
        ends |= set(range(0, config.marks[-1], config.reset_every)) - {0}
    with torch.no_grad():
        for end in sorted(ends):
            size = (config.batch_size, end - done, config.input_size)
            x = torch.randn(size, generator=random, dtype=torch.float64)
            _, state = layer(x, state)
            done = end
            if end in config.marks:
                found.append(state.c)
            if case.resets and end % config.reset_every == 0:
                state = layer.initial_state(config.batch_size)
    return found


def growth(case: Case, config: Config) -> dict[str, Any]:
    """Size of the state and share of saturated units at each mark, over the seeds."""
    measured = [states(case, config, seed) for seed in config.seeds]
    at_marks = list(zip(*measured, strict=True))
    size = [
        log10_summary((case.scale * c).pow(2).mean().sqrt().item() for c in at)
        for at in at_marks
    ]
    flat = [
        median((squashed(case, c).abs() > 0.99).double().mean().item() for c in at)
        for at in at_marks
    ]
    return {"log10_size": size, "saturated": flat}


def gradients(layer: LSTM1997, x: Tensor, upstream: Tensor, rule: str) -> Tensor:
    """Gradient of all weights by one of the two rules, as one vector."""
    sizes = (layer.input_size, layer.hidden_size)
    other = LSTM1997(*sizes, gradient=rule, dtype=x.dtype)
    other.load_state_dict(layer.state_dict())
    found = torch.autograd.grad(other(x)[0], tuple(other.parameters()), upstream)
    return torch.cat([part.flatten() for part in found])


def cosine(config: Config, steps: int, seed: int) -> float:
    """Between the truncated and the whole gradient of a random linear loss."""
    layer, random = lstm_1997(config, seed), generator(seed + 3000)
    size = (config.batch_size, steps)
    x = torch.randn(*size, config.input_size, generator=random, dtype=torch.float64)
    upstream = torch.randn(
        *size, config.hidden_size, generator=random, dtype=torch.float64
    )
    cut, whole = (gradients(layer, x, upstream, r) for r in ("truncated", "whole"))
    return torch.cosine_similarity(cut, whole, dim=0).item()


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Grow the states, compare the gradients, train and test."""
    by_case = {
        name: growth(case, config)
        for name, case in track(CASES.items(), "cell state on a stream")
    }
    cases: dict[str, Any] = {}
    for name, found in by_case.items():
        last, before = config.marks[-1], config.marks.index(config.marks[-1] // 10)
        sizes = found["log10_size"]
        cases[name] = {
            "steps": last,
            "log10_growth": sizes[-1]["median"] - sizes[before]["median"],
            "log10_largest": sizes[-1]["high"],
            "saturated": found["saturated"][-1],
        }
    angles = []
    for steps in track(config.gradient_steps, "angle of the gradients"):
        values = spread(cosine(config, steps, seed) for seed in config.seeds)
        angles.append({key: round(value, 9) for key, value in values.items()})
        cases[f"gradient_{steps}"] = {"steps": steps, "cosine": angles[-1]["median"]}
    learned = {}
    for kind in track(KINDS, "training"):
        runs = [trained(config, kind, seed) for seed in config.train_seeds]
        learned[kind] = {key: spread(r[key] for r in runs) for key in runs[0]}
    series = {"by_case": by_case, "angles": angles, "learned": learned}
    return {"numbers": summary(config, series), "series": series, "cases": cases}


def summary(config: Config, series: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars for sentences."""
    found: dict[str, Any] = {}
    for name, case in series["by_case"].items():
        for mark in (100, 1000, 10_000):
            if mark in config.marks:
                at = config.marks.index(mark)
                found[f"{name}_size_{mark}"] = 10 ** case["log10_size"][at]["median"]
                found[f"{name}_saturated_{mark}"] = case["saturated"][at]
    for steps, angle in zip(config.gradient_steps, series["angles"], strict=True):
        found[f"cosine_{steps}"] = angle["median"]
    for kind, case in series["learned"].items():
        for key in ("first", "last", "held"):
            found[f"{kind}_{key}_lowest"] = case[key]["low"]
        found[f"{kind}_largest"] = case["largest"]["median"]
    return found


def _grows(case: Mapping[str, Any]) -> Outcome:
    found = 10 ** case["log10_growth"]
    return Outcome.above(found, 5)


def _turned(case: Mapping[str, Any]) -> Outcome:
    found = case["cosine"]
    return Outcome.below(found, 0.9, share)


CLAIMS = (
    Claim(
        "C28",
        "Over ten times as many steps of a stream without resets the cell state of the "
        "1997 cell becomes more than five times as large.",
        _grows,
        case="lstm_1997",
        control="forget",
    ),
    Claim(
        "C136",
        "It also does with its input gates biased shut.",
        _grows,
        case="shut_gates",
        control="resets",
    ),
    Claim(
        "C137",
        "Over 100 steps the truncated gradient of 1997 has a cosine below 0.9 with the "
        "whole gradient.",
        _turned,
        case="gradient_100",
        control="gradient_1",
    ),
)


FIGURES = {"growth": draw_growth}
experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
    figures=FIGURES,
)
