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

from experiments.lab.claim import Claim, Outcome
from experiments.lab.drawing import Theme
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.seeding import generator, seeded
from experiments.lab.tables import number, table
from seqref import LSTM
from seqref.recurrence import detach_state
from seqref.recurrent.bptt import truncated_chunks


@dataclass(frozen=True)
class Config:
    """Steps of the stream, chunk sizes, width, seed; `drawn` is the figure's chunk."""

    steps: int
    sizes: tuple[int, ...]
    drawn_steps: int
    drawn: int
    hidden_size: int
    seeds: tuple[int, ...]


SMALL = Config(
    steps=20, sizes=(5, 10), drawn_steps=20, drawn=5, hidden_size=4, seeds=(0,)
)
FULL = Config(
    steps=60,
    sizes=(5, 10, 20, 30),
    drawn_steps=24,
    drawn=6,
    hidden_size=8,
    seeds=(0,),
)
WAYS = {"chunks": "chunks of K", "window": "the last K steps of each output"}


def build(config: Config, steps: int) -> tuple[LSTM, Float[Tensor, "1 time 1"]]:
    """A layer and a random stream that takes gradients, in float64."""
    seed = config.seeds[0]
    with seeded(seed):
        layer = LSTM(1, config.hidden_size, dtype=torch.float64)
    size = (1, steps, 1)
    x = torch.randn(size, generator=generator(seed + 1000), dtype=torch.float64)
    return layer, x.requires_grad_()


def outputs_in_chunks(layer: LSTM, x: Tensor, size: int) -> list[Tensor]:
    """Each output's sum, the graph cut between chunks."""
    state, found = layer.initial_state(1), []
    for chunk, _ in truncated_chunks(x, size):
        y, state = layer(chunk, detach_state(state))
        found += y.sum((0, 2)).unbind()
    return found


def outputs_in_window(layer: LSTM, x: Tensor, size: int) -> list[Tensor]:
    """Each output's sum, the graph cut `size` steps before that output."""
    before, found = [layer.initial_state(1)], []
    for x_t in x.unbind(1):
        before.append(detach_state(layer.step(x_t, before[-1])[1]))
    for t in range(x.shape[1]):
        start = max(0, t + 1 - size)
        y, _ = layer(x[:, start : t + 1], before[start])
        found.append(y[:, -1].sum())
    return found


def reached(outputs: list[Tensor], x: Tensor) -> Bool[Tensor, "time time"]:
    """Row t marks the inputs that get a gradient from output t."""
    rows = []
    for output in outputs:
        (gradient,) = torch.autograd.grad(output, x, retain_graph=True)
        rows.append(gradient.flatten() != 0)
    return torch.stack(rows)


def matrix(config: Config, steps: int, way: str, size: int) -> Bool[Tensor, "t t"]:
    """Which input gets a gradient from which output."""
    layer, x = build(config, steps)
    make = {"chunks": outputs_in_chunks, "window": outputs_in_window}[way]
    return reached(make(layer, x, size), x)


def measure(config: Config, way: str, size: int) -> dict[str, Any]:
    """Counts of one way to cut, over a stream that `size` divides."""
    marks = matrix(config, config.steps, way, size)
    horizons = marks.sum(1)
    pairs = marks.diagonal(-1)
    # The first K - 1 outputs of the stream have nothing further back to look at.
    after = horizons[size:].tolist()
    return {
        "way": way,
        "size": size,
        "shortest": int(horizons.min()),
        "longest": int(horizons.max()),
        "mean": horizons.double().mean().item(),
        "mean_after_first": sum(after) / len(after),
        "expected": (size + 1) / 2,
        "neighbours": pairs.numel(),
        "neighbours_cut": int((~pairs).sum()),
        "never_from_last": int((~marks[-1]).sum()),
        "distances": [
            marks.diagonal(-lag).double().mean().item() for lag in range(size + 1)
        ],
    }


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Count for each chunk size and both ways, and the matrices of the figure."""
    jobs = [(way, size) for way in WAYS for size in config.sizes]
    rows = [measure(config, *job) for job in track(jobs, "bptt_horizon")]
    cases = {f"{row['way']}_{row['size']}": row for row in rows}
    drawn = {
        way: matrix(config, config.drawn_steps, way, config.drawn).int().tolist()
        for way in WAYS
    }
    numbers = {
        f"{name}_{key}": value
        for name, case in cases.items()
        for key, value in case.items()
        if key not in ("way", "distances")
    }
    return {
        "numbers": numbers,
        "series": {"rows": rows, "drawn": drawn},
        "cases": cases,
    }


def _half_on_average(case: Mapping[str, Any]) -> Outcome:
    found = case["mean_after_first"]
    within = case["shortest"] == 1 and case["longest"] == case["size"]
    return Outcome.exactly(found, holds=within and found == case["expected"])


def _cuts_neighbours(case: Mapping[str, Any]) -> Outcome:
    found = case["neighbours_cut"]
    expected = (case["neighbours"] + 1) // case["size"] - 1
    return Outcome.exactly(float(found), holds=found == expected)


CLAIMS = (
    Claim(
        "horizon.mean",
        "With chunks of K steps the horizon runs from 1 to K, and its mean is exactly "
        "(K + 1) / 2.",
        _half_on_average,
        case="chunks_10",
        control="window_10",
    ),
    Claim(
        "horizon.neighbours",
        "At every boundary between chunks an output gets no gradient to the input one "
        "step before it.",
        _cuts_neighbours,
        case="chunks_10",
        control="window_10",
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Horizons and cut pairs of neighbours by way and size."""
    rows = [
        [
            WAYS[row["way"]],
            number(row["size"]),
            f"{row['shortest']} to {row['longest']}",
            number(row["mean_after_first"]),
            f"{row['neighbours_cut']} of {row['neighbours']}",
        ]
        for row in record["series"]["rows"]
    ]
    headers = [
        "gradient goes back over",
        "K",
        "horizon",
        "mean after the first K outputs",
        "lag-1 pairs without gradient",
    ]
    return {"horizon": table(headers, rows)}


def draw_reach(figure: Any, record: Mapping[str, Any], theme: Theme) -> None:
    """Which input gets a gradient from which output, one panel for each way."""
    size = record["run"]["config"]["drawn"]
    titles = {
        "chunks": f"Chunks of {size}: horizon 1 to {size}",
        "window": f"The last {size} steps of each output",
    }
    panels = figure.subplots(1, 2, sharey=True)
    for axes, way in zip(panels, WAYS, strict=True):
        marks = record["series"]["drawn"][way]
        steps = len(marks)
        points = [
            (s + 1, t + 1)
            for t, row in enumerate(marks)
            for s, m in enumerate(row)
            if m
        ]
        inputs, outputs = zip(*points, strict=True)
        style = {"s": 22, "marker": "s", "color": theme.colours[0], "zorder": 3}
        axes.scatter(inputs, outputs, **style)
        axes.set_xlim(0, steps + 1)
        axes.set_ylim(steps + 1, 0)
        axes.set_xticks(range(size, steps + 1, size))
        axes.set_yticks(range(size, steps + 1, size))
        axes.set_aspect("equal")
        axes.set_xlabel("input step")
        axes.set_title(titles[way])
    panels[0].set_ylabel("output step")


FIGURES = {"reach": draw_reach}
experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
    figures=FIGURES,
)
