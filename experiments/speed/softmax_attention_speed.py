r"""Softmax attention in blocks, beside torch's kernel and the matrix as a whole.

Forward and backward of one layer's attention, on one thread, with equal inputs: the
matrix of scores as one tensor, as it is taught; torch's fused kernel; and the op in
blocks of plain PyTorch. The ratio is of processor times in the same round, the memory
the most bytes that tensors take at one time. Then the same at four times the length,
and the two ways to limit what is seen: a mask for torch's kernel, and blocks that are
left out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from experiments import lab
from experiments.lab import ratio_cells, timing
from seqref.ops.softmax_attention import softmax_attention

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Config:
    """Lengths (`growth` is also multiplied by four), heads, rounds, threads, seed."""

    lengths: tuple[int, ...] = (512, 2048, 4096)
    growth: int = 1024
    masked: tuple[int, ...] = (256, 1024, 2048)
    window: int = 256
    heads: int = 8
    head: int = 64
    rounds: int = 5
    threads: int = 1
    seeds: tuple[int, ...] = (0,)


def explicit(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The scores as one tensor, masked, and a softmax of it."""
    scores = (q @ k.mT) * q.shape[-1] ** -0.5
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -torch.inf).softmax(dim=-1) @ v


FORMS: dict[str, Attention] = {
    "sdpa": partial(scaled_dot_product_attention, is_causal=True),
    "default": partial(softmax_attention, causal=True),
    "parallel": partial(softmax_attention, causal=True, backend="parallel"),
    "explicit": explicit,
}
TITLES = {
    "default": "the op, default",
    "parallel": "the op, blocks",
    "explicit": "matrix as one",
}


def inputs_of(config: Config, length: int) -> list[Tensor]:
    """Queries, keys and values of one row, which take gradients."""
    shape = (1, config.heads, length, config.head)
    with lab.seeded(config.seeds[0]):
        return [torch.randn(shape, requires_grad=True) for _ in "qkv"]


def against(
    config: Config, length: int, forms: Mapping[str, Attention], base: str
) -> dict[str, Any]:
    """All forms on the same inputs, over the base."""
    inputs = inputs_of(config, length)
    runs = {n: timing.passes(partial(f, *inputs), inputs) for n, f in forms.items()}
    return {"length": length, **timing.compare(runs, base, config.rounds)}


def growth(config: Config, form: Attention) -> dict[str, Any]:
    """Time and memory at four times the length, over those at the length."""
    runs = {}
    for name, length in (("once", config.growth), ("four", 4 * config.growth)):
        inputs = inputs_of(config, length)
        runs[name] = timing.passes(partial(form, *inputs), inputs)
    compared = timing.compare(runs, "once", config.rounds)
    four = compared["ratios"]["four"]
    peak = four["peak"] / compared["peak"]
    return {**compared, "growth_time": four["median"], "growth_peak": peak}


