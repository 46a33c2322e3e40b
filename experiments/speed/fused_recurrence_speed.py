r"""What one call over a whole sequence saves against a Python loop over its steps.

The same weights and the same input go through the ops of `fused_recurrence` by each of
their backends and through `torch.nn`, in interleaved rounds of one process, on one
thread. What is stored is a ratio of processor times: the milliseconds of a machine mean
little elsewhere. Beside them stands the time of the matrix products alone, and what an
index `x[:, t]` in the loop costs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments import lab
from experiments.lab import ratio_cells, timing
from experiments.lab.tables import Cell
from experiments.speed._fused_contestants import KINDS, contestants, loops
from experiments.speed._layers import Size
from experiments.speed._presentation import Rows, draw_by_size

EVERY = ((8, 256, 64), (1, 1024, 256), (32, 128, 256), (64, 64, 512))


@dataclass(frozen=True)
class Config:
    """Sizes as (batch, time, hidden), rounds, threads, seed, lengths of the index."""

    sizes: tuple[Size, ...] = EVERY
    rounds: int = 9
    threads: int = 1
    seeds: tuple[int, ...] = (0,)
    index_steps: tuple[int, ...] = (128, 256, 512, 1024)
    device: str = "cpu"


GPU = Config(
    sizes=tuple((batch, steps, 256) for batch in (1, 32, 256) for steps in (64, 1024)),
    index_steps=(),
    device="cuda",
)
INDEX_ROUNDS = 5
# A step of so few numbers costs more to start than to compute.
FEW = 512
BACKENDS = {name: name for name in ("reference", "parallel", "torch")}
CUTS = ("indexed", "unbound")
# What a training step should take at most, as a ratio to torch.nn.
TARGETS = {
    **{
        (kind, "parallel", size): limit
        for kind in ("RNN", "GRU")
        for size, limit in zip(EVERY, (0.6, 0.6, 1.05, 1.05), strict=True)
    },
    **{("LSTM", "torch", size): 1.05 for size in EVERY},
    ("LSTM", "parallel", EVERY[0]): 3.3,
    ("LSTM", "parallel", EVERY[2]): 1.25,
}


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Time every kind, size and pass, and the loops that cut their input up."""
    jobs = [
        {"kind": kind, "size": size, "train": train}
        for kind in KINDS
        for size in config.sizes
        for train in (False, True)
    ]
    rows = []
    with timing.setting(config.threads):
        for job in track(jobs, "fused_recurrence_speed"):
            kind, device = KINDS[job["kind"]], config.device
            runs = contestants(
                kind, job["size"], config.seeds[0], train=job["train"], device=device
            )
            compared = timing.compare(runs, kind.base, config.rounds, device)
            rows.append({**job, **compared})
        index = time_index(config.index_steps) if config.index_steps else []
    cases = {backend: training_case(rows, backend) for backend in BACKENDS}
    numbers = timing.ranges(rows, stem)
    for row in rows:
        place = "b{}_t{}_d{}".format(*row["size"])
        for name, ratio in row["ratios"].items():
            if name != timing.AGAIN:
                numbers[f"{stem(row, name)}_{place}"] = ratio["median"]
    if index:
        first, last = index[0], index[-1]
        times = last["steps"] / first["steps"]
        for cut in CUTS:
            growth = last["ratios"][cut]["median"] / first["ratios"][cut]["median"]
            cases[cut] = {"growth": growth, "times": times}
            numbers[f"{cut}_growth"] = growth
        numbers["index_times_longer"] = times
        over = last["ratios"]["indexed"]["median"] / last["ratios"]["unbound"]["median"]
        numbers["indexed_over_unbound"] = over
    return {
        "numbers": numbers,
        "series": {"rows": rows, "index": index},
        "cases": cases,
    }


def time_index(lengths: tuple[int, ...]) -> list[dict[str, Any]]:
    """Both loops by length, over the shortest that unbinds."""
    shortest = f"unbound_{lengths[0]}"
    compared = timing.compare(loops(lengths), shortest, INDEX_ROUNDS)
    ratios = compared["ratios"]
    ratios[shortest] = ratios.pop(timing.AGAIN)
    return [
        {
            "steps": length,
            "peak": compared["peak"],
            "ratios": {cut: ratios[f"{cut}_{length}"] for cut in CUTS},
        }
        for length in lengths
    ]


def stem(row: Mapping[str, Any], name: str) -> str:
    """What the numbers of a contestant begin with."""
    word = "training" if row["train"] else "forward"
    of_layer = f"{row['kind'].lower()}_{name.replace('.', '_')}_{word}"
    return "noise" if name == timing.AGAIN else of_layer


