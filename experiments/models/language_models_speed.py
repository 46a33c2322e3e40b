r"""An update of each language model of the comparison: time, characters, memory.

RNN, LSTM, GRU and transformer with as many parameters in their layers, the ones of
`language_models`: forward and backward pass and Adam over a batch of windows, on one
thread, as ratios to the LSTM in the same round. The memory is the most that is alive
at one time, without the parameters and what Adam keeps.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from experiments import lab
from experiments.lab import ratio_cells, timing
from experiments.models import _language_runs as runs
from experiments.models._language_tables import LABELS
from seqref.training import chunk_loss

BASE = "lstm"
# As many tokens as the vocabulary of the comparison has.
VOCABULARY = 97


@dataclass(frozen=True)
class Config(runs.Training):
    """The models of the comparison; rows of a batch, rounds, seed."""

    batch_sizes: tuple[int, ...] = (4, 16, 64)
    rounds: int = 7
    seeds: tuple[int, ...] = (0,)


def update_of(config: Config, kind: str, batch_size: int) -> timing.Contestant:
    """One update on a batch of random windows; the first one has been made."""
    seed = config.seeds[0]
    model = runs.build(config, kind, VOCABULARY, seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    size = batch_size, config.context
    tokens = torch.randint(VOCABULARY, size, generator=lab.generator(seed))

    def update() -> None:
        loss, _ = chunk_loss(model, tokens, tokens)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.max_norm)
        optimizer.step()

    update()
    kept = [
        part
        for state in optimizer.state.values()
        for part in state.values()
        if isinstance(part, torch.Tensor)
    ]
    outside = [tokens, *model.parameters(), *kept]
    return timing.Contestant(update, outside)


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Every kind, at every size of a batch."""
    rows = []
    for batch_size in track(config.batch_sizes, "language_models_speed"):
        with timing.setting():
            contestants = {k: update_of(config, k, batch_size) for k in runs.KINDS}
            row = timing.compare(contestants, BASE, config.rounds)
        characters = batch_size * config.context
        rate = {
            name: characters / row["seconds"] / ratio["median"]
            for name, ratio in row["ratios"].items()
        }
        rate[BASE] = characters / row["seconds"]
        rows.append({"batch_size": batch_size, "rate": rate, **row})
    cases: dict[str, Any] = {}
    for name in (*runs.KINDS, timing.AGAIN):
        if name != BASE:
            ratios = timing.medians(rows, name)
            cases[name] = {"lowest": min(ratios), "highest": max(ratios)}
    return {"series": {"rows": rows}, "cases": cases}


def speed(name: str) -> lab.Cell:
    """Characters a second of a kind."""
    return lambda row: lab.number(round(row["rate"][name], -2), 3)


def mebibytes(name: str) -> lab.Cell:
    """The peak of an update of a kind."""

    def write(row: Any) -> str:
        peak = row["peak"] if name == BASE else row["ratios"][name]["peak"]
        return lab.number(peak / 2**20)

    return write


OTHERS = [kind for kind in runs.KINDS if kind != BASE]

experiment = lab.Experiment(
    small=Config(d_model=40, context=32, batch_sizes=(4,), rounds=3),
    run=run,
    claims=[
        lab.Claim(
            "C190",
            "On this CPU an update of a transformer takes more than 1.1 times as long "
            "as one of an LSTM with as many parameters, at every size of a batch; one "
            "of the LSTM itself does not.",
            lab.above("lowest", 1.1),
            case="transformer",
            control=timing.AGAIN,
            timed=True,
        ),
    ],
    numbers=[lab.everything],
    tables={
        "ratios": lab.Table(
            rows="series.rows",
            columns={
                "rows": "batch_size",
                **{LABELS[kind]: ratio_cells.ratio(kind) for kind in OTHERS},
                "the LSTM again": ratio_cells.ratio(timing.AGAIN),
            },
        ),
        "rates": lab.Table(
            rows="series.rows",
            columns={
                "rows": "batch_size",
                **{
                    f"{LABELS[kind]}, characters a second": speed(kind)
                    for kind in runs.KINDS
                },
            },
        ),
        "memory": lab.Table(
            rows="series.rows",
            columns={
                "rows": "batch_size",
                **{f"{LABELS[kind]}, MiB": mebibytes(kind) for kind in runs.KINDS},
            },
        ),
    },
)
