r"""How each kind of position makes scores depend on the distance.

Rotary scores of independent queries and keys and of keys that equal their query, by
distance, beside the bound from which a decay is concluded; products of sinusoidal
vectors; and how far back the heads of ALiBi reach, by the length of the context.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments import lab
from seqref.attention import Rotary, alibi_bias, alibi_slopes, sinusoidal

# Distances that the figure shows.
SHOWN = 256


@dataclass(frozen=True)
class Config:
    """Sizes; `reach` counts the nearest positions that hold that part of a weight."""

    d_head: int = 64
    heads: int = 8
    draws: int = 2000
    distances: tuple[int, ...] = (1, 4, 16, 64, 256, 1024, 4096)
    contexts: tuple[int, ...] = (1024, 4096, 16384)
    part: float = 0.95
    seeds: tuple[int, ...] = tuple(range(5))


def drawn(config: Config, draws: int, equal: bool, seed: int) -> tuple[Tensor, Tensor]:
    """Queries and keys (draws, 1, 1, head), divided so that a score has variance 1."""
    generator = lab.generator(seed)
    size = draws, 1, 1, config.d_head
    q = torch.randn(size, generator=generator, dtype=torch.float64)
    k = q if equal else torch.randn(size, generator=generator, dtype=torch.float64)
    return q, k / config.d_head**0.5


def rms_at(config: Config, equal: bool, seed: int) -> list[float]:
    """Root mean square of the scores at each of the distances."""
    q, k = drawn(config, config.draws, equal, seed)
    rotary = Rotary(config.d_head)
    return [
        (rotary(q, distance) * k).sum(-1).square().mean().sqrt().item()
        for distance in config.distances
    ]


def of_rotary(config: Config, equal: bool) -> dict[str, Any]:
    """Root mean square by distance."""
    sizes = [rms_at(config, equal, seed) for seed in config.seeds]
    by_distance = lab.by_place([{"rms": each} for each in sizes], lab.spread)["rms"]
    return {
        "by_distance": by_distance,
        "far": lab.spread(each[-1] / each[0] for each in sizes),
    }


def bound(config: Config, distance: int) -> float:
    """The mean of the partial sums' sizes in the bound of Su et al., sec. 3.4.3."""
    half = config.d_head // 2
    angles = [distance * 10000 ** (-2 * i / config.d_head) for i in range(half)]
    turns = torch.polar(
        torch.ones(half, dtype=torch.float64), torch.tensor(angles).double()
    )
    return turns.cumsum(0).abs().mean().item()


def reach(bias: Tensor, part: float) -> int:
    """How many of the nearest positions hold that part of a softmax of the bias."""
    held = bias.double().softmax(-1).flip(-1).cumsum(-1)
    return int((held < part).sum()) + 1


def of_alibi(config: Config, slopes: Tensor) -> dict[str, Any]:
    """The reach of each head at equal scores, by context."""
    reaches = []
    for context in config.contexts:
        bias = alibi_bias(slopes, 1, context, context - 1)[:, 0]
        reaches.append([reach(head, config.part) for head in bias])
    return {
        "reaches": reaches,
        "widest": max(reaches[-1]),
        "narrowest": min(reaches[-1]),
        "growth": max(reaches[-1]) / max(reaches[-2]),
        "far": lab.spread([math.exp(-float(slopes.max()) * config.distances[-1])]),
    }


def of_sinusoids(config: Config) -> dict[str, Any]:
    """Products of vectors by distance, as a part of that at distance 0."""
    width, start = 512, max(config.distances)
    places = torch.arange(2 * start + 1)
    vectors = sinusoidal(places, width, dtype=torch.float64)
    ahead = vectors[start:] @ vectors[start] / (width / 2)
    behind = vectors[: start + 1].flip(0) @ vectors[start] / (width / 2)
    return {
        "products": [ahead[distance].item() for distance in config.distances],
        "sides": (ahead - behind).abs().max().item(),
        "far": lab.spread([ahead[config.distances[-1]].item()]),
    }


