r"""A trained character LSTM from inside: where its gates stand, how far back it looks.

Language models are trained on the source of Python's standard library. On held-out
text the values of their gates are collected at every character. Then every target of a
sample is predicted again from its last k characters alone, k from 1 to a few hundred,
starting from the empty state: what more context no longer improves, the model does not
use. The same is done to models as they were before training.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from experiments.lab.claim import Claim, Outcome
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.seeding import generator, seeded
from experiments.lab.statistics import spread
from experiments.models._trained_tables import (
    BINS,
    GATES,
    draw_gates,
    tables,
)
from seqref import LSTM
from seqref.models import LanguageModel
from seqref.tasks import Streams, Vocabulary, python_source
from seqref.training import train


@dataclass(frozen=True)
class Config:
    """The model, its text and training, and what is measured on held-out text."""

    hidden_size: int
    embedding_size: int
    train_characters: int
    batch_size: int
    horizon: int
    steps: int
    learning_rate: float
    min_count: int
    gate_rows: int
    gate_steps: int
    targets: int
    contexts: tuple[int, ...]
    seeds: tuple[int, ...]


SMALL = Config(
    hidden_size=48,
    embedding_size=24,
    train_characters=200_000,
    batch_size=32,
    horizon=32,
    steps=150,
    learning_rate=0.015,
    min_count=20,
    gate_rows=8,
    gate_steps=100,
    targets=400,
    contexts=(1, 20, 60),
    seeds=(0,),
)
FULL = Config(
    hidden_size=128,
    embedding_size=48,
    train_characters=2_000_000,
    batch_size=32,
    horizon=100,
    steps=600,
    learning_rate=0.008,
    min_count=20,
    gate_rows=32,
    gate_steps=300,
    targets=1500,
    contexts=(1, 2, 5, 10, 20, 50, 100, 200, 400),
    seeds=(0, 1, 2),
)


def build(config: Config, vocabulary: Vocabulary, seed: int) -> LanguageModel:
    """The model as it is before training."""
    with seeded(seed):
        layer = LSTM(config.embedding_size, config.hidden_size)
        return LanguageModel(len(vocabulary), layer)


def fit(config: Config, model: LanguageModel, tokens: Int[Tensor, " time"]) -> None:
    """Truncated backpropagation through time over the training text."""
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimiser, T_max=config.steps, eta_min=config.learning_rate / 10
    )
    streams = Streams(tokens, config.batch_size, config.horizon)
    train(model, streams, optimiser, config.steps, max_norm=1.0, scheduler=schedule)


def gates(
    config: Config, model: LanguageModel, tokens: Int[Tensor, " time"]
) -> dict[str, Float[Tensor, "..."]]:
    """Every value of the three gates over rows of held-out text."""
    cell: Any = model.layer.cell
    rows = tokens[: config.gate_rows * config.gate_steps].view(config.gate_rows, -1)
    found: dict[str, list[Tensor]] = {name: [] for name in GATES}
    state = model.initial_state(config.gate_rows)
    with torch.no_grad():
        for token_t in rows.unbind(1):
            x_t = model.embedding(token_t)
            pre = x_t @ cell.weight_ih.T + cell.bias_ih
            pre = pre + state.h @ cell.weight_hh.T + cell.bias_hh
            i_pre, f_pre, _, o_pre = pre.chunk(4, dim=1)
            for name, value in zip(GATES, (i_pre, f_pre, o_pre), strict=True):
                found[name].append(torch.sigmoid(value).flatten())
            _, state = model.step(token_t, state)
    return {name: torch.cat(values) for name, values in found.items()}


def gate_case(values: Float[Tensor, " values"]) -> dict[str, Any]:
    """Shares of values near 0 and near 1, and the histogram."""
    bins = torch.histc(values, BINS, 0.0, 1.0) / len(values)
    return {
        "near_0": (values < 0.1).double().mean().item(),
        "near_1": (values > 0.9).double().mean().item(),
        "decided": ((values < 0.1) | (values > 0.9)).double().mean().item(),
        "histogram": [round(share, 6) for share in bins.tolist()],
    }


def bits_by_context(
    config: Config, model: LanguageModel, tokens: Int[Tensor, " time"], seed: int
) -> dict[int, float]:
    """Bits per character of one sample of targets, by the characters before them."""
    longest = max(config.contexts)
    places = torch.randint(
        longest, len(tokens), (config.targets,), generator=generator(seed + 100)
    )
    found = {}
    with torch.no_grad():
        for context in config.contexts:
            window = places[:, None] - context + torch.arange(context)
            total = 0.0
            for part, target in zip(
                window.split(250), tokens[places].split(250), strict=True
            ):
                logits, _ = model(tokens[part])
                total += cross_entropy(logits[:, -1], target, reduction="sum").item()
            found[context] = total / len(places) / math.log(2)
    return found


def measure_model(
    config: Config, model: LanguageModel, tokens: Int[Tensor, " time"], seed: int
) -> dict[str, Any]:
    """Gates and bits of one model."""
    values = gates(config, model, tokens)
    cases = {name: gate_case(values[name]) for name in GATES}
    return {
        "all": gate_case(torch.cat([values[name] for name in GATES])),
        **cases,
        "bits": bits_by_context(config, model, tokens, seed),
    }


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Measure each model before and after its training."""
    corpus = python_source()
    text = corpus.train[: config.train_characters]
    vocabulary = Vocabulary.from_text(text, config.min_count)
    fitting, held_out = vocabulary.encode(text), vocabulary.encode(corpus.heldout)
    found: dict[str, list[dict[str, Any]]] = {"before": [], "trained": []}
    for seed in track(config.seeds, "trained_lstm"):
        model = build(config, vocabulary, seed)
        found["before"].append(measure_model(config, model, held_out, seed))
        fit(config, model, fitting)
        found["trained"].append(measure_model(config, model, held_out, seed))
    bits = {
        name: {
            str(context): spread(row["bits"][context] for row in rows)
            for context in config.contexts
        }
        for name, rows in found.items()
    }
    cases = cases_of(config, found)
    histograms = {
        gate: [
            sum(row[gate]["histogram"][i] for row in found["trained"])
            / len(config.seeds)
            for i in range(BINS)
        ]
        for gate in GATES
    }
    return {
        "numbers": summary(cases, bits, found),
        "series": {"bits": bits, "histograms": histograms},
        "cases": cases,
    }


