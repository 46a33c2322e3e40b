r"""What "the gradient through the cell state is f_t" leaves out.

The update $c_t = f_t \odot c_{t-1} + i_t \odot g_t$ seems to say that
$\partial c_t / \partial c_{t-1} = \operatorname{diag}(f_t)$. That is the direct path
alone. The gates read $h_{t-1} = o_{t-1} \odot \tanh c_{t-1}$, so the total derivative
is

$$ \frac{d c_t}{d c_{t-1}} = \operatorname{diag}(f_t)
   + K_t \operatorname{diag}\bigl(o_{t-1} \odot (1 - \tanh^2 c_{t-1})\bigr), \qquad
   K_t = \frac{\partial c_t}{\partial h_{t-1}} . $$

Over several steps the output gate depends on the state as well, so the product of the
one-step matrices is not the derivative: here the Jacobians of the whole state $(h, c)$
are multiplied, and its blocks are $f_t$ and $K_t$.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from experiments import lab
from seqref import LSTM, LSTMState
from seqref.recurrent import state_jacobian

MARKS = (10, 20, 40)


@dataclass(frozen=True)
class Config:
    """Sizes, steps and seeds of one run."""

    hidden_size: int = 64
    input_size: int = 64
    warm_up: int = 50
    steps: int = 60
    seeds: tuple[int, ...] = tuple(range(10))


@dataclass(frozen=True)
class Case:
    """Default weights times `scale`, recurrent ones also times `recurrent`."""

    label: str
    scale: float = 1.0
    recurrent: float = 1.0
    forget_bias: float = 0.0


CASES = {
    "default": Case("default"),
    "default_bias_1": Case("default, forget bias + 1", forget_bias=1.0),
    "default_bias_5": Case("default, forget bias + 5", forget_bias=5.0),
    "weights_times_2": Case("weights × 2", scale=2.0),
    "weights_times_4": Case("weights × 4", scale=4.0),
    "weights_times_4_bias_5": Case("weights × 4, forget bias + 5", 4.0, 1.0, 5.0),
    "no_recurrence": Case("default, no recurrent weights", recurrent=0.0),
}


@torch.no_grad()
def build(case: Case, config: Config, seed: int) -> LSTM:
    """The layer of a case."""
    with lab.seeded(seed):
        layer = LSTM(config.input_size, config.hidden_size, dtype=torch.float64)
    layer.cell.weight_ih.mul_(case.scale)
    layer.cell.weight_hh.mul_(case.scale * case.recurrent)
    layer.cell.get_parameter("bias_ih").chunk(4)[1].add_(case.forget_bias)
    return layer


def slope(state: LSTMState) -> Tensor:
    r"""$\partial h / \partial c = o (1 - \tanh^2 c)$ as a vector; o is h by tanh c."""
    tanh_c = state.c[0].tanh()
    return state.h[0] / tanh_c * (1 - tanh_c.square())


def norm(matrix: Tensor) -> float:
    """The largest singular value."""
    return torch.linalg.matrix_norm(matrix, 2).item()


@torch.no_grad()
def trace(case: Case, config: Config, seed: int) -> dict[str, list[float]]:
    r"""Follow one sequence of unit normal inputs after a warm-up.

    Per step: spectral norms of the dropped and of the direct part, of
    $d c_t / d c_{\text{start}}$, and of $\prod f$.
    """
    layer, size = build(case, config, seed), config.hidden_size
    x = lab.normal(seed + 1000, 1, config.warm_up + config.steps, config.input_size)
    _, state = layer(x[:, : config.warm_up])
    # h depends on c at the start too: h = o * tanh(c), with o held fixed.
    forget = torch.ones(size, dtype=torch.float64)
    total = torch.cat([slope(state).diag(), forget.diag()])
    by_step = {key: [] for key in ("dropped", "direct", "jacobian", "product")}
    for x_t in x[:, config.warm_up :].unbind(1):
        jacobian = state_jacobian(layer, x_t, state)[0]
        c_from_h, c_from_c = jacobian[size:].chunk(2, dim=1)
        f_t = c_from_c.diagonal()
        total, forget = jacobian @ total, forget * f_t
        by_step["dropped"].append(norm(c_from_h * slope(state)))
        by_step["direct"].append(f_t.max().item())
        by_step["jacobian"].append(norm(total[size:]))
        by_step["product"].append(forget.max().item())
        _, state = layer.step(x_t, state)
    return by_step


def measure(case: Case, config: Config) -> dict:
    """All seeds of a case: one step, and every number of steps from the start."""
    traces = [trace(case, config, seed) for seed in config.seeds]
    product = [
        lab.log10_summary(t["product"][i] for t in traces) for i in range(config.steps)
    ]
    ratio = [
        lab.log10_summary(t["jacobian"][i] / t["product"][i] for t in traces)
        for i in range(config.steps)
    ]
    return {
        "dropped_over_direct": lab.spread(
            lab.median(map(lambda d, f: d / f, t["dropped"], t["direct"]))
            for t in traces
        ),
        "largest_forget_gate": lab.median(max(t["direct"]) for t in traces),
        "log10_true_over_product": {f"step_{m}": ratio[m - 1]["median"] for m in MARKS},
        "log10_product": {f"step_{m}": product[m - 1]["median"] for m in MARKS},
        "ratio": ratio,
    }


ONE_STEP, OVER_40 = "dropped_over_direct.median", "log10_true_over_product.step_40"
LABELS = {name: case.label for name, case in CASES.items()}
experiment = lab.Experiment(
    small=Config(16, 16, warm_up=20, steps=40, seeds=(0, 1, 2)),
    cases=CASES,
    measure=measure,
    series=["ratio"],
    axes=lambda config: {"steps": [*range(1, config.steps + 1)]},
    claims=[
        lab.Claim(
            "C29.one-step",
            "At default weights the terms that run through the hidden state amount to "
            "more than 5 % of the direct term, in spectral norm.",
            lab.above(ONE_STEP, 0.05),
            case="default",
            control="no_recurrence",
        ),
        lab.Claim(
            "C29.many-steps",
            "At default weights the true Jacobian over 40 steps is more than ten times "
            "the product of the forget gates.",
            lab.above(OVER_40, 1, lab.power),
            case="default",
            control="no_recurrence",
        ),
    ],
    numbers=[
        lab.each(ONE_STEP, "dropped_over_direct"),
        lab.each(ONE_STEP, "dropped_percent", lambda share: 100 * share),
        lab.each(OVER_40, "true_over_product_at_40", lab.power_of_ten),
    ],
    tables={
        "ratio": lab.Table(
            labels=LABELS,
            heading="weights",
            columns={
                "dropped / direct, one step": lab.cell(ONE_STEP, lab.number, 2),
                "over seeds": lab.span("dropped_over_direct", 2),
                **{
                    f"true / ∏f, {mark} steps": lab.cell(
                        f"log10_true_over_product.step_{mark}", lab.power_of_ten
                    )
                    for mark in MARKS
                },
            },
        )
    },
    figures={
        "ratio": lab.Lines(
            x="series.steps",
            y="series.ratio",
            labels={name: LABELS[name] for name in list(CASES)[:5]},
            xlabel="steps",
            title="How many times larger the true Jacobian is than the product of f",
        )
    },
)
