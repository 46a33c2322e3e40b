r"""Whether packing or a Transformer layer is faster than the padded LSTM on a CPU.

Timed are training steps (forward and backward, no optimiser) of modules of `torch.nn`
at equal width, in interleaved rounds of one process, as torch comes and with oneDNN
switched off; what is stored is the ratio to the padded LSTM in the same round. The GRU
is in `gru_speed`; here it runs only at sizes and threads that were not measured there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from experiments.lab.claim import Claim, Outcome
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.speed import _cpu_tables as presentation
from experiments.speed._cpu_contestants import (
    contestants,
    multiply_adds,
    parameters,
)
from experiments.speed._timing import SETTINGS, Size, ratios, setting

NAMES = ("packed", "transformer", "transformer_equal")
ALL = ("gru", *NAMES)


@dataclass(frozen=True)
class Config:
    """Sizes as (batch, time, hidden); edges are sizes at which a title may end."""

    sizes: tuple[Size, ...]
    edges: tuple[Size, ...]
    more_sizes: tuple[Size, ...]
    share: float
    rounds: int
    threads: int
    more_threads: int
    seeds: tuple[int, ...]
    device: str = "cpu"


SMALL = Config(
    sizes=((8, 256, 64), (32, 32, 256)),
    edges=(),
    more_sizes=(),
    share=0.5,
    rounds=5,
    threads=1,
    more_threads=2,
    seeds=(0,),
)
FULL = Config(
    # Those of gru_speed.
    sizes=(
        (1, 1024, 64),
        (8, 256, 64),
        (32, 64, 64),
        (1, 1024, 256),
        (8, 256, 256),
        (32, 128, 256),
        (8, 128, 512),
        (64, 64, 512),
    ),
    edges=((256, 4, 64), (256, 4, 256), (128, 4, 512), (1, 4096, 64), (1, 16, 64)),
    more_sizes=((32, 64, 64), (8, 256, 256), (64, 64, 512)),
    share=0.5,
    rounds=7,
    threads=1,
    more_threads=2,
    seeds=(0,),
)
GPU = Config(
    sizes=tuple((batch, steps, 256) for batch in (1, 32, 256) for steps in (64, 1024)),
    edges=(),
    more_sizes=(),
    share=0.5,
    rounds=9,
    threads=1,
    more_threads=1,
    seeds=(0,),
    device="cuda",
)


def measure(
    config: Config, size: Size, name: str, threads: int, runners: tuple[str, ...]
) -> dict[str, Any]:
    """Ratios to the padded LSTM at one size, in one setting, on so many threads."""
    with setting(name, threads, config.device):
        runs = contestants(size, config.share, config.seeds[0], config.device, runners)
        found = ratios(runs, "padded", config.rounds, threads, config.device)
    return {"size": list(size), "setting": name, "ratios": found}


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Time every size, the edges, and some sizes on more threads."""
    # On a GPU there is no oneDNN to switch off.
    settings = [name for name in SETTINGS if config.device == "cpu" or SETTINGS[name]]
    jobs = [(size, name) for size in config.sizes for name in settings]
    runners = NAMES if config.device == "cpu" else ALL
    rows = [
        measure(config, size, name, config.threads, runners)
        for size, name in track(jobs, "cpu_speed")
    ]
    edges = [
        measure(config, size, "as_it_comes", config.threads, ALL)
        for size in track(config.edges, "edges")
    ]
    more = [
        measure(config, size, "as_it_comes", config.more_threads, ALL)
        for size in track(config.more_sizes, "threads")
    ]
    widths = sorted({size[2] for size in config.sizes})
    counts = [{"width": width, **parameters(width)} for width in widths]
    series = {"rows": rows, "edges": edges, "threads": more, "parameters": counts}
    cases = timed_cases(rows) | work_cases()
    return {"numbers": numbers(series), "series": series, "cases": cases}


def medians(rows: Iterable[Mapping[str, Any]], name: str) -> list[float]:
    """One contestant's ratios."""
    return [row["ratios"][name]["median"] for row in rows if name in row["ratios"]]


def timed_cases(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """By setting and contestant: the lowest ratio over the sizes."""
    found: dict[str, Any] = {}
    for place in dict.fromkeys(row["setting"] for row in rows):
        for name in NAMES:
            values = medians((r for r in rows if r["setting"] == place), name)
            if values:
                found[f"{place}_{name}"] = {"lowest": min(values)}
    return found


def work_cases() -> dict[str, Any]:
    """Multiply-adds of a Transformer layer over the LSTM's, by steps over width."""
    found: dict[str, Any] = {}
    for label, steps in (("short", 16), ("as_long_as_wide", 256), ("long", 4096)):
        work = multiply_adds(steps, 256)
        found[f"work_{label}"] = {"work": work["transformer"] / work["lstm"]}
    return found


def numbers(series: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars for sentences: lowest and highest median, over sizes and by size."""
    found: dict[str, Any] = {}
    groups = {
        place: [row for row in series["rows"] if row["setting"] == place]
        for place in SETTINGS
    }
    groups |= {"edges": series["edges"], "threads": series["threads"]}
    for place, rows in groups.items():
        for name in ("again", *ALL):
            values = medians(rows, name)
            if values:
                found[f"{place}_{name}_low"] = min(values)
                found[f"{place}_{name}_high"] = max(values)
    for row in series["edges"]:
        batch, steps, width = row["size"]
        for name, ratio in row["ratios"].items():
            found[f"b{batch}_t{steps}_d{width}_{name}"] = ratio["median"]
    for label, case in work_cases().items():
        found[label] = case["work"]
    return found


def _slower_everywhere(case: Mapping[str, Any]) -> Outcome:
    return Outcome.above(case["lowest"], 1.1)


CLAIMS = (
    Claim(
        "C145",
        "On this CPU a training step over a packed batch, half of it real, takes more "
        "than 1.1 times as long as over the padded one at every size; without oneDNN "
        "it does not.",
        _slower_everywhere,
        case="as_it_comes_packed",
        control="without_onednn_packed",
        timed=True,
    ),
    Claim(
        "C84",
        "On short rows a Transformer layer of equal width has less than 1.6 times the "
        "multiply-adds of an LSTM layer; on long ones it has not.",
        lambda case: Outcome.exactly(case["work"], holds=case["work"] < 1.6),
        case="work_short",
        control="work_long",
    ),
    Claim(
        "C85",
        "On this CPU a training step of a causal Transformer layer takes more than 1.1 "
        "times as long as one of an LSTM of equal width at every size; without oneDNN "
        "it does not.",
        _slower_everywhere,
        case="as_it_comes_transformer",
        control="without_onednn_transformer",
        timed=True,
    ),
    Claim(
        "C85.parameters",
        "The same holds for a Transformer layer with as many parameters as the LSTM.",
        _slower_everywhere,
        case="as_it_comes_transformer_equal",
        control="without_onednn_transformer_equal",
        timed=True,
    ),
)

tables = presentation.tables
FIGURES: dict[str, Any] = {"ratios": presentation.draw_ratios}
experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
    figures=FIGURES,
)
