r"""A character LSTM and n-grams on the source of Python's standard library.

All models learn from the same modules and predict the same characters of held-out
modules. The n-grams count the training text; the LSTM reads it in parallel streams by
truncated backpropagation through time. At each mark of the learning curve the n-grams
are counted anew on the characters that the LSTM has read by then.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch

from experiments.lab.claim import Claim, Outcome
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.seeding import generator, seeded
from experiments.models._first_control import Forgetful
from experiments.models._first_data import ORDERS, Config, Data, prepare
from experiments.models._first_pictures import draw_curve, tables
from seqref.models import LanguageModel
from seqref.recurrent import LSTM
from seqref.tasks import NGram, Streams
from seqref.training import Step, evaluate, train

PROMPT = "    def __init__(self, "


SMALL = Config(
    hidden_size=64,
    embedding_size=32,
    batch_size=16,
    horizon=32,
    passes=1.0,
    learning_rate=0.015,
    max_norm=1.0,
    min_count=20,
    train_characters=150_000,
    heldout_characters=40_000,
    longest_order=6,
    marks=3,
    resets=(4, 32),
    control_steps=150,
    shuffled_characters=100_000,
    sample_length=100,
    temperatures=(1.0,),
    seeds=(0,),
)
FULL = Config(
    hidden_size=256,
    embedding_size=64,
    batch_size=16,
    horizon=64,
    passes=1.0,
    learning_rate=0.008,
    max_norm=1.0,
    min_count=20,
    train_characters=None,
    heldout_characters=None,
    longest_order=8,
    marks=8,
    resets=(4, 16, 64, 256),
    control_steps=500,
    shuffled_characters=1_000_000,
    sample_length=400,
    temperatures=(0.5, 0.8, 1.0),
    seeds=(0,),
)


def build(config: Config, vocab_size: int, *, memory: bool = True) -> LanguageModel:
    """The language model, or its control without memory."""
    with seeded(config.seeds[0]):
        layer = LSTM(config.embedding_size, config.hidden_size)
        return LanguageModel(vocab_size, layer if memory else Forgetful(layer))


def marks_of(steps: int, count: int) -> list[int]:
    """Steps at which the curve is measured: halving from the last one down."""
    return sorted({max(steps // 2**i, 1) for i in range(count)})


def bits(model: LanguageModel, streams: Streams, *, carry: bool = True) -> float:
    """Bits per character over all targets of `streams`."""
    return evaluate(model, streams, carry=carry) / math.log(2)


def fit(
    model: LanguageModel, data: Data, config: Config, steps: int, marks: list[int]
) -> list[dict[str, float]]:
    """Train for `steps` chunks; held-out bits at each mark."""
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=steps, eta_min=config.learning_rate / 10
    )
    curve = []

    def measure(step: Step) -> None:
        if step.number in marks:
            point = {"steps": step.number, "characters": step.characters}
            curve.append({**point, "lstm": bits(model, data.evaluation())})

    train(
        model,
        data.streams,
        optimizer,
        steps,
        max_norm=config.max_norm,
        scheduler=scheduler,
        on_step=measure,
    )
    return curve


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Train the LSTM and its control, count the n-grams, measure, sample."""
    data = prepare(config)
    steps = round(config.passes * len(data.streams))
    model = build(config, len(data.vocabulary))
    curve: list[dict[str, float]] = []
    found: dict[str, Any] = {"ngrams": {}, "resets": []}
    for stage in track(("LSTM", "control", "n-grams", "resets"), "first_model"):
        if stage == "LSTM":
            curve = fit(model, data, config, steps, marks_of(steps, config.marks))
        elif stage == "control":
            found["control"] = control(data, config)
        elif stage == "n-grams":
            found["ngrams"] = ngram_bits(data, config)
            for point in curve:
                text = data.read_by(int(point["steps"]))
                for name in ("bigram", "fivegram"):
                    point[name] = data.ngram_bits(text, ORDERS[name])
        else:
            found["resets"] = resets(model, data, config)
    cases = cases_of(found, curve, data, config)
    numbers = summary(found, curve, data, model)
    samples = sample(model, data, config)
    orders = [{"order": n, "bits": b} for n, b in found["ngrams"].items()]
    return {
        "numbers": numbers,
        "series": {
            "curve": curve,
            "orders": orders,
            "resets": found["resets"],
            "samples": samples,
            "corpus": data.corpus.describe(),
        },
        "cases": cases,
    }


def control(data: Data, config: Config) -> dict[str, float]:
    """Held-out bits of the model without memory, state carried and not."""
    model = build(config, len(data.vocabulary), memory=False)
    fit(model, data, config, config.control_steps, [])
    return {
        "bits": bits(model, data.evaluation()),
        "bits_reset": bits(model, data.evaluation(config.horizon), carry=False),
    }


def ngram_bits(data: Data, config: Config) -> dict[int, float]:
    """Held-out bits of every order, counted on the whole training text."""
    orders = range(1, config.longest_order + 1)
    return {n: data.ngram_bits(data.train, n) for n in orders}


