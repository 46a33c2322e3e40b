r"""What "the gradient through the cell state is f_t" leaves out.

The update $c_t = f_t \odot c_{t-1} + i_t \odot g_t$ seems to say that
$\partial c_t / \partial c_{t-1} = \operatorname{diag}(f_t)$. That is the direct path
alone. The gates read $h_{t-1} = o_{t-1} \odot \tanh c_{t-1}$, so the total derivative
is

$$ \frac{d c_t}{d c_{t-1}} = \operatorname{diag}(f_t)
   + K_t \operatorname{diag}\bigl(o_{t-1} \odot (1 - \tanh^2 c_{t-1})\bigr) $$

$$ K_t = \frac{\partial c_t}{\partial h_{t-1}}
   = \operatorname{diag}(c_{t-1} \odot f_t \odot (1 - f_t)) W_{hf}
   + \operatorname{diag}(g_t \odot i_t \odot (1 - i_t)) W_{hi}
   + \operatorname{diag}(i_t \odot (1 - g_t^2)) W_{hg} . $$

Over several steps the output gate depends on the state as well, so the product of the
one-step matrices is not the derivative. This module multiplies the Jacobians of the
whole state $(h, c)$ instead.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqref import LSTM, LSTMCell, LSTMState
from experiments.lab.claim import Claim, Outcome, above, power
from experiments.lab.commands import main_of
from experiments.lab.drawing import DASHES, Theme, label_ends, power_ticks
from experiments.lab.experiment import Track, untracked
from experiments.lab.seeding import generator, seeded
from experiments.lab.statistics import log10_summary, median, spread
from experiments.lab.tables import number, power_of_ten, table


@dataclass(frozen=True)
class Config:
    """Sizes, steps and seeds of one run."""

    hidden_size: int
    input_size: int
    warm_up: int
    steps: int
    seeds: tuple[int, ...]


SMALL = Config(hidden_size=16, input_size=16, warm_up=20, steps=40, seeds=(0, 1, 2))
FULL = Config(
    hidden_size=64, input_size=64, warm_up=50, steps=60, seeds=tuple(range(10))
)
MARKS = (10, 20, 40)


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
    "weights_times_4_bias_5": Case(
        "weights × 4, forget bias + 5", scale=4.0, forget_bias=5.0
    ),
    "no_recurrence": Case("default, no recurrent weights", recurrent=0.0),
}


DRAWN = (
    "default",
    "default_bias_1",
    "default_bias_5",
    "weights_times_2",
    "weights_times_4",
)


class Gates(NamedTuple):
    """Activated gates of one step, each (hidden,)."""

    i_t: Tensor
    f_t: Tensor
    g_t: Tensor
    o_t: Tensor


def gates(cell: LSTMCell, x_t: Tensor, h_prev: Tensor) -> Gates:
    r"""The gates of one step, in the order of torch.nn: i, f, g, o."""
    pre = cell.weight_ih @ x_t + cell.weight_hh @ h_prev
    if cell.bias_ih is not None and cell.bias_hh is not None:
        pre = pre + cell.bias_ih + cell.bias_hh
    i_pre, f_pre, g_pre, o_pre = pre.chunk(4)
    return Gates(i_pre.sigmoid(), f_pre.sigmoid(), g_pre.tanh(), o_pre.sigmoid())


def output_slope(
    c_t: Float[Tensor, " hidden"], o_t: Float[Tensor, " hidden"]
) -> Float[Tensor, " hidden"]:
    r"""$\partial h_t / \partial c_t = o_t \odot (1 - \tanh^2 c_t)$, its diagonal."""
    return o_t * (1 - c_t.tanh().square())


def through_hidden(
    cell: LSTMCell, gate: Gates, c_prev: Float[Tensor, " hidden"]
) -> Float[Tensor, "hidden hidden"]:
    r"""$K_t = \partial c_t / \partial h_{t-1}$, at fixed $c_{t-1}$."""
    i_t, f_t, g_t, _ = gate
    w_hi, w_hf, w_hg, _ = cell.weight_hh.chunk(4)
    return (
        (c_prev * f_t * (1 - f_t))[:, None] * w_hf
        + (g_t * i_t * (1 - i_t))[:, None] * w_hi
        + (i_t * (1 - g_t.square()))[:, None] * w_hg
    )


def state_jacobian(
    cell: LSTMCell, gate: Gates, c_prev: Tensor, c_t: Tensor
) -> Float[Tensor, "state state"]:
    r"""$\partial (h_t, c_t) / \partial (h_{t-1}, c_{t-1})$, in blocks."""
    _, f_t, _, o_t = gate
    w_ho = cell.weight_hh.chunk(4)[3]
    c_from_h = through_hidden(cell, gate, c_prev)
    slope = output_slope(c_t, o_t)
    h_from_h = (c_t.tanh() * o_t * (1 - o_t))[:, None] * w_ho
    h_from_h = h_from_h + slope[:, None] * c_from_h
    top = torch.cat([h_from_h, torch.diag(slope * f_t)], dim=1)
    bottom = torch.cat([c_from_h, torch.diag(f_t)], dim=1)
    return torch.cat([top, bottom])


def build(case: Case, config: Config, seed: int) -> LSTM:
    """The layer of a case."""
    with seeded(seed):
        layer = LSTM(config.input_size, config.hidden_size, dtype=torch.float64)
    size = config.hidden_size
    with torch.no_grad():
        layer.cell.weight_ih.mul_(case.scale)
        layer.cell.weight_hh.mul_(case.scale * case.recurrent)
        bias = dict(layer.named_parameters())["cell.bias_ih"]
        bias[size : 2 * size].add_(case.forget_bias)
    return layer


class Trace(NamedTuple):
    """What one sequence gave, step by step."""

    dropped: list[float]
    direct: list[float]
    jacobian: list[float]
    product: list[float]


def trace(case: Case, config: Config, seed: int) -> Trace:
    r"""Follow one sequence of unit normal inputs.

    Per step: spectral norms of the dropped and of the direct part. From the end of
    the warm-up on: the norm of $d c_t / d c_{\text{start}}$ and of $\prod f$.
    """
    cell = build(case, config, seed).cell
    steps = config.warm_up + config.steps
    random, size = generator(seed + 1000), (steps, config.input_size)
    x = torch.randn(size, generator=random, dtype=torch.float64)
    state = cell.initial_state(1)
    o_prev = torch.zeros(config.hidden_size, dtype=torch.float64)
    found = Trace([], [], [], [])
    start = None
    for t, x_t in enumerate(x):
        gate = gates(cell, x_t, state.h[0])
        _, following = cell(x_t[None], state)
        if t >= config.warm_up:
            if start is None:
                start = _Product.at(state, o_prev)
            dropped = through_hidden(cell, gate, state.c[0])
            dropped = dropped * output_slope(state.c[0], o_prev)
            found.dropped.append(torch.linalg.matrix_norm(dropped, 2).item())
            found.direct.append(gate.f_t.max().item())
            start.extend(state_jacobian(cell, gate, state.c[0], following.c[0]), gate)
            found.jacobian.append(start.jacobian_norm())
            found.product.append(start.forget.max().item())
        state, o_prev = following, gate.o_t
    return found


class _Product:
    r"""$d (h_t, c_t) / d c_{\text{start}}$ and $\prod f$, step by step."""

    def __init__(self, total: Tensor, forget: Tensor) -> None:
        self.total = total
        self.forget = forget

    @classmethod
    def at(cls, state: LSTMState, o_t: Tensor) -> "_Product":
        # h depends on c at the start too: h = o * tanh(c), with o held fixed.
        slope = output_slope(state.c[0], o_t)
        unit = torch.ones_like(slope)
        return cls(torch.cat([torch.diag(slope), torch.diag(unit)]), unit)

    def extend(self, jacobian: Tensor, gate: Gates) -> None:
        self.total = jacobian @ self.total
        self.forget = self.forget * gate.f_t

    def jacobian_norm(self) -> float:
        return torch.linalg.matrix_norm(self.total[len(self.forget) :], 2).item()


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Measure every case over all seeds."""
    cases: dict[str, Any] = {}
    series: dict[str, Any] = {"steps": list(range(1, config.steps + 1)), "ratio": {}}
    for name, case in track(CASES.items(), "lstm_jacobian"):
        with torch.no_grad():
            traces = [trace(case, config, seed) for seed in config.seeds]
        ratios = [
            median(d / f for d, f in zip(found.dropped, found.direct, strict=True))
            for found in traces
        ]
        over = [
            log10_summary(
                found.jacobian[step] / found.product[step] for found in traces
            )
            for step in range(config.steps)
        ]
        series["ratio"][name] = over
        cases[name] = {
            "dropped_over_direct": spread(ratios),
            "largest_forget_gate": median(max(found.direct) for found in traces),
            "log10_true_over_product": {
                f"step_{m}": over[m - 1]["median"] for m in MARKS
            },
            "log10_product": {
                f"step_{m}": log10_summary(f.product[m - 1] for f in traces)["median"]
                for m in MARKS
            },
        }
    return {"numbers": summary(cases), "series": series, "cases": cases}


