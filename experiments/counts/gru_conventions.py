r"""What another reading of `torch.nn.GRU`'s weights costs, and which can be undone.

Two conventions of the GRU differ between papers and libraries: which of $z$ and
$1 - z$ multiplies the old state, and whether the reset gate acts before or after the
recurrent product. This module runs the weights of `torch.nn.GRU` under each reading and
measures the largest error of the outputs. Exchanging $z$ and $1 - z$ is undone by a
sign. The order of reset and product is not: a 2 by 2 determinant is zero for every GRU
that resets before the product, and not zero for one that resets after it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from experiments.lab.claim import Claim, Outcome
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.seeding import generator, seeded
from experiments.lab.statistics import median, spread
from experiments.lab.tables import number, table


@dataclass(frozen=True)
class Config:
    """Sizes, factors on the default weights, cells for the determinant, seeds."""

    input_size: int
    hidden_size: int
    batch_size: int
    steps: int
    scales: tuple[float, ...]
    random_cells: int
    seeds: tuple[int, ...]


SMALL = Config(
    input_size=8,
    hidden_size=16,
    batch_size=4,
    steps=20,
    scales=(1.0, 4.0),
    random_cells=100,
    seeds=(0, 1, 2),
)
FULL = Config(
    input_size=32,
    hidden_size=64,
    batch_size=8,
    steps=50,
    scales=(1.0, 4.0),
    random_cells=1000,
    seeds=tuple(range(10)),
)


@dataclass(frozen=True)
class Reading:
    r"""A way to read weights: what keeps, when to reset, what was changed before."""

    label: str
    z_keeps: bool
    reset_first: bool
    change: str = ""


READINGS = {
    "torch": Reading("as `torch.nn.GRU` does", True, False),
    "swapped": Reading("$z$ and $1 - z$ exchanged", False, False),
    "swapped_negated": Reading(
        "$z$ and $1 - z$ exchanged, block z negated", False, False, "negate"
    ),
    "reset_first": Reading("reset before the product", True, True),
    "reset_first_diagonal": Reading(
        "reset before the product; $W_{hn}$ diagonal and $b_{hn} = 0$ in both",
        True,
        True,
        "diagonal",
    ),
    "both": Reading("both exchanged", False, True),
}
Weights = tuple[Tensor, Tensor, Tensor, Tensor]


def unroll(
    x: Float[Tensor, "batch time input"],
    h_0: Float[Tensor, "batch hidden"],
    weights: Weights,
    *,
    z_keeps: bool,
    reset_first: bool,
) -> Float[Tensor, "batch time hidden"]:
    r"""The GRU written out, with both conventions as arguments; blocks r, z, n."""
    w_ih, w_hh, b_ih, b_hh = (part.chunk(3) for part in weights)
    h_t, outputs = h_0, []
    for x_t in x.unbind(1):
        r_in, z_in, n_in = (x_t @ w_ih[k].T + b_ih[k] for k in range(3))
        r_t = torch.sigmoid(r_in + h_t @ w_hh[0].T + b_hh[0])
        z_t = torch.sigmoid(z_in + h_t @ w_hh[1].T + b_hh[1])
        if reset_first:
            n_t = torch.tanh(n_in + (r_t * h_t) @ w_hh[2].T + b_hh[2])
        else:
            n_t = torch.tanh(n_in + r_t * (h_t @ w_hh[2].T + b_hh[2]))
        keep = z_t if z_keeps else 1 - z_t
        h_t = keep * h_t + (1 - keep) * n_t
        outputs.append(h_t)
    return torch.stack(outputs, dim=1)


def negated(weights: Weights) -> Weights:
    r"""Block z with the other sign: $\sigma(-a) = 1 - \sigma(a)$."""
    parts = [part.chunk(3) for part in weights]
    w_ih, w_hh, b_ih, b_hh = (torch.cat([r, -z, n]) for r, z, n in parts)
    return w_ih, w_hh, b_ih, b_hh


def judge_of(config: Config, seed: int, scale: float, *, diagonal: bool) -> nn.GRU:
    """A `torch.nn.GRU`; `diagonal` makes both orders of reset and product agree."""
    with seeded(seed):
        judge = nn.GRU(
            config.input_size,
            config.hidden_size,
            batch_first=True,
            dtype=torch.float64,
        )
    rows = slice(2 * config.hidden_size, None)
    with torch.no_grad():
        parameters = dict(judge.named_parameters())
        for parameter in parameters.values():
            parameter.mul_(scale)
        if diagonal:
            block = parameters["weight_hh_l0"][rows]
            block.copy_(torch.diag(block.diag()))
            parameters["bias_hh_l0"][rows] = 0
    return judge


@torch.no_grad()
def error(config: Config, reading: Reading, seed: int, scale: float) -> float:
    """Largest error of the outputs under a reading, against `torch.nn.GRU`."""
    judge = judge_of(config, seed, scale, diagonal=reading.change == "diagonal")
    w_ih, w_hh, b_ih, b_hh = (p.detach() for p in judge.parameters())
    weights = (w_ih, w_hh, b_ih, b_hh)
    if reading.change == "negate":
        weights = negated(weights)
    draw = generator(seed + 1000)
    size = (config.batch_size, config.steps, config.input_size)
    x = torch.randn(size, generator=draw, dtype=torch.float64)
    h_0 = torch.randn(size[0], config.hidden_size, generator=draw, dtype=torch.float64)
    expected, _ = judge(x, h_0[None])
    found = unroll(
        x, h_0, weights, z_keeps=reading.z_keeps, reset_first=reading.reset_first
    )
    return (found - expected).abs().max().item()


@torch.no_grad()
def kept(config: Config, seed: int, *, z_keeps: bool) -> float:
    r"""How far the state is from $h_0$ after all steps with $b_z = 40$."""
    judge = judge_of(config, seed, 1.0, diagonal=False)
    w_ih, w_hh, b_ih, b_hh = (p.detach().clone() for p in judge.parameters())
    b_ih[config.hidden_size : 2 * config.hidden_size] = 40
    draw = generator(seed + 2000)
    size = (config.batch_size, config.steps, config.input_size)
    x = torch.randn(size, generator=draw, dtype=torch.float64)
    h_0 = torch.randn(size[0], config.hidden_size, generator=draw, dtype=torch.float64)
    weights = (w_ih, w_hh, b_ih, b_hh)
    y = unroll(x, h_0, weights, z_keeps=z_keeps, reset_first=False)
    return (y[:, -1] - h_0).abs().max().item()


def two_units() -> Weights:
    r"""The GRU that no other can be: $r = \sigma(h)$, both candidates read $h_1 + h_2$.

    Two units, no input, update gates of one half.
    """
    w_hh = torch.zeros(6, 2, dtype=torch.float64)
    w_hh[:2] = torch.eye(2, dtype=torch.float64)
    w_hh[4:] = 1
    zeros = torch.zeros(6, dtype=torch.float64)
    return torch.zeros(6, 1, dtype=torch.float64), w_hh, zeros, zeros


def random_two_units(draw: torch.Generator) -> Weights:
    """Two units with random weights and update gates of one half."""
    shapes = ((6, 1), (6, 2), (6,), (6,))
    w_ih, w_hh, b_ih, b_hh = (
        torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes
    )
    for part in (w_ih, w_hh, b_ih, b_hh):
        part[2:4] = 0
    return w_ih, w_hh, b_ih, b_hh


def turn(weights: Weights, *, reset_first: bool) -> float:
    r"""Determinant of two moves of the candidates' pre-activation.

    The moves are those from $h = 0$ to $(1/2, 0)$ and to $(1, 0)$, read off one step at
    $x = 0$ with update gates of one half. Zero when both lie on one line.
    """
    h_0 = torch.tensor([[0.0, 0.0], [0.5, 0.0], [1.0, 0.0]], dtype=torch.float64)
    x = torch.zeros(3, 1, 1, dtype=torch.float64)
    h_1 = unroll(x, h_0, weights, z_keeps=True, reset_first=reset_first)[:, 0]
    n_pre = torch.atanh(2 * h_1 - h_0)
    return torch.linalg.det(n_pre[1:] - n_pre[0]).item()


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Measure every reading at every scale, and the determinants."""
    errors: dict[str, dict[str, Any]] = {name: {} for name in READINGS}
    for name, reading in track(READINGS.items(), "gru_conventions"):
        for scale in config.scales:
            found = [error(config, reading, seed, scale) for seed in config.seeds]
            errors[name][f"times_{scale:g}"] = spread(found)
    cases: dict[str, Any] = {
        name: {"error": found["times_1"]["median"]} for name, found in errors.items()
    }
    for name, z_keeps in (("gate_of_one", True), ("gate_of_one_swapped", False)):
        moved = [kept(config, seed, z_keeps=z_keeps) for seed in config.seeds]
        cases[name] = {"moved": median(moved)}
    draw = generator(3000)
    cells = [random_two_units(draw) for _ in range(config.random_cells)]
    cases["turn_after"] = {"determinant": abs(turn(two_units(), reset_first=False))}
    cases["turn_before"] = {
        "determinant": max(abs(turn(cell, reset_first=True)) for cell in cells)
    }
    return {"numbers": summary(cases), "series": {"errors": errors}, "cases": cases}


