r"""What HiPPO's memories keep of a past, and by which step they are kept.

LegS is to hold the polynomial that is nearest to all that was seen. Its equation in
time is stepped in three ways: exactly for held inputs, by the bilinear rule, and by
Euler's, as the paper writes it. The truth is the projection of the held signal. LegT
is compared with the projection of its window. Signals are a sum of waves of at most
`cycles` periods, and white noise.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments import lab
from experiments.lab.drawing import DASHES, Theme, label_ends
from seqref.ssm import (
    hippo_legs,
    legs_coefficients,
    legt_coefficients,
    reconstruct,
)


@dataclass(frozen=True)
class Config:
    """Steps of a signal, waves in it, coefficients, LegT's window, seeds."""

    steps: int = 1000
    cycles: int = 8
    states: tuple[int, ...] = (8, 16, 32, 64)
    # Of the steps.
    window: float = 0.25
    places: int = 200
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


def waves(config: Config, seed: int) -> Tensor:
    """A sum of waves with random phases and sizes, (1, steps)."""
    random = lab.generator(seed)
    n = torch.arange(1, config.cycles + 1).double()[:, None]
    size, phase = torch.rand(2, config.cycles, 1, generator=random).double()
    time = torch.arange(config.steps).double() / config.steps
    return (size * torch.sin(2 * math.pi * (n * time + phase))).sum(0, keepdim=True)


def noise(config: Config, seed: int) -> Tensor:
    """White noise, (1, steps)."""
    return lab.normal(lab.generator(seed), 1, config.steps).double()


def projected(x: Tensor, d_state: int) -> Tensor:
    r"""The coefficients of the nearest polynomial to a held signal.

    The integral of $P_n$ over a step is that of $(P_{n+1} - P_{n-1}) / (2n + 1)$ at its
    ends.
    """
    edges = torch.linspace(0, 1, x.shape[-1] + 1, dtype=torch.float64)
    n = torch.arange(d_state + 1).double()[:, None]
    P = reconstruct(torch.eye(d_state + 1).double(), edges) / (2 * n + 1).sqrt()
    below = torch.cat([-torch.ones_like(P[:1]), P[:-2]])
    integrals = (P[1:] - below) / (2 * n[:-1] + 1).sqrt() / 2
    return x @ integrals.diff(dim=1).T


def exact(x: Tensor, d_state: int) -> Tensor:
    """The package's, (1, steps, state)."""
    return legs_coefficients(x, d_state)


def bilinear(x: Tensor, d_state: int) -> Tensor:
    """Half a step with the slope before it, half with the one after it."""
    A, B = hippo_legs(d_state, dtype=x.dtype)
    one, c, kept = torch.eye(d_state, dtype=x.dtype), x[0, 0] * first(d_state), []
    for k, x_k in enumerate(x[0], start=1):
        if k > 1:
            # The input is held, so that it is in both slopes.
            before = (A @ c + B[:, 0] * x_k) / (2 * (k - 1))
            ahead = c + before + B[:, 0] * x_k / (2 * k)
            c = torch.linalg.solve(one - A / (2 * k), ahead)
        kept.append(c)
    return torch.stack(kept)[None]


def euler(x: Tensor, d_state: int) -> Tensor:
    """The slope before the step: c + (A c + B x) / k, from zero."""
    A, B = hippo_legs(d_state, dtype=x.dtype)
    c, kept = torch.zeros(d_state, dtype=x.dtype), []
    for k, x_k in enumerate(x[0], start=1):
        c = c + (A @ c + B[:, 0] * x_k) / k
        kept.append(c)
    return torch.stack(kept)[None]


def first(d_state: int) -> Tensor:
    """The coefficients of the polynomial 1."""
    return torch.eye(d_state, dtype=torch.float64)[0]


RULES = {"exact": exact, "bilinear": bilinear, "euler": euler}
SIGNALS = {"waves": waves, "noise": noise}


def distance(one: Tensor, other: Tensor) -> float:
    """Of two vectors of coefficients, over the length of the second."""
    return ((one - other).norm() / other.norm()).item()


def by_rule(config: Config, rule: str, d_state: int) -> dict[str, float]:
    """How far from the projection it ends, and the largest coefficient on the way."""
    errors, ways = [], []
    for seed in config.seeds:
        x = waves(config, seed)
        c, truth = RULES[rule](x, d_state), projected(x, d_state)
        # What is below is rounding, which differs between processors.
        errors.append(math.log10(max(1e-12, distance(c[0, -1], truth[0]))))
        ways.append(math.log10((c.abs().max() / x.abs().max()).item()))
    return {
        "log10_error": lab.median(errors),
        "log10_way": lab.median(ways),
    }


