r"""Paths, operations and memory of recurrence and of attention, counted.

Edges of torch's graph between the first input and the last output, by steps; the share
of a transformer layer's multiply-adds that is quadratic in the steps, by the counter of
torch on a device without values; the most bytes of tensors that are alive in a training
step, by steps; and the path of recurrence on two levels. No clock.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from experiments import lab
from experiments.attention._graph import edges_between
from seqref.attention.transition import hierarchical_path, quadratic_share
from seqref.testing import LiveBytes


@dataclass(frozen=True)
class Config:
    """Sizes; a share is counted at these multiples of the width."""

    path_steps: tuple[int, ...] = (8, 32, 128)
    width: int = 128
    head: int = 64
    multiples: tuple[int, ...] = (1, 2, 4, 6, 12, 16)
    memory_steps: tuple[int, ...] = (256, 1024, 4096)
    memory_width: int = 64
    segments: int = 100
    seeds: tuple[int, ...] = (0,)


def lstm_output(leaves: list[Tensor]) -> Tensor:
    """The last output of an LSTM cell over the leaves."""
    cell = nn.LSTMCell(4, 4)
    h, c = torch.zeros(2, 1, 4)
    for x_t in leaves:
        h, c = cell(x_t[None], (h, c))
    return h


def attention_output(leaves: list[Tensor]) -> Tensor:
    """The last output of attention; each position has its own nodes to its score."""
    W_q, W_k, W_v = torch.randn(3, 4, 4)
    q = W_q @ leaves[-1]
    scores = torch.stack([q @ (W_k @ x_j) for x_j in leaves])
    return torch.stack([W_v @ x_j for x_j in leaves]).T @ scores.softmax(0)


def path(config: Config, output: Callable[[list[Tensor]], Tensor]) -> dict[str, Any]:
    """Edges between the first leaf and the last output."""
    fewest, most = [], []
    for steps in config.path_steps:
        with lab.seeded(config.seeds[0]):
            leaves = [torch.randn(4, requires_grad=True) for _ in range(steps)]
            short, long = edges_between(output(leaves), leaves[0])
        fewest.append(short)
        most.append(long)
    return {"fewest": fewest, "most": most, "growth": fewest[-1] / fewest[0]}


def share(config: Config, multiple: int) -> dict[str, Any]:
    """The quadratic share of a layer of torch, from its products by the counter."""
    width = config.width
    steps = multiple * width

    def counted(length: int) -> int:
        layer = nn.TransformerEncoderLayer(
            width,
            width // config.head,
            4 * width,
            dropout=0.0,
            batch_first=True,
            device="meta",
        )
        x = torch.empty(1, length, width, device="meta")
        counter = FlopCounterMode(display=False)
        with sdpa_kernel(SDPBackend.MATH), counter:
            layer(x)
        return counter.get_total_flops() // 2

    # What is linear in the steps is 12 D^2 for each; one step has 2 D of the other.
    linear = steps * (counted(1) - 2 * width)
    whole = counted(steps)
    return {
        "multiple": multiple,
        "steps": steps,
        "multiply_adds": whole,
        "share": 1 - linear / whole,
        "formula": quadratic_share(steps, width),
        "formula_causal": quadratic_share(steps, width, causal=True),
    }


def explicit(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention with its matrix of weights."""
    scores = q @ k.mT / q.shape[-1] ** 0.5
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -torch.inf).softmax(-1) @ v


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same by torch's kernel."""
    return scaled_dot_product_attention(q, k, v, is_causal=True)


def peak(call: Callable[[], Tensor], inputs: list[Tensor]) -> int:
    """The most bytes alive at one time in a training step, but for the inputs'."""
    torch.autograd.grad(call().sum(), inputs)
    with LiveBytes(inputs) as live:
        torch.autograd.grad(call().sum(), inputs)
    return live.peak


