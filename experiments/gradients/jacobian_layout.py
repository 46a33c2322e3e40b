r"""Four formulas for the Jacobian of a tanh network, against the Jacobian itself.

For $z_t = W_{hh} h_{t-1} + W_{ih} x_t + b$ and $h_t = \tanh z_t$ four expressions are
in use for "the Jacobian of one step". With $D_t = \operatorname{diag}(1 - h_t^2)$:

- $D_t W_{hh}$ is $\partial h_t / \partial h_{t-1}$, one row for each entry of $h_t$;
- $W_{hh}^\top D_t$ is its transpose, which carries gradients backward;
- $W_{hh} D_{t-1}$ is $\partial z_t / \partial z_{t-1}$, of the pre-activations;
- $D_t W_{hh}^\top$ is neither of these.
"""

from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import torch
from torch import Tensor, nn

from experiments import lab
from experiments.lab.networks import zero_biases_
from seqref import RNN, RNNState
from seqref.recurrent import state_jacobian


@dataclass(frozen=True)
class Config:
    """Sizes and seeds of one run."""

    hidden_size: int = 64
    input_size: int = 64
    steps: int = 20
    seeds: tuple[int, ...] = tuple(range(10))


@dataclass(frozen=True)
class Case:
    """Whether there are unit normal inputs, and biases; and whether W is symmetric."""

    driven: bool = True
    symmetric: bool = False


CASES = {
    "driven": Case(),
    "at_rest": Case(driven=False),
    "symmetric_at_rest": Case(driven=False, symmetric=True),
}
FORMULAS = {
    "state": "D_t W",
    "state_transposed": "Wᵀ D_t",
    "pre_activation": "W D_(t−1)",
    "swapped": "D_t Wᵀ",
}
JACOBIANS = {
    "jacobian": "to ∂h_t/∂h_(t−1)",
    "transpose": "to its transpose",
    "of_pre_activations": "to ∂z_t/∂z_(t−1)",
}


@torch.no_grad()
def build(case: Case, config: Config, seed: int) -> RNN:
    """A tanh layer with an orthogonal or a symmetric orthogonal recurrent matrix."""
    with lab.seeded(seed):
        layer = RNN(config.input_size, config.hidden_size, dtype=torch.float64)
    w_hh = nn.init.orthogonal_(layer.cell.weight_hh, generator=lab.generator(seed))
    if case.symmetric:
        # Q diag(±1) Qᵀ is symmetric and orthogonal.
        signs = torch.ones(config.hidden_size, dtype=torch.float64)
        signs[::2] = -1
        w_hh.copy_(w_hh @ torch.diag(signs) @ w_hh.T)
    if not case.driven:
        zero_biases_(layer.cell)
    return layer


def formulas(w_hh: Tensor, h_prev: Tensor, h_t: Tensor) -> dict[str, Tensor]:
    """The four expressions at one step."""
    before, now = (torch.diag(1 - h.square()) for h in (h_prev, h_t))
    return {
        "state": now @ w_hh,
        "state_transposed": w_hh.T @ now,
        "pre_activation": w_hh @ before,
        "swapped": now @ w_hh.T,
    }


def jacobians(layer: RNN, x_t: Tensor, h_prev: Tensor) -> dict[str, Tensor]:
    """The true Jacobians of one step, from automatic differentiation."""
    w_hh = layer.cell.weight_hh.detach()
    of_state = state_jacobian(layer, x_t, RNNState(h_prev[None]))[0]
    # What the input and the biases add to z_t does not depend on z_{t-1}.
    of_pre_activations = torch.func.jacrev(lambda z: w_hh @ z.tanh())(h_prev.atanh())
    return {
        "jacobian": of_state,
        "transpose": of_state.T,
        "of_pre_activations": of_pre_activations,
    }