def lost(config: Config, signal: str, d_state: int) -> float:
    """Of the variance of a signal, what the nearest polynomial has not."""
    shares = []
    for seed in config.seeds:
        x = SIGNALS[signal](config, seed)
        kept = legs_coefficients(x, d_state)[0, -1, 1:].square().sum()
        shares.append(1 - (kept / x.var(correction=0)).item())
    return lab.median(shares)


def in_window(config: Config, d_state: int) -> float:
    """How far LegT is from the projection of its window."""
    span, errors = round(config.window * config.steps), []
    for seed in config.seeds:
        x = waves(config, seed)
        c = legt_coefficients(x, d_state, span)[0, -1]
        errors.append(distance(c, projected(x[:, -span:], d_state)[0]))
    return lab.median(errors)


def rows(config: Config, track: lab.Track) -> Iterator[dict[str, Any]]:
    """What is measured of each number of coefficients."""
    for d_state in track(config.states, "hippo_reconstruction"):
        yield {
            "state": d_state,
            **{rule: by_rule(config, rule, d_state) for rule in RULES},
            **{f"lost_{name}": lost(config, name, d_state) for name in SIGNALS},
            "legt": in_window(config, d_state),
        }


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """All of them, and a picture of one signal."""
    cases: dict[str, Any] = {}
    table = list(rows(config, track))
    for row in table:
        for rule in RULES:
            cases[f"{rule}_{row['state']}"] = row[rule]
        for name in SIGNALS:
            cases[f"{name}_{row['state']}"] = {"lost": row[f"lost_{name}"]}
        cases[f"legt_{row['state']}"] = {"error": row["legt"]}
    x = waves(config, config.seeds[0])
    places = (torch.arange(config.places).double() + 0.5) / config.places
    picture = {"signal": x[0, (places * config.steps).long()].tolist()}
    for d_state in config.states:
        c = legs_coefficients(x, d_state)[0, -1]
        picture[f"with_{d_state}"] = reconstruct(c, places).tolist()
    series = {
        "rows": table,
        "places": (places * config.steps).tolist(),
        "picture": picture,
    }
    return {"series": series, "cases": cases}


PICTURE = {
    "signal": "signal",
    "with_16": "16 coefficients",
    "with_64": "64 coefficients",
}


def draw(figure: Any, record: Mapping[str, Any], theme: Theme) -> None:
    """A signal and what two memories have of it at its end."""
    axes, places = figure.subplots(), record["series"]["places"]
    ends = []
    for place, (name, label) in enumerate(PICTURE.items()):
        curve, colour = record["series"]["picture"][name], theme.colours[place]
        axes.plot(places, curve, color=colour, linestyle=DASHES[place])
        ends.append((curve[-1], label, colour))
    axes.set_xlim(0, places[-1])
    axes.set_xlabel("step")
    axes.set_title("What is kept of 1,000 steps")
    label_ends(axes, places[-1], ends)


experiment = lab.Experiment(
    small=Config(steps=600, states=(16, 64), places=40, seeds=(0,)),
    run=run,
    claims=[
        lab.Claim(
            "C225",
            "Stepped as the paper writes it, the coefficients of LegS with 64 of them "
            "pass through values more than a million times the largest of the signal; "
            "stepped exactly they do not.",
            lab.above("log10_way", 6, lab.power),
            case="euler_64",
            control="exact_64",
        ),
        lab.Claim(
            "C225.bilinear",
            "Stepped by the bilinear rule 16 coefficients end nearer to the "
            "projection than a hundredth; by Euler's rule they do not.",
            lab.below("log10_error", -2, on=lab.power),
            case="bilinear_16",
            control="euler_16",
        ),
        lab.Claim(
            "C226",
            "Of white noise 64 coefficients have lost more than 80 % of the variance; "
            "of a signal of eight waves they have not.",
            lab.above("lost", 0.8, on=lab.share),
            case="noise_64",
            control="waves_64",
        ),
    ],
    numbers=[lab.everything],
    tables={
        "rules": lab.Table(
            rows="series.rows",
            columns={
                "coefficients": "state",
                **{
                    f"{text}": lab.cell(f"{rule}.log10_error", lab.power_of_ten)
                    for rule, text in (
                        ("exact", "exact, at most"),
                        ("bilinear", "bilinear"),
                        ("euler", "Euler"),
                    )
                },
                "largest on the way, Euler": lab.cell(
                    "euler.log10_way", lab.power_of_ten
                ),
            },
        ),
        "lost": lab.Table(
            rows="series.rows",
            columns={
                "coefficients": "state",
                "lost of waves": lambda row: f"{row['lost_waves']:.1%}",
                "lost of white noise": lambda row: f"{row['lost_noise']:.1%}",
                "LegT, distance from its projection": lambda row: f"{row['legt']:.1e}",
            },
        ),
    },
    figures={"picture": draw},
)
