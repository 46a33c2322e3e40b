r"""How far back each output sends a gradient: chunks and a sliding window.

A layer reads a stream. For each output the inputs are counted that get a gradient from
it, exact zeros being none. Two ways to cut the graph: between chunks of K steps that
do not overlap, and K steps before each output, with a graph of its own for each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from experiments import lab
from experiments.bptt._truncated import outputs_in_chunks
from seqref import LSTM
from seqref.recurrence import detach_state


@dataclass(frozen=True)
class Config:
    """Steps of the stream, chunk sizes, width, seed; `drawn` is the figure's chunk."""

    steps: int = 60
    sizes: tuple[int, ...] = (5, 10, 20, 30)
    drawn_steps: int = 24
    drawn: int = 6
    hidden_size: int = 8
    seeds: tuple[int, ...] = (0,)


def build(config: Config, steps: int) -> tuple[LSTM, Float[Tensor, "1 time 1"]]:
    """A layer and a random stream that takes gradients, in float64."""
    seed = config.seeds[0]
    with lab.seeded(seed):
        layer = LSTM(1, config.hidden_size, dtype=torch.float64)
    return layer, lab.normal(seed + 1000, 1, steps, 1).requires_grad_()


def outputs_in_window(
    layer: LSTM, x: Float[Tensor, "batch time input"], size: int
) -> Float[Tensor, "batch time hidden"]:
    """All outputs; the graph of each is cut `size` steps before it."""
    before, outputs = [layer.initial_state(1)], []
    for t, x_t in enumerate(x.unbind(1)):
        before.append(detach_state(layer.step(x_t, before[-1])[1]))
        start = max(0, t + 1 - size)
        outputs.append(layer(x[:, start : t + 1], before[start])[0][:, -1])
    return torch.stack(outputs, dim=1)


WAYS = {
    "chunks": ("chunks of K", outputs_in_chunks),
    "window": ("the last K steps of each output", outputs_in_window),
}


def matrix(config: Config, steps: int, way: str, size: int) -> Bool[Tensor, "t t"]:
    """Row t marks the inputs that get a gradient from output t."""
    layer, x = build(config, steps)
    outputs = WAYS[way][1](layer, x, size).sum((0, 2))
    rows = [torch.autograd.grad(y_t, x, retain_graph=True)[0] for y_t in outputs]
    return torch.cat(rows)[..., 0] != 0


def measure(config: Config, way: str, size: int) -> dict[str, Any]:
    """Counts of one way to cut, over a stream that `size` divides."""
    marks = matrix(config, config.steps, way, size)
    horizons, pairs = marks.sum(1), marks.diagonal(-1)
    return {
        "way": way,
        "size": size,
        "shortest": int(horizons.min()),
        "longest": int(horizons.max()),
        "mean": horizons.double().mean().item(),
        # The first K - 1 outputs of the stream have nothing further back to look at.
        "mean_after_first": horizons[size:].double().mean().item(),
        "expected": (size + 1) / 2,
        "neighbours": pairs.numel(),
        "neighbours_cut": int((~pairs).sum()),
        "never_from_last": int((~marks[-1]).sum()),
        "distances": [
            marks.diagonal(-lag).double().mean().item() for lag in range(size + 1)
        ],
    }


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Count for each chunk size and both ways, and the matrices of the figure."""
    jobs = [(way, size) for way in WAYS for size in config.sizes]
    rows = [measure(config, *job) for job in track(jobs, "bptt_horizon")]
    drawn = {
        way: matrix(config, config.drawn_steps, way, config.drawn).int().tolist()
        for way in WAYS
    }
    return {
        "series": {"rows": rows, "drawn": drawn},
        "cases": {f"{row['way']}_{row['size']}": row for row in rows},
    }


def draw_reach(figure: Any, record: Mapping[str, Any], theme: lab.Theme) -> None:
    """Which input gets a gradient from which output, one panel for each way."""
    size = record["run"]["config"]["drawn"]
    titles = {
        "chunks": f"Chunks of {size}: horizon 1 to {size}",
        "window": f"The last {size} steps of each output",
    }
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (way, title) in zip(panels, titles.items(), strict=True):
        marks = torch.tensor(record["series"]["drawn"][way])
        steps, (outputs, inputs) = len(marks), (marks.nonzero().T + 1).tolist()
        axes.scatter(
            inputs, outputs, s=22, marker="s", color=theme.colours[0], zorder=3
        )
        axes.set_xlim(0, steps + 1)
        axes.set_ylim(steps + 1, 0)
        axes.set_xticks(range(size, steps + 1, size))
        axes.set_yticks(range(size, steps + 1, size))
        axes.set_aspect("equal")
        axes.set_xlabel("input step")
        axes.set_title(title)
    panels[0].set_ylabel("output step")


def mean_is_half(case: Mapping[str, Any]) -> bool:
    """From 1 to K, and (K + 1) / 2 on average."""
    ends = case["shortest"] == 1 and case["longest"] == case["size"]
    return ends and case["mean_after_first"] == case["expected"]


def every_boundary_cuts(case: Mapping[str, Any]) -> bool:
    """One pair of neighbours for each boundary between chunks."""
    return case["neighbours_cut"] == (case["neighbours"] + 1) // case["size"] - 1


experiment = lab.Experiment(
    small=Config(20, (5, 10), drawn_steps=20, drawn=5, hidden_size=4),
    run=run,
    claims=[
        lab.Claim(
            "horizon.mean",
            "With chunks of K steps the horizon runs from 1 to K, and its mean is "
            "exactly (K + 1) / 2.",
            lab.exactly("mean_after_first", mean_is_half),
            case="chunks_10",
            control="window_10",
        ),
        lab.Claim(
            "horizon.neighbours",
            "At every boundary between chunks an output gets no gradient to the input "
            "one step before it.",
            lab.exactly("neighbours_cut", every_boundary_cuts),
            case="chunks_10",
            control="window_10",
        ),
    ],
    numbers=[
        lambda cases: {
            name: count
            for name, count in lab.everything(cases).items()
            if not isinstance(count, str)
        }
    ],
    tables={
        "horizon": lab.Table(
            rows="series.rows",
            columns={
                "gradient goes back over": lambda row: WAYS[row["way"]][0],
                "K": "size",
                "horizon": lambda row: f"{row['shortest']} to {row['longest']}",
                "mean after the first K outputs": "mean_after_first",
                "lag-1 pairs without gradient": (
                    lambda row: f"{row['neighbours_cut']} of {row['neighbours']}"
                ),
            },
        )
    },
    figures={"reach": draw_reach},
)
