r"""A minGRU by one scan beside torch's GRU, a loop over its cell, and minGRU-pytorch.

Forward and backward in float32 on one thread, at equal width. How many times faster a
minimal layer is depends on what it is compared with: `torch.nn.GRU` runs all steps in
one call, a loop over `torch.nn.GRUCell` calls Python at each, and minGRU-pytorch is the
same layer with its scan in logarithms. Ratios are of processor times in the same round.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from experiments import lab
from experiments.lab import ratio_cells, timing
from experiments.speed._layers import Size, normal_input
from seqref import MinGRU, MinLSTM


@dataclass(frozen=True)
class Config:
    """Sizes as (batch, time, width), rounds, threads, seed of inputs and weights.

    Claims are of the first size.
    """

    sizes: tuple[Size, ...] = (
        (8, 512, 256),
        (8, 64, 256),
        (8, 2048, 256),
        (64, 512, 64),
    )
    rounds: int = 7
    threads: int = 1
    seeds: tuple[int, ...] = (0,)


class Loop(nn.Module):
    """A GRU as it is written by hand: a cell, and a loop in Python."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell = nn.GRUCell(width, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """All outputs and the last one."""
        h, steps = torch.zeros_like(x[:, 0]), []
        for x_t in x.unbind(1):
            h = self.cell(x_t, h)
            steps.append(h)
        return torch.stack(steps, dim=1), h


class Alone(nn.Module):
    """A layer of minGRU-pytorch, which gives its outputs alone."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """All outputs."""
        return self.layer(x), None


def layers(width: int) -> dict[str, nn.Module]:
    """One layer of each kind. Theirs has no bias and g, and so has ours beside it."""
    from minGRU_pytorch import minGRU
    from minGRU_pytorch.minLSTM import minLSTM

    return {
        "gru": nn.GRU(width, width, batch_first=True),
        "loop": Loop(width),
        "mingru": MinGRU(width, width),
        "positive": MinGRU(width, width, candidate="positive", bias=False),
        "minlstm": MinLSTM(width, width),
        "library": Alone(minGRU(width)),
        "library_minlstm": Alone(minLSTM(width)),
    }


LABELS = {
    "loop": "loop over `nn.GRUCell`",
    "mingru": "`MinGRU`",
    "positive": "`MinGRU`, positive, no bias",
    "minlstm": "`MinLSTM`",
    "library": "minGRU-pytorch",
    "library_minlstm": "minGRU-pytorch, minLSTM",
}


def contestants(size: Size, seed: int) -> dict[str, timing.Contestant]:
    """A forward and a backward pass of each."""
    with lab.seeded(seed):
        made: Any = layers(size[2])
    x = normal_input(size, seed)

    def of(layer: Any) -> timing.Contestant:
        return timing.passes(lambda: layer(x)[0], [x, *layer.parameters()])

    return {name: of(layer) for name, layer in made.items()}


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Time every size against torch's GRU, and the first against the library too."""
    rows = []
    with timing.setting(config.threads):
        for size in track(config.sizes, "minimal_speed"):
            runs = contestants(size, config.seeds[0])
            rows.append({"size": size, **timing.compare(runs, "gru", config.rounds)})
        runs = contestants(config.sizes[0], config.seeds[0])
        kept = {name: runs[name] for name in ("library", "mingru", "library_minlstm")}
        beside = timing.compare(kept, "library", config.rounds)["ratios"]
    first = rows[0]["ratios"]
    cases: dict[str, Any] = {
        name: {
            "over_gru": first[name]["median"],
            "over_loop": first[name]["median"] / first["loop"]["median"],
            "times_gru": 1 / first[name]["median"],
            "times_loop": first["loop"]["median"] / first[name]["median"],
            "highest": max(row["ratios"][name]["median"] for row in rows),
            "lowest": min(row["ratios"][name]["median"] for row in rows),
        }
        for name in LABELS
    }
    for name in ("mingru", "library_minlstm"):
        cases[name]["over_library"] = beside[name]["median"]
    return {"numbers": {}, "series": {"rows": rows}, "cases": cases}


def milliseconds(row: Mapping[str, Any]) -> str:
    """Of the base."""
    return f"{1000 * row['seconds']:.0f}"


experiment = lab.Experiment(
    small=Config(sizes=((2, 16, 8), (2, 8, 8)), rounds=2),
    run=run,
    claims=[
        lab.Claim(
            "C211",
            "Forward and backward of 8 rows of 512 steps of width 256, a minGRU by one "
            "scan takes at most 0.25 of the time of torch.nn.GRU; one that scans in "
            "logarithms takes more.",
            lab.below("over_gru", 0.25),
            case="mingru",
            control="library",
            timed=True,
        ),
        lab.Claim(
            "C211.library",
            "It takes at most 0.35 of the time of minGRU-pytorch's; the minLSTM of "
            "that package takes more.",
            lab.below("over_library", 0.35),
            case="mingru",
            control="library_minlstm",
            timed=True,
        ),
    ],
    numbers=[
        *(lab.each(name, cases=LABELS) for name in ("over_gru", "times_gru")),
        *(lab.each(name, cases=LABELS) for name in ("times_loop", "highest", "lowest")),
        lab.each("over_library", cases=("mingru", "library_minlstm")),
    ],
    tables={
        "times": lab.Table(
            rows="series.rows",
            columns={
                **ratio_cells.SIZE,
                "ms, `nn.GRU`": milliseconds,
                **{text: ratio_cells.ratio(name) for name, text in LABELS.items()},
                "`nn.GRU` again": ratio_cells.ratio("again"),
            },
        ),
        "memory": lab.Table(
            rows="series.rows",
            columns={
                **ratio_cells.SIZE,
                **{text: ratio_cells.memory(name) for name, text in LABELS.items()},
            },
        ),
    },
)
