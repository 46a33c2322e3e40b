r"""Whether packing or a Transformer layer is faster than the padded LSTM on a CPU.

Timed are training steps (forward and backward, no optimiser) of modules of `torch.nn`
at equal width, in interleaved rounds of one process, as torch comes and with oneDNN
switched off; what is stored is the ratio to the padded LSTM in the same round. The GRU
is in `gru_speed`; here it runs only at sizes and threads that were not measured there.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from experiments import lab
from experiments.lab import ratio_cells, timing
from experiments.lab.tables import Cell, caption
from experiments.speed._layers import (
    SIZES,
    Size,
    lengths_of,
    normal_input,
    over,
    over_packed,
)
from experiments.speed._presentation import Rows, draw_by_size

# Width of one attention head, where the layer is at least as wide.
HEAD = 64
# Where the quartiles of a ratio are further apart, its line is not shown.
SPREAD = 1.4
NAMES = {
    "packed": "packed, half real",
    "transformer": "Transformer layer, equal width",
    "transformer_equal": "Transformer layer, equal parameters",
}
ALL = {"gru": "GRU", **NAMES}


@dataclass(frozen=True)
class Config:
    """Sizes as (batch, time, hidden); edges are sizes at which a title may end."""

    sizes: tuple[Size, ...] = SIZES
    edges: tuple[Size, ...] = (
        (256, 4, 64),
        (256, 4, 256),
        (128, 4, 512),
        (1, 4096, 64),
        (1, 16, 64),
    )
    more_sizes: tuple[Size, ...] = ((32, 64, 64), (8, 256, 256), (64, 64, 512))
    share: float = 0.5
    rounds: int = 7
    threads: int = 1
    more_threads: int = 2
    seeds: tuple[int, ...] = (0,)
    device: str = "cpu"


def attention(width: int, feed_forward: int) -> nn.Module:
    r"""A Transformer layer without dropout; a mask makes it look back only."""
    return nn.TransformerEncoderLayer(
        width,
        max(1, width // HEAD),
        feed_forward,
        dropout=0.0,
        batch_first=True,
        norm_first=True,
    )


def modules(width: int, seed: int = 0, device: str = "cpu") -> dict[str, nn.Module]:
    r"""All of one width: input, state or model width, and output.

    The feed-forward part of a Transformer layer is usually four times as wide; with
    twice it has as many parameters as the LSTM, but for the smallest terms.
    """
    with lab.seeded(seed):
        made = {
            "lstm": nn.LSTM(width, width, batch_first=True),
            "gru": nn.GRU(width, width, batch_first=True),
            "transformer": attention(width, 4 * width),
            "transformer_equal": attention(width, 2 * width),
        }
    return {name: module.to(device) for name, module in made.items()}


def parameters(width: int) -> dict[str, int]:
    """Number of parameters of each."""
    return {
        name: sum(parameter.numel() for parameter in module.parameters())
        for name, module in modules(width, device="meta").items()
    }


def multiply_adds(steps: int, width: int) -> dict[str, int]:
    r"""Multiply-adds of the matrix products for one row, forward, without a mask."""
    weights = steps * width * width
    return {"lstm": 8 * weights, "transformer": 12 * weights + 2 * steps**2 * width}


def contestants(
    config: Config, size: Size, without: Collection[str] = ()
) -> dict[str, timing.Contestant]:
    r"""A training step of the padded LSTM and of everything beside it.

    A batch of one row has no padding, and there is nothing to pack.
    """
    batch, steps, width = size
    seed, device = config.seeds[0], config.device
    made, x = modules(width, seed, device), normal_input(size, seed, device)
    mask = nn.Transformer.generate_square_subsequent_mask(
        steps, device=torch.device(device)
    )

    def attending(layer: nn.Module) -> timing.Contestant:
        def forward() -> Tensor:
            return layer(x, src_mask=mask, is_causal=True)

        return timing.passes(forward, [x, *layer.parameters()], others=[mask])

    runs = {"padded": over(made["lstm"], x), "gru": over(made["gru"], x)}
    if batch > 1:
        lengths = lengths_of(config.share, batch, steps)
        runs["packed"] = over_packed(made["lstm"], x, lengths)
    for name in ("transformer", "transformer_equal"):
        runs[name] = attending(made[name])
    return {name: run for name, run in runs.items() if name not in without}


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Time every size in each setting, the edges, and some sizes on more threads."""
    places, plain = timing.settings_on(config.device), "as_it_comes"
    jobs = [(place, size, place) for size in config.sizes for place in places]
    jobs += [("edges", size, plain) for size in config.edges]
    jobs += [("threads", size, plain) for size in config.more_sizes]
    rows = []
    for part, size, place in track(jobs, "cpu_speed"):
        threads = config.more_threads if part == "threads" else config.threads
        # `gru_speed` has the GRU at these sizes, on a CPU.
        without = ("gru",) if (part, config.device) == (place, "cpu") else ()
        with timing.setting(threads, timing.SETTINGS[place]):
            runs = contestants(config, size, without)
            compared = timing.compare(runs, "padded", config.rounds, config.device)
        rows.append({"part": part, "size": size, **compared})
    widths = sorted({size[2] for size in config.sizes})
    counts = [{"width": width, **parameters(width)} for width in widths]
    cases: dict[str, Any] = {
        f"{place}_{name}": {"lowest": min(ratios)}
        for place in places
        for name in NAMES
        if (ratios := timing.medians(rows, name, part=place))
    }
    for label, steps in (("short", 16), ("as_long_as_wide", 256), ("long", 4096)):
        work = multiply_adds(steps, 256)
        cases[f"work_{label}"] = {"work": work["transformer"] / work["lstm"]}
    numbers = timing.ranges(rows, lambda row, name: f"{row['part']}_{name}")
    numbers |= {name: case["work"] for name, case in cases.items() if "work" in case}
    for row in rows:
        if row["part"] == "edges":
            place = "b{}_t{}_d{}".format(*row["size"])
            for name, ratio in row["ratios"].items():
                numbers[f"{place}_{name}"] = ratio["median"]
    series = {"rows": rows, "parameters": counts}
    return {"numbers": numbers, "series": series, "cases": cases}


