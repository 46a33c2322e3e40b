r"""How many parameters a GRU saves: in a layer, and in a whole language model.

A GRU layer has three affine maps where an LSTM layer has four, so it has exactly three
quarters of the parameters at equal sizes. A model has more than its layer: this module
counts the language model of this package (embedding, layer, head) with either layer,
for several vocabularies, and the width at which a GRU has the LSTM's count.
"""

from dataclasses import dataclass
from itertools import count

import torch
from torch import nn

from experiments import lab
from seqref import GRU, LSTM
from seqref.models.language_model import LanguageModel

# The sizes of the claims, whatever the config counts besides.
LAYER = (128, 256)
CHARACTERS, WORDS = (65, *LAYER), (10_000, *LAYER)


@dataclass(frozen=True)
class Config:
    """Layers as (input, hidden); models as (vocabulary, input, hidden)."""

    layers: tuple[tuple[int, int], ...] = ((3, 5), LAYER, (512, 512), (1024, 1024))
    models: tuple[tuple[int, int, int], ...] = (
        CHARACTERS,
        WORDS,
        (50_000, *LAYER),
        (10_000, 1024, 1024),
    )


def layer_counts(input_size: int, hidden_size: int) -> dict:
    """An LSTM and a GRU layer, of torch.nn and of seqref."""
    with torch.device("meta"):
        lstm, gru, *theirs = (
            lab.parameter_count(kind(input_size, hidden_size))
            for kind in (LSTM, GRU, nn.LSTM, nn.GRU)
        )
    if theirs != [lstm, gru]:
        raise RuntimeError("layer_counts: seqref and torch.nn differ in parameters")
    return {
        "input_size": input_size,
        "hidden_size": hidden_size,
        "lstm": lstm,
        "gru": gru,
        "ratio": gru / lstm,
        "equal_width": equal_width(input_size, lstm),
    }


def equal_width(input_size: int, parameters: int) -> int:
    """The widest GRU layer with at most this many parameters."""
    return next(
        width
        for width in count()
        if 3 * (width + 1) * (width + 1 + input_size + 2) > parameters
    )


def model_counts(vocab_size: int, input_size: int, hidden_size: int) -> dict:
    """The language model with an LSTM and with a GRU layer."""
    with torch.device("meta"):
        lstm, gru = (
            lab.parameter_count(
                LanguageModel(vocab_size, kind(input_size, hidden_size))
            )
            for kind in (LSTM, GRU)
        )
    return {
        "vocab_size": vocab_size,
        "input_size": input_size,
        "hidden_size": hidden_size,
        "lstm": lstm,
        "gru": gru,
        "ratio": gru / lstm,
        "saved_percent": 100 * (1 - gru / lstm),
    }


def bias_counts(*, bias: bool) -> dict:
    """Bias parameters of a torch.nn.GRU layer."""
    with torch.device("meta"):
        layer = nn.GRU(*LAYER, bias=bias)
    sizes = [p.numel() for name, p in layer.named_parameters() if "bias" in name]
    return {"hidden_size": LAYER[1], "vectors": len(sizes), "biases": sum(sizes)}


def run(config: Config, track: lab.Track) -> dict:
    """Count everything."""
    return {
        "series": {
            "layers": [layer_counts(*size) for size in track(config.layers, "layers")],
            "models": [model_counts(*size) for size in track(config.models, "models")],
        },
        "cases": {
            "layer": layer_counts(*LAYER),
            "characters": model_counts(*CHARACTERS),
            "words": model_counts(*WORDS),
            "with_bias": bias_counts(bias=True),
            "without_bias": bias_counts(bias=False),
        },
    }


experiment = lab.Experiment(
    small=Config(layers=((3, 5), LAYER), models=(CHARACTERS, WORDS)),
    run=run,
    claims=[
        lab.Claim(
            "C39.layer",
            "A GRU layer has exactly three quarters of the parameters of an LSTM "
            "layer; a whole model does not.",
            lab.exactly("ratio", lambda case: 4 * case["gru"] == 3 * case["lstm"]),
            case="layer",
            control="words",
        ),
        lab.Claim(
            "C39.model",
            "In a language model with 10,000 tokens the GRU saves less than 5 % of the "
            "parameters; in one with 65 characters it saves more.",
            lab.exactly("saved_percent", lambda case: case["saved_percent"] < 5),
            case="words",
            control="characters",
        ),
        lab.Claim(
            "C48",
            "torch.nn.GRU has 6D bias parameters, two for each gate and candidate; "
            "with bias=False it has none.",
            lab.exactly(
                "biases", lambda case: case["biases"] == 6 * case["hidden_size"]
            ),
            case="with_bias",
            control="without_bias",
        ),
    ],
    numbers=[lab.everything],
    tables={
        "layers": lab.Table(
            rows="series.layers",
            columns={
                "(input, hidden)": "layer ({input_size}, {hidden_size})".format_map,
                "LSTM": "lstm",
                "GRU": "gru",
                "GRU / LSTM": lab.fixed("ratio", 4),
                "GRU width, equal count": "equal_width",
            },
        ),
        "models": lab.Table(
            rows="series.models",
            columns={
                "model": (
                    "{vocab_size:,} tokens ({input_size}, {hidden_size})".format_map
                ),
                "with LSTM": "lstm",
                "with GRU": "gru",
                "saved": lab.fixed("saved_percent", 1, " %"),
            },
        ),
    },
)
