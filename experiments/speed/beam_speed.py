r"""Beam search: what a step costs beside the model, here and in transformers.

One model whose scores are rows of a table, and three searches of equal beams over it:
that of the package, `generate` of transformers, and a plain form. The overhead is the
processor time of a search less that of the model's own calls, which are made again
alone in the same round. Ratios are of overheads in a round, on one thread. Beside them
stand the ways to get the best extensions of a beam, and the growth with the length.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from experiments import lab
from experiments.lab import ratio_cells, timing
from experiments.speed import _beam_peers as peers
from seqref.decoding.search._top import extensions


@dataclass(frozen=True)
class Config:
    """Sizes as (vocabulary, batch, rows of the table a step), rounds of each, seed."""

    sizes: tuple[tuple[int, int, int], ...] = (
        (50, 16, 64),
        (32000, 16, 8),
        (50, 128, 64),
    )
    rounds: tuple[int, ...] = (41, 21, 11)
    width: int = 4
    steps: int = 32
    longer: int = 4
    threads: int = 1
    seeds: tuple[int, ...] = (0,)


Size = tuple[int, int, int]
Search = Callable[[], Any]
Runs = Mapping[str, tuple[peers.Table, Search]]
NAMES = {"ours": "the package", "plain": "plain form"}
# What the sizes are called, in order.
SIZES = ("small", "large", "batch")


def model_of(config: Config, size: Size, steps: int) -> tuple[peers.Table, Tensor]:
    """The model, and first tokens that are not END."""
    vocab, batch, rows = size
    table = peers.Table(vocab, steps, rows, config.seeds[0])
    return table, torch.arange(batch) % (vocab - 1) + 1


def searches(config: Config, size: Size, steps: int) -> Runs:
    """What is timed, by name, each with the model that it calls."""
    table, start = model_of(config, size, steps)
    generate = peers.of_transformers(table)
    return {
        "generate": (table, partial(generate, start, config.width, scored=False)),
        "ours": (table, partial(peers.ours, table, start, config.width)),
        "plain": (table, partial(peers.plain, table, start, config.width)),
    }


def calls_of(table: peers.Table, search: Search) -> list[Search]:
    """The calls of the model that a search makes."""
    table.calls = calls = []
    search()
    table.calls = None
    return calls


def again(calls: list[Search]) -> None:
    """Make all the calls, and nothing else."""
    with torch.no_grad():
        for call in calls:
            call()


def overheads(runs: Runs, base: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each search beside its model, by round; those of the base twice."""
    contestants = {}
    for name, (table, search) in runs.items():
        contestants[name] = timing.Contestant(search)
        model = partial(again, calls_of(table, search))
        contestants[f"{name} model"] = timing.Contestant(model)
    times = timing.rounds_of(contestants, base, rounds)
    models = {name: times[f"{name} model"] for name in runs}
    models[timing.AGAIN] = models[base]
    return {
        name: [whole - alone for whole, alone in zip(times[name], row, strict=True)]
        for name, row in models.items()
    }


def ratios_to(base: str, values: Mapping[str, list[float]]) -> dict[str, Any]:
    """Quartiles of all others' values over those of the base in the same round."""
    return {
        name: timing.quartiles(
            # No overhead at all: by a clock by which all things take equally long.
            [a / b if b else 0.0 for a, b in zip(row, values[base], strict=True)]
        )
        for name, row in values.items()
        if name != base
    }


def compared(config: Config, size: Size, rounds: int) -> dict[str, Any]:
    """The three searches at one vocabulary."""
    runs = searches(config, size, config.steps)
    steps = {name: len(calls_of(*run)) for name, run in runs.items()}
    values = overheads(runs, "generate", rounds)
    base = timing.quartiles(values["generate"])["median"]
    return {
        "size": size,
        "steps": steps,
        "micros": 1e6 * base / steps["generate"],
        "ratios": ratios_to("generate", values),
    }


def growth(config: Config, rounds: int) -> dict[str, Any]:
    """What a target several times as long costs, over one that is not, by search."""
    short, long = (
        searches(config, config.sizes[0], steps)
        for steps in (config.steps, config.longer * config.steps)
    )
    ratios = {}
    for name in short:
        runs = {"short": short[name], "long": long[name]}
        ratios[name] = ratios_to("short", overheads(runs, "short", rounds))
    return ratios


def equal(config: Config, size: Size) -> dict[str, float]:
    """Share of rows with the n best of `generate`, by what it is compared with."""
    table, start = model_of(config, size, config.steps)
    generate = peers.of_transformers(table)
    theirs = generate(start, config.width)
    others = {
        "ours": peers.ours(table, start, config.width),
        "plain": peers.plain(table, start, config.width),
        "sums": peers.ours(table, start, config.width, power=0.0),
    }
    return {name: peers.equal_rows(theirs, other) for name, other in others.items()}


Best = tuple[Tensor, Tensor]


def of_all_beams(logits: Tensor, sums: Tensor) -> Best:
    """All log-probabilities, and one `topk` over the beams of a row."""
    total = torch.log_softmax(logits, dim=1).view(*sums.shape, -1) + sums[:, :, None]
    return total.flatten(1).topk(2 * sums.shape[1], dim=1)


