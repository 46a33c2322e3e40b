r"""What a step costs: by the rows in the batch, and compiled or not.

The same LSTM steps from its own state, in interleaved rounds of one process on one
thread. What is stored are ratios of processor times within a round; the microseconds
stand beside them for the order of magnitude on the machine that is named.
"""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from experiments.lab import timer
from experiments.lab.claim import Claim, Outcome
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.seeding import generator, seeded
from experiments.lab.tables import number, table
from seqref import LSTM, LSTMState


@dataclass(frozen=True)
class Config:
    """Sizes as (hidden, rows), steps a round, rounds; compiled needs a compiler."""

    sizes: tuple[tuple[int, int], ...]
    steps: int
    rounds: int
    compiled: bool
    threads: int
    seeds: tuple[int, ...]


SMALL = Config(((64, 1), (64, 64)), 50, 5, compiled=False, threads=1, seeds=(0,))
FULL = Config(
    sizes=tuple((hidden, rows) for hidden in (64, 256, 512) for rows in (1, 8, 64)),
    steps=200,
    rounds=9,
    compiled=True,
    threads=1,
    seeds=(0,),
)

Step = Callable[[Tensor, Any], tuple[Tensor, Any]]


def steppers(layer: LSTM, compiled: bool) -> dict[str, Step]:
    """What is timed, by name; each goes from input and state to output and state."""
    dtype = layer.cell.weight_hh.dtype
    cell = nn.LSTMCell(layer.input_size, layer.hidden_size, dtype=dtype)
    cell.load_state_dict(layer.cell.state_dict())

    def torch_step(x_t: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        h_t, c_t = cell(x_t, (state.h, state.c))
        return h_t, LSTMState(h_t, c_t)

    def one_by_one(x_t: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        rows = zip(x_t.split(1), state.h.split(1), state.c.split(1), strict=True)
        after = [layer.step(x, LSTMState(h, c))[1] for x, h, c in rows]
        h_t = torch.cat([state.h for state in after])
        return h_t, LSTMState(h_t, torch.cat([state.c for state in after]))

    found: dict[str, Step] = {
        "plain": layer.step,
        "again": layer.step,
        "torch.nn": torch_step,
        "one_by_one": one_by_one,
    }
    if compiled:
        torch.compiler.reset()
        found["compiled"] = torch.compile(layer.step, dynamic=False)
    return found


def drive(step: Step, x: Tensor, state: LSTMState, steps: int) -> LSTMState:
    """So many steps with one input, each from the state of the one before."""
    for _ in range(steps):
        _, state = step(x, state)
    return state


def measure_size(config: Config, hidden: int, rows: int) -> dict[str, Any]:
    """Microseconds a step of each stepper, and ratios to the plain step by round."""
    with seeded(config.seeds[0]):
        layer = LSTM(hidden, hidden).eval()
        named = steppers(layer, config.compiled)
    x = torch.randn(rows, hidden, generator=generator(config.seeds[0]))
    took: dict[str, list[float]] = {name: [] for name in named}
    with torch.inference_mode():
        state = layer.initial_state(rows)
        for step in named.values():
            drive(step, x, state, 3)
        for _ in range(config.rounds):
            for name, step in named.items():
                # Fewer of the slow ones, so that the rounds stay short.
                steps = max(config.steps // (rows if name == "one_by_one" else 1), 3)
                began = timer.processor()
                drive(step, x, state, steps)
                took[name].append((timer.processor() - began) / steps)
    ratios = {
        name: quartiles([a / b for a, b in zip(took[name], took["plain"], strict=True)])
        for name in named
        if name != "plain"
    }
    microseconds = 1e6 * statistics.median(took["plain"])
    return {"microseconds": microseconds, "ratios": ratios}


def quartiles(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": middle, "low": low, "high": high}


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Time every size."""
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        rows = [
            {"hidden": hidden, "rows": rows, **measure_size(config, hidden, rows)}
            for hidden, rows in track(config.sizes, "step_speed")
        ]
    finally:
        torch.set_num_threads(before)
    single = {row["hidden"]: row["microseconds"] for row in rows if row["rows"] == 1}
    for row in rows:
        row["a_stream"] = row["microseconds"] / row["rows"] / single[row["hidden"]]
    smallest, most = min(single), max(row["rows"] for row in rows)
    largest = next(r for r in rows if (r["hidden"], r["rows"]) == (smallest, most))
    separate = largest["ratios"]["one_by_one"]["median"] * largest["a_stream"]
    cases = {
        "batched": {"a_stream": largest["a_stream"]},
        "one_by_one": {"a_stream": separate},
    }
    return {"numbers": summary(rows), "series": {"rows": rows}, "cases": cases}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Lowest and highest median over the sizes, for sentences."""
    found: dict[str, Any] = {}
    for name in rows[0]["ratios"]:
        medians = [row["ratios"][name]["median"] for row in rows]
        key = name.replace(".", "_")
        found[f"{key}_low"], found[f"{key}_high"] = min(medians), max(medians)
    for row in rows:
        found[f"a_stream_{row['hidden']}_{row['rows']}"] = row["a_stream"]
    return found


def _cheaper(case: Mapping[str, Any]) -> Outcome:
    return Outcome.below(case["a_stream"], 0.5)


CLAIMS = (
    Claim(
        "C119",
        "At width 64, one step of 64 streams costs less than half as much for each "
        "stream as a step of one; as 64 calls it does not.",
        _cheaper,
        case="batched",
        control="one_by_one",
        timed=True,
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """One row for each size; medians, quartiles in brackets."""
    names = {
        "compiled": "compiled",
        "torch.nn": "`nn.LSTMCell`",
        "again": "the same again",
    }
    rows = record["series"]["rows"]
    shown = {key: label for key, label in names.items() if key in rows[0]["ratios"]}

    def cell(ratio: Mapping[str, float]) -> str:
        return f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"

    lines = [
        [
            number(row["hidden"]),
            number(row["rows"]),
            number(row["microseconds"], 2),
            f"{row['a_stream']:.2f}",
            *[cell(row["ratios"][key]) for key in shown],
        ]
        for row in rows
    ]
    headers = ["hidden", "rows", "µs a step", "a stream, to one row", *shown.values()]
    return {"sizes": table(headers, lines)}


experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
)
