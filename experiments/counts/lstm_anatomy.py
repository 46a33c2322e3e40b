r"""The parts of an LSTM: its equations, its candidate, its direct path, its cost.

Written out from the equations, a step is compared with `torch.nn.LSTMCell`. The direct
path of the cell state, with the gates held as they were, is differentiated and compared
with the product of the forget gates. And the multiply-adds of a sequence are counted by
torch, not derived: twice the steps, and twice the width.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from experiments.lab.claim import Claim, Outcome
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.seeding import generator, seeded
from experiments.lab.tables import number, table
from seqref import LSTM
from seqref.recurrence import scan


@dataclass(frozen=True)
class Config:
    """Sizes of the compared step, of the path, and of the counted sequences."""

    input_size: int
    hidden_size: int
    batch_size: int
    steps: int
    counted_steps: int
    counted_width: int
    seeds: tuple[int, ...]


SMALL = Config(6, 8, 16, 20, 32, 16, seeds=(0, 1))
FULL = Config(24, 32, 64, 100, 256, 64, seeds=(0, 1, 2, 3, 4))


def step(
    cell: nn.LSTMCell, x_t: Tensor, h: Tensor, c: Tensor, order: str = "ifgo"
) -> dict[str, Tensor]:
    """One step from the equations, the rows of the weights read in `order`."""
    pre = x_t @ cell.weight_ih.T + cell.bias_ih + h @ cell.weight_hh.T + cell.bias_hh
    part = dict(zip(order, pre.chunk(4, dim=1), strict=True))
    i, f, o = (torch.sigmoid(part[name]) for name in "ifo")
    g = torch.tanh(part["g"])
    c = f * c + i * g
    return {"i": i, "f": f, "g": g, "o": o, "c": c, "h": o * torch.tanh(c)}


def equations(config: Config, seed: int, order: str) -> float:
    """Largest difference of one step from `torch.nn.LSTMCell`, in float64."""
    random = generator(seed)
    with seeded(seed):
        cell = nn.LSTMCell(config.input_size, config.hidden_size).double()
    shape = config.batch_size, config.hidden_size
    x_t, h, c = (
        torch.randn(size, generator=random, dtype=torch.float64)
        for size in ((config.batch_size, config.input_size), shape, shape)
    )
    with torch.no_grad():
        ours, (h_t, c_t) = step(cell, x_t, h, c, order), cell(x_t, (h, c))
    return max(
        (ours["h"] - h_t).abs().max().item(), (ours["c"] - c_t).abs().max().item()
    )


def path(config: Config, seed: int, squash: Callable[[Tensor], Tensor]) -> float:
    """How far the derivative along the direct path is from the product of the gates.

    The gates and candidates are those of a run and are held; `squash` is applied to
    the carried cell state at each step. Relative to the product.
    """
    random = generator(seed)
    with seeded(seed):
        cell = nn.LSTMCell(config.input_size, config.hidden_size).double()
    h = c = torch.zeros(1, config.hidden_size, dtype=torch.float64)
    start = torch.zeros_like(c).requires_grad_()
    carried, product = start, torch.ones_like(c)
    for _ in range(config.steps):
        x_t = torch.randn(1, config.input_size, generator=random, dtype=torch.float64)
        with torch.no_grad():
            now = step(cell, x_t, h, c)
        h, c = now["h"], now["c"]
        carried = squash(now["f"] * carried + now["i"] * now["g"])
        product = product * now["f"]
    (derivative,) = torch.autograd.grad(carried.sum(), start)
    return ((derivative - product).abs() / product).max().item()


def negative(config: Config, seed: int) -> dict[str, float]:
    """Share of negative values of the candidate and of each gate."""
    random = generator(seed)
    with seeded(seed):
        cell = nn.LSTMCell(config.input_size, config.hidden_size).double()
    x_t = torch.randn(
        config.batch_size, config.input_size, generator=random, dtype=torch.float64
    )
    zero = x_t.new_zeros(config.batch_size, config.hidden_size)
    with torch.no_grad():
        now = step(cell, x_t, zero, zero)
    return {name: (now[name] < 0).double().mean().item() for name in "ifgo"}


def count(run: Callable[[], object]) -> int:
    """Floating-point operations that torch counts: two for a multiply-add."""
    counter = FlopCounterMode(display=False)
    with counter:
        run()
    return counter.get_total_flops()


def lstm_flops(steps: int, width: int) -> int:
    """Operations of an LSTM over a sequence, by the loop over its steps."""
    layer, x = LSTM(width, width), torch.zeros(1, steps, width)
    return count(lambda: scan(layer, x))


def attention_flops(steps: int, width: int) -> int:
    """Operations of the scores and sums of one head of attention."""
    x = torch.zeros(1, steps, width)
    return count(lambda: torch.softmax(x @ x.mT, dim=-1) @ x)


def growth(flops: Callable[[int, int], int], config: Config) -> dict[str, float]:
    """Exponents of the cost in the number of steps and in the width."""
    steps, width = config.counted_steps, config.counted_width
    base = flops(steps, width)
    return {
        "flops": float(base),
        "in_steps": math.log2(flops(2 * steps, width) / base),
        "in_width": math.log2(flops(steps, 2 * width) / base),
    }


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Compare, differentiate and count."""
    found: dict[str, list[Any]] = {
        key: [] for key in ("ifgo", "ifog", "free", "squashed", "negative")
    }
    for seed in track(config.seeds, "lstm_anatomy"):
        for order in ("ifgo", "ifog"):
            found[order].append(equations(config, seed, order))
        found["free"].append(path(config, seed, lambda c: c))
        found["squashed"].append(path(config, seed, torch.tanh))
        found["negative"].append(negative(config, seed))
    shares = {
        name: min(row[name] for row in found["negative"])
        if name == "g"
        else max(row[name] for row in found["negative"])
        for name in "ifgo"
    }
    cases: dict[str, Any] = {
        "equations": {"error": max(found["ifgo"])},
        "other_gate_order": {"error": min(found["ifog"])},
        "direct_path": {"error": max(found["free"])},
        "squashed_path": {"error": min(found["squashed"])},
        "candidate": {"negative": shares["g"]},
        "forget_gate": {"negative": shares["f"]},
        "lstm": growth(lstm_flops, config),
        "attention": growth(attention_flops, config),
    }
    flat = {
        f"{name}_{key}": value
        for name, case in cases.items()
        for key, value in case.items()
    }
    return {"numbers": flat, "series": {"negative": shares}, "cases": cases}


