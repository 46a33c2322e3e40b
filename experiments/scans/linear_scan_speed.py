r"""A linear scan by the op beside its loop, other forms, mamba.py and compiled C.

Forward and backward in float32 on one thread, with decays uniform between 0 and 1, or
near 1, where the op keeps more digits of their products. The ratio is of processor
times in the same round, to the scan of mamba.py; the memory is the most bytes that
tensors take at one time. Then the same at four times the length.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments import lab
from experiments.lab import ratio_cells, timing
from experiments.scans import _peers as peers


@dataclass(frozen=True)
class Config:
    """Sizes (batch, time, width), the lowest decays, rounds, threads, seed.

    The first size is also run at four times its length.
    """

    sizes: tuple[peers.Size, ...] = ((4, 1024, 256), (4, 4096, 256), (1, 4096, 16))
    lowest: tuple[float, ...] = (0.0, 0.99)
    rounds: int = 7
    threads: int = 1
    seeds: tuple[int, ...] = (0,)


# What the sizes and the lowest decays are called, in order.
LABELS = ("short", "long", "narrow")
WORDS = ("any", "near")
TITLES = {
    "parallel": "`linear_scan`, chunks",
    "c": "loop in C",
    "tree": "tree",
    "logarithms": "in logarithms",
    "reference": "loop",
}


def growth(config: Config) -> dict[str, Any]:
    """Time and memory of each form at four times the length."""
    batch, time, width = config.sizes[0]
    rows = {}
    once, four = (
        peers.contestants((batch, steps, width), 0.0, config.seeds[0])
        for steps in (time, 4 * time)
    )
    for name in TITLES:
        if name not in once:
            continue
        runs = {"once": once[name], "four": four[name]}
        compared = timing.compare(runs, "once", config.rounds)
        ratio = compared["ratios"]["four"]
        rows[name] = {
            "form": TITLES[name],
            **compared,
            "growth_time": ratio["median"],
            "growth_peak": ratio["peak"] / compared["peak"],
        }
    return rows


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Time every size and decay, and the growth."""
    grid = [
        (f"{label}_{word}", size, low)
        for label, size in zip(LABELS, config.sizes, strict=True)
        for word, low in zip(WORDS, config.lowest, strict=True)
    ]
    rows = []
    with timing.setting(config.threads):
        for name, size, low in track(grid, "linear_scan_speed"):
            runs = peers.contestants(size, low, config.seeds[0])
            compared = timing.compare(runs, "mambapy", config.rounds)
            rows.append({"name": name, "size": size, "low": low, **compared})
        grown = growth(config)
    cases: dict[str, Any] = {
        name: {key: values[key] for key in ("growth_time", "growth_peak")}
        for name, values in grown.items()
    }
    for row in rows:
        for name, case in cases.items():
            case[row["name"]] = row["ratios"][name]["median"]
    return {
        "numbers": {},
        "series": {"rows": rows, "growth": list(grown.values())},
        "cases": cases,
    }


def milliseconds(row: Mapping[str, Any]) -> str:
    """Of the base."""
    return f"{1000 * row['seconds']:.1f}"


experiment = lab.Experiment(
    small=Config(sizes=((2, 32, 4), (2, 48, 4), (1, 32, 2)), rounds=2),
    run=run,
    claims=[
        lab.Claim(
            "C204",
            "In chunks a scan of 4 rows of 4,096 steps of width 256 takes at most 0.4 "
            "of the time of mamba.py's, forward and backward; a tree takes more.",
            lab.below("long_any", 0.4),
            case="parallel",
            control="tree",
            timed=True,
        ),
        lab.Claim(
            "C204.near",
            "So it does where decays are near 1.",
            lab.below("long_near", 0.4),
            case="parallel",
            control="tree",
            timed=True,
        ),
        lab.Claim(
            "C204.growth",
            "With four times the length it takes at most 4.6 times the time; a tree, "
            "whose work has a factor of the logarithm, takes more.",
            lab.below("growth_time", 4.6),
            case="parallel",
            control="tree",
            timed=True,
        ),
    ],
    numbers=[
        lab.each("growth_time"),
        lab.each("growth_peak"),
        *(lab.each(f"{label}_{word}") for label in LABELS for word in WORDS),
    ],
    tables={
        "times": lab.Table(
            rows="series.rows",
            columns={
                **ratio_cells.SIZE,
                "decays from": lab.cell("low", str),
                "ms, mamba.py": milliseconds,
                **{text: ratio_cells.ratio(name) for name, text in TITLES.items()},
                "mamba.py again": ratio_cells.ratio("again"),
            },
        ),
        "memory": lab.Table(
            rows="series.rows",
            columns={
                **ratio_cells.SIZE,
                "decays from": lab.cell("low", str),
                **{text: ratio_cells.memory(name) for name, text in TITLES.items()},
            },
        ),
        "growth": lab.Table(
            rows="series.growth",
            columns={
                "form": lab.cell("form", str),
                "time": ratio_cells.ratio("four"),
                "memory": ratio_cells.memory("four"),
            },
        ),
    },
)
