r"""Which bits differ between streaming, the whole sequence and another batch size.

The three are one function in exact arithmetic. In floating point a sum depends on the
order of its terms, and the order on the kernel and on the shape of its input.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments.lab.claim import Claim, Outcome
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.seeding import generator, seeded
from experiments.lab.tables import number, table
from seqref import LSTM, LSTMState
from seqref.ops.fused_recurrence import fused_lstm


@dataclass(frozen=True)
class Config:
    """Sizes and seeds of one run."""

    hidden_size: int
    input_size: int
    batch: int
    steps: int
    batches: tuple[int, ...]
    seeds: tuple[int, ...]


SMALL = Config(128, 32, batch=4, steps=50, batches=(2, 8, 64), seeds=(0, 1))
FULL = Config(
    hidden_size=256,
    input_size=64,
    batch=4,
    steps=1000,
    batches=(2, 4, 8, 16, 64, 256),
    seeds=(0, 1, 2, 3, 4),
)


def difference(found: Tensor, expected: Tensor) -> dict[str, float]:
    """Share of elements whose bits differ, and the largest difference."""
    apart = (found != expected).double().mean().item()
    largest = (found.double() - expected.double()).abs().max().item()
    return {"share": round(apart, 9), "largest": largest}


def stream_against_whole(
    config: Config, seed: int, dtype: torch.dtype, backend: str | None
) -> dict[str, float]:
    """Outputs of `step` along a sequence against those of one call."""
    with seeded(seed):
        layer = LSTM(config.input_size, config.hidden_size, dtype=dtype)
    size = (config.batch, config.steps, config.input_size)
    x = torch.randn(size, generator=generator(seed + 1000), dtype=dtype)
    state, outputs = layer.initial_state(config.batch), []
    with torch.no_grad():
        for x_t in x.unbind(1):
            y_t, state = layer.step(x_t, state)
            outputs.append(y_t)
        start = layer.initial_state(config.batch)
        y, _, _ = fused_lstm(x, *start, *layer.cell.weights, backend=backend)
    return difference(torch.stack(outputs, dim=1), y)


def row_in_batches(config: Config, seed: int, *, exact: bool) -> list[dict[str, float]]:
    """Row 0 alone against row 0 in a larger batch, after one step.

    `exact` rounds weights, input and hidden state to so few bits that every product
    and every sum is exact in float32, in any order.
    """
    with seeded(seed):
        layer = LSTM(config.input_size, config.hidden_size)
    random, rows = generator(seed + 1000), max(config.batches)
    x_t = torch.randn(rows, config.input_size, generator=random)
    h, c = torch.randn(2, rows, config.hidden_size, generator=random).tanh()
    with torch.no_grad():
        if exact:
            for parameter in layer.parameters():
                parameter.copy_((256 * parameter).round() / 256)
            x_t, h = ((8 * tensor).round() / 8 for tensor in (x_t, h))
        _, alone = layer.step(x_t[:1], LSTMState(h[:1], c[:1]))
        found = []
        for batch in config.batches:
            state = LSTMState(h[:batch], c[:batch])
            _, after = layer.step(x_t[:batch], state)
            found.append(difference(after.c[:1], alone.c))
    return found


def widest(found: list[dict[str, float]]) -> dict[str, float]:
    """The largest share and the largest difference."""
    return {key: max(each[key] for each in found) for key in ("share", "largest")}


STREAMS: dict[str, tuple[torch.dtype, str | None]] = {
    "float32": (torch.float32, None),
    "float64": (torch.float64, None),
    "reference": (torch.float32, "reference"),
}


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Count the differing bits of streams and of batches."""
    cases: dict[str, Any] = {}
    for name, (dtype, backend) in track(STREAMS.items(), "streaming_bits"):
        cases[name] = widest(
            [stream_against_whole(config, s, dtype, backend) for s in config.seeds]
        )
    by_batch = {}
    for name, exact in (("batch", False), ("batch_exact", True)):
        runs = [row_in_batches(config, seed, exact=exact) for seed in config.seeds]
        by_batch[name] = [widest(list(each)) for each in zip(*runs, strict=True)]
        cases[name] = widest(by_batch[name])
    numbers = {
        f"{name}_{key}": value
        for name, case in cases.items()
        for key, value in case.items()
    }
    return {"numbers": numbers, "series": by_batch, "cases": cases}


def _bits_differ(case: Mapping[str, Any]) -> Outcome:
    # Different bits, and nothing beyond rounding.
    found = case["share"]
    return Outcome.all_of(
        found,
        Outcome.exactly(found, holds=found > 0),
        Outcome.below(case["largest"], 1e-5),
    )


CLAIMS = (
    Claim(
        "C117",
        "The outputs of step and those of the whole-sequence call differ in some bits, "
        "and by less than 1e-5.",
        _bits_differ,
        case="float32",
        control="reference",
    ),
    Claim(
        "C118",
        "A row's state differs in some bits between a batch of one and a larger batch, "
        "and by less than 1e-5.",
        _bits_differ,
        case="batch",
        control="batch_exact",
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Shares and largest differences, of streams and of batches."""
    labels = {
        "float32": "`step` against the call, float32",
        "float64": "`step` against the call, float64",
        "reference": "`step` against the reference loop, float32",
    }
    headers = ["elements with other bits", "largest difference"]

    def cells(case: Mapping[str, float]) -> list[str]:
        return [f"{100 * case['share']:.0f} %", number(case["largest"], 2)]

    cases, series = record["cases"], record["series"]
    batches = record["run"]["config"]["batches"]
    return {
        "streams": table(
            ["outputs", *headers],
            [[label, *cells(cases[name])] for name, label in labels.items()],
        ),
        "batches": table(
            ["rows in the batch", *headers, "with exact sums"],
            [
                [number(batch), *cells(found), cells(exact)[0]]
                for batch, found, exact in zip(
                    batches, series["batch"], series["batch_exact"], strict=True
                )
            ],
        ),
    }


experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
)
