r"""Whether `torch.nn.GRU` trains faster than `torch.nn.LSTM` on a CPU.

A GRU has a quarter less arithmetic. Here both modules of torch run forward, and forward
with backward, at equal sizes in interleaved rounds of one process on one thread: as
they come, and with oneDNN switched off. What is stored is the ratio of their processor
times in the same round.
"""

import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from experiments.lab import timer
from experiments.lab.claim import Claim, Outcome
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.seeding import generator, seeded
from experiments.lab.tables import number, table

Size = tuple[int, int, int]


@dataclass(frozen=True)
class Config:
    """Sizes as (batch, time, hidden), rounds, threads, seed of inputs and weights."""

    sizes: tuple[Size, ...]
    rounds: int
    threads: int
    seeds: tuple[int, ...]


SMALL = Config(sizes=((16, 32, 128),), rounds=9, threads=1, seeds=(0,))
FULL = Config(
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
    rounds=9,
    threads=1,
    seeds=(0,),
)
SETTINGS = {"as_it_comes": True, "without_onednn": False}
LABELS = {"as_it_comes": "as it comes", "without_onednn": "without oneDNN"}
Run = Callable[[], None]


@contextmanager
def one_setting(threads: int, onednn: bool) -> Iterator[None]:
    """This number of threads, and oneDNN on or off, inside; both put back after."""
    before = torch.get_num_threads()
    with warnings.catch_warnings():
        # torch warns that the setting of Intel's GPUs, which comes along, is idle here.
        warnings.filterwarnings("ignore", "TF32 acceleration on top of oneDNN")
        with torch.backends.mkldnn.flags(enabled=onednn):
            torch.set_num_threads(threads)
            try:
                yield
            finally:
                torch.set_num_threads(before)


def task(kind: type[nn.GRU] | type[nn.LSTM], size: Size, seed: int, train: bool) -> Run:
    """One forward pass, or one forward and one backward pass."""
    batch, steps, width = size
    with seeded(seed):
        layer = kind(width, width, batch_first=True)
    x = torch.randn(batch, steps, width, generator=generator(seed))
    x.requires_grad_(train)
    inputs = [x, *layer.parameters()]

    def forward() -> None:
        with torch.no_grad():
            layer(x)

    def forward_and_backward() -> None:
        torch.autograd.grad(layer(x)[0].square().sum(), inputs)

    return forward_and_backward if train else forward


def seconds(run: Run) -> float:
    """Processor time of one call."""
    began = timer.processor()
    run()
    return timer.processor() - began


def ratios(gru: Run, lstm: Run, rounds: int) -> dict[str, list[float]]:
    """GRU over LSTM in each round, and the LSTM over itself for the noise."""
    found: dict[str, list[float]] = {"gru": [], "noise": []}
    gru()
    lstm()
    for _ in range(rounds):
        base = seconds(lstm)
        found["gru"].append(seconds(gru) / base)
        found["noise"].append(seconds(lstm) / base)
    return found


def measure_size(config: Config, size: Size, setting: str, train: bool) -> dict:
    """Median and quartiles of the ratios at one size."""
    with one_setting(config.threads, SETTINGS[setting]):
        gru = task(nn.GRU, size, config.seeds[0], train)
        lstm = task(nn.LSTM, size, config.seeds[0], train)
        found = ratios(gru, lstm, config.rounds)
    low, middle, high = statistics.quantiles(found["gru"], n=4)
    return {
        "size": list(size),
        "setting": setting,
        "training": train,
        "median": middle,
        "low": low,
        "high": high,
        "noise": statistics.median(found["noise"]),
    }


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Time every size, setting and pass."""
    jobs = [
        (size, setting, train)
        for size in config.sizes
        for train in (False, True)
        for setting in SETTINGS
    ]
    rows = [measure_size(config, *job) for job in track(jobs, "gru_speed")]
    cases = {}
    for setting in SETTINGS:
        found = [r["median"] for r in rows if r["setting"] == setting and r["training"]]
        cases[setting] = {"lowest": min(found), "highest": max(found)}
    return {"numbers": summary(rows), "series": {"rows": rows}, "cases": cases}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Lowest and highest median over the sizes, for sentences."""
    found: dict[str, Any] = {}
    for setting in SETTINGS:
        for training in (False, True):
            medians = [
                row["median"]
                for row in rows
                if (row["setting"], row["training"]) == (setting, training)
            ]
            stem = f"{setting}_{'training' if training else 'forward'}"
            found[f"{stem}_low"], found[f"{stem}_high"] = min(medians), max(medians)
    noise = [row["noise"] for row in rows]
    found["noise_low"], found["noise_high"] = min(noise), max(noise)
    return found


def _slower_everywhere(case: Mapping[str, Any]) -> Outcome:
    return Outcome.above(case["lowest"], 1.1)


CLAIMS = (
    Claim(
        "C49",
        "On this CPU a training step of torch.nn.GRU takes more than 1.1 times as long "
        "as one of torch.nn.LSTM at every size; without oneDNN it does not.",
        _slower_everywhere,
        case="as_it_comes",
        control="without_onednn",
        timed=True,
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Ratios by size, pass and setting: median, quartiles in brackets."""
    headers = ["pass", "B", "T", "D", *LABELS.values()]
    lines: dict[tuple[Any, ...], dict[str, str]] = {}
    for row in record["series"]["rows"]:
        cell = f"{number(row['median'])} ({row['low']:.2f} to {row['high']:.2f})"
        key = (row["training"], *row["size"])
        lines.setdefault(key, {})[row["setting"]] = cell
    ordered = sorted(lines.items(), key=lambda line: line[0][0])
    rows = [
        [
            "forward + backward" if training else "forward",
            *(number(axis) for axis in size),
            *(cells[setting] for setting in SETTINGS),
        ]
        for (training, *size), cells in ordered
    ]
    return {"ratios": table(headers, rows)}


experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
)