def masked(config: Config, length: int) -> list[dict[str, Any]]:
    """The op by torch with a mask, and in blocks: window, padding, bias."""
    limits = {
        "window": {"causal": True, "window": config.window},
        "a quarter is padding": {"lengths": torch.tensor([length * 3 // 4])},
        "bias by distance": {
            "causal": True,
            "slopes": 2.0 ** -torch.arange(1, config.heads + 1),
        },
    }
    rows = []
    for name, options in limits.items():
        forms = {
            backend: partial(softmax_attention, backend=backend, **options)
            for backend in ("torch", "parallel")
        }
        rows.append({"limit": name, **against(config, length, forms, "torch")})
    return rows


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Time every length, every growth and every limit."""
    window = partial(
        softmax_attention, causal=True, window=config.window, backend="parallel"
    )
    with timing.setting(config.threads):
        rows = [
            against(config, length, FORMS, "sdpa")
            for length in track(config.lengths, "softmax_attention_speed")
        ]
        grown = {n: growth(config, f) for n, f in {**FORMS, "window": window}.items()}
        limits = [row for n in config.masked for row in masked(config, n)]
    return {
        "numbers": {},
        "series": {"rows": rows, "growth": list_of(grown), "masked": limits},
        "cases": {name: case(rows, grown, name) for name in grown},
    }


def list_of(grown: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the table of growth."""
    titles = {"sdpa": "torch's kernel", **TITLES, "window": "the op, blocks, window"}
    return [{"form": titles[name], **values} for name, values in grown.items()]


def case(
    rows: Sequence[Mapping[str, Any]], grown: Mapping[str, Any], name: str
) -> dict[str, Any]:
    """What the claims ask of one form."""
    four = {key: grown[name][key] for key in ("growth_time", "growth_peak")}
    if name not in TITLES:
        return four
    middle, last = rows[-2], rows[-1]
    peak = last["ratios"][name]["peak"]
    return {
        **four,
        "time": last["ratios"][name]["median"],
        "peak_of_sdpa": middle["ratios"][name]["peak"] / middle["peak"],
        "peak_of_explicit": peak / last["ratios"]["explicit"]["peak"],
    }


def cells(cell: Callable[[str], Any], suffix: str = "") -> dict[str, Any]:
    """Columns, one for each form but torch's own."""
    return {text + suffix: cell(name) for name, text in TITLES.items()}


def megabytes(row: Mapping[str, Any]) -> str:
    """The base's peak."""
    return f"{row['peak'] / 2**20:.0f}"


experiment = lab.Experiment(
    small=Config(
        lengths=(24, 32, 48), growth=24, masked=(32,), window=8, heads=2, rounds=3
    ),
    run=run,
    claims=[
        lab.Claim(
            "C166",
            "Attention in blocks of plain PyTorch takes at most three times the time "
            "of torch's fused kernel for 4,096 positions, causal, there and back; "
            "the matrix as one tensor takes more.",
            lab.below("time", 3),
            case="parallel",
            control="explicit",
            timed=True,
        ),
        lab.Claim(
            "C170",
            "Without the matrix of scores the memory of causal attention grows at most "
            "4.6-fold with four times the length, gradients included; with it, more.",
            lab.below("growth_peak", 4.6),
            case="parallel",
            control="explicit",
            timed=True,
        ),
        lab.Claim(
            "C170.kernel",
            "So it does by torch's fused kernel.",
            lab.below("growth_peak", 4.6),
            case="sdpa",
            control="explicit",
            timed=True,
        ),
        lab.Claim(
            "C170.whole",
            "At 4,096 positions attention in blocks takes at most a fifth of the "
            "memory of the matrix as one tensor.",
            lab.below("peak_of_explicit", 0.2),
            case="parallel",
            control="explicit",
            timed=True,
        ),
        lab.Claim(
            "C170.step",
            "At 2,048 positions it takes at most 1.1 times the memory of torch's fused "
            "kernel for a training step.",
            lab.below("peak_of_sdpa", 1.1, on=lab.share),
            case="parallel",
            control="explicit",
            timed=True,
        ),
        lab.Claim(
            "C167",
            "With a window whose blocks are left out, time grows at most 4.6-fold with "
            "four times the length; without the window it grows faster.",
            lab.below("growth_time", 4.6),
            case="window",
            control="parallel",
            timed=True,
        ),
        lab.Claim(
            "C167.full",
            "Without a window time grows 10- to 17-fold.",
            lab.between("growth_time", 10, 17),
            case="parallel",
            control="window",
            timed=True,
        ),
    ],
    numbers=[
        lab.each("time"),
        lab.each("peak_of_sdpa"),
        lab.each("peak_of_explicit"),
        lab.each("growth_time"),
        lab.each("growth_peak"),
    ],
    tables={
        "times": lab.Table(
            rows="series.rows",
            columns={
                "T": "length",
                **cells(ratio_cells.ratio),
                "base again": ratio_cells.ratio("again"),
            },
        ),
        "memory": lab.Table(
            rows="series.rows",
            columns={
                "T": "length",
                "torch's kernel, MiB": megabytes,
                **cells(ratio_cells.memory),
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
        "masked": lab.Table(
            rows="series.masked",
            columns={
                "T": "length",
                "limit": lab.cell("limit", str),
                "time, blocks over mask": ratio_cells.ratio("parallel"),
                "memory, blocks over mask": ratio_cells.memory("parallel"),
            },
        ),
    },
)
