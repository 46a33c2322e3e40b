r"""Which bits differ between streaming, the whole sequence and another batch size.

The three are one function in exact arithmetic. In floating point a sum depends on the
order of its terms, and the order on the kernel and on the shape of its input.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments import lab
from seqref import LSTM, LSTMState
from seqref.ops.fused_recurrence import fused_lstm
from seqref.recurrence import scan


@dataclass(frozen=True)
class Config:
    """Sizes and seeds of one run."""

    hidden_size: int = 256
    input_size: int = 64
    batch: int = 4
    steps: int = 1000
    batches: tuple[int, ...] = (2, 4, 8, 16, 64, 256)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


STREAMS: dict[str, tuple[torch.dtype, str | None]] = {
    "float32": (torch.float32, None),
    "float64": (torch.float64, None),
    "reference": (torch.float32, "reference"),
}


def difference(value: Tensor, expected: Tensor) -> dict[str, float]:
    """Share of elements whose bits differ, and the largest difference."""
    apart = (value != expected).double().mean().item()
    largest = (value.double() - expected.double()).abs().max().item()
    return {"share": round(apart, 9), "largest": largest}


@torch.no_grad()
def stream_against_whole(
    config: Config, seed: int, dtype: torch.dtype, backend: str | None
) -> dict[str, float]:
    """Outputs of `step` along a sequence against those of one call."""
    with lab.seeded(seed):
        layer = LSTM(config.input_size, config.hidden_size, dtype=dtype)
    size = (config.batch, config.steps, config.input_size)
    x = torch.randn(size, generator=lab.generator(seed + 1000), dtype=dtype)
    start = layer.initial_state(config.batch)
    stream, _ = scan(layer, x, start)
    y, _, _ = fused_lstm(x, *start, *layer.cell.weights, backend=backend)
    return difference(stream, y)


@torch.no_grad()
def row_in_batches(config: Config, seed: int, *, exact: bool) -> list[dict[str, float]]:
    """Row 0 alone against row 0 in a larger batch, after one step.

    `exact` rounds weights, input and hidden state to so few bits that every product
    and every sum is exact in float32, in any order.
    """
    with lab.seeded(seed):
        layer = LSTM(config.input_size, config.hidden_size)
    random, rows = lab.generator(seed + 1000), max(config.batches)
    x_t = torch.randn(rows, config.input_size, generator=random)
    h, c = torch.randn(2, rows, config.hidden_size, generator=random).tanh()
    if exact:
        for parameter in layer.parameters():
            parameter.copy_((256 * parameter).round() / 256)
        x_t, h = ((8 * tensor).round() / 8 for tensor in (x_t, h))

    def after(batch: int) -> Tensor:
        return layer.step(x_t[:batch], LSTMState(h[:batch], c[:batch]))[1].c[:1]

    return [difference(after(batch), after(1)) for batch in config.batches]


def widest(differences: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The largest share and the largest difference."""
    return {key: max(each[key] for each in differences) for key in differences[0]}


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Count the differing bits of streams and of batches."""
    cases, series = {}, {}
    for name, setting in track(STREAMS.items(), "streaming_bits"):
        cases[name] = widest(
            [stream_against_whole(config, seed, *setting) for seed in config.seeds]
        )
    for name, exact in (("batch", False), ("batch_exact", True)):
        runs = [row_in_batches(config, seed, exact=exact) for seed in config.seeds]
        series[name] = [widest(column) for column in zip(*runs, strict=True)]
        cases[name] = widest(series[name])
    return {"series": series, "cases": cases}


def by_batch(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The differences of each batch, with the batch and the share of exact sums."""
    series, batches = record["series"], record["run"]["config"]["batches"]
    rows = zip(batches, series["batch"], series["batch_exact"], strict=True)
    return [{"batch": b, "exact": exact["share"], **row} for b, row, exact in rows]


def percent(share: float) -> str:
    """Without decimals: 67 %."""
    return f"{100 * share:.0f} %"


BITS = {
    "elements with other bits": lab.cell("share", percent),
    "largest difference": lab.cell("largest", lab.number, 2),
}
# Different bits, and nothing beyond rounding.
bits_differ = lab.all_of(
    lab.exactly("share", lambda case: case["share"] > 0), lab.below("largest", 1e-5)
)
experiment = lab.Experiment(
    small=Config(128, 32, steps=50, batches=(2, 8, 64), seeds=(0, 1)),
    run=run,
    claims=[
        lab.Claim(
            "C117",
            "The outputs of step and those of the whole-sequence call differ in some "
            "bits, and by less than 1e-5.",
            bits_differ,
            case="float32",
            control="reference",
        ),
        lab.Claim(
            "C118",
            "A row's state differs in some bits between a batch of one and a larger "
            "batch, and by less than 1e-5.",
            bits_differ,
            case="batch",
            control="batch_exact",
        ),
    ],
    numbers=[lab.everything],
    tables={
        "streams": lab.Table(
            BITS,
            labels={
                "float32": "`step` against the call, float32",
                "float64": "`step` against the call, float64",
                "reference": "`step` against the reference loop, float32",
            },
            heading="outputs",
        ),
        "batches": lab.Table(
            {
                "rows in the batch": "batch",
                **BITS,
                "with exact sums": lab.cell("exact", percent),
            },
            rows=by_batch,
        ),
    },
)
