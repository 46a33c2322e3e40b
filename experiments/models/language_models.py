r"""RNN, LSTM, GRU and transformer on one text: equal parameters, then equal compute.

Four kinds of layers with as many parameters read the same windows of Python's standard
library, each at a learning rate that was chosen for it on the part for tuning. Bits
per character on held-out modules by the characters that were read, and what characters
far back are worth; then once more with as many multiply-adds in training. A seed gives
all kinds the same windows and not the same weights. Each training is kept in a file
when it ends, and none is begun when the hours of the config are over.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import combinations, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from experiments import lab
from experiments.lab.budget import Budget
from experiments.models import _language_runs as runs
from experiments.models._language_counts import counted
from experiments.models._language_rates import difference, holm, interval
from experiments.models._language_tables import FIGURES, TABLES, numbers

MODULE = "experiments.models._language_runs"
BASE = "lstm"


@dataclass(frozen=True)
class Alone(runs.Training):
    """What one training depends on, and where it is kept."""

    keep: str | None = "runs/language_models"


@dataclass(frozen=True)
class Config(Alone):
    """Of the training; kinds, rates that are tried, hours of one start, seeds."""

    kinds: tuple[str, ...] = runs.KINDS
    rates: tuple[float, ...] = (0.001, 0.003, 0.009, 0.027, 0.081)
    # Of the updates, how many each rate is tried for.
    tune_share: float = 0.5
    tune_seed: int = 10
    hours: float = 3.0
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    # Of the seeds, those that are trained with equal compute too.
    compute_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


class Job(NamedTuple):
    """One training: what is measured of it, and its settings."""

    part: str
    kind: str
    rate: float
    share: float
    seed: int

    @property
    def name(self) -> str:
        """What tells it from the others."""
        return "-".join(str(setting) for setting in self)


Make = Callable[[Job], dict[str, Any]]


def tuning(config: Config) -> list[Job]:
    """A training for each kind and rate."""
    return [
        Job("tune", kind, rate, config.tune_share, config.tune_seed)
        for kind in config.kinds
        for rate in config.rates
    ]


def chosen(config: Config, tried: Mapping[Job, float]) -> dict[str, float]:
    """The rate of each kind that needs the fewest bits on the part for tuning."""
    best = {}
    for kind in config.kinds:
        own = {job.rate: bits for job, bits in tried.items() if job.kind == kind}
        best[kind] = min(own, key=lambda rate: own[rate])
    return best


def shares(config: Config, sizes: Mapping[str, runs.Size]) -> dict[str, float]:
    r"""Of the updates, how many take each kind as many multiply-adds as the LSTM.

    What is as much to the tolerance of the parameters is trained once.
    """
    base = sizes[BASE].multiply_adds
    found = {kind: base / sizes[kind].multiply_adds for kind in config.kinds}
    return {k: v for k, v in found.items() if abs(v - 1) > runs.TOLERANCE}


def final(
    config: Config, best: Mapping[str, float], less: Mapping[str, float]
) -> list[Job]:
    """A training for each seed and kind, then those of equal compute."""
    equal = [
        Job("equal", kind, best[kind], 1.0, seed)
        for seed in config.seeds
        for kind in config.kinds
    ]
    compute = [
        Job("compute", kind, best[kind], less[kind], seed)
        for seed in config.compute_seeds
        for kind in less
    ]
    return equal + compute


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Choose the rates, train the models, and compare them."""
    budget, text = Budget(config.hours, "language_models"), runs.read_text(config)
    # What a training gives does not depend on which others there are.
    alone = Alone(**{part.name: getattr(config, part.name) for part in fields(Alone)})

    def made(jobs: Sequence[Job], later: int = 0) -> dict[Job, dict[str, Any]]:
        results = {}
        for place, job in enumerate(track(jobs, "language_models")):
            budget.check(len(jobs) - place + later)
            measure = runs.tuned if job.part == "tune" else runs.measured
            make = partial(measure, alone, *job[1:], text)
            results[job] = lab.kept(alone, MODULE, job.name, make)
        return results

    sizes = {kind: runs.size_of(config, kind, text.vocab_size) for kind in config.kinds}
    less = shares(config, sizes)
    later = len(final(config, dict.fromkeys(config.kinds, 0.0), less))
    results = made(tuning(config), later)
    tried = {job: mean(found["bits"]) for job, found in results.items()}
    best = chosen(config, tried)
    done = made(final(config, best, less))
    answers = Answers(config, sizes, best, less, tried, done, counted(config, text))
    cases: dict[str, Any] = {}
    for part in (kinds, by_counts, pairs, equal_compute, by_rate):
        cases |= part(answers)
    series = {
        "corpus": text.about,
        # The scores at a place have read its character too.
        "first": [place + 1 for place in runs.bands(config.context)],
        "last": [*runs.bands(config.context)[1:], config.context],
    }
    made_in_all = len(tried) + len(done)
    counts = {"vocabulary": text.vocab_size, "trainings": made_in_all, **told(config)}
    return {"numbers": counts, "series": series, "cases": cases}


