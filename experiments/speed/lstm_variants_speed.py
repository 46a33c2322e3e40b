r"""What the variants of the LSTM cost on a CPU, beside `torch.nn.LSTM`.

Processor times of a forward pass and of a forward with a backward pass, at equal sizes,
in interleaved rounds of one process on one thread. What is stored is the ratio to
`torch.nn.LSTM` in the same round. `torch.nn.LSTM` with a projection to a quarter of the
width is one of the layers, and it is also measured with oneDNN switched off, against
`torch.nn.LSTM` under the same setting.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from experiments import lab
from experiments.lab import ratio_cells, timing
from experiments.speed._layers import Size, normal_input, over
from seqref import (
    LSTM,
    LayerNormLSTM,
    ProjectedLSTM,
    VariationalLSTM,
    ZoneoutLSTM,
)


@dataclass(frozen=True)
class Config:
    """Sizes as (batch, time, width), rounds, threads, seed of inputs and weights."""

    sizes: tuple[Size, ...] = (
        (1, 256, 256),
        (8, 128, 256),
        (32, 64, 128),
        (16, 64, 512),
    )
    rounds: int = 5
    threads: int = 1
    seeds: tuple[int, ...] = (0,)


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
# What a number begins with, by what it is of.
STEMS = {
    PROJECTED: "nn_projected",
    "LSTM": "lstm",
    "ProjectedLSTM": "projected",
    "LayerNormLSTM": "layer_norm",
    "ZoneoutLSTM": "zoneout",
    "VariationalLSTM": "variational",
    timing.AGAIN: "noise",
}
LABELS = {
    timing.AGAIN: "`nn.LSTM` again",
    PROJECTED: "`nn.LSTM`, projected",
    **{name: f"`{name}`" for name in LAYERS if name not in (BASE, PROJECTED)},
}
PASSES = {False: "forward", True: "training"}


def compare(config: Config, size: Size, train: bool, place: str) -> dict[str, Any]:
    """All layers as torch comes, and the two of torch without oneDNN."""
    onednn, seed = timing.SETTINGS[place], config.seeds[0]
    x = normal_input(size, seed)
    # Zoneout and dropout draw from torch's generator.
    with timing.setting(config.threads, onednn), lab.seeded(seed):
        runs = {
            name: over(LAYERS[name](size[2]), x, train=train)
            for name in (LAYERS if onednn else (BASE, PROJECTED))
        }
        return timing.compare(runs, BASE, config.rounds)


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Time every size, pass and setting."""
    jobs = [
        {"size": size, "train": train, "place": place}
        for size in config.sizes
        for train in PASSES
        for place in timing.SETTINGS
    ]
    rows = [
        {**job, **compare(config, **job)} for job in track(jobs, "lstm_variants_speed")
    ]
    cases = {}
    for place in timing.SETTINGS:
        ratios = timing.medians(rows, PROJECTED, train=True, place=place)
        cases[place] = {"lowest": min(ratios), "highest": max(ratios)}
    plain = [row for row in rows if timing.SETTINGS[row["place"]]]
    numbers = timing.ranges(
        plain, lambda row, name: f"{STEMS[name]}_{PASSES[row['train']]}"
    )
    for name, word in {BASE: "plain", PROJECTED: "projected"}.items():
        with torch.device("meta"):
            layer = LAYERS[name](256)
        numbers[f"parameters_{word}"] = sum(p.numel() for p in layer.parameters())
    return {"numbers": numbers, "series": {"rows": rows}, "cases": cases}


def of_pass(record: Mapping[str, Any], *, train: bool) -> str:
    """A line for a layer: ratios by size, and the ends of its memory over the sizes."""
    lines = []
    for place, suffix in {"as_it_comes": "", "without_onednn": ", no oneDNN"}.items():
        rows = [
            row
            for row in record["series"]["rows"]
            if (row["train"], row["place"]) == (train, place)
        ]
        for name, label in LABELS.items():
            if name in rows[0]["ratios"]:
                ratios = map(ratio_cells.ratio(name), rows)
                memory = ratio_cells.memory_span(rows, name)
                lines.append([label + suffix, *ratios, memory])
    sizes = [f"B {b}, T {t}, D {d}" for b, t, d in record["run"]["config"]["sizes"]]
    return lab.table(["layer", *sizes, "peak memory"], lines)


experiment = lab.Experiment(
    small=Config(sizes=((2, 8, 16),), rounds=2),
    run=run,
    claims=[
        lab.Claim(
            "C142",
            "On this CPU there is a size at which a training step of torch.nn.LSTM "
            "with a projection to a quarter of the width takes more than 1.25 times as "
            "long as one without; with oneDNN switched off for both there is none.",
            lab.above("highest", 1.25),
            case="as_it_comes",
            control="without_onednn",
            timed=True,
        )
    ],
    tables={word: partial(of_pass, train=train) for train, word in PASSES.items()},
)
