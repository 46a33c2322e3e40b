r"""Digits as rows of different length: which state is read, and from which layer.

Each digit is the list of its inked pixels, 16 to 42 steps. Classifiers over several
layers are trained with their lengths; a linear model gets the same numbers, padded and
laid end to end. One more classifier is told no lengths and reads the last column of
the padded batch, as code without lengths does; it is tested on the batch as it was
padded in training and with more columns of zeros. Accuracies are on digits held out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from experiments.lab.claim import Claim, Outcome, share
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.seeding import generator, seeded
from experiments.lab.statistics import spread
from experiments.lab.tables import number, table
from seqref import GRU, LSTM, RNN, Bidirectional
from seqref.errors import import_extra
from seqref.models import SequenceClassifier
from seqref.recurrent.initialisation import forget_bias_
from seqref.tasks import Digits, inked_digits
from seqref.tasks.digits import CLASSES


@dataclass(frozen=True)
class Config:
    """The networks, their training, and how much the test rows are padded further."""

    networks: tuple[str, ...]
    train_rows: int
    test_rows: int
    width: int
    epochs: int
    batch_size: int
    learning_rate: float
    max_norm: float
    more_padding: tuple[int, ...]
    seeds: tuple[int, ...]


def _biased_lstm(width: int) -> nn.Module:
    layer = LSTM(3, width)
    forget_bias_(layer, 3.0)
    return layer


def _both(width: int) -> nn.Module:
    return Bidirectional(GRU(3, width // 2), GRU(3, width // 2))


MAKERS: dict[str, Callable[[int], nn.Module]] = {
    "rnn": lambda width: RNN(3, width),
    "lstm": lambda width: LSTM(3, width),
    "lstm_forget_bias": _biased_lstm,
    "gru": lambda width: GRU(3, width),
    "gru_bidirectional": _both,
}
LABELS = {
    "rnn": "RNN",
    "lstm": "LSTM, torch's default weights",
    "lstm_forget_bias": "LSTM, forget bias 3",
    "gru": "GRU",
    "gru_bidirectional": "GRU in both directions, each of half the width",
    "first_step": "GRU that sees the first pixel alone",
    "last_column": "GRU without lengths, last column read",
    "linear": "linear model of the same numbers",
    "linear_image": "linear model of the image, 64 pixels in place",
}
SMALL = Config(
    networks=("gru",),
    train_rows=1000,
    test_rows=400,
    width=32,
    epochs=12,
    batch_size=32,
    learning_rate=0.02,
    max_norm=1.0,
    more_padding=(0, 40),
    seeds=(0,),
)
FULL = Config(
    networks=tuple(MAKERS),
    train_rows=1297,
    test_rows=500,
    width=64,
    epochs=30,
    batch_size=64,
    learning_rate=0.01,
    max_norm=1.0,
    more_padding=(0, 10, 40),
    seeds=(0, 1, 2, 3, 4),
)


def lengthen(x: Float[Tensor, "rows time 3"], steps: int) -> Float[Tensor, "..."]:
    """The same rows with more columns of zeros."""
    return nn.functional.pad(x, (0, 0, 0, steps))


def train(
    config: Config, network: SequenceClassifier, rows: Digits, seed: int, mode: str
) -> None:
    """Fit the network; `mode` says how it is told where a row ends."""
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    random = generator(seed + 1000)
    for _ in range(config.epochs):
        order = torch.randperm(len(rows.labels), generator=random)
        for chosen in order.split(config.batch_size):
            part = Digits(*(each[chosen] for each in rows))
            loss = cross_entropy(logits(network, part, mode), part.labels)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), config.max_norm)
            optimiser.step()


def logits(network: SequenceClassifier, rows: Digits, mode: str) -> Tensor:
    """With each row's length, with one step of each row, or without any length."""
    if mode == "lengths":
        return network(rows.x, rows.lengths)
    if mode == "first_step":
        return network(rows.x, torch.ones_like(rows.lengths))
    return network(rows.x)


def accuracies(
    config: Config, kind: str, mode: str, parts: tuple[Digits, Digits], seed: int
) -> dict[str, float]:
    """Accuracy on the test rows, by the number of columns added to them."""
    fitting, held_out = parts
    with seeded(seed):
        network = SequenceClassifier(MAKERS[kind](config.width), CLASSES)
    train(config, network, fitting, seed, mode)
    found = {}
    for steps in config.more_padding:
        rows = held_out._replace(x=lengthen(held_out.x, steps))
        with torch.no_grad():
            right = logits(network, rows, mode).argmax(1) == rows.labels
        found[str(steps)] = right.double().mean().item()
    return found


