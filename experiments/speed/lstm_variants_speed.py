r"""What the variants of the LSTM cost on a CPU, beside `torch.nn.LSTM`.

Processor times of a forward pass and of a forward with a backward pass, at equal sizes,
in interleaved rounds of one process on one thread. What is stored is the ratio to
`torch.nn.LSTM`, timed right before. `torch.nn.LSTM` with a projection to a quarter of
the width is one of the layers, and it is also measured with oneDNN switched off,
against `torch.nn.LSTM` under the same setting.
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
from seqref import (
    LSTM,
    LayerNormLSTM,
    ProjectedLSTM,
    VariationalLSTM,
    ZoneoutLSTM,
)

Size = tuple[int, int, int]
Run = Callable[[], None]


@dataclass(frozen=True)
class Config:
    """Sizes as (batch, time, width), rounds, threads, seed of inputs and weights."""

    sizes: tuple[Size, ...]
    rounds: int
    threads: int
    seeds: tuple[int, ...]


SMALL = Config(sizes=((8, 64, 128),), rounds=5, threads=1, seeds=(0,))
FULL = Config(
    sizes=((1, 256, 256), (8, 128, 256), (32, 64, 128), (16, 64, 512)),
    rounds=5,
    threads=1,
    seeds=(0,),
)
BASE = "nn.LSTM"
PROJECTED = "nn.LSTM, projected"
LAYERS: dict[str, Callable[[int], nn.Module]] = {
    BASE: lambda d: nn.LSTM(d, d, batch_first=True),
    PROJECTED: lambda d: nn.LSTM(d, d, proj_size=d // 4, batch_first=True),
    "LSTM": lambda d: LSTM(d, d),
    "ProjectedLSTM": lambda d: ProjectedLSTM(d, d, d // 4),
    "LayerNormLSTM": lambda d: LayerNormLSTM(d, d),
    "ZoneoutLSTM": lambda d: ZoneoutLSTM(d, d, zoneout_c=0.5, zoneout_h=0.05),
    "VariationalLSTM": lambda d: VariationalLSTM(d, d, dropout_x=0.3, dropout_h=0.3),
}
CASES = {"as_it_comes": True, "without_onednn": False}


@contextmanager
def one_setting(threads: int, onednn: bool) -> Iterator[None]:
    """This number of threads, and oneDNN on or off, inside; both put back after."""
    before = torch.get_num_threads()
    with warnings.catch_warnings():
        # torch warns that the setting of Intel's GPUs, which comes along, is idle here,
        warnings.filterwarnings("ignore", "TF32 acceleration on top of oneDNN")
        # and once that oneDNN has no LSTM with a projection.
        warnings.filterwarnings("ignore", "LSTM with projections is not supported")
        with torch.backends.mkldnn.flags(enabled=onednn):
            torch.set_num_threads(threads)
            try:
                yield
            finally:
                torch.set_num_threads(before)


def task(name: str, size: Size, seed: int, train: bool) -> Run:
    """One forward pass, or one forward and one backward pass."""
    batch, steps, width = size
    with seeded(seed):
        layer = LAYERS[name](width)
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
    """Processor time of one call, after another one that warms the caches."""
    run()
    began = timer.processor()
    run()
    return timer.processor() - began


def ratios(runs: Mapping[str, Run], rounds: int) -> dict[str, list[float]]:
    """Each over the base in each round; the base itself for the noise."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            reference = seconds(runs[BASE])
            found[name].append(seconds(run) / reference)
    return found


def measure_size(config: Config, size: Size, train: bool) -> list[dict[str, Any]]:
    """Median and quartiles of each ratio at one size, in both settings."""
    rows = []
    for case, onednn in CASES.items():
        names = LAYERS if onednn else (BASE, PROJECTED)
        with one_setting(config.threads, onednn), seeded(config.seeds[0]):
            runs = {n: task(n, size, config.seeds[0], train) for n in names}
            found = ratios(runs, config.rounds)
        for name, values in found.items():
            low, middle, high = statistics.quantiles(values, n=4)
            row = {"median": middle, "low": low, "high": high}
            where = {"size": list(size), "training": train, "case": case}
            rows.append({"layer": name, **where, **row})
    return rows


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Time every size and pass."""
    jobs = [(size, train) for size in config.sizes for train in (False, True)]
    rows = [
        row
        for job in track(jobs, "lstm_variants_speed")
        for row in measure_size(config, *job)
    ]
    cases = {}
    for case in CASES:
        found = [
            r["median"]
            for r in rows
            if (r["case"], r["layer"], r["training"]) == (case, PROJECTED, True)
        ]
        cases[case] = {"lowest": min(found), "highest": max(found)}
    return {"numbers": summary(rows), "series": {"rows": rows}, "cases": cases}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Lowest and highest median over the sizes, and the counts of parameters."""
    found: dict[str, Any] = {}
    keys = {
        PROJECTED: "nn_projected",
        "ProjectedLSTM": "projected",
        "LayerNormLSTM": "layer_norm",
        "ZoneoutLSTM": "zoneout",
        "VariationalLSTM": "variational",
        BASE: "noise",
    }
    for name, key in keys.items():
        for training in (False, True):
            medians = [
                row["median"]
                for row in rows
                if (row["layer"], row["training"], row["case"])
                == (name, training, "as_it_comes")
            ]
            stem = f"{key}_{'training' if training else 'forward'}"
            found[f"{stem}_low"], found[f"{stem}_high"] = min(medians), max(medians)
    plain, narrow = (
        sum(p.numel() for p in LAYERS[name](256).parameters())
        for name in (BASE, PROJECTED)
    )
    return found | {"parameters_plain": plain, "parameters_projected": narrow}


def _slower(case: Mapping[str, Any]) -> Outcome:
    return Outcome.above(case["lowest"], 1.1)


CLAIMS = (
    Claim(
        "C142",
        "On this CPU a training step of torch.nn.LSTM with a projection to a quarter "
        "of the width takes more than 1.1 times as long as one without, at every size; "
        "with oneDNN switched off for both it does not.",
        _slower,
        case="as_it_comes",
        control="without_onednn",
        timed=True,
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Ratios by layer, size and pass: median, quartiles in brackets."""
    rows = record["series"]["rows"]
    sizes = [tuple(size) for size in record["run"]["config"]["sizes"]]
    headers = ["layer", *(f"B {b}, T {t}, D {d}" for b, t, d in sizes)]
    found = {}
    for training, stem in ((False, "forward"), (True, "training")):
        lines: dict[str, list[str]] = {}
        for row in rows:
            if row["training"] == training:
                label = f"`{row['layer'].split(',')[0]}`"
                label += ", projected" if row["layer"] == PROJECTED else ""
                label += ", no oneDNN" if row["case"] == "without_onednn" else ""
                cell = (
                    f"{number(row['median'])} ({row['low']:.2f} to {row['high']:.2f})"
                )
                lines.setdefault(label, []).append(cell)
        found[stem] = table(headers, [[k, *cells] for k, cells in lines.items()])
    return found


experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
)
