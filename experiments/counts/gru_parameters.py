r"""How many parameters a GRU saves: in a layer, and in a whole language model.

A GRU layer has three affine maps where an LSTM layer has four, so it has exactly three
quarters of the parameters at equal sizes. A model has more than its layer: this module
counts the language model of this package (embedding, layer, head) with either layer,
for several vocabularies, and the width at which a GRU has the LSTM's count.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from experiments.lab.claim import Claim, Outcome
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.tables import number, table
from seqref import GRU, LSTM
from seqref.models.language_model import LanguageModel


@dataclass(frozen=True)
class Config:
    """Layers as (input, hidden); models as (vocabulary, input, hidden)."""

    layers: tuple[tuple[int, int], ...]
    models: tuple[tuple[int, int, int], ...]


SMALL = Config(layers=((3, 5), (128, 256)), models=((65, 128, 256), (10_000, 128, 256)))
FULL = Config(
    layers=((3, 5), (128, 256), (512, 512), (1024, 1024)),
    models=(
        (65, 128, 256),
        (10_000, 128, 256),
        (50_000, 128, 256),
        (10_000, 1024, 1024),
    ),
)
# The sizes of the claims, whatever the config counts besides.
LAYER = (128, 256)
CHARACTERS, WORDS = (65, *LAYER), (10_000, *LAYER)


def count(module: nn.Module) -> int:
    """Number of parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def layer_counts(input_size: int, hidden_size: int) -> dict[str, Any]:
    """An LSTM and a GRU layer, of torch.nn and of seqref."""
    with torch.device("meta"):
        lstm, gru = LSTM(input_size, hidden_size), GRU(input_size, hidden_size)
        theirs = nn.LSTM(input_size, hidden_size), nn.GRU(input_size, hidden_size)
    found = {"lstm": count(lstm), "gru": count(gru)}
    if (found["lstm"], found["gru"]) != tuple(map(count, theirs)):
        raise RuntimeError("layer_counts: seqref and torch.nn differ in parameters")
    return {
        "input_size": input_size,
        "hidden_size": hidden_size,
        **found,
        "ratio": found["gru"] / found["lstm"],
        "equal_width": equal_width(input_size, found["lstm"]),
    }


def equal_width(input_size: int, parameters: int) -> int:
    """The widest GRU layer with at most this many parameters."""
    width = 0
    while 3 * (width + 1) * (width + 1 + input_size + 2) <= parameters:
        width += 1
    return width


def model_counts(vocab_size: int, input_size: int, hidden_size: int) -> dict[str, Any]:
    """The language model with an LSTM and with a GRU layer."""
    with torch.device("meta"):
        lstm = count(LanguageModel(vocab_size, LSTM(input_size, hidden_size)))
        gru = count(LanguageModel(vocab_size, GRU(input_size, hidden_size)))
    return {
        "vocab_size": vocab_size,
        "input_size": input_size,
        "hidden_size": hidden_size,
        "lstm": lstm,
        "gru": gru,
        "ratio": gru / lstm,
        "saved_percent": 100 * (1 - gru / lstm),
    }


def bias_counts(*, bias: bool) -> dict[str, Any]:
    """Bias parameters of a torch.nn.GRU layer."""
    with torch.device("meta"):
        layer = nn.GRU(*LAYER, bias=bias)
    names = {name: p.numel() for name, p in layer.named_parameters() if "bias" in name}
    return {
        "hidden_size": LAYER[1],
        "vectors": len(names),
        "biases": sum(names.values()),
    }


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Count everything."""
    layers = [layer_counts(*size) for size in track(config.layers, "layers")]
    models = [model_counts(*size) for size in track(config.models, "models")]
    cases: dict[str, Any] = {
        "layer": layer_counts(*LAYER),
        "characters": model_counts(*CHARACTERS),
        "words": model_counts(*WORDS),
        "with_bias": bias_counts(bias=True),
        "without_bias": bias_counts(bias=False),
    }
    series = {"layers": layers, "models": models}
    return {"numbers": summary(cases), "series": series, "cases": cases}


def summary(cases: Mapping[str, Any]) -> dict[str, Any]:
    """Scalars for sentences."""
    return {
        f"{name}_{key}": value
        for name, case in cases.items()
        for key, value in case.items()
    }


def _three_quarters(case: Mapping[str, Any]) -> Outcome:
    return Outcome.exactly(case["ratio"], holds=4 * case["gru"] == 3 * case["lstm"])


def _saves_little(case: Mapping[str, Any]) -> Outcome:
    saved = case["saved_percent"]
    return Outcome.exactly(saved, holds=saved < 5)


def _has_biases(case: Mapping[str, Any]) -> Outcome:
    expected = 6 * case["hidden_size"]
    return Outcome.exactly(float(case["biases"]), holds=case["biases"] == expected)


CLAIMS = (
    Claim(
        "C39.layer",
        "A GRU layer has exactly three quarters of the parameters of an LSTM layer; a "
        "whole model does not.",
        _three_quarters,
        case="layer",
        control="words",
    ),
    Claim(
        "C39.model",
        "In a language model with 10,000 tokens the GRU saves less than 5 % of the "
        "parameters; in one with 65 characters it saves more.",
        _saves_little,
        case="words",
        control="characters",
    ),
    Claim(
        "C48",
        "torch.nn.GRU has 6D bias parameters, two for each gate and candidate; with "
        "bias=False it has none.",
        _has_biases,
        case="with_bias",
        control="without_bias",
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Counts of layers and of models."""
    layers = [
        [
            f"layer ({row['input_size']}, {row['hidden_size']})",
            number(row["lstm"]),
            number(row["gru"]),
            f"{row['ratio']:.4f}",
            number(row["equal_width"]),
        ]
        for row in record["series"]["layers"]
    ]
    models = [
        [
            f"{row['vocab_size']:,} tokens ({row['input_size']}, {row['hidden_size']})",
            number(row["lstm"]),
            number(row["gru"]),
            f"{row['saved_percent']:.1f} %",
        ]
        for row in record["series"]["models"]
    ]
    return {
        "layers": table(
            ["(input, hidden)", "LSTM", "GRU", "GRU / LSTM", "GRU width, equal count"],
            layers,
        ),
        "models": table(["model", "with LSTM", "with GRU", "saved"], models),
    }


experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
)
