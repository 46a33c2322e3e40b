r"""Bugs that run: which checks catch which, and what three of them cost.

Each specimen is a small model with one fault that raises nothing. Every check of
`seqref.testing` that applies to its kind is run on it, on its mended twin, and on
models of torch.nn. Three faults are measured further: the state of an encoder after
padding, a loss whose labels are the inputs, and a scan that divides by a product.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from experiments.lab.claim import Claim, Outcome
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.seeding import generator, seeded
from experiments.lab.statistics import median, spread
from experiments.museum import _future as future
from experiments.museum import _numbers as numbers
from experiments.museum import _padding as padding
from experiments.museum import _presentation as presentation
from experiments.museum._cabinet import all_specimens
from experiments.museum._checks import outcome, sound


@dataclass(frozen=True)
class Config:
    """Sizes of the three measurements, and their seeds."""

    vocab_size: int
    hidden_size: int
    rows: int
    steps: int
    pads: tuple[int, ...]
    updates: int
    learning_rate: float
    decays: tuple[float, ...]
    scan_rows: int
    scan_steps: int
    seeds: tuple[int, ...]


SMALL = Config(16, 32, 32, 12, (1, 5), 120, 0.01, (0.5, 1.0), 4, 200, (0,))
FULL = Config(
    vocab_size=16,
    hidden_size=32,
    rows=32,
    steps=12,
    pads=(1, 5, 20),
    updates=600,
    learning_rate=0.01,
    decays=(0.5, 0.9, 0.99, 1.0),
    scan_rows=8,
    scan_steps=10_000,
    seeds=tuple(range(5)),
)
PADS = 5
DECAY = 0.5
ENCODERS = {"broken": padding.Encoder, "mended": padding.PackedEncoder}
MODELS = {"broken": future.LanguageModel, "mended": future.Shifted}
SCANS = {"broken": numbers.closed_form, "mended": numbers.by_pairs}
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def matrix(track: Track) -> list[dict[str, Any]]:
    """Each specimen by each check that applies: whether it is caught."""
    found = []
    for specimen in track(all_specimens(), "specimens"):
        caught = {
            n: bool(outcome(specimen.broken, t)) for n, t in specimen.trials.items()
        }
        mended = {
            n: bool(outcome(specimen.mended, t)) for n, t in specimen.trials.items()
        }
        found.append(
            {
                "name": specimen.name,
                "label": specimen.label,
                "page": specimen.page,
                "own": specimen.own,
                "caught": caught,
                "mended_caught": mended,
            }
        )
    return found


def sound_models() -> list[dict[str, Any]]:
    """Each model of torch.nn by each check that applies to it."""
    return [
        {
            "model": name,
            "caught": {n: bool(outcome(build, trial)) for n, trial in trials.items()},
        }
        for name, (build, trials) in sound().items()
    ]


@torch.no_grad()
def moved_by_padding(config: Config, kind: str, pads: int, seed: int) -> float:
    """Change of an encoder's summary by padding, over its norm: median of the rows."""
    with seeded(seed):
        encoder = ENCODERS[kind](config.vocab_size, config.hidden_size).double()
    size = (config.rows, config.steps)
    # Id 0 is padding.
    tokens = torch.randint(1, config.vocab_size, size, generator=generator(seed + 1000))
    lengths = torch.full((config.rows,), config.steps)
    more = torch.cat([tokens, tokens.new_zeros(config.rows, pads)], dim=1)
    before, after = encoder(tokens, lengths), encoder(more, lengths)
    return ((after - before).norm(dim=1) / before.norm(dim=1)).median().item()


def loss_on_noise(config: Config, kind: str, seed: int) -> float:
    """The loss that a language model ends with on independent, uniform tokens."""
    with seeded(seed):
        model = MODELS[kind](config.vocab_size, config.hidden_size)
    source = generator(seed + 2000)
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)

    def loss() -> Tensor:
        size = (config.rows, config.steps)
        tokens = torch.randint(config.vocab_size, size, generator=source)
        predictions, labels = model.predictions_and_labels(tokens)
        return cross_entropy(predictions.transpose(1, 2), labels)

    for _ in range(config.updates):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    with torch.no_grad():
        return torch.stack([loss() for _ in range(10)]).mean().item()