def told(config: Config) -> dict[str, int]:
    """What sentences say of the settings."""
    return {
        "seeds": len(config.seeds),
        "compute_seeds": len(config.compute_seeds),
        "early": config.cut // 4,
        "late": config.cut + 1,
        "tune_updates": round(config.tune_share * config.updates),
        "characters": config.updates * config.batch_size * config.context,
    }


def mean(values: Sequence[float]) -> float:
    """The mean."""
    return sum(values) / len(values)


class Answers(NamedTuple):
    """All that was measured, and how it is compared."""

    config: Config
    sizes: Mapping[str, runs.Size]
    best: Mapping[str, float]
    less: Mapping[str, float]
    tried: Mapping[Job, float]
    done: Mapping[Job, dict[str, Any]]
    counts: Mapping[str, Tensor]

    def table(
        self, part: str, kind: str, key: str, seeds: Sequence[int] = ()
    ) -> Tensor:
        """A quantity of a kind, (seeds, windows), of some seeds or all."""
        rows = [
            found[key]
            for job, found in self.done.items()
            if (job.part, job.kind) == (part, kind) and (not seeds or job.seed in seeds)
        ]
        return torch.tensor(rows, dtype=torch.float64)

    def whole(self, part: str, kind: str, seeds: Sequence[int] = ()) -> Tensor:
        """Bits of each window, (seeds, windows)."""
        return self.among(part, kind, 0, self.config.context, seeds)

    def among(
        self, part: str, kind: str, first: int, last: int, seeds: Sequence[int] = ()
    ) -> Tensor:
        """Bits of each window's places from `first` to before `last`, whole bands."""
        edges = [*runs.bands(self.config.context), self.config.context]
        spans = [
            after - before if first <= before and after <= last else 0
            for before, after in pairwise(edges)
        ]
        weights = torch.tensor(spans, dtype=torch.float64)
        return self.table(part, kind, "bits", seeds) @ weights / weights.sum()


def kinds(answers: Answers) -> dict[str, Any]:
    """Each kind with as many parameters: sizes, rate, bits."""
    cases = {}
    for kind in answers.config.kinds:
        bits = answers.table("equal", kind, "bits")
        whole, rate = answers.whole("equal", kind), answers.best[kind]
        size = answers.sizes[kind]
        cases[kind] = {
            "kind": kind,
            **size._asdict(),
            "parameters": size.layers + size.embedding + size.head,
            "over_lstm": answers.sizes[kind].multiply_adds
            / answers.sizes[BASE].multiply_adds,
            "rate": rate,
            "at_an_end": rate in (answers.config.rates[0], answers.config.rates[-1]),
            "bits": interval(whole),
            "by_seed": whole.mean(dim=1).tolist(),
            "less_bigram": interval(whole - answers.counts["bigram"]),
            "far": interval(answers.table("equal", kind, "far")),
            "bands": [interval(band) for band in bits.unbind(-1)],
        }
        if kind != "transformer":
            carried = answers.table("equal", kind, "carried")
            cases[kind] |= {
                "carried": interval(carried),
                "carried_less": interval(whole - carried),
            }
    return cases


def by_counts(answers: Answers) -> dict[str, Any]:
    """What counts alone need on the same windows."""
    return {
        name: {"counts": name, "bits": bits.mean().item()}
        for name, bits in answers.counts.items()
    }


