r"""Time and memory of a training step with a window, by the length of the sequence.

Forward and backward of one layer over one row, on one thread, gradients of the input
and of all parameters: causal attention within a window in blocks, full causal
attention, the window as a mask for torch's module, made before what is timed, the op's
blocks by hand behind a cache that keeps all, and Longformer's window to both sides with
global positions, which is not causal. What is stored is the time at
four times the length over that at the length, and that over full attention's in the
same round; the memory is the most bytes that tensors take at one time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from experiments import lab
from experiments.lab import ratio_cells, timing
from seqref import LongformerSelfAttention, MultiHeadAttention, SlidingWindowAttention

Call = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Config:
    """The shorter length, the window and the sizes; global positions of Longformer."""

    length: int = 1024
    window: int = 128
    global_tokens: int = 4
    d_model: int = 256
    n_heads: int = 4
    rounds: int = 9
    threads: int = 1
    seeds: tuple[int, ...] = (0,)


def first_of(layer: nn.Module, x: Tensor) -> Tensor:
    """The outputs of a layer, without its state."""
    return layer(x)[0]


def hidden(length: int, window: int) -> Tensor:
    """The mask of all pairs that torch's module takes; True hides."""
    t = torch.arange(length)
    behind = t[:, None] - t
    return (behind < 0) | (behind >= window)


def masked(layer: nn.MultiheadAttention, x: Tensor) -> Tensor:
    """torch's module with the mask of this length, which was made before."""
    mask = layer.get_buffer(f"hidden_{x.shape[1]}")
    return layer(x, x, x, attn_mask=mask, need_weights=False)[0]


def with_global(layer: nn.Module, tokens: int, x: Tensor) -> Tensor:
    """Longformer's, the first positions global."""
    mask = (torch.arange(x.shape[1]) < tokens).expand(x.shape[:2])
    return layer(x, mask)


def calls_of(config: Config) -> dict[str, tuple[nn.Module, Call]]:
    """Every contestant's module, and what is called."""
    sizes, window = (config.d_model, config.n_heads), config.window
    with lab.seeded(config.seeds[0]):
        layers: dict[str, Any] = {
            "window": SlidingWindowAttention(*sizes, window),
            "full": MultiHeadAttention(*sizes),
            "by_hand": MultiHeadAttention(*sizes, window=window),
            "mask": nn.MultiheadAttention(*sizes, batch_first=True),
            "longformer": LongformerSelfAttention(*sizes, window // 2),
        }
    for length in (config.length, 4 * config.length):
        layers["mask"].register_buffer(f"hidden_{length}", hidden(length, window))
    special = {
        "mask": partial(masked, layers["mask"]),
        "longformer": partial(with_global, layers["longformer"], config.global_tokens),
    }
    return {
        name: (layer, special.get(name, partial(first_of, layer)))
        for name, layer in layers.items()
    }


def contestant(config: Config, length: int, layer: nn.Module, call: Call) -> Any:
    """A training step over one row."""
    with lab.seeded(config.seeds[0]):
        x = torch.randn(1, length, config.d_model, requires_grad=True)
    # Longformer's global projections take part only where a position is global.
    inputs = [x, *layer.parameters()]
    return timing.passes(partial(call, x), inputs, others=layer.buffers())


def growth(config: Config, layer: nn.Module, call: Call) -> dict[str, Any]:
    """Time and memory at four times the length, over those at the length."""
    lengths = {"once": config.length, "four": 4 * config.length}
    runs = {n: contestant(config, size, layer, call) for n, size in lengths.items()}
    compared = timing.compare(runs, "once", config.rounds)
    four = compared["ratios"]["four"]
    return {
        **compared,
        "growth_time": four["median"],
        "growth_peak": four["peak"] / compared["peak"],
    }


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Every growth, and all contestants beside each other at both lengths."""
    calls = calls_of(config)
    with timing.setting(config.threads):
        grown = {
            name: growth(config, *pair)
            for name, pair in track(list(calls.items()), "window_growth")
        }
        rows = []
        for length in (config.length, 4 * config.length):
            runs = {n: contestant(config, length, *pair) for n, pair in calls.items()}
            rows.append(
                {"length": length, **timing.compare(runs, "full", config.rounds)}
            )
    return {
        "series": {"rows": rows, "growth": list_of(grown)},
        "cases": {name: case(rows, grown[name], name) for name in calls},
    }


TITLES = {
    "window": "window, in blocks",
    "by_hand": "window, the op's blocks by hand",
    "longformer": "both sides, global positions",
    "mask": "torch's module, window as a mask",
    "full": "full attention",
}


def list_of(grown: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the table of growth."""
    return [{"form": title, **grown[name]} for name, title in TITLES.items()]


def case(rows: list[Any], grown: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What the claims ask of one contestant."""
    found = {key: grown[key] for key in ("growth_time", "growth_peak")}
    last = rows[-1]
    of_full = last["ratios"].get(name, {"median": 1.0, "peak": last["peak"]})
    found["time"] = of_full["median"]
    found["peak"] = of_full["peak"] / last["peak"]
    return found


OTHERS = [name for name in TITLES if name != "full"]


def against_full(cell: Callable[[str], Any]) -> dict[str, Any]:
    """Columns, one for each contestant but full attention."""
    return {TITLES[name]: cell(name) for name in OTHERS}


experiment = lab.Experiment(
    small=Config(length=24, window=6, d_model=8, n_heads=2, rounds=3),
    run=run,
    claims=[
        lab.Claim(
            "C171",
            "With a window of 128 in blocks of plain PyTorch, the time of a training "
            "step grows at most 4.6-fold from 1,024 to 4,096 positions; that of full "
            "attention grows faster.",
            lab.below("growth_time", 4.6),
            case="window",
            control="full",
            timed=True,
        ),
        lab.Claim(
            "C171.memory",
            "So does its memory; with the window as a mask of all pairs memory grows "
            "faster.",
            lab.below("growth_peak", 4.6),
            case="window",
            control="mask",
            timed=True,
        ),
        lab.Claim(
            "C171.longformer",
            "The time of a training step with a window to both sides and four global "
            "positions grows at most 4.6-fold as well.",
            lab.below("growth_time", 4.6),
            case="longformer",
            control="full",
            timed=True,
        ),
        lab.Claim(
            "C171.longformer_memory",
            "And so does its memory.",
            lab.below("growth_peak", 4.6),
            case="longformer",
            control="mask",
            timed=True,
        ),
        lab.Claim(
            "C171.time",
            "At 4,096 positions the window in blocks takes less than half the time of "
            "full attention; as a mask it does not.",
            lab.below("time", 0.5),
            case="window",
            control="mask",
            timed=True,
        ),
    ],
    numbers=[
        lab.each("growth_time"),
        lab.each("growth_peak"),
        lab.each("time"),
        lab.each("peak"),
    ],
    tables={
        "growth": lab.Table(
            rows="series.growth",
            columns={
                "attention": lab.cell("form", str),
                "time": ratio_cells.ratio("four"),
                "memory": ratio_cells.memory("four"),
            },
        ),
        "times": lab.Table(
            rows="series.rows",
            columns={
                "T": "length",
                **against_full(ratio_cells.ratio),
                "full attention again": ratio_cells.ratio("again"),
            },
        ),
        "memory": lab.Table(
            rows="series.rows",
            columns={
                "T": "length",
                "full attention, MiB": lambda row: f"{row['peak'] / 2**20:.0f}",
                **against_full(ratio_cells.memory),
            },
        ),
    },
)