def linear_accuracy(parts: tuple[Digits, Digits], image: bool) -> float:
    """Accuracy of logistic regression on the padded lists, or on the images."""
    models: Any = import_extra("sklearn.linear_model", "digits_classifier", "data")
    fitting, held_out = (
        (as_images(part) if image else part.x.flatten(1)).numpy() for part in parts
    )
    model = models.LogisticRegression(max_iter=5000)
    model.fit(fitting, parts[0].labels.numpy())
    return float(model.score(held_out, parts[1].labels.numpy()))


def as_images(part: Digits) -> Float[Tensor, "rows 64"]:
    """The images that the lists were made of, flat."""
    place = (part.x[..., 0] * 56 + part.x[..., 1] * 7).round().long()
    # The padding adds nothing, to the first pixel.
    return torch.zeros(len(place), 64).scatter_add_(1, place, part.x[..., 2])


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Train every network on every split."""
    jobs = [(kind, kind, "lengths") for kind in config.networks]
    jobs += [("first_step", "gru", "first_step"), ("last_column", "gru", "last_column")]
    found: dict[str, list[dict[str, float]]] = {name: [] for name, _, _ in jobs}
    baselines: dict[str, list[float]] = {"linear": [], "linear_image": []}
    for seed in track(config.seeds, "digits_classifier"):
        fitting, held_out = inked_digits(config.test_rows, seed=seed)
        parts = Digits(*(each[: config.train_rows] for each in fitting)), held_out
        for name, kind, mode in jobs:
            found[name].append(accuracies(config, kind, mode, parts, seed))
        for name, values in baselines.items():
            values.append(linear_accuracy(parts, image=name == "linear_image"))
    linear_median = spread(baselines["linear"])["median"]
    with_lengths = spread([row["0"] for row in found["gru"]])["median"]
    cases: dict[str, Any] = {
        name: _case(config, rows, linear_median, with_lengths)
        for name, rows in found.items()
    }
    for name, values in baselines.items():
        cases[name] = {"accuracy": {"0": spread(values)}}
    return {"numbers": summary(cases), "series": {}, "cases": cases}


def _case(
    config: Config,
    rows: list[dict[str, float]],
    linear_median: float,
    with_lengths: float,
) -> dict[str, Any]:
    by_padding = {
        str(steps): spread([row[str(steps)] for row in rows])
        for steps in config.more_padding
    }
    longest = str(max(config.more_padding))
    return {
        "accuracy": by_padding,
        "above_linear": by_padding["0"]["median"] - linear_median,
        "below_lengths": with_lengths - by_padding[longest]["median"],
    }


def summary(cases: Mapping[str, Any]) -> dict[str, Any]:
    """Accuracies in per cent, for sentences."""
    found = {}
    for name, case in cases.items():
        for steps, accuracy in case["accuracy"].items():
            end = "" if steps == "0" else f"_{steps}"
            found[f"{name}{end}"] = 100 * accuracy["median"]
    return found


def _misreads(case: Mapping[str, Any]) -> Outcome:
    found = case["below_lengths"]
    return Outcome.above(found, 0.3, share)


def _beats_linear(case: Mapping[str, Any]) -> Outcome:
    found = case["above_linear"]
    return Outcome.above(found, 0.05)


CLAIMS = (
    Claim(
        "C143",
        "A classifier that reads the last column of a padded batch is more than 30 "
        "points of accuracy below the same network with lengths, once the test rows "
        "are padded further than in training.",
        _misreads,
        case="last_column",
        control="gru",
    ),
    Claim(
        "C144",
        "A GRU over the inked pixels is more than 5 points above a linear model of the "
        "same numbers.",
        _beats_linear,
        case="gru",
        control="first_step",
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Accuracy of each network, and what more padding does to two of them."""
    cases = record["cases"]
    models = [
        [LABELS[name], _percent(cases[name]["accuracy"]["0"])]
        for name in LABELS
        if name in cases and name != "last_column"
    ]
    padding = record["run"]["config"]["more_padding"]
    rows = [
        [label, *[_percent(cases[name]["accuracy"][str(s)]) for s in padding]]
        for name, label in (
            ("gru", "lengths given, last real step read"),
            ("last_column", LABELS["last_column"]),
        )
    ]
    headers = ["classifier", *[f"{number(s)} more columns" for s in padding]]
    return {
        "models": table(
            ["classifier", "held-out digits named right, %: median (range)"], models
        ),
        "padding": table(headers, rows),
    }


def _percent(found: Mapping[str, float]) -> str:
    middle, low, high = (100 * found[key] for key in ("median", "low", "high"))
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"


experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
)