def pairs(answers: Answers) -> dict[str, Any]:
    """One kind less another, over the same windows."""
    cases, context = {}, answers.config.context
    late = answers.config.cut
    for one, other in combinations(answers.config.kinds, 2):

        def less(make: Callable[..., Tensor], one=one, other=other):
            return difference(make(other), make(one))

        def early(kind: str) -> Tensor:
            return answers.among("equal", kind, 0, late // 4)

        def behind(kind: str) -> Tensor:
            return answers.among("equal", kind, late, context)

        def band(kind: str, place: int) -> Tensor:
            return answers.table("equal", kind, "bits")[:, :, place]

        cases[f"{other}_less_{one}"] = {
            "one": other,
            "other": one,
            "bits": less(partial(answers.whole, "equal")),
            "far": less(partial(answers.table, "equal", key="far")),
            "early": less(early),
            "late": less(behind),
            "shift": less(lambda kind: behind(kind) - early(kind)),
            "bands": [
                less(partial(band, place=place))
                for place in range(len(runs.bands(context)))
            ],
        }
    levels = holm({name: case["bits"]["p"] for name, case in cases.items()})
    for name, level in levels.items():
        cases[name]["holm"] = level
    return cases


def equal_compute(answers: Answers) -> dict[str, Any]:
    """Each kind with as many multiply-adds as the LSTM, and the LSTM.

    What was trained for it is also taken from the same kind with all its updates; there
    a seed gives the same weights, so that seeds are paired.
    """
    cases, seeds = {}, answers.config.compute_seeds
    base = answers.whole("equal", BASE, seeds)
    for kind in answers.config.kinds:
        share = answers.less.get(kind, 1.0)
        part = "compute" if kind in answers.less else "equal"
        bits = answers.whole(part, kind, seeds)
        updates = round(share * answers.config.updates)
        cases[f"compute_{kind}"] = {
            "compute": kind,
            "updates": updates,
            "total": 3.0
            * answers.sizes[kind].multiply_adds
            * updates
            * answers.config.batch_size
            * answers.config.context,
            "bits": interval(bits),
        }
        if kind != BASE:
            cases[f"compute_{kind}"]["less"] = difference(bits, base)
        if part == "compute":
            own = bits - answers.whole("equal", kind, seeds)
            cases[f"compute_{kind}"] |= {
                "own": interval(own),
                "own_by_seed": own.mean(dim=1).tolist(),
            }
    return cases


def by_rate(answers: Answers) -> dict[str, Any]:
    """Bits at every rate on the part for tuning, and how far they lie apart."""
    cases: dict[str, Any] = {}
    tried = {(job.kind, job.rate): bits for job, bits in answers.tried.items()}
    at_own = [tried[kind, rate] for kind, rate in answers.best.items()]
    between = max(at_own) - min(at_own)
    for kind in answers.config.kinds:
        own = [tried[kind, rate] for rate in answers.config.rates]
        cases[f"rates_{kind}"] = {
            "rates": kind,
            "bits": own,
            "spread": max(own) - min(own),
            "between": between,
        }
        best, second = sorted(own)[:2]
        cases[f"near_{kind}"] = {"spread": second - best, "between": between}
        seeds = answers.whole("equal", kind).mean(dim=1)
        apart = (seeds.max() - seeds.min()).item()
        cases[f"seeds_{kind}"] = {"spread": apart, "between": between}
    for place, rate in enumerate(answers.config.rates):
        at_one = {k: cases[f"rates_{k}"]["bits"][place] for k in answers.config.kinds}
        order = sorted(at_one, key=lambda kind: at_one[kind])
        cases[f"rate_{place}"] = {
            "at_rate": rate,
            "first": order[0],
            "last": order[-1],
            "apart": at_one[order[-1]] - at_one[order[0]],
        }
    return cases


experiment = lab.Experiment(
    small=Config(
        d_model=36,
        context=128,
        batch_size=2,
        updates=20,
        windows=20,
        cut=32,
        rates=(0.0005, 0.01, 0.014),
        keep=None,
        seeds=(0, 1),
        compute_seeds=(0,),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C189",
            "With as many parameters in its layers a transformer takes more than 1.1 "
            "times the multiply-adds of an LSTM for each character; a GRU does not.",
            lab.above("over_lstm", 1.1),
            case="transformer",
            control="gru",
        ),
        lab.Claim(
            "C185",
            "Between the best and the worst of the rates that were tried the bits of "
            "an LSTM lie further apart than those of the kinds at their own rates; "
            "between the best and the next one they do not.",
            lab.above(lambda case: case["spread"] / case["between"], 1.0),
            case="rates_lstm",
            control="near_lstm",
        ),
    ],
    numbers=[numbers],
    tables=TABLES,
    figures=FIGURES,
)