def disturbed(row: Mapping[str, Any]) -> bool:
    """Whether other work on the machine moved the ratios of a line too far."""
    return any(
        ratio["high"] > SPREAD * ratio["low"] for ratio in row["ratios"].values()
    )


def of_ratios(rows: Rows) -> lab.Table:
    """One line for a size, one column for a contestant."""

    def quiet(name: str) -> Cell:
        ratio = ratio_cells.ratio(name)
        return lambda row: (
            "disturbed" if name in row["ratios"] and disturbed(row) else ratio(row)
        )

    columns = {
        label: quiet(name)
        for name, label in ALL.items()
        if any(name in row["ratios"] for row in rows)
    }
    again = {"the LSTM again": ratio_cells.ratio(timing.AGAIN)}
    return lab.Table(ratio_cells.SIZE | columns | again, rows=lambda record: rows)


def part_of(record: Mapping[str, Any], *parts: str) -> Rows:
    """The rows of one part, or of several."""
    return [row for row in record["series"]["rows"] if row["part"] in parts]


def tables(record: Mapping[str, Any]) -> dict[str, Any]:
    """Ratios in each setting, at the edges and on more threads; memory; parameters."""
    made: dict[str, Any] = {
        part: of_ratios(rows)
        for part in (*timing.SETTINGS, "edges", "threads")
        if (rows := part_of(record, part))
    }
    if "threads" in made:
        run = record["run"]
        config = run["config"] | {"threads": run["config"]["more_threads"]}
        made["threads_run"] = caption({**record, "run": run | {"config": config}})
    made["memory"] = lab.Table(
        ratio_cells.SIZE
        | {label: ratio_cells.memory(name) for name, label in NAMES.items()},
        rows=lambda record: part_of(record, "as_it_comes", "edges"),
    )
    made["parameters"] = lab.Table(
        {"D": "width", "LSTM": "lstm"}
        | {label: name for name, label in ALL.items() if name != "packed"},
        rows="series.parameters",
    )
    return made


def draw_ratios(figure: Any, record: Mapping[str, Any], theme: lab.Theme) -> None:
    """Ratios by size, one panel for a setting; disturbed lines are left out."""
    panels = {label: part_of(record, place) for place, label in timing.LABELS.items()}
    draw_by_size(figure, theme, panels, NAMES, "padded LSTM", leave_out=disturbed)


def slower(identifier: str, sentence: str, name: str) -> lab.Claim:
    """That a contestant takes longer than the padded LSTM, by the kernel's doing."""
    return lab.Claim(
        identifier,
        sentence,
        lab.above("lowest", 1.1),
        case=f"as_it_comes_{name}",
        control=f"without_onednn_{name}",
        timed=True,
    )


experiment = lab.Experiment(
    small=Config(((2, 16, 8), (4, 8, 16)), edges=(), more_sizes=(), rounds=2),
    run=run,
    claims=[
        slower(
            "C145",
            "On this CPU a training step over a packed batch, half of it real, takes "
            "more than 1.1 times as long as over the padded one at every size; without "
            "oneDNN it does not.",
            "packed",
        ),
        lab.Claim(
            "C84",
            "On short rows a Transformer layer of equal width has less than 1.6 times "
            "the multiply-adds of an LSTM layer; on long ones it has not.",
            lab.exactly("work", lambda case: case["work"] < 1.6),
            case="work_short",
            control="work_long",
        ),
        slower(
            "C85",
            "On this CPU a training step of a causal Transformer layer takes more than "
            "1.1 times as long as one of an LSTM of equal width at every size; without "
            "oneDNN it does not.",
            "transformer",
        ),
        slower(
            "C85.parameters",
            "The same holds for a Transformer layer with as many parameters as the "
            "LSTM.",
            "transformer_equal",
        ),
    ],
    tables=tables,
    figures={"ratios": draw_ratios},
)