def curves_of(config: Config) -> dict[str, list[float]]:
    """One score of each kind at every distance up to `SHOWN`."""
    rotary, found = Rotary(config.d_head), {}
    for name, equal in (("independent", False), ("equal", True)):
        q, k = drawn(config, 1, equal, config.seeds[0])
        turned = rotary(q.expand(-1, -1, SHOWN + 1, -1))
        found[name] = [round(s, 6) for s in (turned * k).sum(-1)[0, 0].tolist()]
    slope = float(alibi_slopes(config.heads)[4])
    return {**found, "alibi": [-slope * distance for distance in range(SHOWN + 1)]}


def draw_curves(figure: Any, record: Mapping[str, Any], theme: lab.Theme) -> None:
    """Single scores against the distance."""
    axes, ends = figure.subplots(), []
    labels = {
        "equal": "rotary, k = q",
        "independent": "rotary, independent",
        "alibi": "ALiBi, slope 1/32",
    }
    for place, (name, label) in enumerate(labels.items()):
        values = record["series"]["curves"][name]
        colour = theme.colours[place]
        axes.plot(values, color=colour, linestyle=lab.DASHES[place])
        ends.append((values[-1], label, colour))
    axes.set_xlim(0, SHOWN)
    axes.set_xlabel("distance of query and key")
    axes.set_title("Score of one query and key, or what is added to it")
    lab.label_ends(axes, SHOWN, ends)


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Every kind of position, and rows for the tables."""
    slopes = alibi_slopes(config.heads)
    cases = {
        "independent": of_rotary(config, equal=False),
        "equal": of_rotary(config, equal=True),
        "sinusoidal": of_sinusoids(config),
        "alibi": of_alibi(config, slopes),
        "no_slope": of_alibi(config, torch.zeros_like(slopes)),
    }
    rows = [
        {
            "distance": distance,
            "independent": cases["independent"]["by_distance"][place]["median"],
            "equal": cases["equal"]["by_distance"][place]["median"],
            "bound": bound(config, distance),
            "sinusoidal": cases["sinusoidal"]["products"][place],
        }
        for place, distance in enumerate(config.distances)
    ]
    heads = [
        {
            "head": head + 1,
            "slope": float(slope),
            # What the formula tends to as the context grows.
            "closed": math.log(1 / (1 - config.part)) / float(slope),
            "reaches": [reaches[head] for reaches in cases["alibi"]["reaches"]],
        }
        for head, slope in enumerate(slopes)
    ]
    series = {"rows": rows, "heads": heads, "curves": curves_of(config)}
    return {"series": series, "cases": cases}


FULL = Config()

experiment = lab.Experiment(
    small=Config(seeds=(0, 1)),
    run=run,
    claims=[
        lab.Claim(
            "C176.size",
            "The root mean square of rotary scores of independent queries and keys is "
            "the same at the farthest distance as at the nearest, to a fifth.",
            lab.all_of(lab.above("far.low", 0.8), lab.below("far.high", 1.25)),
            case="independent",
            control="equal",
        ),
        lab.Claim(
            "C177.reach",
            "Four times the context makes the reach of ALiBi's flattest head at equal "
            "scores less than a quarter larger.",
            lab.below("growth", 1.25),
            case="alibi",
            control="no_slope",
        ),
    ],
    numbers=[
        lab.each("far.median", "far"),
        lab.each("widest", cases=("alibi",)),
        lab.each("narrowest", cases=("alibi",)),
        {"alibi_short": "alibi.reaches.0.7"},
    ],
    tables={
        "distance": lab.Table(
            rows="series.rows",
            columns={
                "distance": "distance",
                "rotary, independent: rms score": lab.cell(
                    "independent", lab.number, 2
                ),
                "rotary, key equals query: rms score": lab.cell("equal", lab.number, 2),
                "partial sums in the bound": lab.cell("bound", lab.number, 2),
                "sinusoidal: product": lab.cell("sinusoidal", lab.number, 2),
            },
        ),
        "reach": lab.Table(
            rows="series.heads",
            columns={
                "head": "head",
                "slope": lab.cell("slope", lab.number, 3),
                **{
                    f"of {context:,} positions": lab.cell(f"reaches.{place}")
                    for place, context in enumerate(FULL.contexts)
                },
                "without an end": lab.cell("closed", lab.number, 3),
            },
        ),
    },
    figures={"curves": draw_curves},
)