@torch.no_grad()
def scan_error(config: Config, kind: str, dtype: str, decay: float) -> dict[str, Any]:
    r"""The first step that is not finite, or 0; the largest error before it.

    Steps are counted from 1, errors relative to the largest state of the loop in
    float64.
    """
    size = (config.scan_rows, config.scan_steps)
    b = torch.randn(size, generator=generator(0), dtype=torch.float64)
    a = torch.full_like(b, decay)
    want = numbers.loop(a, b)
    got = SCANS[kind](a.to(DTYPES[dtype]), b.to(DTYPES[dtype])).double()
    bad = (~got.isfinite()).any(dim=0).nonzero()
    first = int(bad[0]) + 1 if len(bad) else 0
    stop = first - 1 if first else config.scan_steps
    error = (got - want)[:, :stop].abs().max() / want.abs().max()
    return {"first_not_finite": first, "error_before": error.item()}


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """The matrix and the three measurements."""
    moved = [
        {
            "pads": pads,
            "kind": kind,
            "moved": median(
                moved_by_padding(config, kind, pads, seed) for seed in config.seeds
            ),
        }
        for pads in config.pads
        for kind in ENCODERS
    ]
    noise = []
    for kind in track(MODELS, "losses"):
        found = [loss_on_noise(config, kind, seed) for seed in config.seeds]
        noise.append({"kind": kind} | spread(found))
    scans = [
        {"decay": decay, "dtype": dtype, "kind": kind}
        | scan_error(config, kind, dtype, decay)
        for decay in config.decays
        for dtype in DTYPES
        for kind in SCANS
    ]
    series = {
        "specimens": matrix(track),
        "sound": sound_models(),
        "moved": moved,
        "noise": noise,
        "scans": scans,
    }
    cases = cases_of(series, math.log(config.vocab_size))
    return {
        "numbers": presentation.summary(cases, series),
        "series": series,
        "cases": cases,
    }


def cases_of(series: Mapping[str, Any], uniform: float) -> dict[str, Any]:
    """What the claims are checked on."""
    cases: dict[str, Any] = {}
    for row in series["moved"]:
        if row["pads"] == PADS:
            cases[f"padding_{row['kind']}"] = {"moved": row["moved"]}
    for row in series["noise"]:
        cases[f"shift_{row['kind']}"] = {"loss": row["median"], "uniform": uniform}
    for row in series["scans"]:
        if row["decay"] == DECAY and row["dtype"] == "float32":
            first = row["first_not_finite"]
            cases[f"scan_{row['kind']}"] = {"first_not_finite": first}
    return cases


def _moved(case: Mapping[str, Any]) -> Outcome:
    return Outcome.above(case["moved"], 0.2)


def _too_good(case: Mapping[str, Any]) -> Outcome:
    return Outcome.below(case["loss"], 0.5 * case["uniform"])


def _breaks_down(case: Mapping[str, Any]) -> Outcome:
    first = case["first_not_finite"]
    return Outcome.all_of(
        float(first), Outcome.exactly(first, holds=first > 0), Outcome.below(first, 200)
    )


CLAIMS = (
    Claim(
        "C61.padding",
        "Five steps of padding move the summary of an encoder that is not packed by "
        "more than a fifth of its norm; packed, they do not move it.",
        _moved,
        case="padding_broken",
        control="padding_mended",
    ),
    Claim(
        "C61.shift",
        "Trained on labels that are its inputs, a language model falls below half of "
        "the lowest possible loss on independent uniform tokens; with labels one step "
        "ahead it does not.",
        _too_good,
        case="shift_broken",
        control="shift_mended",
    ),
    Claim(
        "C106",
        "At a decay of one half the closed form of a linear recurrence, a product of "
        "decays times a sum of quotients, is not finite in float32 before 200 steps; "
        "a scan over pairs is.",
        _breaks_down,
        case="scan_broken",
        control="scan_mended",
    ),
)
tables = presentation.tables
experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
)