def summary(cases: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars and ready-made text for sentences."""
    found: dict[str, Any] = {}
    for name, case in cases.items():
        for key, value in case.items():
            found[f"{name}_{key}"] = number(value, 2)
    return found


def _differs(case: Mapping[str, Any]) -> Outcome:
    return Outcome.above(case["error"], 0.01)


def _keeps(case: Mapping[str, Any]) -> Outcome:
    return Outcome.below(case["moved"], 1e-9)


def _turns(case: Mapping[str, Any]) -> Outcome:
    return Outcome.above(case["determinant"], 0.01)


CLAIMS = (
    Claim(
        "C45",
        "Weights of torch.nn.GRU read with z and 1 - z exchanged give outputs that are "
        "off by more than 0.01; with the block of the update gate negated they do not.",
        _differs,
        case="swapped",
        control="swapped_negated",
    ),
    Claim(
        "C46.error",
        "Weights of torch.nn.GRU read with the reset before the product give outputs "
        "that are off by more than 0.01; with a diagonal matrix and no recurrent "
        "candidate bias they do not.",
        _differs,
        case="reset_first",
        control="reset_first_diagonal",
    ),
    Claim(
        "C46.no-map",
        "In one GRU that resets after the product, one unit of the state moves the "
        "candidates along a line that turns; in none that resets before it does.",
        _turns,
        case="turn_after",
        control="turn_before",
    ),
    Claim(
        "C47",
        "In torch.nn.GRU's convention an update gate of one keeps the state to the "
        "rounding; in the exchanged one it does not.",
        _keeps,
        case="gate_of_one",
        control="gate_of_one_swapped",
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Largest error by reading and scale of the weights."""
    scales = record["run"]["config"]["scales"]
    headers = ["reading of the weights"]
    headers += [
        "default weights" if scale == 1 else f"weights × {scale:g}" for scale in scales
    ]
    rows = []
    for name, reading in READINGS.items():
        found = [record["series"]["errors"][name][f"times_{s:g}"] for s in scales]
        cells = [
            [number(f[key], 2) for key in ("median", "low", "high")] for f in found
        ]
        texts = [f"{middle} ({low} to {high})" for middle, low, high in cells]
        rows.append([reading.label, *texts])
    return {"errors": table(headers, rows)}


experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
)
