r"""What a step costs: by the rows in the batch, and compiled or not.

The same LSTM steps from its own state, in interleaved rounds of one process on one
thread. What is stored are ratios of processor times within a round; the microseconds
stand beside them for the order of magnitude on the machine that is named.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from experiments import lab
from experiments.lab import ratio_cells, timing
from seqref import LSTM, LSTMState


@dataclass(frozen=True)
class Config:
    """Sizes as (hidden, rows), steps a round, rounds; compiled needs a compiler."""

    sizes: tuple[tuple[int, int], ...] = tuple(
        (hidden, rows) for hidden in (64, 256, 512) for rows in (1, 8, 64)
    )
    steps: int = 200
    rounds: int = 9
    compiled: bool = True
    threads: int = 1
    seeds: tuple[int, ...] = (0,)


Step = Callable[[Tensor, Any], tuple[Tensor, Any]]


def steppers(layer: LSTM, *, compiled: bool) -> dict[str, Step]:
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

    named = {"plain": layer.step, "torch.nn": torch_step, "one_by_one": one_by_one}
    if compiled:
        torch.compiler.reset()
        named["compiled"] = torch.compile(layer.step, dynamic=False)
    return named


def drive(step: Step, x: Tensor, state: LSTMState, steps: int) -> LSTMState:
    """So many steps with one input, each from the state of the one before."""
    for _ in range(steps):
        _, state = step(x, state)
    return state


def compare(config: Config, hidden: int, rows: int) -> dict[str, Any]:
    """All steppers at one size, in units of a step."""
    with lab.seeded(config.seeds[0]):
        layer = LSTM(hidden, hidden).eval()
        named = steppers(layer, compiled=config.compiled)
    x = torch.randn(rows, hidden, generator=lab.generator(config.seeds[0]))
    with torch.inference_mode():
        state = layer.initial_state(rows)
        outside = [x, *state, *layer.parameters()]
        runs = {}
        for name, step in named.items():
            # Fewer of the slow ones, so that the rounds stay short.
            steps = max(config.steps // (rows if name == "one_by_one" else 1), 3)
            run = partial(drive, step, x, state, steps)
            runs[name] = timing.Contestant(run, outside, steps, name != "compiled")
        return timing.compare(runs, "plain", config.rounds)


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Time every size; `a_stream` is the time of a row over that of a row alone."""
    with timing.setting(config.threads):
        rows = [
            {"hidden": hidden, "rows": rows, **compare(config, hidden, rows)}
            for hidden, rows in track(config.sizes, "step_speed")
        ]
    single = {row["hidden"]: row["seconds"] for row in rows if row["rows"] == 1}
    for row in rows:
        row["a_stream"] = row["seconds"] / row["rows"] / single[row["hidden"]]
    numbers = timing.ranges(rows, lambda row, name: name.replace(".", "_"))
    numbers |= {
        f"a_stream_{row['hidden']}_{row['rows']}": row["a_stream"] for row in rows
    }
    most = max(row["rows"] for row in rows)
    batched = next(r for r in rows if (r["hidden"], r["rows"]) == (min(single), most))
    separate = batched["ratios"]["one_by_one"]["median"] * batched["a_stream"]
    cases = {
        "batched": {"a_stream": batched["a_stream"]},
        "one_by_one": {"a_stream": separate},
    }
    return {"numbers": numbers, "series": {"rows": rows}, "cases": cases}


def sizes_table(record: Mapping[str, Any]) -> lab.Table:
    """One row for each size; the compiled step where there was a compiler."""
    compiled = {"compiled": ratio_cells.ratio("compiled")}
    return lab.Table(
        rows="series.rows",
        columns={
            "hidden": "hidden",
            "rows": "rows",
            "µs a step": lab.cell(lambda row: 1e6 * row["seconds"], lab.number, 2),
            "peak, KiB": lab.cell(lambda row: row["peak"] / 1024, lab.number, 2),
            "a stream, to one row": lab.fixed("a_stream", 2),
            **(compiled if record["run"]["config"]["compiled"] else {}),
            "`nn.LSTMCell`": ratio_cells.ratio("torch.nn"),
            "the same again": ratio_cells.ratio(timing.AGAIN),
        },
    )


experiment = lab.Experiment(
    small=Config(((64, 1), (64, 64)), steps=50, rounds=5, compiled=False),
    run=run,
    claims=[
        lab.Claim(
            "C119",
            "At width 64, one step of 64 streams costs less than half as much for each "
            "stream as a step of one; as 64 calls it does not.",
            lab.below("a_stream", 0.5),
            case="batched",
            control="one_by_one",
            timed=True,
        )
    ],
    tables={"sizes": sizes_table},
)
