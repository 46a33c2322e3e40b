r"""What rules of discretisation lose, by the size of a step and by the input.

Random stable systems of four states follow an input that is held for an eighth of the
time unit, or a sine. The truth is the exponential of a larger system, which has the
input among its states. An error is the largest over all steps, over the largest state;
the order is the slope of its logarithm against that of the step size.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments import lab
from seqref.ssm import bilinear, euler, zero_order_hold

F64 = torch.float64
# Sizes of $|\Delta A|$ at which the inputs of two rules are compared.
SIZES = {"hundredth": 0.01, "tenth": 0.1, "one": 1.0, "two": 2.0, "ten": 10.0}
# The input is held for so long.
HOLD = 3
DURATION = 4


@dataclass(frozen=True)
class Config:
    """Step sizes as powers of one half, the number of systems a seed, and the seeds."""

    powers: tuple[int, ...] = (3, 4, 5, 6, 7, 8, 9)
    systems: int = 8
    states: int = 4
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


def mamba(A: Tensor, B: Tensor, dt: float, **options: bool) -> tuple[Tensor, Tensor]:
    """What Mamba's code takes: the exponential for A, Euler's rule for B."""
    A_bar, _ = zero_order_hold(A, B, dt, **options)
    return A_bar, euler(A, B, dt, **options)[1]


@dataclass(frozen=True)
class Case:
    """A rule, and whether a step reads the mean of its input and the one before."""

    label: str
    rule: Callable[..., tuple[Tensor, Tensor]]
    mean: bool = False


CASES = {
    "zoh": Case("zero-order hold", zero_order_hold),
    "bilinear": Case("bilinear", bilinear),
    "euler": Case("Euler", euler),
    "mamba": Case("Mamba: exponential, Euler", mamba),
    "zoh_mean": Case("zero-order hold of the mean input", zero_order_hold, True),
    "bilinear_mean": Case("bilinear of the mean input", bilinear, True),
}


def systems(config: Config) -> tuple[Tensor, Tensor, Tensor]:
    """Stable matrices, input columns and held inputs, those of all seeds in a row."""
    drawn = []
    for seed in config.seeds:
        generator = lab.generator(seed)
        n, count = config.states, config.systems
        turn = torch.randn(count, n, n, generator=generator, dtype=F64)
        damping = 0.2 + torch.rand(count, n, generator=generator, dtype=F64)
        A = turn - turn.mT - damping.diag_embed()
        B = torch.randn(count, n, 1, generator=generator, dtype=F64)
        held = torch.randn(count, DURATION * 2**HOLD, generator=generator, dtype=F64)
        drawn.append((A, B, held))
    A, B, held = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    return A, B, held


def zeros_below(top: Tensor, rows: int) -> Tensor:
    """A matrix with rows of zeros below it."""
    return torch.cat([top, top.new_zeros(*top.shape[:-2], rows, top.shape[-1])], -2)


def of_sine(A: Tensor, B: Tensor, dt: float, steps: int) -> tuple[Tensor, Tensor]:
    """Sampled sine and the exact states, from an oscillator beside the system."""
    n, speed = A.shape[-1], 3.0
    whole = zeros_below(torch.cat([A, B, torch.zeros_like(B)], dim=-1), 2)
    whole[:, n, n + 1], whole[:, n + 1, n] = speed, -speed
    step = torch.linalg.matrix_exp(dt * whole)
    z = torch.zeros_like(whole[:, :, :1])
    z[:, n + 1] = 1.0
    states = []
    for _ in range(steps):
        z = step @ z
        states.append(z[..., 0])
    exact = torch.stack(states, dim=1)
    return exact[..., n], exact[..., :n]


def of_held(
    A: Tensor, B: Tensor, held: Tensor, dt: float, steps: int
) -> tuple[Tensor, Tensor]:
    """Held input at every step and the exact states."""
    n = A.shape[-1]
    x = held.repeat_interleave(steps // held.shape[1], dim=1)
    step = torch.linalg.matrix_exp(dt * zeros_below(torch.cat([A, B], dim=-1), 1))
    h, states = torch.zeros_like(A[..., 0]), []
    for x_t in x.unbind(1):
        h = (step @ torch.cat([h, x_t[:, None]], dim=-1)[..., None])[:, :n, 0]
        states.append(h)
    return x, torch.stack(states, dim=1)


def errors(
    case: Case, A: Tensor, B: Tensor, x: Tensor, exact: Tensor, dt: float
) -> Tensor:
    """The largest error of each system, over its largest state."""
    A_bar, B_bar = case.rule(A, B, dt)
    if case.mean:
        x = (x + torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)) / 2
    h, worst = torch.zeros_like(A[..., :1]), torch.zeros_like(A[:, 0, 0])
    for x_t, exact_t in zip(x.unbind(1), exact.unbind(1), strict=True):
        h = A_bar @ h + B_bar * x_t[:, None, None]
        worst = torch.maximum(worst, (h[..., 0] - exact_t).abs().amax(dim=-1))
    return worst / exact.abs().amax(dim=(1, 2))


def slope(by_power: Mapping[int, Tensor]) -> float:
    """The median slope of the logarithm of the error against that of the step size."""
    powers = torch.tensor(list(by_power), dtype=F64)
    # What is exact to the last bit has no logarithm.
    logs = torch.stack(list(by_power.values())).clamp(min=1e-17).log2()
    x = powers - powers.mean()
    return -(x @ (logs - logs.mean(dim=0)) / (x @ x)).median().item()


def measure(case: Case, config: Config) -> dict[str, Any]:
    """Orders and errors for both inputs, and how the input compares with a hold's."""
    A, B, held = systems(config)
    values: dict[str, Any] = {}
    found: dict[int, Tensor] = {}
    for name in ("held", "sine"):
        found = {}
        for power in config.powers:
            dt, steps = 2.0**-power, DURATION * 2**power
            if name == "held":
                x, exact = of_held(A, B, held, dt, steps)
            else:
                x, exact = of_sine(A, B, dt, steps)
            found[power] = errors(case, A, B, x, exact, dt)
        values[name] = {
            "order": slope(found),
            "coarse": found[config.powers[0]].median().item(),
            "fine": found[config.powers[-1]].median().item(),
        }
    # Of the last input, the sine.
    values["curve"] = [
        lab.log10_summary(one.clamp(min=1e-17).tolist()) for one in found.values()
    ]
    z, one = -torch.tensor(list(SIZES.values()), dtype=F64), torch.ones(5, dtype=F64)
    hold, own = (
        rule(z, one, 1.0, diagonal=True)[1] for rule in (zero_order_hold, case.rule)
    )
    values["ratio"] = dict(zip(SIZES, (hold / own).tolist(), strict=True))
    return values


