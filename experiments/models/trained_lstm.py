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

from experiments import lab
from experiments.models._characters import build, corpus_of, fit
from seqref.models import LanguageModel
from seqref.tasks import Streams

GATES = ("input", "forget", "output")
BINS = 20


@dataclass(frozen=True)
class Config:
    """The model, its text and training, and what is measured on held-out text."""

    hidden_size: int = 128
    embedding_size: int = 48
    train_characters: int = 2_000_000
    batch_size: int = 32
    horizon: int = 100
    steps: int = 600
    learning_rate: float = 0.008
    min_count: int = 20
    gate_rows: int = 32
    gate_steps: int = 300
    targets: int = 1500
    contexts: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100, 200, 400)
    seeds: tuple[int, ...] = (0, 1, 2)


@torch.no_grad()
def gates(
    config: Config, model: LanguageModel, tokens: Int[Tensor, " time"]
) -> dict[str, Float[Tensor, " values"]]:
    """Every value of the three gates over rows of held-out text."""
    cell: Any = model.layer.cell
    rows = tokens[: config.gate_rows * config.gate_steps].view(config.gate_rows, -1)
    values: dict[str, list[Tensor]] = {gate: [] for gate in GATES}
    state = model.initial_state(config.gate_rows)
    for token_t in rows.unbind(1):
        pre = model.embedding(token_t) @ cell.weight_ih.T + cell.bias_ih
        pre = pre + state.h @ cell.weight_hh.T + cell.bias_hh
        i_pre, f_pre, _, o_pre = pre.chunk(4, dim=1)
        for gate, gate_pre in zip(GATES, (i_pre, f_pre, o_pre), strict=True):
            values[gate].append(torch.sigmoid(gate_pre).flatten())
        _, state = model.step(token_t, state)
    return {gate: torch.cat(values[gate]) for gate in GATES}


def gate_case(values: Float[Tensor, " values"]) -> dict[str, Any]:
    """Shares of values near 0 and near 1, and the histogram."""
    near_0, near_1 = values < 0.1, values > 0.9
    bins = torch.histc(values, BINS, 0.0, 1.0) / len(values)
    return {
        "near_0": near_0.double().mean().item(),
        "near_1": near_1.double().mean().item(),
        "decided": (near_0 | near_1).double().mean().item(),
        "histogram": [round(share, 6) for share in bins.tolist()],
    }


@torch.no_grad()
def bits_by_context(
    config: Config, model: LanguageModel, tokens: Int[Tensor, " time"], seed: int
) -> dict[int, float]:
    """Bits per character of one sample of targets, by the characters before them."""
    size, random = (config.targets,), lab.generator(seed + 100)
    places = torch.randint(max(config.contexts), len(tokens), size, generator=random)
    bits = {}
    for context in config.contexts:
        window = places[:, None] - context + torch.arange(context)
        total = 0.0
        for part in torch.arange(config.targets).split(250):
            logits, _ = model(tokens[window[part]])
            target = tokens[places[part]]
            total += cross_entropy(logits[:, -1], target, reduction="sum").item()
        bits[context] = total / config.targets / math.log(2)
    return bits


def measure_model(
    config: Config, model: LanguageModel, tokens: Int[Tensor, " time"], seed: int
) -> dict[str, Any]:
    """Gates and bits of one model."""
    values = gates(config, model, tokens)
    return {
        "all": gate_case(torch.cat([*values.values()])),
        **{gate: gate_case(values[gate]) for gate in GATES},
        "bits": bits_by_context(config, model, tokens, seed),
    }


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Measure each model before and after its training."""
    corpus, text, vocabulary = corpus_of(config)
    held_out = vocabulary.encode(corpus.heldout)
    streams = Streams(vocabulary.encode(text), config.batch_size, config.horizon)
    before, trained = [], []
    for seed in track(config.seeds, "trained_lstm"):
        model = build(config, vocabulary, seed)
        before.append(measure_model(config, model, held_out, seed))
        fit(config, model, streams, config.steps)
        trained.append(measure_model(config, model, held_out, seed))
    bits, cases = {}, {}
    for name, models in (("before", before), ("trained", trained)):
        bits[name] = {
            str(context): lab.spread(model["bits"][context] for model in models)
            for context in config.contexts
        }
        cases[f"{name}_gates"] = {
            gate: lab.spread(model[gate]["decided"] for model in models)
            for gate in ("all", *GATES)
        }
    longest = max(config.contexts)
    for context in config.contexts[:-1]:
        lost = (model["bits"][context] - model["bits"][longest] for model in trained)
        cases[f"context_{context}"] = {"lost": lab.spread(lost)}
    histograms, numbers = {}, {}
    for gate in GATES:
        columns = zip(*(model[gate]["histogram"] for model in trained), strict=True)
        histograms[gate] = [sum(shares) / len(trained) for shares in columns]
        for end in ("near_0", "near_1"):
            numbers[f"{gate}_{end}"] = lab.median(model[gate][end] for model in trained)
    numbers |= {
        f"bits_{context}": at["median"] for context, at in bits["trained"].items()
    }
    series = {"bits": bits, "histograms": histograms}
    return {"numbers": numbers, "series": series, "cases": cases}


def bits_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Bits of the trained models, each with its number of characters."""
    bits = record["series"]["bits"]["trained"]
    return [{"context": int(context), **spread} for context, spread in bits.items()]


def draw_gates(figure: Any, record: Mapping[str, Any], theme: lab.Theme) -> None:
    """Histograms of the gates of the trained models."""
    axes = figure.subplots()
    for place, gate in enumerate(GATES):
        axes.stairs(
            [100 * share for share in record["series"]["histograms"][gate]],
            [i / BINS for i in range(BINS + 1)],
            color=theme.colours[place],
            linestyle=lab.DASHES[place],
            linewidth=1.8,
            label=f"{gate} gate",
        )
    axes.set_xlabel("value of the gate")
    axes.set_ylabel("share of values, %")
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, labelcolor=theme.ink)


experiment = lab.Experiment(
    small=Config(
        hidden_size=48,
        embedding_size=24,
        train_characters=200_000,
        horizon=32,
        steps=150,
        learning_rate=0.015,
        gate_rows=8,
        gate_steps=100,
        targets=400,
        contexts=(1, 20, 60),
        seeds=(0,),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C35",
            "Twenty characters of context are worth all but 0.2 bits per character of "
            "what the trained model makes of the longest context.",
            lab.below("lost.high", 0.2),
            case="context_20",
            control="context_1",
        ),
        lab.Claim(
            "C40",
            "More than a tenth of the values of a trained LSTM's gates lie below 0.1 "
            "or above 0.9.",
            lab.above("all.low", 0.1),
            case="trained_gates",
            control="before_gates",
        ),
    ],
    numbers=[
        {
            "before_decided": "before_gates.all.median",
            "trained_decided": "trained_gates.all.median",
        },
        lambda cases: {
            name.replace("context", "lost"): case["lost"]["median"]
            for name, case in cases.items()
            if "lost" in case
        },
    ],
    tables={
        "context": lab.Table(
            rows=bits_rows,
            columns={
                "characters of context": "context",
                "bits per character: median": lab.fixed("median", 2),
                "lowest": lab.fixed("low", 2),
                "highest": lab.fixed("high", 2),
            },
        ),
        "gates": lab.Table(
            labels={"before_gates": "before training", "trained_gates": "trained"},
            heading="values below 0.1 or above 0.9, %",
            columns={
                gate: lab.with_span(gate, lambda share: f"{100 * share:.0f}")
                for gate in GATES
            },
        ),
    },
    figures={"gates": draw_gates},
)