def resets(
    model: LanguageModel, data: Data, config: Config
) -> list[dict[str, float | int]]:
    """Held-out bits where the state is emptied every so many characters."""
    return [
        {"every": every, "bits": bits(model, data.evaluation(every), carry=False)}
        for every in config.resets
    ]


def sample(model: LanguageModel, data: Data, config: Config) -> list[dict[str, Any]]:
    """One sample a temperature, after one prompt."""
    prompt = data.vocabulary.encode(PROMPT)[None]
    drawn = []
    for temperature in config.temperatures:
        tokens = model.sample(
            prompt,
            config.sample_length,
            temperature=temperature,
            generator=generator(config.seeds[0]),
        )
        text = data.vocabulary.decode(tokens[0])
        drawn.append({"temperature": temperature, "prompt": PROMPT, "text": text})
    return drawn


def cases_of(
    found: Mapping[str, Any],
    curve: list[dict[str, float]],
    data: Data,
    config: Config,
) -> dict[str, Any]:
    """What the claims are checked on: two models, two texts."""
    ngrams = found["ngrams"]
    every = {point["every"]: point["bits"] for point in found["resets"]}
    text = data.train[: config.shuffled_characters]
    order = torch.randperm(len(text), generator=generator(config.seeds[0]))
    third = len(text) // 3
    shuffled = text[order]
    parts = shuffled[: -2 * third], shuffled[-2 * third : -third], shuffled[-third:]
    vocab = len(data.vocabulary)
    return {
        "lstm": {
            "bits": curve[-1]["lstm"],
            "bits_reset": every[config.horizon],
            "bigram": ngrams[2],
        },
        "without_memory": {**found["control"], "bigram": ngrams[2]},
        "text": {name: ngrams[n] for name, n in ORDERS.items()},
        "shuffled_text": {
            name: NGram(parts[0], parts[1], n, vocab).bits_per_character(parts[2])
            for name, n in ORDERS.items()
        },
    }


def summary(
    found: Mapping[str, Any],
    curve: list[dict[str, float]],
    data: Data,
    model: LanguageModel,
) -> dict[str, Any]:
    """Scalars for sentences."""
    ngrams, final = found["ngrams"], curve[-1]
    # Where the LSTM first has fewer bits than the 5-gram counted on the same text.
    ahead = [p["characters"] for p in curve if p["lstm"] < p["fivegram"]]
    facts = data.corpus.describe()
    corpus = {
        f"{key}_{part}": value
        for key in ("modules", "characters")
        for part, value in facts[key].items()  # pyright: ignore
    }
    return {
        **corpus,
        "python": facts["python"],
        "vocabulary": len(data.vocabulary),
        "unknown_heldout": int((data.heldout == 0).sum()),
        "predicted": data.evaluation().predicted,
        "parameters": sum(p.numel() for p in model.parameters()),
        "steps": int(final["steps"]),
        "characters_read": int(final["characters"]),
        "lstm": final["lstm"],
        "lstm_perplexity": 2 ** final["lstm"],
        "lstm_nats": final["lstm"] * math.log(2),
        **{name: ngrams[n] for name, n in ORDERS.items()},
        "uniform": math.log2(len(data.vocabulary)),
        "longest_order": max(ngrams),
        "longest_ngram": ngrams[max(ngrams)],
        "longest_order_wins": ngrams[max(ngrams)] < final["lstm"],
        "lstm_minus_fivegram": final["lstm"] - ngrams[5],
        "lstm_wins": final["lstm"] < ngrams[5],
        "first_mark_ahead": ahead[0] if ahead else None,
        "without_memory": found["control"]["bits"],
        "reset_costs": {
            str(p["every"]): p["bits"] - final["lstm"] for p in found["resets"]
        },
    }


def _beats_bigram(case: Mapping[str, Any]) -> Outcome:
    gain = case["bigram"] - case["bits"]
    return Outcome.above(gain, 0.2)


def _needs_its_state(case: Mapping[str, Any]) -> Outcome:
    cost = case["bits_reset"] - case["bits"]
    return Outcome.above(cost, 0.01)


def _context_helps(case: Mapping[str, Any]) -> Outcome:
    gain = case["unigram"] - case["fivegram"]
    ordered = Outcome.between(case["bigram"], case["fivegram"], case["unigram"])
    return Outcome.all_of(gain, ordered, Outcome.above(gain, 0.5))


CLAIMS = (
    Claim(
        "first_model.memory",
        "The LSTM needs at least 0.2 bits per character less than a bigram model on "
        "held-out modules.",
        _beats_bigram,
        case="lstm",
        control="without_memory",
    ),
    Claim(
        "first_model.state",
        "Emptying the trained LSTM's state at the start of every chunk costs more than "
        "0.01 bits per character.",
        _needs_its_state,
        case="lstm",
        control="without_memory",
    ),
    Claim(
        "first_model.context",
        "More context lowers the bits of n-grams: 5-gram below bigram below unigram, "
        "by more than 0.5 in all.",
        _context_helps,
        case="text",
        control="shuffled_text",
    ),
)


FIGURES = {"curve": draw_curve}
experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
    figures=FIGURES,
)