def _exact(case: Mapping[str, Any]) -> Outcome:
    return Outcome.below(case["error"], 1e-10)


def _negative(case: Mapping[str, Any]) -> Outcome:
    return Outcome.above(case["negative"], 0.25)


def _linear(case: Mapping[str, Any]) -> Outcome:
    return Outcome.all_of(
        case["in_steps"], Outcome.below(abs(case["in_steps"] - 1), 0.01)
    )


def _quadratic(case: Mapping[str, Any]) -> Outcome:
    return Outcome.all_of(
        case["in_width"], Outcome.below(abs(case["in_width"] - 2), 0.01)
    )


CLAIMS = (
    Claim(
        "C37",
        "A step from the usual equations equals torch.nn.LSTMCell with its weights, "
        "the gates in the order i, f, g, o.",
        _exact,
        case="equations",
        control="other_gate_order",
    ),
    Claim(
        "C41",
        "With the gates held, the derivative of the cell state along its direct path "
        "is the product of the forget gates and nothing else.",
        _exact,
        case="direct_path",
        control="squashed_path",
    ),
    Claim(
        "C44",
        "More than a quarter of the candidate's values are negative; none of a gate's "
        "can be.",
        _negative,
        case="candidate",
        control="forget_gate",
    ),
    Claim(
        "C80.steps",
        "The operations of an LSTM grow with the first power of the number of steps.",
        _linear,
        case="lstm",
        control="attention",
    ),
    Claim(
        "C80.width",
        "The operations of an LSTM grow with the square of its width.",
        _quadratic,
        case="lstm",
        control="attention",
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Counted operations, and how they grow."""
    rows = [
        [
            label,
            *[number(record["cases"][name][key]) for key in ("in_steps", "in_width")],
        ]
        for name, label in (
            ("lstm", "LSTM, inputs as wide as the state"),
            ("attention", "attention's scores and sums, one head"),
        )
    ]
    headers = ["operations of a sequence", "power of the steps", "power of the width"]
    return {"growth": table(headers, rows)}


experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
)
