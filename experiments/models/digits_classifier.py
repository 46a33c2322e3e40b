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
from torch.nn.functional import cross_entropy, pad

from experiments import lab
from seqref import GRU, LSTM, RNN, Bidirectional
from seqref.errors import import_extra
from seqref.models import SequenceClassifier
from seqref.recurrent.initialisation import forget_bias_
from seqref.tasks import Digits, inked_digits
from seqref.tasks.digits import CLASSES


def _biased_lstm(width: int) -> nn.Module:
    layer = LSTM(3, width)
    forget_bias_(layer, 3.0)
    return layer


MAKERS: dict[str, Callable[[int], nn.Module]] = {
    "rnn": lambda width: RNN(3, width),
    "lstm": lambda width: LSTM(3, width),
    "lstm_forget_bias": _biased_lstm,
    "gru": lambda width: GRU(3, width),
    "gru_bidirectional": lambda width: Bidirectional(
        GRU(3, width // 2), GRU(3, width // 2)
    ),
}
LABELS = {
    "rnn": "RNN",
    "lstm": "LSTM, torch's default weights",
    "lstm_forget_bias": "LSTM, forget bias 3",
    "gru": "GRU",
    "gru_bidirectional": "GRU in both directions, each of half the width",
    "first_step": "GRU that sees the first pixel alone",
    "linear": "linear model of the same numbers",
    "linear_image": "linear model of the image, 64 pixels in place",
}


@dataclass(frozen=True)
class Config:
    """The networks, their training, and how much the test rows are padded further."""

    networks: tuple[str, ...] = tuple(MAKERS)
    train_rows: int = 1297
    test_rows: int = 500
    width: int = 64
    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 0.01
    max_norm: float = 1.0
    more_padding: tuple[int, ...] = (0, 10, 40)
    seeds: tuple[int, ...] = tuple(range(5))


def lengthen(x: Float[Tensor, "rows time 3"], steps: int) -> Float[Tensor, "..."]:
    """The same rows with more columns of zeros."""
    return pad(x, (0, 0, 0, steps))


def train(
    config: Config, network: SequenceClassifier, rows: Digits, seed: int, mode: str
) -> None:
    """Fit the network; `mode` says how it is told where a row ends."""
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    random = lab.generator(seed + 1000)
    for _ in range(config.epochs):
        order = torch.randperm(len(rows.labels), generator=random)
        for chosen in order.split(config.batch_size):
            part = Digits(*(each[chosen] for each in rows))
            loss = cross_entropy(logits(network, part, mode), part.labels)
            lab.descend(optimiser, loss, config.max_norm)


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
    with lab.seeded(seed):
        network = SequenceClassifier(MAKERS[kind](config.width), CLASSES)
    train(config, network, fitting, seed, mode)
    shares = {}
    for steps in config.more_padding:
        rows = held_out._replace(x=lengthen(held_out.x, steps))
        with torch.no_grad():
            right = logits(network, rows, mode).argmax(1) == rows.labels
        shares[str(steps)] = right.double().mean().item()
    return shares


def linear_accuracy(
    inputs: Callable[[Digits], Tensor], parts: tuple[Digits, Digits]
) -> float:
    """Accuracy of logistic regression on what `inputs` makes of the rows."""
    models: Any = import_extra("sklearn.linear_model", "digits_classifier", "data")
    fitting, held_out = ((inputs(part).numpy(), part.labels.numpy()) for part in parts)
    model = models.LogisticRegression(max_iter=5000).fit(*fitting)
    return float(model.score(*held_out))


def as_images(part: Digits) -> Float[Tensor, "rows 64"]:
    """The images that the lists were made of, flat."""
    place = (part.x[..., 0] * 56 + part.x[..., 1] * 7).round().long()
    # The padding adds nothing, to the first pixel.
    return torch.zeros(len(place), 64).scatter_add_(1, place, part.x[..., 2])


def run(config: Config, track: lab.Track) -> dict:
    """Train every network on every split."""
    jobs = {kind: (kind, "lengths") for kind in config.networks}
    jobs |= {mode: ("gru", mode) for mode in ("first_step", "last_column")}
    linear = {"linear": lambda part: part.x.flatten(1), "linear_image": as_images}
    shares: dict[str, list[dict[str, float]]] = {name: [] for name in (*jobs, *linear)}
    for seed in track(config.seeds, "digits_classifier"):
        fitting, held_out = inked_digits(config.test_rows, seed=seed)
        parts = Digits(*(each[: config.train_rows] for each in fitting)), held_out
        for name, (kind, mode) in jobs.items():
            shares[name].append(accuracies(config, kind, mode, parts, seed))
        for name, inputs in linear.items():
            shares[name].append({"0": linear_accuracy(inputs, parts)})
    cases: dict[str, Any] = {}
    for name, rows in shares.items():
        by_padding = {
            steps: lab.spread(row[steps] for row in rows) for steps in rows[0]
        }
        cases[name] = {"accuracy": by_padding}
    longest = max(config.more_padding)
    for name in jobs:
        gap = median_of(cases, name) - median_of(cases, "linear")
        cases[name]["above_linear"] = gap
        gap = median_of(cases, "gru") - median_of(cases, name, longest)
        cases[name]["below_lengths"] = gap
    return {"series": {}, "cases": cases}


def median_of(cases: Mapping[str, Any], name: str, steps: int = 0) -> float:
    """The median accuracy of a case, its rows padded by so many columns more."""
    return cases[name]["accuracy"][str(steps)]["median"]


def numbers(cases: Mapping[str, Any]) -> dict[str, float]:
    """Accuracies in per cent."""
    return {
        name if steps == "0" else f"{name}_{steps}": 100 * accuracy["median"]
        for name, case in cases.items()
        for steps, accuracy in case["accuracy"].items()
    }


def in_per_cent(steps: int) -> lab.Cell:
    """Accuracies of a row, padded by so many columns more."""
    return lab.with_span(f"accuracy.{steps}", lambda share: f"{100 * share:.1f}")


def padding_table(record: Mapping[str, Any]) -> lab.Table:
    """What more padding does to a network with lengths and to one without."""
    return lab.Table(
        labels={
            "gru": "lengths given, last real step read",
            "last_column": "GRU without lengths, last column read",
        },
        heading="classifier",
        columns={
            f"{lab.number(steps)} more columns": in_per_cent(steps)
            for steps in record["run"]["config"]["more_padding"]
        },
    )


experiment = lab.Experiment(
    small=Config(
        networks=("gru",),
        train_rows=1000,
        test_rows=400,
        width=32,
        epochs=12,
        batch_size=32,
        learning_rate=0.02,
        more_padding=(0, 40),
        seeds=(0,),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C143",
            "A classifier that reads the last column of a padded batch is more than 30 "
            "points of accuracy below the same network with lengths, once the test "
            "rows are padded further than in training.",
            lab.above("below_lengths", 0.3, lab.share),
            case="last_column",
            control="gru",
        ),
        lab.Claim(
            "C144",
            "A GRU over the inked pixels is more than 5 points above a linear model of "
            "the same numbers.",
            lab.above("above_linear", 0.05),
            case="gru",
            control="first_step",
        ),
    ],
    numbers=[numbers],
    tables={
        "models": lab.Table(
            labels=LABELS,
            heading="classifier",
            columns={"held-out digits named right, %: median (range)": in_per_cent(0)},
        ),
        "padding": padding_table,
    },
)
