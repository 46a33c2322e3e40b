r"""Whether packing or a Transformer layer is faster than the padded LSTM on a CPU.

Timed are training steps (forward and backward, no optimiser) of modules of `torch.nn`
at equal width, in interleaved rounds of one process, as torch comes and with oneDNN
switched off; what is stored is the ratio to the padded LSTM in the same round. The GRU
is in `gru_speed`; here it runs only at sizes and threads that were not measured there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from experiments import lab
from experiments.lab import ratio_cells, timing
from experiments.lab.tables import Cell, caption
from experiments.speed._layers import (
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

    # Those of gru_speed.
    sizes: tuple[Size, ...] = (
        (1, 1024, 64),
        (8, 256, 64),
        (32, 64, 64),
        (1, 1024, 256),
        (8, 256, 256),
        (32, 128, 256),
        (8, 128, 512),
        (64, 64, 512),
    )
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


class CausalLayer(nn.Module):
    r"""`torch.nn.TransformerEncoderLayer` that looks back only, without dropout."""

    def __init__(self, width: int, feed_forward: int) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(
            width,
            max(1, width // HEAD),
            feed_forward,
            dropout=0.0,
            batch_first=True,
            norm_first=True,
        )

    def forward(
        self, x: Float[Tensor, "batch time width"], mask: Float[Tensor, "time time"]
    ) -> Float[Tensor, "batch time width"]:
        return self.layer(x, src_mask=mask, is_causal=True)


def modules(width: int, seed: int = 0, device: str = "cpu") -> dict[str, nn.Module]:
    r"""All of one width: input, state or model width, and output.

    The feed-forward part of a Transformer layer is usually four times as wide; with
    twice it has as many parameters as the LSTM, but for the smallest terms.
    """
    with lab.seeded(seed):
        made = {
            "lstm": nn.LSTM(width, width, batch_first=True),
            "gru": nn.GRU(width, width, batch_first=True),
            "transformer": CausalLayer(width, 4 * width),
            "transformer_equal": CausalLayer(width, 2 * width),
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


def contestants(config: Config, size: Size) -> dict[str, timing.Contestant]:
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
        inputs = [x, *layer.parameters()]
        return timing.passes(lambda: layer(x, mask), inputs, others=[mask])

    runs = {"padded": over(made["lstm"], x), "gru": over(made["gru"], x)}
    if batch > 1:
        lengths = lengths_of(config.share, batch, steps)
        runs["packed"] = over_packed(made["lstm"], x, lengths)
    for name in ("transformer", "transformer_equal"):
        runs[name] = attending(made[name])
    return runs


def timed(
    config: Config,
    sizes: Sequence[Size],
    names: Mapping[str, str],
    track: lab.Track,
    threads: int,
    settings: Sequence[str] = ("as_it_comes",),
) -> list[dict[str, Any]]:
    """Ratios to the padded LSTM by size and setting, of these contestants alone."""
    jobs = [(size, place) for size in sizes for place in settings]
    rows = []
    for size, place in track(jobs, f"cpu_speed, {threads} threads"):
        with timing.setting(threads, timing.SETTINGS[place]):
            every = contestants(config, size)
            chosen = {n: run for n, run in every.items() if n in ("padded", *names)}
            row = timing.compare(chosen, "padded", config.rounds, config.device)
        rows.append({"size": size, "setting": place, **row})
    return rows


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Time every size, the edges, and some sizes on more threads."""
    on_device = timing.settings_on(config.device)
    # On a GPU there is no other experiment that has the GRU.
    names = NAMES if config.device == "cpu" else ALL
    threads = config.threads
    rows = timed(config, config.sizes, names, track, threads, on_device)
    edges = timed(config, config.edges, ALL, track, threads)
    more = timed(config, config.more_sizes, ALL, track, config.more_threads)
    widths = sorted({size[2] for size in config.sizes})
    counts = [{"width": width, **parameters(width)} for width in widths]
    series = {"rows": rows, "edges": edges, "threads": more, "parameters": counts}
    cases: dict[str, Any] = {
        f"{place}_{name}": timing.ends(rows, name, setting=place)
        for place in on_device
        for name in NAMES
    }
    for label, steps in (("short", 16), ("as_long_as_wide", 256), ("long", 4096)):
        work = multiply_adds(steps, 256)
        cases[f"work_{label}"] = {"work": work["transformer"] / work["lstm"]}
    return {"numbers": numbers(series, cases), "series": series, "cases": cases}


def numbers(series: Mapping[str, Rows], cases: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars for sentences: lowest and highest median, over sizes and by size."""
    found = {name: case["work"] for name, case in cases.items() if "work" in case}
    for name in (timing.AGAIN, *ALL):
        for place in timing.SETTINGS:
            ends = timing.ends(series["rows"], name, f"{place}_{name}", setting=place)
            found |= ends
        for part in ("edges", "threads"):
            found |= timing.ends(series[part], name, f"{part}_{name}")
    for row in series["edges"]:
        batch, steps, width = row["size"]
        for name, ratio in row["ratios"].items():
            found[f"b{batch}_t{steps}_d{width}_{name}"] = ratio["median"]
    return found


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


def tables(record: Mapping[str, Any]) -> dict[str, Any]:
    """Ratios in each setting, at the edges and on more threads; memory; parameters."""
    series, run = record["series"], record["run"]
    places = {
        place: [row for row in series["rows"] if row["setting"] == place]
        for place in timing.SETTINGS
    }
    parts = places | {part: series[part] for part in ("edges", "threads")}
    made: dict[str, Any] = {k: of_ratios(rows) for k, rows in parts.items() if rows}
    if series["threads"]:
        config = run["config"] | {"threads": run["config"]["more_threads"]}
        made["threads_run"] = caption({**record, "run": run | {"config": config}})
    made["memory"] = lab.Table(
        ratio_cells.SIZE
        | {label: ratio_cells.memory(name) for name, label in NAMES.items()},
        rows=lambda record: places["as_it_comes"] + series["edges"],
    )
    made["parameters"] = lab.Table(
        {"D": "width", "LSTM": "lstm"}
        | {label: name for name, label in ALL.items() if name != "packed"},
        rows="series.parameters",
    )
    return made


def draw_ratios(figure: Any, record: Mapping[str, Any], theme: lab.Theme) -> None:
    """Ratios by size, one panel for a setting; disturbed lines are left out."""
    rows = record["series"]["rows"]
    panels = {
        label: [row for row in rows if row["setting"] == place]
        for place, label in timing.LABELS.items()
    }
    draw_by_size(figure, theme, panels, NAMES, "padded LSTM", leave_out=disturbed)


def slower(identifier: str, sentence: str, name: str) -> lab.Claim:
    """That a contestant takes longer than the padded LSTM, by the kernel's doing."""
    return lab.Claim(
        identifier,
        sentence,
        lab.above("low", 1.1),
        case=f"as_it_comes_{name}",
        control=f"without_onednn_{name}",
        timed=True,
    )


experiment = lab.Experiment(
    small=Config(((8, 256, 64), (32, 32, 256)), edges=(), more_sizes=(), rounds=5),
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
