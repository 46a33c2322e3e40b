r"""Whether `torch.nn.GRU` trains faster than `torch.nn.LSTM` on a CPU.

A GRU has a quarter less arithmetic. Here both modules of torch run forward, and forward
with backward, at equal sizes in interleaved rounds of one process on one thread: as
they come, and with oneDNN switched off. What is stored is the ratio of their processor
times in the same round.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from experiments import lab
from experiments.lab import ratio_cells, timing
from experiments.speed._layers import SIZES, Size, normal_input, over
from experiments.speed._presentation import by_setting


@dataclass(frozen=True)
class Config:
    """Sizes as (batch, time, hidden), rounds, threads, seed of inputs and weights."""

    sizes: tuple[Size, ...] = SIZES
    rounds: int = 9
    threads: int = 1
    seeds: tuple[int, ...] = (0,)


def contestants(size: Size, seed: int, train: bool) -> dict[str, timing.Contestant]:
    """One forward pass of each module, or one forward and one backward pass."""
    with lab.seeded(seed):
        layers = {
            name: kind(size[2], size[2], batch_first=True)
            for name, kind in {"lstm": nn.LSTM, "gru": nn.GRU}.items()
        }
    x = normal_input(size, seed)
    return {name: over(layer, x, train=train) for name, layer in layers.items()}


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Time every size, setting and pass."""
    jobs = [
        (train, size, place)
        for train in (False, True)
        for size in config.sizes
        for place in timing.SETTINGS
    ]
    rows = []
    for train, size, place in track(jobs, "gru_speed"):
        with timing.setting(config.threads, timing.SETTINGS[place]):
            runs = contestants(size, config.seeds[0], train)
            compared = timing.compare(runs, "lstm", config.rounds)
        rows.append({"size": size, "setting": place, "training": train, **compared})
    numbers = timing.ranges(rows, stem)
    cases = {
        place: {
            "lowest": numbers[f"{place}_training_low"],
            "highest": numbers[f"{place}_training_high"],
        }
        for place in timing.SETTINGS
    }
    return {"numbers": numbers, "series": {"rows": rows}, "cases": cases}


def stem(row: Mapping[str, Any], name: str) -> str:
    """What the numbers of a row begin with."""
    word = "training" if row["training"] else "forward"
    return "noise" if name == timing.AGAIN else f"{row['setting']}_{word}"


experiment = lab.Experiment(
    small=Config(sizes=((16, 32, 128),)),
    run=run,
    claims=[
        lab.Claim(
            "C49",
            "On this CPU there is a size at which a training step of torch.nn.GRU "
            "takes more than 1.5 times as long as one of torch.nn.LSTM; without oneDNN "
            "there is none.",
            lab.above("highest", 1.5),
            case="as_it_comes",
            control="without_onednn",
            timed=True,
        )
    ],
    tables={
        "ratios": by_setting(
            "series.rows",
            {
                "pass": lambda row: (
                    "forward + backward" if row["training"] else "forward"
                ),
                **ratio_cells.SIZE,
            },
            "gru",
        )
    },
)