def memory(config: Config, kind: str) -> dict[str, Any]:
    """Bytes at the peak of a training step over one row, one head as wide as it."""
    width, peaks = config.memory_width, []
    for steps in config.memory_steps:
        with lab.seeded(config.seeds[0]):
            if kind == "lstm":
                layer = nn.LSTM(width, width, batch_first=True)
                x = torch.randn(1, steps, width, requires_grad=True)
                inputs = [x, *layer.parameters()]
                peaks.append(peak(lambda layer=layer, x=x: layer(x)[0], inputs))
            else:
                attend = explicit if kind == "explicit" else fused
                size = 1, 1, steps, width
                qkv = [torch.randn(size, requires_grad=True) for _ in range(3)]
                peaks.append(peak(lambda a=attend, qkv=qkv: a(*qkv), qkv))
    return {"peaks": peaks, "growth": peaks[-1] / peaks[-2]}


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Every count."""
    shares = [share(config, multiple) for multiple in track(config.multiples, "shares")]
    by_multiple = {f"share_{row['multiple']}": row for row in shares}
    fixed = [hierarchical_path(n, config.segments) for n in (10**4, 10**6)]
    root = [hierarchical_path(n, int(n**0.5)) for n in (10**4, 10**6)]
    cases = {
        "lstm_path": path(config, lstm_output),
        "attention_path": path(config, attention_output),
        **{
            f"{kind}_memory": memory(config, kind)
            for kind in ("lstm", "fused", "explicit")
        },
        "fixed_segments": {"paths": fixed, "growth": fixed[1] / fixed[0]},
        "root_segments": {"paths": root, "growth": root[1] / root[0]},
        **by_multiple,
    }
    paths = [
        {
            "steps": steps,
            **{
                f"{kind}_{which}": cases[f"{kind}_path"][which][place]
                for kind in ("lstm", "attention")
                for which in ("fewest", "most")
            },
        }
        for place, steps in enumerate(config.path_steps)
    ]
    peaks = [
        {
            "steps": steps,
            **{
                kind: cases[f"{kind}_memory"]["peaks"][place] / 2**20
                for kind in ("lstm", "fused", "explicit")
            },
        }
        for place, steps in enumerate(config.memory_steps)
    ]
    series = {"paths": paths, "shares": shares, "peaks": peaks}
    return {"series": series, "cases": cases}


PATHS = ("lstm_path", "attention_path")

experiment = lab.Experiment(
    small=Config(
        path_steps=(8, 32), multiples=(1, 4, 6), memory_steps=(128, 512), width=64
    ),
    run=run,
    claims=[
        lab.Claim(
            "C92",
            "The fewest edges of the graph between the first input and the last output "
            "are the same for any number of steps in attention, and not in an LSTM.",
            lab.below("growth", 1.5),
            case="attention_path",
            control="lstm_path",
        ),
        lab.Claim(
            "C83",
            "At six times as many steps as the layer is wide, half of the "
            "multiply-adds, to a tenth, are quadratic in the steps; at as many steps "
            "as it is wide they are not.",
            lab.between("share", 0.4, 0.6, lab.share),
            case="share_6",
            control="share_1",
        ),
        lab.Claim(
            "C82",
            "The peak of memory of attention by torch's kernel grows by less than six "
            "where the steps grow by four; with its matrix of weights it does not.",
            lab.below("growth", 6.0),
            case="fused_memory",
            control="explicit_memory",
        ),
        lab.Claim(
            "C89",
            "With segments of one size a hundred times as many steps make the path of "
            "recurrence on two levels more than twenty times as long.",
            lab.above("growth", 20.0),
            case="fixed_segments",
            control="root_segments",
        ),
    ],
    numbers=[
        lab.each("share", "counted"),
        lab.each("growth", "growth"),
        lab.each(lambda case: case["fewest"][-1], "last", cases=PATHS),
        lab.each(lambda case: case["fewest"][0], "first", cases=PATHS),
        {
            "fixed_short": "fixed_segments.paths.0",
            "fixed_long": "fixed_segments.paths.1",
        },
        {"root_long": "root_segments.paths.1"},
    ],
    tables={
        "paths": lab.Table(
            rows="series.paths",
            columns={
                "steps": "steps",
                "LSTM, fewest edges": "lstm_fewest",
                "LSTM, most": "lstm_most",
                "attention, fewest edges": "attention_fewest",
                "attention, most": "attention_most",
            },
        ),
        "shares": lab.Table(
            rows="series.shares",
            columns={
                "steps, in widths": "multiple",
                "steps": "steps",
                "multiply-adds": "multiply_adds",
                "quadratic share, counted": lab.fixed("share", 3),
                "by the formula": lab.fixed("formula", 3),
                "half of the pairs": lab.fixed("formula_causal", 3),
            },
        ),
        "peaks": lab.Table(
            rows="series.peaks",
            columns={
                "steps": "steps",
                "LSTM": lab.cell("lstm", lab.number, 3),
                "attention, torch's kernel": lab.cell("fused", lab.number, 3),
                "attention, matrix of weights": lab.cell("explicit", lab.number, 3),
            },
        ),
    },
)
