r"""Two sums in backpropagation through time: over losses, and over uses of a weight.

A plain RNN with a random gradient at its outputs. For the first state, the derivative
by autograd is held against one product of Jacobians, which is right for a loss at the
last step alone, and against the sum of such products. For a weight, autograd's gradient
is held against two sums: over the T uses of the weight, each as if it were a parameter
of its own, and over the T losses.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.lab.claim import Claim, Outcome
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.seeding import generator, seeded
from experiments.lab.statistics import median
from experiments.lab.tables import number, table
from seqref import RNN
from seqref.ops.fused_recurrence.reference import Weights, rnn_step


@dataclass(frozen=True)
class Config:
    """Sizes and seeds of one run."""

    hidden_size: int
    input_size: int
    steps: int
    seeds: tuple[int, ...]


SMALL = Config(hidden_size=8, input_size=4, steps=10, seeds=(0, 1, 2))
FULL = Config(hidden_size=64, input_size=64, steps=20, seeds=tuple(range(10)))


class Problem(NamedTuple):
    """One sequence, the layer's weights, and the gradient at each output."""

    x: Float[Tensor, "time input"]
    weights: Weights
    grad_y: Float[Tensor, "time hidden"]


def problem(config: Config, seed: int, *, every: bool) -> Problem:
    """A random gradient at every output, or at the last alone."""
    with seeded(seed):
        layer = RNN(config.input_size, config.hidden_size, dtype=torch.float64)
    random = generator(seed + 1000)
    size = (config.steps, config.input_size)
    x = torch.randn(size, generator=random, dtype=torch.float64)
    size = (config.steps, config.hidden_size)
    grad_y = torch.randn(size, generator=random, dtype=torch.float64)
    if not every:
        grad_y[:-1] = 0
    weight_ih, weight_hh, bias_ih, bias_hh = layer.cell.weights
    return Problem(x, (weight_ih, weight_hh, bias_ih, bias_hh), grad_y)


def states(given: Problem, copies: list[Tensor]) -> list[Tensor]:
    r"""$h_0 \dots h_T$, the recurrent weight of step t taken from `copies`."""
    weight_ih, _, bias_ih, bias_hh = given.weights
    h = [given.x.new_zeros(1, len(given.weights[1]))]
    for x_t, weight_hh in zip(given.x, copies, strict=True):
        h.append(rnn_step(x_t[None], h[-1], (weight_ih, weight_hh, bias_ih, bias_hh)))
    return h


def loss_terms(given: Problem, h: list[Tensor]) -> list[Tensor]:
    """One loss for each step, linear in its output."""
    return [
        (grad * h_t[0]).sum() for grad, h_t in zip(given.grad_y, h[1:], strict=True)
    ]


def relative(found: Tensor, true: Tensor) -> float:
    """Distance over the norm of the true value, to twelve decimals."""
    return round(((found - true).norm() / true.norm()).item(), 12)


def first_state(given: Problem) -> dict[str, float]:
    r"""Errors of one product and of the sum of products, for the gradient at $h_1$."""
    weight_hh = given.weights[1]
    h = states(given, [weight_hh] * len(given.x))
    total = torch.stack(loss_terms(given, h)).sum()
    (true,) = torch.autograd.grad(total, h[1])
    with torch.no_grad():
        # J_s ... J_2, the later factor on the left; for s = 1 the identity.
        product = torch.eye(len(weight_hh), dtype=torch.float64)
        every = product.T @ given.grad_y[0]
        for h_s, grad in zip(h[2:], given.grad_y[1:], strict=True):
            product = torch.diag(1 - h_s[0].square()) @ weight_hh @ product
            every = every + product.T @ grad
        one = product.T @ given.grad_y[-1]
    return {
        "one_product_error": relative(one, true[0]),
        "sum_error": relative(every, true[0]),
    }


def weight(given: Problem) -> dict[str, float]:
    r"""Errors of the two sums for $\bar W_{hh}$, and how far their terms are apart."""
    tied = given.weights[1]
    steps = len(given.x)
    terms = loss_terms(given, states(given, [tied] * steps))
    (true,) = torch.autograd.grad(torch.stack(terms).sum(), tied, retain_graph=True)
    by_loss = [torch.autograd.grad(t, tied, retain_graph=True)[0] for t in terms]
    copies = [tied.detach().clone().requires_grad_() for _ in range(steps)]
    total = torch.stack(loss_terms(given, states(given, copies))).sum()
    by_use = torch.autograd.grad(total, copies)
    # The first use multiplies h_0 = 0, so its gradient is zero; the second counts.
    return {
        "uses_error": relative(torch.stack(by_use).sum(0), true),
        "losses_error": relative(torch.stack(by_loss).sum(0), true),
        "last_use_error": relative(by_use[-1], true),
        "terms_apart": relative(by_use[steps // 2], by_loss[steps // 2]),
    }


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Both questions, with a loss at every step and with one at the last."""
    cases: dict[str, Any] = {}
    for name, every in track({"every": True, "last": False}.items(), "bptt_sums"):
        found = []
        for seed in config.seeds:
            given = problem(config, seed, every=every)
            found.append({**first_state(given), **(weight(given) if every else {})})
        cases[name] = {
            f"{key}_{end.__name__}": end(row[key] for row in found)
            for key in found[0]
            for end in (min, median, max)
        }
    # The same check with all uses but the last forgotten.
    cases["last_use_alone"] = {
        f"uses_error_{end}": cases["every"][f"last_use_error_{end}"]
        for end in ("min", "median", "max")
    }
    return {"numbers": dict(cases["every"]), "series": {}, "cases": cases}


EXACT = 1e-10


def _one_product_is_not_enough(case: Mapping[str, Any]) -> Outcome:
    found = case["one_product_error_min"]
    return Outcome.all_of(
        found, Outcome.above(found, 0.1), Outcome.below(case["sum_error_max"], EXACT)
    )


def _adds_up(case: Mapping[str, Any]) -> Outcome:
    found = case["uses_error_max"]
    return Outcome.below(found, EXACT)


CLAIMS = (
    Claim(
        "C05",
        "With a loss at every step one product of Jacobians from the last step misses "
        "the derivative by more than 10 %, and the sum of one product for each step "
        "is exact.",
        _one_product_is_not_enough,
        case="every",
        control="last",
    ),
    Claim(
        "C22",
        "The gradient of the recurrent weight is the sum of the gradients of its uses.",
        _adds_up,
        case="every",
        control="last_use_alone",
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Relative errors, median over networks."""

    def cell(case: str, key: str) -> str:
        value = record["cases"][case].get(f"{key}_median")
        return (
            "" if value is None else "below 10⁻¹⁰" if value < EXACT else number(value)
        )

    rows = [
        [text, cell("every", key), cell("last", key)]
        for key, text in {
            "one_product_error": "one product, from the last step",
            "sum_error": "sum of one product for each loss",
            "last_use_error": "weight: the last use alone",
            "uses_error": "weight: sum over its uses",
            "losses_error": "weight: sum over the losses",
        }.items()
    ]
    headers = ["relative error of", "loss at every step", "loss at the last step"]
    return {"errors": table(headers, rows)}


experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
)
