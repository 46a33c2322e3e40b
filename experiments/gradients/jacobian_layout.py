r"""Four formulas for the Jacobian of a tanh network, against the Jacobian itself.

For $z_t = W_{hh} h_{t-1} + W_{ih} x_t + b$ and $h_t = \tanh z_t$ four expressions are
in use for "the Jacobian of one step". With $D_t = \operatorname{diag}(1 - h_t^2)$:

- $D_t W_{hh}$ is $\partial h_t / \partial h_{t-1}$, one row for each entry of $h_t$;
- $W_{hh}^\top D_t$ is its transpose, which carries gradients backward;
- $W_{hh} D_{t-1}$ is $\partial z_t / \partial z_{t-1}$, of the pre-activations;
- $D_t W_{hh}^\top$ is neither of these.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from experiments.lab.claim import Claim, Outcome, share
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.networks import zero_biases_
from experiments.lab.seeding import generator, seeded
from experiments.lab.statistics import median
from experiments.lab.tables import number, table
from seqref import RNN


@dataclass(frozen=True)
class Config:
    """Sizes and seeds of one run."""

    hidden_size: int
    input_size: int
    steps: int
    seeds: tuple[int, ...]


SMALL = Config(hidden_size=8, input_size=4, steps=20, seeds=(0, 1, 2))
FULL = Config(hidden_size=64, input_size=64, steps=20, seeds=tuple(range(10)))
FORMULAS = {
    "state": "D_t W",
    "state_transposed": "Wᵀ D_t",
    "pre_activation": "W D_(t−1)",
    "swapped": "D_t Wᵀ",
}
JACOBIANS = ("jacobian", "transpose", "of_pre_activations")
DISTANCES = tuple(f"{f}_to_{j}" for f in FORMULAS for j in JACOBIANS)


class Trace(NamedTuple):
    """States, pre-activations and the recurrent matrix along one sequence."""

    h: Float[Tensor, "time hidden"]
    z: Float[Tensor, "time hidden"]
    weight_hh: Float[Tensor, "hidden hidden"]


def build(config: Config, seed: int, *, symmetric: bool) -> RNN:
    """A tanh layer with an orthogonal or a symmetric orthogonal recurrent matrix."""
    with seeded(seed):
        layer = RNN(config.input_size, config.hidden_size, dtype=torch.float64)
    random = generator(seed)
    with torch.no_grad():
        w_hh = layer.cell.weight_hh
        nn.init.orthogonal_(w_hh, generator=random)
        if symmetric:
            # Q diag(±1) Qᵀ is symmetric and orthogonal.
            signs = torch.ones(config.hidden_size, dtype=torch.float64)
            signs[::2] = -1
            w_hh.copy_(w_hh @ torch.diag(signs) @ w_hh.T)
    return layer


def follow(layer: RNN, config: Config, seed: int, *, inputs: bool) -> Trace:
    """Drive the layer with unit normal inputs, or keep it at the zero state."""
    size = (1, config.steps + 1, config.input_size)
    x = torch.randn(size, generator=generator(seed + 1000), dtype=torch.float64)
    cell = layer.cell
    with torch.no_grad():
        if not inputs:
            x = torch.zeros_like(x)
            zero_biases_(cell)
        h = layer(x)[0][0]
    # tanh is inverted rather than recomputed: z is what the layer itself used.
    return Trace(h, torch.atanh(h), cell.weight_hh.detach())


def formulas(trace: Trace, t: int) -> dict[str, Tensor]:
    """The four expressions at step `t`."""
    now, before = (torch.diag(1 - trace.h[i].square()) for i in (t, t - 1))
    w_hh = trace.weight_hh
    return {
        "state": now @ w_hh,
        "state_transposed": w_hh.T @ now,
        "pre_activation": w_hh @ before,
        "swapped": now @ w_hh.T,
    }


def jacobians(trace: Trace, t: int) -> dict[str, Tensor]:
    """The true Jacobians at step `t`, from automatic differentiation."""
    w_hh, h_prev, z_prev = trace.weight_hh, trace.h[t - 1], trace.z[t - 1]
    # What the input and the biases add to z_t, whatever h_{t-1} is.
    drive = trace.z[t] - w_hh @ h_prev
    of_state: Any = torch.func.jacrev(lambda h: torch.tanh(w_hh @ h + drive))(h_prev)
    of_pre: Any = torch.func.jacrev(lambda z: w_hh @ torch.tanh(z) + drive)(z_prev)
    return {
        "jacobian": of_state,
        "transpose": of_state.T,
        "of_pre_activations": of_pre,
    }


def cosine_of_swapped(trace: Trace, seed: int) -> float:
    r"""Cosine between the true gradient and the one carried back by $D_t W^\top$.

    Carried back as a row vector, as in $\partial L/\partial h_{t-1} =
    \partial L/\partial h_t \, J_t$, over all steps but the first.
    """
    size = trace.h.shape[1]
    loss = torch.randn(size, generator=generator(seed + 2000), dtype=torch.float64)
    true = swapped = loss
    for t in range(len(trace.h) - 1, 0, -1):
        found = formulas(trace, t)
        true = true @ found["state"]
        swapped = swapped @ found["swapped"]
    return torch.cosine_similarity(true, swapped, dim=0).item()


def compare(
    config: Config, seed: int, *, symmetric: bool = False, inputs: bool = True
) -> dict[str, float]:
    """Distances (Frobenius) of each formula to each Jacobian, at the last step."""
    layer = build(config, seed, symmetric=symmetric)
    trace = follow(layer, config, seed, inputs=inputs)
    t = config.steps
    true = jacobians(trace, t)
    distances = {
        f"{formula}_to_{jacobian}": round((f - true[jacobian]).norm().item(), 9)
        for formula, f in formulas(trace, t).items()
        for jacobian in JACOBIANS
    }
    cosine = round(cosine_of_swapped(trace, seed), 9)
    return {**distances, "cosine_of_swapped": cosine}


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Compare the formulas on driven, resting and symmetric networks."""
    settings: dict[str, dict[str, bool]] = {
        "driven": {},
        "at_rest": {"inputs": False},
        "symmetric_at_rest": {"inputs": False, "symmetric": True},
    }
    cases = {}
    for name, setting in track(settings.items(), "jacobian_layout"):
        found = [compare(config, seed, **setting) for seed in config.seeds]
        cases[name] = {key: median(f[key] for f in found) for key in DISTANCES}
        cosines = [f["cosine_of_swapped"] for f in found]
        cases[name] |= {"cosine_low": min(cosines), "cosine_high": max(cosines)}
    cases["factors_swapped"] = _renamed(cases["driven"], "swapped", "state")
    numbers = dict(cases["driven"])
    return {"numbers": numbers, "series": {}, "cases": cases}