def summary(cases: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars and ready-made text for sentences."""
    found: dict[str, Any] = {}
    for name, case in cases.items():
        found[f"{name}_dropped_over_direct"] = case["dropped_over_direct"]["median"]
        found[f"{name}_dropped_percent"] = 100 * case["dropped_over_direct"]["median"]
        ratio = case["log10_true_over_product"]["step_40"]
        found[f"{name}_true_over_product_at_40"] = power_of_ten(ratio)
    return found


def _drops_something(case: Mapping[str, Any]) -> Outcome:
    found = case["dropped_over_direct"]["median"]
    return above(found, 0.05)


def _exceeds_product(case: Mapping[str, Any]) -> Outcome:
    found = case["log10_true_over_product"]["step_40"]
    return above(found, 1, power)


CLAIMS = (
    Claim(
        "C29.one-step",
        "At default weights the terms that run through the hidden state amount to more "
        "than 5 % of the direct term, in spectral norm.",
        _drops_something,
        case="default",
        control="no_recurrence",
    ),
    Claim(
        "C29.many-steps",
        "At default weights the true Jacobian over 40 steps is more than ten times the "
        "product of the forget gates.",
        _exceeds_product,
        case="default",
        control="no_recurrence",
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """The dropped part in one step, and the true Jacobian over many."""
    rows = []
    for name, case in CASES.items():
        found = record["cases"][name]
        ratio = found["dropped_over_direct"]
        spread_text = f"{number(ratio['low'], 2)} to {number(ratio['high'], 2)}"
        over = found["log10_true_over_product"]
        rows.append(
            [
                case.label,
                number(ratio["median"], 2),
                spread_text,
                *[power_of_ten(over[f"step_{mark}"]) for mark in MARKS],
            ]
        )
    headers = ["weights", "dropped / direct, one step", "over seeds"]
    headers += [f"true / ∏f, {mark} steps" for mark in MARKS]
    return {"ratio": table(headers, rows)}


def draw_ratio(figure: Any, record: Mapping[str, Any], theme: Theme) -> None:
    """Norm of the true Jacobian over the product of forget gates, by steps."""
    axes = figure.subplots()
    steps = record["series"]["steps"]
    labels = []
    for i, name in enumerate(DRAWN):
        points = record["series"]["ratio"][name]
        colour = theme.colours[i]
        low, high = ([p[key] for p in points] for key in ("low", "high"))
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
        middle = [p["median"] for p in points]
        axes.plot(steps, middle, color=colour, linestyle=DASHES[i])
        labels.append((middle[-1], CASES[name].label, colour))
    top = math.ceil(axes.get_ylim()[1])
    power_ticks(axes, range(0, top + 1, max(1, top // 6)))
    axes.set_xlim(1, steps[-1])
    axes.set_xlabel("steps")
    axes.set_title("How many times larger the true Jacobian is than the product of f")
    label_ends(axes, steps[-1], labels)


FIGURES = {"ratio": draw_ratio}
main = main_of(__name__, "lstm_jacobian")

if __name__ == "__main__":
    raise SystemExit(main())