def cases_of(
    config: Config, found: Mapping[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """Gates before and after training, and what each cut of the context loses."""
    longest = max(config.contexts)
    cases: dict[str, Any] = {
        f"{name}_gates": {
            gate: spread(row[gate]["decided"] for row in rows)
            for gate in ("all", *GATES)
        }
        for name, rows in found.items()
    }
    for context in config.contexts[:-1]:
        cases[f"context_{context}"] = {
            "lost": spread(
                row["bits"][context] - row["bits"][longest] for row in found["trained"]
            )
        }
    return cases


def summary(
    cases: Mapping[str, Any],
    bits: Mapping[str, Any],
    found: Mapping[str, list[dict[str, Any]]],
) -> dict[str, Any]:
    """Scalars for sentences: medians over seeds."""
    numbers: dict[str, Any] = {}
    for name in ("before", "trained"):
        numbers[f"{name}_decided"] = cases[f"{name}_gates"]["all"]["median"]
    for gate in GATES:
        for end in ("near_0", "near_1"):
            values = [row[gate][end] for row in found["trained"]]
            numbers[f"{gate}_{end}"] = spread(values)["median"]
    for context, value in bits["trained"].items():
        numbers[f"bits_{context}"] = value["median"]
    for name, case in cases.items():
        if name.startswith("context_"):
            numbers[f"lost_{name.removeprefix('context_')}"] = case["lost"]["median"]
    return numbers


def _decided(case: Mapping[str, Any]) -> Outcome:
    found = case["all"]["low"]
    return Outcome.above(found, 0.1)


def _enough(case: Mapping[str, Any]) -> Outcome:
    found = case["lost"]["high"]
    return Outcome.below(found, 0.2)


CLAIMS = (
    Claim(
        "C35",
        "Twenty characters of context are worth all but 0.2 bits per character of what "
        "the trained model makes of the longest context.",
        _enough,
        case="context_20",
        control="context_1",
    ),
    Claim(
        "C40",
        "More than a tenth of the values of a trained LSTM's gates lie below 0.1 or "
        "above 0.9.",
        _decided,
        case="trained_gates",
        control="before_gates",
    ),
)


FIGURES = {"gates": draw_gates}
experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
    figures=FIGURES,
)
