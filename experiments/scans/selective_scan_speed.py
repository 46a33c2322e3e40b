r"""A selective scan by the op beside its loop, whole tensors and mamba.py.

In float32 on one thread, forward alone, and forward and backward to all inputs. The
ratio is of processor times in the same round, to the scan of mamba.py with decays and
inputs made as its block makes them; the memory is the most bytes that tensors take at
one time. Then time and memory at four times the length, with a loop that reads its
steps by an index.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments import lab
from experiments.lab import ratio_cells, timing
from experiments.scans import _selective as forms


@dataclass(frozen=True)
class Config:
    """Sizes (batch, time, channels, state), that of the growth, rounds, threads, seed.

    The last size is run at its length and at four times its length, in fewer rounds.
    """

    sizes: tuple[forms.Size, ...] = ((2, 512, 512, 16), (1, 2048, 512, 16))
    growth: forms.Size = (1, 512, 128, 16)
    rounds: int = 7
    growth_rounds: int = 3
    threads: int = 1
    seeds: tuple[int, ...] = (0,)


# What the sizes are called, in order.
LABELS = ("short", "long")
PASSES = {"forward": False, "both": True}
TITLES = {
    "parallel": "`selective_scan`, chunks",
    "whole": "whole tensors, `linear_scan`",
    "reference": "loop",
}
GROWING = {"mambapy": "mamba.py", **TITLES, "indexed": "loop with an index"}


def growth(config: Config) -> list[dict[str, Any]]:
    """Time and memory of each form at four times the length."""
    batch, time, channels, state = config.growth
    once, four = (
        forms.contestants(
            (batch, steps, channels, state), config.seeds[0], list(GROWING), train=True
        )
        for steps in (time, 4 * time)
    )
    rows = []
    for name, title in GROWING.items():
        runs = {"once": once[name], "four": four[name]}
        compared = timing.compare(runs, "once", config.growth_rounds)
        rows.append({"name": name, "form": title, **compared})
    return rows


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Time every size in both kinds of passes, and the growth."""
    grid = [
        (f"{label}_{kind}", size, kind)
        for label, size in zip(LABELS, config.sizes, strict=True)
        for kind in PASSES
    ]
    names = ["mambapy", *TITLES]
    rows = []
    with timing.setting(config.threads):
        for name, size, kind in track(grid, "selective_scan_speed"):
            seed = config.seeds[0]
            runs = forms.contestants(size, seed, names, train=PASSES[kind])
            compared = timing.compare(runs, "mambapy", config.rounds)
            rows.append({"name": name, "size": size, "kind": kind, **compared})
        grown = growth(config)
    cases: dict[str, Any] = {
        row["name"]: {
            "growth_time": row["ratios"]["four"]["median"],
            "growth_peak": row["ratios"]["four"]["peak"] / row["peak"],
        }
        for row in grown
    }
    for row in rows:
        for name in TITLES:
            cases[name][row["name"]] = row["ratios"][name]["median"]
            memory = ratio_cells.memory_ratio(row, name)
            cases[name][f"{row['name']}_peak"] = memory
    return {"numbers": {}, "series": {"rows": rows, "growth": grown}, "cases": cases}


def milliseconds(row: Mapping[str, Any]) -> str:
    """Of the base."""
    return f"{1000 * row['seconds']:.0f}"


def megabytes(row: Mapping[str, Any]) -> str:
    """Of the base, at most at one time."""
    return f"{row['peak'] / 2**20:.0f}"


SIZE = {**ratio_cells.SIZE, "N": "size.3", "passes": lab.cell("kind", str)}

experiment = lab.Experiment(
    small=Config(
        sizes=((2, 16, 4, 2), (1, 24, 4, 2)),
        growth=(1, 12, 4, 2),
        rounds=2,
        growth_rounds=2,
    ),
    run=run,
    claims=[
        lab.Claim(
            "C103",
            "With four times the length a selective scan takes at most 4.6 times the "
            "time, forward and backward; a loop that reads its steps by an index takes "
            "more.",
            lab.below("growth_time", 4.6),
            case="parallel",
            control="indexed",
            timed=True,
        ),
        lab.Claim(
            "C215",
            "In chunks a selective scan of 2 rows of 512 steps of 512 channels with 16 "
            "numbers of state takes at most 0.4 of the time of mamba.py's, forward and "
            "backward; a linear scan over whole tensors takes more.",
            lab.below("short_both", 0.4),
            case="parallel",
            control="whole",
            timed=True,
        ),
        lab.Claim(
            "C215.forward",
            "Forward alone it takes at most 0.25.",
            lab.below("short_forward", 0.25),
            case="parallel",
            control="whole",
            timed=True,
        ),
        lab.Claim(
            "C216",
            "Forward and backward it takes at most a tenth of the memory of mamba.py's "
            "scan; a linear scan over whole tensors takes more.",
            lab.below("short_both_peak", 0.1),
            case="parallel",
            control="whole",
            timed=True,
        ),
    ],
    numbers=[
        lab.each("growth_time"),
        lab.each("growth_peak"),
        *(
            lab.each(f"{label}_{kind}{end}")
            for label in LABELS
            for kind in PASSES
            for end in ("", "_peak")
        ),
    ],
    tables={
        "times": lab.Table(
            rows="series.rows",
            columns={
                **SIZE,
                "ms, mamba.py": milliseconds,
                **{text: ratio_cells.ratio(name) for name, text in TITLES.items()},
                "mamba.py again": ratio_cells.ratio("again"),
            },
        ),
        "memory": lab.Table(
            rows="series.rows",
            columns={
                **SIZE,
                "MiB, mamba.py": megabytes,
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
