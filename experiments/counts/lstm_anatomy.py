r"""The parts of an LSTM: its equations, its candidate, its direct path, its cost.

Written out from the equations, a step is compared with `torch.nn.LSTMCell`. The direct
path of the cell state, with the gates held as they were, is differentiated and compared
with the product of the forget gates. And the multiply-adds of a sequence are counted by
torch, not derived: twice the steps, and twice the width.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from experiments import lab
from seqref import LSTM
from seqref.recurrence import scan


@dataclass(frozen=True)
class Config:
    """Sizes of the compared step, of the path, and of the counted sequences."""

    input_size: int = 24
    hidden_size: int = 32
    batch_size: int = 64
    steps: int = 100
    counted_steps: int = 256
    counted_width: int = 64
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


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


def drawn(config: Config, seed: int) -> tuple[nn.LSTMCell, Callable[..., Tensor]]:
    """A cell as it comes, and what draws its inputs and states; float64."""
    with lab.seeded(seed):
        cell = nn.LSTMCell(config.input_size, config.hidden_size).double()
    return cell, partial(
        torch.randn, generator=lab.generator(seed), dtype=torch.float64
    )


@torch.no_grad()
def difference(config: Config, seed: int, order: str) -> float:
    """Largest difference of one step from `torch.nn.LSTMCell`."""
    cell, draw = drawn(config, seed)
    x_t = draw(config.batch_size, config.input_size)
    h, c = (draw(config.batch_size, config.hidden_size) for _ in "hc")
    ours, theirs = step(cell, x_t, h, c, order), cell(x_t, (h, c))
    errors = [ours[k] - part for k, part in zip("hc", theirs, strict=True)]
    return torch.stack(errors).abs().max().item()


def path(config: Config, seed: int, squash: Callable[[Tensor], Tensor]) -> float:
    """How far the derivative along the direct path is from the product of the gates.

    The gates and candidates are those of a run and are held; `squash` is applied to
    the carried cell state at each step. Relative to the product.
    """
    cell, draw = drawn(config, seed)
    h = c = torch.zeros(1, config.hidden_size, dtype=torch.float64)
    start = torch.zeros_like(c).requires_grad_()
    carried, product = start, torch.ones_like(c)
    for _ in range(config.steps):
        with torch.no_grad():
            now = step(cell, draw(1, config.input_size), h, c)
        h, c = now["h"], now["c"]
        carried = squash(now["f"] * carried + now["i"] * now["g"])
        product = product * now["f"]
    (derivative,) = torch.autograd.grad(carried.sum(), start)
    return ((derivative - product).abs() / product).max().item()


@torch.no_grad()
def negative(config: Config, seed: int, name: str) -> float:
    """Share of negative values of the candidate or of a gate, at a first step."""
    cell, draw = drawn(config, seed)
    x_t = draw(config.batch_size, config.input_size)
    zero = x_t.new_zeros(config.batch_size, config.hidden_size)
    return (step(cell, x_t, zero, zero)[name] < 0).double().mean().item()


def count(run: Callable[[], object]) -> int:
    """Floating-point operations that torch counts: two for a multiply-add."""
    with FlopCounterMode(display=False) as counter:
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
    # The counts depend on the shapes alone.
    with torch.device("meta"):
        base = flops(steps, width)
        longer, wider = flops(2 * steps, width), flops(steps, 2 * width)
    return {
        "flops": float(base),
        "in_steps": math.log2(longer / base),
        "in_width": math.log2(wider / base),
    }


def run(config: Config, track: lab.Track) -> dict:
    """Compare, differentiate and count; of all seeds the one that says least."""

    def over_seeds(end: Callable, quantity: Callable, *options: object) -> float:
        return end(quantity(config, seed, *options) for seed in config.seeds)

    shares = {name: over_seeds(max, negative, name) for name in "ifo"}
    shares["g"] = over_seeds(min, negative, "g")
    cases = {
        "equations": {"error": over_seeds(max, difference, "ifgo")},
        "other_gate_order": {"error": over_seeds(min, difference, "ifog")},
        "direct_path": {"error": over_seeds(max, path, lambda c: c)},
        "squashed_path": {"error": over_seeds(min, path, torch.tanh)},
        "candidate": {"negative": shares["g"]},
        "forget_gate": {"negative": shares["f"]},
        "lstm": growth(lstm_flops, config),
        "attention": growth(attention_flops, config),
    }
    return {"series": {"negative": shares}, "cases": cases}


def power_is(quantity: str, exponent: int) -> Callable:
    """That a cost grows with this power."""
    distance = lab.below(lambda case: abs(case[quantity] - exponent), 0.01)
    return lab.all_of(distance, number=quantity)


EXACT = lab.below("error", 1e-10)
experiment = lab.Experiment(
    small=Config(6, 8, 16, 20, 32, 16, seeds=(0, 1)),
    run=run,
    claims=[
        lab.Claim(
            "C37",
            "A step from the usual equations equals torch.nn.LSTMCell with its "
            "weights, the gates in the order i, f, g, o.",
            EXACT,
            case="equations",
            control="other_gate_order",
        ),
        lab.Claim(
            "C41",
            "With the gates held, the derivative of the cell state along its direct "
            "path is the product of the forget gates and nothing else.",
            EXACT,
            case="direct_path",
            control="squashed_path",
        ),
        lab.Claim(
            "C44",
            "More than a quarter of the candidate's values are negative; none of a "
            "gate's can be.",
            lab.above("negative", 0.25),
            case="candidate",
            control="forget_gate",
        ),
        lab.Claim(
            "C80.steps",
            "The operations of an LSTM grow with the first power of the number of "
            "steps.",
            power_is("in_steps", 1),
            case="lstm",
            control="attention",
        ),
        lab.Claim(
            "C80.width",
            "The operations of an LSTM grow with the square of its width.",
            power_is("in_width", 2),
            case="lstm",
            control="attention",
        ),
    ],
    numbers=[lab.everything],
    tables={
        "growth": lab.Table(
            labels={
                "lstm": "LSTM, inputs as wide as the state",
                "attention": "attention's scores and sums, one head",
            },
            heading="operations of a sequence",
            columns={
                "power of the steps": "in_steps",
                "power of the width": "in_width",
            },
        )
    },
)
