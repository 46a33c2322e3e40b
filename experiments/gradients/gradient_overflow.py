r"""How an exploding gradient turns a loss into NaN, and what clipping does about it.

A tanh network of a large spectral radius runs over random inputs in float32 and in
float64; its gradient is clipped by norm, one step of gradient descent is made, and the
loss is computed again. Beside it: where the slope of tanh becomes zero in each dtype,
at which lag a gradient that doubles at each step becomes infinite, and what
`torch.nn.utils` makes of gradients that explode or vanish.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from experiments import lab
from experiments.gradients import _overflow_clipping as clipping
from seqref import RNN, RNNState
from seqref.recurrent.gradients import gradient_norm_by_lag


@dataclass(frozen=True)
class Config:
    """Sizes, lengths and seeds of one run."""

    hidden_size: int = 64
    steps: int = 300
    radius: float = 10.0
    clip_steps: int = 50
    descent_updates: int = 1000
    descent_runs: int = 400
    seeds: tuple[int, ...] = tuple(range(10))


F64 = torch.float64
NAMES = ("float16", "bfloat16", "float32", "float64")
DTYPES = {name: getattr(torch, name) for name in NAMES}
# A double holds 2 to the power of 1023 and no more.
LONGEST_LAG = 1030


def slopes(
    activation: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> dict[str, float]:
    """The slope that autograd computes, from -25 to 25 in steps of 1/64."""
    a = torch.arange(-25 * 64, 25 * 64 + 1, dtype=F64) / 64
    inputs = a.to(dtype).requires_grad_()
    (slope,) = torch.autograd.grad(activation(inputs).sum(), inputs)
    zero = a[(slope == 0) & (a > 0)]
    return {
        "lowest_to_8_5": slope[a.abs() <= 8.5].min().item(),
        "lowest_to_10": slope[a.abs() <= 10].min().item(),
        "highest": slope.max().item(),
        "zero_from": zero.min().item() if len(zero) else a.max().item(),
    }


def first_infinite_lag(dtype: torch.dtype) -> int:
    """For a gradient that doubles at each step back: where it leaves the dtype."""
    with lab.seeded(0):
        layer = RNN(1, 1, bias=False, dtype=dtype)
    nn.init.constant_(layer.cell.weight_hh, 2)
    x = torch.zeros(1, LONGEST_LAG, 1, dtype=dtype)
    norms = gradient_norm_by_lag(layer, x, RNNState(torch.ones(1, 1, dtype=dtype)))
    return int((~norms[0].isfinite()).nonzero()[0, 0])


def one_update(
    config: Config, dtype: torch.dtype, seed: int, *, phi: str, skip: bool
) -> dict[str, bool]:
    r"""What is finite before, during and after one clipped step of descent.

    With `skip` the step is left out where the total norm is not finite.
    """
    layer = clipping.exploding_layer(config.hidden_size, dtype, config.radius, seed)
    layer.cell.nonlinearity = phi
    random, size = lab.generator(seed + 1000), config.hidden_size
    x = 0.5 * torch.randn((1, config.steps, size), generator=random, dtype=F64)
    goal = torch.rand(size, generator=random, dtype=F64).to(dtype)

    def loss_of(end: RNNState) -> Tensor:
        return (end.h[0] - goal).square().mean()

    states, end = layer(x.to(dtype))
    loss = loss_of(end)
    loss.backward()
    gradients = [p.grad for p in layer.parameters() if p.grad is not None]
    finite = all(bool(gradient.isfinite().all()) for gradient in gradients)
    norm = nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
    if norm.isfinite() or not skip:
        torch.optim.SGD(layer.parameters(), lr=0.01).step()
    with torch.no_grad():
        after = loss_of(layer(x.to(dtype))[1])
    return {
        "state_bounded": bool((states.abs() <= 1).all()),
        "loss_finite": bool(loss.isfinite()),
        "gradient_finite": finite,
        "loss_after_finite": bool(after.isfinite()),
    }


def updates(
    config: Config, dtype: torch.dtype, phi: str = "tanh", *, skip: bool = False
) -> dict[str, int]:
    """In how many of the runs each thing was so."""
    runs = [one_update(config, dtype, s, phi=phi, skip=skip) for s in config.seeds]
    return {"runs": len(runs), **{key: sum(r[key] for r in runs) for key in runs[0]}}


def clippings(config: Config) -> dict[str, dict[str, float]]:
    """What clipping leaves: directions, shares, and entries of 1e20."""
    size, seeds = (config.hidden_size, config.clip_steps), config.seeds
    cases = {
        f"clip_{name}": {
            "cosine": lab.median(clipping.cosine(*size, s, clip) for s in seeds)
        }
        for name, clip in (("norm", clipping.by_norm), ("value", clipping.by_value))
    }
    for name in ("default", "orthogonal"):
        shares = (
            clipping.share_of_first_half(*size, seed, default=name == "default")
            for seed in seeds
        )
        cases[f"clipped_{name}"] = {"share_of_first_half": lab.median(shares)}
    for name in ("float32", "float64"):
        # By norm there should be left a half of each.
        entries = torch.full((4,), 1e20, dtype=DTYPES[name])
        entry = clipping.clipped(entries, clipping.by_norm, 1.0)[0].item()
        cases[f"huge_{name}"] = {"entry_after": entry}
    return cases


def run(config: Config, track: lab.Track) -> dict:
    """Measure slopes, overflow, updates and clipping."""
    cases: dict[str, dict] = {"slope_relu": slopes(torch.relu, F64)}
    for name, dtype in DTYPES.items():
        cases[f"slope_{name}"] = slopes(torch.tanh, dtype)
        cases[f"lag_{name}"] = {"first_infinite_lag": first_infinite_lag(dtype)}
    for name in track(("float32", "float64"), "updates"):
        cases[f"update_{name}"] = updates(config, DTYPES[name])
    cases["update_skipped"] = updates(config, torch.float32, skip=True)
    cases["update_relu"] = updates(config, torch.float32, "relu")
    cases |= clippings(config)
    for name, limit in track(clipping.LIMITS.items(), "descents"):
        cases[name] = clipping.descend(
            limit, config.descent_updates, config.descent_runs, config.seeds[0]
        )
    return {"series": {}, "cases": cases}


def is_zero(quantity: str) -> Callable:
    """That nothing is left of a quantity, or no run had it."""
    return lab.exactly(quantity, lambda case: case[quantity] == 0)


def of_runs(quantity: str) -> Callable[[Mapping], str]:
    """A count, of all runs, in a table."""
    return lambda case: f"{case[quantity]} of {case['runs']}"


def dtype_rows(record: Mapping) -> list[dict]:
    """What the table of dtypes has its lines from."""
    cases = record["cases"]
    return [
        {"name": name, **cases[f"slope_{name}"], **cases[f"lag_{name}"]}
        for name in DTYPES
    ]


experiment = lab.Experiment(
    small=Config(48, 250, 10.0, 40, 200, 32, seeds=(0, 1, 2)),
    run=run,
    claims=[
        lab.Claim(
            "C12.range",
            "In float64 the slope of tanh is above 0 for every input up to 8.5 in "
            "size, and its largest value is 1.",
            lab.exactly(
                "lowest_to_8_5",
                lambda case: case["lowest_to_8_5"] > 0 and case["highest"] == 1,
            ),
            case="slope_float64",
            control="slope_relu",
        ),
        lab.Claim(
            "C12.float32",
            "In float32 the computed slope of tanh is exactly 0 for some input up to "
            "10.",
            is_zero("lowest_to_10"),
            case="slope_float32",
            control="slope_float64",
        ),
        lab.Claim(
            "C13.gradient",
            "In every run in float32 the states of a tanh network stay within 1 and "
            "the loss is finite, and the gradient is not.",
            lab.exactly(
                "gradient_finite",
                lambda case: (
                    case["state_bounded"] == case["loss_finite"] == case["runs"]
                    and case["gradient_finite"] == 0
                ),
            ),
            case="update_float32",
            control="update_float64",
        ),
        lab.Claim(
            "C13.loss",
            "After one clipped update from such a gradient the loss is not finite.",
            is_zero("loss_after_finite"),
            case="update_float32",
            control="update_skipped",
        ),
        lab.Claim(
            "C13.relu",
            "With a ReLU in the place of tanh the first loss itself is not finite.",
            is_zero("loss_finite"),
            case="update_relu",
            control="update_float32",
        ),
        lab.Claim(
            "C13.range",
            "A gradient that doubles at each step leaves bfloat16 at lag 128.",
            lab.exactly(
                "first_infinite_lag", lambda case: case["first_infinite_lag"] == 128
            ),
            case="lag_bfloat16",
            control="lag_float16",
        ),
        lab.Claim(
            "C20.direction",
            "Clipping by norm keeps the direction of an exploding gradient.",
            lab.all_of(
                lab.below(lambda case: 1 - case["cosine"], 1e-8), number="cosine"
            ),
            case="clip_norm",
            control="clip_value",
        ),
        lab.Claim(
            "C20.vanishing",
            "After clipping, what comes from the first half of the inputs is still "
            "less than a hundred-thousandth of the gradient.",
            lab.below("share_of_first_half", 1e-5),
            case="clipped_default",
            control="clipped_orthogonal",
        ),
        lab.Claim(
            "C20.overflow",
            "In float32 four entries of 1e20 are clipped to nothing.",
            is_zero("entry_after"),
            case="huge_float32",
            control="huge_float64",
        ),
        lab.Claim(
            "C20.update",
            "With clipping no update of a unit near its bifurcation is larger than "
            "0.1.",
            lab.below("largest_update", 0.1),
            case="limit_1",
            control="unclipped",
        ),
    ],
    numbers=[
        lab.all_but("clipped_default_share_of_first_half"),
        {
            "clipped_default_share_of_first_half": lambda cases: lab.power_of_ten(
                math.log10(cases["clipped_default"]["share_of_first_half"])
            )
        },
    ],
    tables={
        "dtypes": lab.Table(
            rows=dtype_rows,
            columns={
                "dtype": "`{name}`".format_map,
                "slope of tanh first 0 at": "zero_from",
                "first infinite lag": "first_infinite_lag",
            },
        ),
        "updates": lab.Table(
            labels={
                "update_float32": "tanh, `float32`",
                "update_float64": "tanh, `float64`",
                "update_skipped": "tanh, `float32`, step skipped",
                "update_relu": "ReLU, `float32`",
            },
            heading="network",
            columns={
                "states within 1": of_runs("state_bounded"),
                "loss finite": of_runs("loss_finite"),
                "gradient finite": of_runs("gradient_finite"),
                "loss after the update finite": of_runs("loss_after_finite"),
            },
        ),
        "descents": lab.Table(
            labels={"unclipped": "none", "limit_1": "1", "limit_0_1": "0.1"},
            heading="limit",
            columns={
                "largest update": lab.cell("largest_update", lab.number, 2),
                "runs that arrive": lambda case: f"{case['solved']:.0%}",
            },
        ),
    },
)