def _renamed(case: Mapping[str, float], old: str, new: str) -> dict[str, float]:
    # The same quantities, measured on another formula under the first one's name.
    return {
        f"{new}_to_{jacobian}": case[f"{old}_to_{jacobian}"] for jacobian in JACOBIANS
    }


EXACT = 1e-8


def _is_pre_activation(case: Mapping[str, Any]) -> Outcome:
    found = case["pre_activation_to_jacobian"]
    exact = Outcome.below(case["pre_activation_to_of_pre_activations"], EXACT)
    return Outcome.all_of(found, exact, Outcome.above(found, 0.1))


def _is_neither(case: Mapping[str, Any]) -> Outcome:
    found = case["cosine_high"]
    nearer = min(case["swapped_to_jacobian"], case["swapped_to_transpose"])
    return Outcome.all_of(
        found, Outcome.above(nearer, 0.1), Outcome.below(found, 0.9, share)
    )


def _is_jacobian(case: Mapping[str, Any]) -> Outcome:
    found = case["state_to_jacobian"]
    return Outcome.below(found, EXACT)


def _is_transpose(case: Mapping[str, Any]) -> Outcome:
    found = case["state_transposed_to_jacobian"]
    exact = Outcome.below(case["state_transposed_to_transpose"], EXACT)
    return Outcome.all_of(found, exact, Outcome.above(found, 0.1))


CLAIMS = (
    Claim(
        "C01",
        "W diag(1 − h²) with the previous state is the Jacobian of the pre-activations "
        "and not that of the states.",
        _is_pre_activation,
        case="driven",
        control="at_rest",
    ),
    Claim(
        "C02",
        "diag(1 − h²) Wᵀ is neither the Jacobian nor its transpose, and a backward "
        "pass of 20 steps with it points elsewhere.",
        _is_neither,
        case="driven",
        control="symmetric_at_rest",
    ),
    Claim(
        "C03",
        "diag(1 − h²) W is the Jacobian of the states.",
        _is_jacobian,
        case="driven",
        control="factors_swapped",
    ),
    Claim(
        "C04",
        "Wᵀ diag(1 − h²) is the transpose of the Jacobian and not the Jacobian.",
        _is_transpose,
        case="driven",
        control="symmetric_at_rest",
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Distance of each formula to each Jacobian."""
    case = record["cases"]["driven"]
    rows = [
        [text, *[number(case[f"{formula}_to_{j}"]) for j in JACOBIANS]]
        for formula, text in FORMULAS.items()
    ]
    headers = ["formula", "to ∂h_t/∂h_(t−1)", "to its transpose", "to ∂z_t/∂z_(t−1)"]
    return {"distance": table(headers, rows)}


experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
)