def training_case(rows: Rows, backend: str) -> dict[str, float]:
    """The highest ratio of a training step by layer, and where a step is little."""
    case = {}
    for kind in KINDS:
        ratios = timing.medians(rows, backend, kind=kind, train=True)
        if ratios:
            case[kind] = max(ratios)
    little = [
        row
        for row in rows
        if row["size"][0] * row["size"][2] <= FEW and row["kind"] in ("RNN", "GRU")
    ]
    few = timing.medians(little, backend, train=True)
    return case | ({"few": max(few)} if few else {})


def of_pass(columns: Mapping[str, Cell], *, train: bool) -> lab.Table:
    """One line for a layer and a size."""
    lines = {"layer": lambda row: row["kind"], **ratio_cells.SIZE}
    return lab.Table({**lines, **columns}, rows="series.rows", where={"train": train})


def targets_table(record: Mapping[str, Any]) -> str:
    """What a training step should take at most, and what it took."""
    lines = []
    for row in record["series"]["rows"]:
        for name in BACKENDS:
            limit = TARGETS.get((row["kind"], name, tuple(row["size"])))
            if limit is not None and row["train"] and name in row["ratios"]:
                reached = row["ratios"][name]["median"] <= limit
                size = map(lab.number, row["size"])
                measured = ratio_cells.ratio(name)(row)
                verdict = "reached" if reached else "not reached"
                line = [row["kind"], name, *size, f"{limit:g}", measured, verdict]
                lines.append(line)
    headers = ["layer", "backend", "B", "T", "D", "target", "measured", "verdict"]
    return lab.table(headers, lines)


def memory_of_index(row: Mapping[str, Any]) -> float:
    """The peak of the loop that indexes over that of the one that unbinds."""
    return row["ratios"]["indexed"]["peak"] / row["ratios"]["unbound"]["peak"]


def draw_training(figure: Any, record: Mapping[str, Any], theme: lab.Theme) -> None:
    """The ratio of a training step by size, one panel for a layer of torch.nn."""
    rows = [row for row in record["series"]["rows"] if row["train"]]
    panels = {
        name: [row for row in rows if row["kind"] == name]
        for name, kind in KINDS.items()
        if kind.module
    }
    draw_by_size(figure, theme, panels, BACKENDS, "torch.nn")


RATIOS = {name: ratio_cells.ratio(name) for name in BACKENDS}
RATIOS["products alone"] = ratio_cells.ratio("products")
RATIOS["base again"] = ratio_cells.ratio(timing.AGAIN)
experiment = lab.Experiment(
    small=Config(sizes=((4, 16, 8),), rounds=2, index_steps=(24, 96)),
    run=run,
    claims=[
        lab.Claim(
            "C81",
            "Through its default backend the LSTM's training step takes at most 1.3 "
            "times as long as `torch.nn.LSTM`'s; a Python loop over the steps does not "
            "manage.",
            # The target is 1.05; a gate on a shared machine gets slack.
            lab.below("LSTM", 1.3),
            case="torch",
            control="reference",
            timed=True,
        ),
        lab.Claim(
            "C130",
            "Where a step is little work, a training step of the RNN and of the GRU by "
            "a backward pass written in Python takes at most 0.8 times as long as that "
            "of `torch.nn`; autograd through a Python loop does not manage.",
            # The target is 0.6.
            lab.below("few", 0.8),
            case="parallel",
            control="reference",
            timed=True,
        ),
        lab.Claim(
            "C131",
            "An index `x[:, t]` in the loop makes the time of a training step grow "
            "faster than the number of steps; one `unbind` does not.",
            # Four times the steps, in a time that grows as they do: 4; as their square:
            # 16.
            lambda case: lab.Outcome.above(case["growth"], 1.4 * case["times"]),
            case="indexed",
            control="unbound",
            timed=True,
        ),
    ],
    tables={
        "training": of_pass(RATIOS, train=True),
        "forward": of_pass(RATIOS, train=False),
        "memory": of_pass({n: ratio_cells.memory(n) for n in BACKENDS}, train=True),
        "targets": targets_table,
        "index": lab.Table(
            rows="series.index",
            columns={
                "steps": "steps",
                "`x[:, t]`": ratio_cells.ratio("indexed"),
                "`x.unbind(1)`": ratio_cells.ratio("unbound"),
                "peak memory": lab.fixed(memory_of_index, 2),
            },
        ),
    },
    figures={"training": draw_training},
)