def of_each_beam(logits: Tensor, sums: Tensor) -> Best:
    """The best of each beam by logits, and of those the best of a row."""
    width, vocab = sums.shape[1], logits.shape[1]
    values, tokens = logits.topk(width + 1, dim=1)
    log_p = (values - logits.logsumexp(dim=1, keepdim=True)).view(*sums.shape, -1)
    log_p, order = (log_p + sums[:, :, None]).flatten(1).topk(2 * width, dim=1)
    places = tokens.view(len(sums), -1).gather(1, order)
    return log_p, order // (width + 1) * vocab + places


def grouped(logits: Tensor, sums: Tensor) -> Best:
    """That of the package."""
    return extensions(logits, sums, 2 * sums.shape[1])[:2]


FORMS = {
    "flat": ("`log_softmax`, one `topk` over all beams", of_all_beams),
    "beam": ("`topk` of each beam, `logsumexp`", of_each_beam),
    "package": ("the package", grouped),
}


def forms(config: Config, size: Size, rounds: int) -> dict[str, Any]:
    """The ways to get the best extensions, over many rows of the table."""
    table, _ = model_of(config, size, config.steps)
    generator = lab.generator(config.seeds[0])
    n = size[1] * config.width
    logits = table.logits[torch.randint(len(table.logits), (n,), generator=generator)]
    sums = torch.randn(size[1], config.width, generator=generator)
    runs = {
        name: timing.Contestant(partial(form, logits, sums))
        for name, (_, form) in FORMS.items()
    }
    # Behind the best W they may differ: of one beam only W + 1 are ever needed.
    expected = of_all_beams(logits, sums)
    for _, form in FORMS.values():
        for part, whole in zip(form(logits, sums), expected, strict=True):
            torch.testing.assert_close(
                part[:, : config.width], whole[:, : config.width]
            )
    return {"size": size, **timing.compare(runs, "flat", rounds)}


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Time everything."""
    rows, ways, cases = [], [], {}
    parts = list(zip(SIZES, config.sizes, config.rounds, strict=False))
    with timing.setting(config.threads):
        for label, size, rounds in track(parts, "beam_speed"):
            rows.append(compared(config, size, rounds))
            ways.append(forms(config, size, rounds))
            same = equal(config, size)
            ratios = rows[-1]["ratios"]
            for name, share in same.items():
                cases[f"{name}_{label}"] = {"equal": share}
            for name in (*NAMES, timing.AGAIN):
                case = cases.setdefault(f"{name}_{label}", {})
                case["time"] = ratios[name]["median"]
        longer = growth(config, config.rounds[0])
    for name, ratios in longer.items():
        cases[f"{name}_longer"] = {"growth": ratios["long"]["median"]}
    series = {"rows": rows, "forms": ways, "growth": longer}
    return {"numbers": {}, "series": series, "cases": cases}


def micros(row: Mapping[str, Any]) -> str:
    """A cell: the overhead of a step of `generate`."""
    return lab.number(row["micros"], digits=2)


COLUMNS = {"V": "size.0", "B": "size.1"}

experiment = lab.Experiment(
    small=Config(sizes=((50, 4, 16), (8500, 4, 4)), rounds=(3, 3), steps=6),
    run=run,
    claims=[
        lab.Claim(
            "C161",
            "At vocabulary 32,000, batch 16 and width 4 the overhead of a step is less "
            "than half of that of `generate`; that of the plain form is not.",
            lab.below("time", 0.5),
            case="ours_large",
            control="plain_large",
            timed=True,
        ),
        lab.Claim(
            "C161.small",
            "At vocabulary 50 it is less than half, too; that of `generate` once more "
            "is not.",
            lab.below("time", 0.5),
            case="ours_small",
            control="again_small",
            timed=True,
        ),
        lab.Claim(
            "C161.longer",
            "At vocabulary 50 the overhead of a search four times as long is at most "
            "4.6 times as large; that of `generate` grows by more.",
            lab.below("growth", 4.6),
            case="ours_longer",
            control="generate_longer",
            timed=True,
        ),
        lab.Claim(
            "C161.equal",
            "The n best of all rows and their scores are those of `generate`; by sums "
            "alone they are not.",
            lab.exactly("equal", lambda case: case["equal"] == 1),
            case="ours_small",
            control="sums_small",
        ),
        lab.Claim(
            "C161.equal_large",
            "So they are at the large vocabulary.",
            lab.exactly("equal", lambda case: case["equal"] == 1),
            case="ours_large",
            control="sums_large",
        ),
    ],
    numbers=[lab.each("time"), lab.each("growth")],
    tables={
        "overhead": lab.Table(
            rows="series.rows",
            columns={
                **COLUMNS,
                "`generate`, µs a step": micros,
                **{text: ratio_cells.ratio(name) for name, text in NAMES.items()},
                "`generate` again": ratio_cells.ratio(timing.AGAIN),
            },
        ),
        "forms": lab.Table(
            rows="series.forms",
            columns={
                **COLUMNS,
                **{
                    text: ratio_cells.ratio(name)
                    for name, (text, _) in FORMS.items()
                    if name != "flat"
                },
                "the first again": ratio_cells.ratio(timing.AGAIN),
            },
        ),
    },
)
