r"""Two sums in backpropagation through time: over losses, and over uses of a weight.

A plain RNN with a random gradient at its outputs. For the first state, the derivative
by autograd is held against one product of Jacobians, which is right for a loss at the
last step alone, and against the sum of such products. For a weight, autograd's gradient
is held against two sums: over the T uses of the weight, each as if it were a parameter
of its own, and over the T losses.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments import lab
from seqref import RNN, RNNState
from seqref.ops.fused_recurrence.reference import rnn_step
from seqref.recurrent import jacobian_product

EXACT = 1e-10


@dataclass(frozen=True)
class Config:
    """Sizes and seeds of one run."""

    hidden_size: int = 64
    input_size: int = 64
    steps: int = 20
    seeds: tuple[int, ...] = tuple(range(10))


def problem(config: Config, seed: int, *, every: bool) -> tuple[RNN, Tensor, Tensor]:
    """A layer, a sequence, and a gradient at every output, or at the last alone."""
    with lab.seeded(seed):
        layer = RNN(config.input_size, config.hidden_size, dtype=torch.float64)
    random = lab.generator(seed + 1000)
    x = lab.normal(random, 1, config.steps, config.input_size)
    grad_y = lab.normal(random, 1, config.steps, config.hidden_size)
    if not every:
        grad_y[:, :-1] = 0
    return layer, x, grad_y


def relative(value: Tensor, true: Tensor) -> float:
    """Distance over the norm of the true value, to twelve decimals."""
    return round(((value - true).norm() / true.norm()).item(), 12)


def gradient_at(layer: RNN, x: Tensor, grad_y: Tensor, h_1: Tensor) -> Tensor:
    """The loss of all steps, which is linear in the outputs, derived by $h_1$."""
    h_1 = h_1.detach().requires_grad_()
    later, _ = layer(x[:, 1:], RNNState(h_1))
    outputs = torch.cat([h_1[:, None], later], dim=1)
    return torch.autograd.grad((grad_y * outputs).sum(), h_1)[0]


def first_state(layer: RNN, x: Tensor, grad_y: Tensor) -> dict[str, float]:
    r"""Errors of one product and of the sum of products, for the gradient at $h_1$."""
    _, state = layer(x[:, :1])
    # J_s ... J_2 for each s; for s = 1 the identity.
    terms = [
        grad @ jacobian_product(layer, x[:, 1 : s + 1], state)[0]
        for s, grad in enumerate(grad_y.unbind(1))
    ]
    true = gradient_at(layer, x, grad_y, state.h)
    return {
        "one_product_error": relative(terms[-1], true),
        "sum_error": relative(torch.stack(terms).sum(0), true),
    }


def weight(layer: RNN, x: Tensor, grad_y: Tensor) -> dict[str, float]:
    r"""Errors of the two sums for $\bar W_{hh}$, and how far their terms are apart."""
    weight_ih, tied, bias_ih, bias_hh = layer.cell.weights
    losses = (grad_y * layer(x)[0]).sum((0, 2))
    (true,) = torch.autograd.grad(losses.sum(), tied, retain_graph=True)
    by_loss = [torch.autograd.grad(t, tied, retain_graph=True)[0] for t in losses]
    copies = [tied.detach().clone().requires_grad_() for _ in losses]
    h_t, loss = x.new_zeros(1, len(tied)), x.new_zeros(())
    for x_t, copy, grad in zip(x.unbind(1), copies, grad_y.unbind(1), strict=True):
        h_t = rnn_step(x_t, h_t, (weight_ih, copy, bias_ih, bias_hh))
        loss = loss + (grad * h_t).sum()
    by_use = torch.autograd.grad(loss, copies)
    # The first use multiplies h_0 = 0, so its gradient is zero; the second counts.
    middle = len(losses) // 2
    return {
        "uses_error": relative(torch.stack(by_use).sum(0), true),
        "losses_error": relative(torch.stack(by_loss).sum(0), true),
        "last_use_error": relative(by_use[-1], true),
        "terms_apart": relative(by_use[middle], by_loss[middle]),
    }


def measure(case: str, config: Config) -> dict[str, float]:
    """Least, median and largest error over the networks."""
    rows = []
    for seed in config.seeds:
        given = problem(config, seed, every=case != "last")
        errors = first_state(*given)
        if case == "every":
            errors |= weight(*given)
        if case == "last_use_alone":
            errors = {"uses_error": weight(*given)["last_use_error"]}
        rows.append(errors)
    return {
        f"{key}_{end.__name__}": end(row[key] for row in rows)
        for key in rows[0]
        for end in (min, lab.median, max)
    }


def medians(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each error of each case."""
    errors = {
        "one_product_error": "one product, from the last step",
        "sum_error": "sum of one product for each loss",
        "last_use_error": "weight: the last use alone",
        "uses_error": "weight: sum over its uses",
        "losses_error": "weight: sum over the losses",
    }
    return [
        {"of": text, "case": name, "error": case[f"{key}_median"]}
        for key, text in errors.items()
        for name, case in record["cases"].items()
        if f"{key}_median" in case
    ]


experiment = lab.Experiment(
    small=Config(hidden_size=8, input_size=4, steps=10, seeds=(0, 1, 2)),
    cases={name: name for name in ("every", "last", "last_use_alone")},
    measure=measure,
    claims=[
        lab.Claim(
            "C05",
            "With a loss at every step one product of Jacobians from the last step "
            "misses the derivative by more than 10 %, and the sum of one product for "
            "each step is exact.",
            lab.all_of(
                lab.above("one_product_error_min", 0.1),
                lab.below("sum_error_max", EXACT),
            ),
            case="every",
            control="last",
        ),
        lab.Claim(
            "C22",
            "The gradient of the recurrent weight is the sum of the gradients of its "
            "uses.",
            lab.below("uses_error_max", EXACT),
            case="every",
            control="last_use_alone",
        ),
    ],
    numbers=[lambda cases: cases["every"]],
    tables={
        "errors": lab.Pivot(
            rows=medians,
            lines={"relative error of": lambda row: row["of"]},
            across="case",
            columns={"every": "loss at every step", "last": "loss at the last step"},
            cell=lambda row: (
                "below 10⁻¹⁰" if row["error"] < EXACT else lab.number(row["error"])
            ),
        )
    },
)
