r"""A character LSTM and n-grams on the source of Python's standard library.

All models learn from the same modules and predict the same characters of held-out
modules. The n-grams count the training text; the LSTM reads it in parallel streams by
truncated backpropagation through time. At each mark of the learning curve the n-grams
are counted anew on the characters that the LSTM has read by then.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from experiments import lab
from experiments.models import _characters as characters
from experiments.models._first_data import Data, Forgetful, prepare
from seqref.models import LanguageModel
from seqref.tasks import NGram
from seqref.training import Step

PROMPT = "    def __init__(self, "
ORDERS = {"unigram": 1, "bigram": 2, "fivegram": 5}
LABELS = {"unigram": "unigram", "bigram": "bigram", "fivegram": "5-gram"}


@dataclass(frozen=True)
class Config:
    """Sizes, text, training and seed of one run."""

    hidden_size: int = 256
    embedding_size: int = 64
    batch_size: int = 16
    horizon: int = 64
    passes: float = 1.0
    learning_rate: float = 0.008
    max_norm: float = 1.0
    min_count: int = 20
    train_characters: int | None = None
    heldout_characters: int | None = None
    longest_order: int = 8
    marks: int = 8
    resets: tuple[int, ...] = (4, 16, 64, 256)
    control_steps: int = 500
    shuffled_characters: int = 1_000_000
    sample_length: int = 400
    temperatures: tuple[float, ...] = (0.5, 0.8, 1.0)
    seeds: tuple[int, ...] = (0,)


def marks_of(steps: int, count: int) -> list[int]:
    """Steps at which the curve is measured: halving from the last one down."""
    return sorted({max(steps // 2**i, 1) for i in range(count)})


def learning_curve(
    model: LanguageModel, data: Data, config: Config, steps: int, marks: Sequence[int]
) -> list[dict[str, Any]]:
    """Train for `steps` chunks; at each mark held-out bits, of n-grams too."""
    curve = []

    def measure(step: Step) -> None:
        if step.number in marks:
            point: dict = {"steps": step.number, "characters": step.characters}
            text = data.read_by(step.number)
            for name in ("bigram", "fivegram"):
                point[name] = data.ngram_bits(text, ORDERS[name])
            curve.append({**point, "lstm": data.bits(model)})

    limit = config.max_norm
    characters.fit(config, model, data.streams, steps, max_norm=limit, on_step=measure)
    return curve


def shuffled_bits(data: Data, config: Config) -> dict[str, float]:
    """Bits of n-grams on thirds of a text whose characters are in no order."""
    text = data.train[: config.shuffled_characters]
    order = torch.randperm(len(text), generator=lab.generator(config.seeds[0]))
    third = len(text) // 3
    train, tune, heldout = text[order].split([len(text) - 2 * third, third, third])
    return {
        name: NGram(train, tune, n, len(data.vocabulary)).bits_per_character(heldout)
        for name, n in ORDERS.items()
    }


def sample(model: LanguageModel, data: Data, config: Config) -> list[dict[str, Any]]:
    """One sample a temperature, after one prompt."""
    drawn = []
    for temperature in config.temperatures:
        tokens = model.sample(
            data.vocabulary.encode(PROMPT)[None],
            config.sample_length,
            temperature=temperature,
            generator=lab.generator(config.seeds[0]),
        )
        text = data.vocabulary.decode(tokens[0])
        drawn.append({"temperature": temperature, "prompt": PROMPT, "text": text})
    return drawn


def run(config: Config, track: lab.Track) -> dict[str, Any]:
    """Train the LSTM and its control, count the n-grams, measure, sample."""
    data, seed = prepare(config), config.seeds[0]
    steps = round(config.passes * len(data.streams))
    model = characters.build(config, data.vocabulary, seed)
    marks = marks_of(steps, config.marks)
    curve = learning_curve(model, data, config, steps, marks)
    control = characters.build(config, data.vocabulary, seed, Forgetful)
    learning_curve(control, data, config, config.control_steps, [])
    ngrams = {
        n: data.ngram_bits(data.train, n)
        for n in track(range(1, config.longest_order + 1), "n-grams")
    }
    cases: dict[str, Any] = {
        name: {
            "bits": data.bits(network),
            "bits_reset": data.bits_reset(network, config.horizon),
            "bigram": ngrams[2],
        }
        for name, network in (("lstm", model), ("without_memory", control))
    }
    cases["text"] = {name: ngrams[n] for name, n in ORDERS.items()}
    cases["shuffled_text"] = shuffled_bits(data, config)
    series = {
        "curve": curve,
        "orders": [{"order": n, "bits": bits} for n, bits in ngrams.items()],
        "resets": [
            {"every": every, "bits": data.bits_reset(model, every)}
            for every in config.resets
        ],
        "samples": sample(model, data, config),
        "corpus": data.corpus.describe(),
    }
    sizes = {
        "vocabulary": len(data.vocabulary),
        "uniform": math.log2(len(data.vocabulary)),
        "unknown_heldout": int((data.heldout == 0).sum()),
        "predicted": data.evaluation().predicted,
        "parameters": lab.parameter_count(model),
    }
    return {"numbers": sizes | numbers(cases, series), "series": series, "cases": cases}


def numbers(cases: Mapping[str, Any], series: Mapping[str, Any]) -> dict[str, Any]:
    """The LSTM beside the n-grams, and beside itself with its state emptied."""
    lstm, fivegram = cases["lstm"]["bits"], cases["text"]["fivegram"]
    curve, corpus, longest = series["curve"], series["corpus"], series["orders"][-1]
    # Where the LSTM first has fewer bits than the 5-gram counted on the same text.
    ahead = [p["characters"] for p in curve if p["lstm"] < p["fivegram"]]
    return {
        **{f"modules_{part}": n for part, n in corpus["modules"].items()},
        **{f"characters_{part}": n for part, n in corpus["characters"].items()},
        "python": corpus["python"],
        "steps": curve[-1]["steps"],
        "characters_read": curve[-1]["characters"],
        "lstm": lstm,
        "lstm_perplexity": 2**lstm,
        "lstm_nats": lstm * math.log(2),
        **cases["text"],
        "longest_order": longest["order"],
        "longest_ngram": longest["bits"],
        "longest_order_wins": longest["bits"] < lstm,
        "lstm_minus_fivegram": lstm - fivegram,
        "lstm_wins": lstm < fivegram,
        "first_mark_ahead": ahead[0] if ahead else None,
        "without_memory": cases["without_memory"]["bits"],
        "reset_costs": {str(p["every"]): p["bits"] - lstm for p in series["resets"]},
    }


def bits_table(record: Mapping[str, Any]) -> str:
    """Bits per character of each model."""
    numbers = record["numbers"]
    labels = {"uniform": f"uniform over {numbers['vocabulary']} symbols"} | LABELS
    labels |= {"without_memory": "LSTM without memory (control)", "lstm": "LSTM"}
    return lab.table(
        ["model", "bits per character"],
        [[label, f"{numbers[name]:.3f}"] for name, label in labels.items()],
    )


def reset_table(record: Mapping[str, Any]) -> str:
    """What it costs to empty the state every so often."""
    carried = record["numbers"]["lstm"]
    rows = [
        [
            f"every {p['every']} characters",
            f"{p['bits']:.3f}",
            f"{p['every'] * (p['bits'] - carried):.1f}",
        ]
        for p in record["series"]["resets"]
    ]
    return lab.table(
        ["state emptied", "bits per character", "bits lost each time"],
        [*rows, ["never", f"{carried:.3f}", "0"]],
    )


def samples(record: Mapping[str, Any]) -> str:
    """The samples, each in a fence of its own."""
    parts = []
    for drawn in record["series"]["samples"]:
        lines = (drawn["prompt"] + drawn["text"]).splitlines()
        # Spaces at line ends would be cut by editors and make the file differ.
        text = "\n".join(line.rstrip() for line in lines)
        head = f"Temperature {drawn['temperature']:g}:"
        parts.append(f"{head}\n\n````text\n{text}\n````\n")
    return "\n".join(parts)


def draw_curve(figure: Any, record: Mapping[str, Any], theme: lab.Theme) -> None:
    """Held-out bits against characters read; n-grams of all the text as lines."""
    axes = figure.subplots()
    numbers, curve = record["numbers"], record["series"]["curve"]
    x = [p["characters"] for p in curve]
    for i, (key, text) in enumerate((("lstm", "LSTM"), ("fivegram", "5-gram"))):
        y = [p[key] for p in curve]
        style = {"color": theme.colours[i], "linestyle": lab.DASHES[i]}
        style |= {"marker": "os"[i], "markersize": 4}
        axes.plot(x, y, label=f"{text}, same text", **style)
    for i, name in enumerate(ORDERS):
        value, colour = numbers[name], theme.colours[i + 2]
        axes.axhline(value, color=colour, linestyle=lab.DASHES[i + 2], linewidth=1.2)
        lab.label_line(axes, x[-1] * 1.15, value, f"{LABELS[name]}, all text", colour)
    axes.set_xscale("log")
    axes.set_xlim(x[0] / 1.15, x[-1] * 1.15)
    axes.set_xlabel("training characters read")
    axes.set_title("Bits per character on held-out modules")
    axes.legend(frameon=False, loc="center right", bbox_to_anchor=(1, 0.79))


experiment = lab.Experiment(
    small=Config(
        hidden_size=64,
        embedding_size=32,
        horizon=32,
        learning_rate=0.015,
        train_characters=150_000,
        heldout_characters=40_000,
        longest_order=6,
        marks=3,
        resets=(4, 32),
        control_steps=150,
        shuffled_characters=100_000,
        sample_length=100,
        temperatures=(1.0,),
    ),
    run=run,
    claims=[
        lab.Claim(
            "first_model.memory",
            "The LSTM needs at least 0.2 bits per character less than a bigram model "
            "on held-out modules.",
            lab.above(lambda case: case["bigram"] - case["bits"], 0.2),
            case="lstm",
            control="without_memory",
        ),
        lab.Claim(
            "first_model.state",
            "Emptying the trained LSTM's state at the start of every chunk costs more "
            "than 0.01 bits per character.",
            lab.above(lambda case: case["bits_reset"] - case["bits"], 0.01),
            case="lstm",
            control="without_memory",
        ),
        lab.Claim(
            "first_model.context",
            "More context lowers the bits of n-grams: 5-gram below bigram below "
            "unigram, by more than 0.5 in all.",
            lab.all_of(
                lab.above(lambda case: case["unigram"] - case["fivegram"], 0.5),
                lambda case: lab.Outcome.between(
                    case["bigram"], case["fivegram"], case["unigram"]
                ),
            ),
            case="text",
            control="shuffled_text",
        ),
    ],
    tables={
        "bits": bits_table,
        "equal_text": lab.Table(
            rows="series.curve",
            columns={
                "characters read": "characters",
                "bigram": lab.fixed("bigram", 3),
                "5-gram": lab.fixed("fivegram", 3),
                "LSTM": lab.fixed("lstm", 3),
            },
        ),
        "orders": lab.Table(
            rows="series.orders",
            columns={"order n": "order", "bits per character": lab.fixed("bits", 3)},
        ),
        "resets": reset_table,
        "samples": samples,
    },
    figures={"curve": draw_curve},
)
