r"""Time and memory of a training step by length, at equal width and equal tokens.

As many tokens in every batch, in ever fewer and longer rows: an LSTM of torch, a causal
transformer layer of torch, and attention of that layer alone. Forward and backward, one
thread, float32, no optimiser; the ratio to the LSTM in the same round.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from experiments import lab
from experiments.lab import ratio_cells, timing


@dataclass(frozen=True)
class Config:
    """Sizes; a batch has tokens / steps rows."""

    width: int = 256
    head: int = 64
    tokens: int = 8192
    lengths: tuple[int, ...] = (32, 128, 512, 2048, 4096)
    rounds: int = 7
    seeds: tuple[int, ...] = (0,)


def contestants(config: Config, steps: int) -> dict[str, timing.Contestant]:
    """A training step of each layer over rows of so many steps."""
    width, heads = config.width, config.width // config.head
    options: dict[str, Any] = {"dropout": 0.0, "batch_first": True}
    lstm = nn.LSTM(width, width, batch_first=True)
    layer = nn.TransformerEncoderLayer(
        width, heads, 4 * width, norm_first=True, **options
    )
    attention = nn.MultiheadAttention(width, heads, **options)
    rows = config.tokens // steps
    x = torch.randn(rows, steps, width, requires_grad=True)
    mask = nn.Transformer.generate_square_subsequent_mask(steps)

    def attend() -> Tensor:
        flags: dict[str, Any] = {"need_weights": False, "is_causal": True}
        return attention(x, x, x, attn_mask=mask, **flags)[0]

    calls = {
        "lstm": (lambda: lstm(x)[0], lstm),
        "transformer": (lambda: layer(x, src_mask=mask, is_causal=True), layer),
        "attention": (attend, attention),
    }
    return {
        name: timing.passes(call, [x, *module.parameters()], others=[mask])
        for name, (call, module) in calls.items()
    }


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Every length."""
    rows = []
    for steps in track(config.lengths, "training_length"):
        with timing.setting(), lab.seeded(config.seeds[0]):
            runs = contestants(config, steps)
            compared = timing.compare(runs, "lstm", config.rounds)
        rows.append({"steps": steps, "rows": config.tokens // steps, **compared})
    short, long = rows[0], rows[-1]
    cases = {
        name: {
            "lowest": min(timing.medians(rows, name)),
            "longest": long["ratios"][name]["median"],
            "shortest": short["ratios"][name]["median"],
            "growth": long["ratios"][name]["median"] / min(timing.medians(rows, name)),
        }
        for name in ("transformer", "attention", timing.AGAIN)
    }
    numbers = {
        f"{name}_{key}": value
        for name, case in cases.items()
        for key, value in case.items()
    }
    return {"numbers": numbers, "series": {"rows": rows}, "cases": cases}


experiment = lab.Experiment(
    small=Config(width=64, tokens=1024, lengths=(32, 1024), rounds=3),
    run=run,
    claims=[
        lab.Claim(
            "C180",
            "On this CPU the time of a transformer layer over that of an LSTM of equal "
            "width grows by more than 1.5 from the length where it is least to the "
            "longest; the LSTM over itself does not.",
            lab.above("growth", 1.5),
            case="transformer",
            control=timing.AGAIN,
            timed=True,
        ),
    ],
    tables={
        "ratios": lab.Table(
            rows="series.rows",
            columns={
                "steps": "steps",
                "rows": "rows",
                "transformer layer": ratio_cells.ratio("transformer"),
                "attention alone": ratio_cells.ratio("attention"),
                "the LSTM again": ratio_cells.ratio(timing.AGAIN),
                "memory, transformer layer": ratio_cells.memory("transformer"),
                "memory, attention alone": ratio_cells.memory("attention"),
            },
        ),
    },
)