@torch.no_grad()
def compare(case: Case, config: Config, seed: int) -> dict[str, float]:
    r"""Distances (Frobenius) of each formula to each Jacobian, at the last step.

    And the cosine between the true gradient and the one carried back by $D_t W^\top$,
    as a row vector, $\partial L/\partial h_{t-1} = \partial L/\partial h_t \, J_t$,
    over all steps but the first.
    """
    layer = build(case, config, seed)
    size = (1, config.steps + 1, config.input_size)
    x = case.driven * lab.normal(seed + 1000, *size)
    h = layer(x)[0][0]
    steps = [formulas(layer.cell.weight_hh, *pair) for pair in pairwise(h)]
    true = jacobians(layer, x[:, -1], h[-2])
    loss = lab.normal(seed + 2000, config.hidden_size)
    back, swapped = (
        reduce(torch.matmul, (step[formula] for step in reversed(steps)), loss)
        for formula in ("state", "swapped")
    )
    return {
        **{
            f"{formula}_to_{name}": round((matrix - jacobian).norm().item(), 9)
            for formula, matrix in steps[-1].items()
            for name, jacobian in true.items()
        },
        "cosine": round(torch.cosine_similarity(back, swapped, dim=0).item(), 9),
    }


def run(config: Config, track: lab.Track) -> dict:
    """Compare the formulas on driven, resting and symmetric networks."""
    cases = {}
    for name, case in track(CASES.items(), "jacobian_layout"):
        seeds = [compare(case, config, seed) for seed in config.seeds]
        cosines = [one.pop("cosine") for one in seeds]
        cases[name] = {key: lab.median(one[key] for one in seeds) for key in seeds[0]}
        cases[name] |= {"cosine_low": min(cosines), "cosine_high": max(cosines)}
    # The same quantities, measured on another formula under the first one's name.
    cases["factors_swapped"] = {
        f"state_to_{name}": cases["driven"][f"swapped_to_{name}"] for name in JACOBIANS
    }
    return {"series": {}, "cases": cases}


EXACT = 1e-8
experiment = lab.Experiment(
    small=Config(hidden_size=8, input_size=4, seeds=(0, 1, 2)),
    run=run,
    claims=[
        lab.Claim(
            "C01",
            "W diag(1 − h²) with the previous state is the Jacobian of the "
            "pre-activations and not that of the states.",
            lab.all_of(
                lab.above("pre_activation_to_jacobian", 0.1),
                lab.below("pre_activation_to_of_pre_activations", EXACT),
            ),
            case="driven",
            control="at_rest",
        ),
        lab.Claim(
            "C02",
            "diag(1 − h²) Wᵀ is neither the Jacobian nor its transpose, and a backward "
            "pass of 20 steps with it points elsewhere.",
            lab.all_of(
                lab.below("cosine_high", 0.9, lab.share),
                lab.above("swapped_to_jacobian", 0.1),
                lab.above("swapped_to_transpose", 0.1),
            ),
            case="driven",
            control="symmetric_at_rest",
        ),
        lab.Claim(
            "C03",
            "diag(1 − h²) W is the Jacobian of the states.",
            lab.below("state_to_jacobian", EXACT),
            case="driven",
            control="factors_swapped",
        ),
        lab.Claim(
            "C04",
            "Wᵀ diag(1 − h²) is the transpose of the Jacobian and not the Jacobian.",
            lab.all_of(
                lab.above("state_transposed_to_jacobian", 0.1),
                lab.below("state_transposed_to_transpose", EXACT),
            ),
            case="driven",
            control="symmetric_at_rest",
        ),
    ],
    numbers=[lambda cases: cases["driven"]],
    tables={
        "distance": lab.Table(
            rows=lambda record: {
                formula: {
                    name: record["cases"]["driven"][f"{formula}_to_{name}"]
                    for name in JACOBIANS
                }
                for formula in FORMULAS
            },
            labels=FORMULAS,
            heading="formula",
            columns={header: name for name, header in JACOBIANS.items()},
        )
    },
)