def exact_or_order(name: str) -> lab.Cell:
    """An order; none where there is no error but rounding."""

    def write(case: Mapping[str, Any]) -> str:
        value = case[name]
        return "exact" if value["coarse"] < 1e-12 else f"{value['order']:.2f}"

    return write


def error(name: str) -> lab.Cell:
    """An error, of which rounding differs between processors."""

    def write(case: Mapping[str, Any]) -> str:
        value = case[name]["coarse"]
        return "rounding" if value < 1e-12 else f"{value:.1e}"

    return write


experiment = lab.Experiment(
    small=Config(powers=(4, 5, 6), systems=4, seeds=(0, 1, 2)),
    cases=CASES,
    measure=measure,
    claims=[
        lab.Claim(
            "C205",
            "Under a smooth input the bilinear rule that reads the input of its own "
            "step is of first order; with the mean of two inputs it is of second.",
            lab.below("sine.order", 1.5),
            case="bilinear",
            control="bilinear_mean",
        ),
        lab.Claim(
            "C206",
            "Under a held input zero-order hold has no error but rounding.",
            lab.below("held.coarse", 1e-11),
            case="zoh",
            control="bilinear",
        ),
        lab.Claim(
            "C206.smooth",
            "Under a smooth input that is sampled it is of first order; with the mean "
            "of two inputs of second.",
            lab.below("sine.order", 1.5),
            case="zoh",
            control="zoh_mean",
        ),
        lab.Claim(
            "C100",
            "With the exponential for A and Euler's rule for B the input is more "
            "than 1.4 times that of zero-order hold at |dt A| = 1.",
            lab.below("ratio.one", 0.7),
            case="mamba",
            control="zoh",
        ),
        lab.Claim(
            "C100.order",
            "Under a held input that pair is of first order.",
            lab.below("held.order", 1.5),
            case="mamba",
            control="bilinear",
        ),
    ],
    numbers=[
        *(
            lab.each(f"{name}.{key}", f"{name}_{key}")
            for name in ("held", "sine")
            for key in ("order", "coarse", "fine")
        ),
        *(lab.each(f"ratio.{key}", f"ratio_{key}") for key in SIZES),
    ],
    tables={
        "orders": lab.Table(
            labels={name: case.label for name, case in CASES.items()},
            heading="rule",
            columns={
                "order, held input": exact_or_order("held"),
                "error, held input": error("held"),
                "order, sine": exact_or_order("sine"),
                "error, sine": error("sine"),
            },
        ),
    },
    figures={
        "sine": lab.Lines(
            x="run.config.powers",
            y=lambda record: {n: c["curve"] for n, c in record["cases"].items()},
            xlabel="halvings of the time unit that a step is",
            title="Largest error under a sine, over the largest state",
            labels={
                "zoh": "hold",
                "euler": "Euler",
                "bilinear_mean": "bilinear, mean",
            },
            ticks=(-5, -4, -3, -2, -1, 0),
        )
    },
)
