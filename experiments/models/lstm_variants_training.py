r"""Noise inside an LSTM where a small training set is learned by heart.

The task is to tell the sign of a sum: of two features out of several, over the first
half of a sequence of normal noise. Networks see a hundred or fewer sequences again and
again, until they know them, and are tried on others at regular intervals. For each
seed the best loss and the best accuracy on those others are taken, whenever they came.
The kinds differ in the layer alone: plain, zoneout, variational dropout with both of
its masks and with either; and plain once more with other seeds, as a measure of chance.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from experiments.lab.claim import Claim, Outcome, share
from experiments.lab.experiment import Experiment, Track, untracked
from experiments.lab.seeding import generator, seeded
from experiments.lab.statistics import mean_interval
from experiments.lab.tables import number, table
from seqref import LSTM, VariationalLSTM, ZoneoutLSTM


@dataclass(frozen=True)
class Config:
    """The task, the network, the rates of the noise and the training of one run."""

    steps: int
    features: int
    width: int
    n_training: int
    n_heldout: int
    updates: int
    check_every: int
    learning_rate: float
    zoneout_c: float
    zoneout_h: float
    dropout_x: float
    dropout_h: float
    seeds: tuple[int, ...]
    control_seeds: tuple[int, ...]


SMALL = Config(
    steps=10,
    features=8,
    width=16,
    n_training=60,
    n_heldout=1000,
    updates=320,
    check_every=10,
    learning_rate=0.01,
    zoneout_c=0.5,
    zoneout_h=0.05,
    dropout_x=0.75,
    dropout_h=0.75,
    seeds=tuple(range(8)),
    control_seeds=tuple(range(20, 28)),
)
FULL = Config(
    steps=20,
    features=8,
    width=32,
    n_training=100,
    n_heldout=2000,
    updates=300,
    check_every=10,
    learning_rate=0.005,
    zoneout_c=0.5,
    zoneout_h=0.05,
    dropout_x=0.25,
    dropout_h=0.25,
    seeds=tuple(range(5)),
    control_seeds=tuple(range(20, 25)),
)
LABELS = {
    "plain": "plain",
    "zoneout": "zoneout",
    "variational": "variational dropout",
    "variational_inputs": "the same, inputs alone",
    "variational_state": "the same, hidden state alone",
    "plain_again": "plain, other seeds",
}


def layer_of(config: Config, name: str) -> nn.Module:
    """The layer of a kind."""
    sizes = config.features, config.width

    def variational(dropout_x: float, dropout_h: float) -> nn.Module:
        return VariationalLSTM(*sizes, dropout_x=dropout_x, dropout_h=dropout_h)

    makers: dict[str, Callable[[], nn.Module]] = {
        "plain": lambda: LSTM(*sizes),
        "plain_again": lambda: LSTM(*sizes),
        "zoneout": lambda: ZoneoutLSTM(
            *sizes, zoneout_c=config.zoneout_c, zoneout_h=config.zoneout_h
        ),
        "variational": lambda: variational(config.dropout_x, config.dropout_h),
        "variational_inputs": lambda: variational(config.dropout_x, 0.0),
        "variational_state": lambda: variational(0.0, config.dropout_h),
    }
    return makers[name]()


def batch(
    config: Config, size: int, random: torch.Generator
) -> tuple[Float[Tensor, "batch time features"], Float[Tensor, " batch"]]:
    """Normal noise; 1 where features 0 and 1 sum to more than 0 in the first half."""
    x = torch.randn(size, config.steps, config.features, generator=random)
    return x, (x[:, : config.steps // 2, :2].sum((1, 2)) > 0).float()


class Network(nn.Module):
    """A layer and a head on its last output, the log odds of a 1."""

    def __init__(self, config: Config, name: str) -> None:
        super().__init__()
        self.layer = layer_of(config, name)
        self.head = nn.Linear(config.width, 1)

    def forward(
        self, x: Float[Tensor, "batch time features"]
    ) -> Float[Tensor, " batch"]:
        return self.head(self.layer(x)[0][:, -1])[:, 0]


def score(network: Network, x: Tensor, target: Tensor) -> tuple[float, float]:
    """Loss in nats and accuracy, in evaluation."""
    network.eval()
    with torch.no_grad():
        odds = network(x)
    network.train()
    right = ((odds > 0) == (target > 0)).float().mean().item()
    return binary_cross_entropy_with_logits(odds, target).item(), right


def train(config: Config, name: str, seed: int) -> dict[str, float]:
    """One network: the best on other sequences, and what it knows of its own."""
    random = generator(seed)
    x, target = batch(config, config.n_training, random)
    heldout = batch(config, config.n_heldout, random)
    losses, rights = [], []
    with seeded(seed):
        network = Network(config, name)
        optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
        for update in range(1, config.updates + 1):
            loss = binary_cross_entropy_with_logits(network(x), target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if update % config.check_every == 0:
                found = score(network, *heldout)
                losses.append(found[0])
                rights.append(found[1])
    return {
        "loss": min(losses),
        "accuracy": max(rights),
        "last_loss": losses[-1],
        "own_accuracy": score(network, x, target)[1],
    }


def run(config: Config, track: Track = untracked) -> dict[str, Any]:
    """Every kind over all seeds, and its differences from the plain layer."""
    runs = {
        name: [
            train(config, name, seed)
            for seed in (
                config.control_seeds if name == "plain_again" else config.seeds
            )
        ]
        for name in track(LABELS, "lstm_variants_training")
    }
    cases = {
        name: {
            **{key: mean_interval([r[key] for r in found]) for key in found[0]},
            **{
                f"{key}_difference": mean_interval(
                    [a[key] - b[key] for a, b in zip(found, runs["plain"], strict=True)]
                )
                for key in ("loss", "accuracy", "last_loss")
            },
        }
        for name, found in runs.items()
    }
    numbers = {
        f"{name}_{key}": case[key]["mean"]
        for name, case in cases.items()
        for key in ("loss", "accuracy", "last_loss", "own_accuracy")
    }
    for name, case in cases.items():
        for key, value in case["accuracy_difference"].items():
            numbers[f"{name}_accuracy_points_{key}"] = 100 * value
    return {"numbers": numbers, "series": {"runs": runs}, "cases": cases}


def _helps(case: Mapping[str, Any]) -> Outcome:
    found = case["last_loss_difference"]
    return Outcome.all_of(
        found["mean"],
        Outcome.below(found["high"], 0, share),
        Outcome.above(-found["mean"], 0.1),
    )


def _harms(case: Mapping[str, Any]) -> Outcome:
    found = case["accuracy_difference"]
    # Other seeds of the plain layer differ as well, and so in both directions.
    return Outcome.all_of(
        found["mean"],
        Outcome.below(found["high"], 0, share),
        Outcome.above(-found["mean"], 0.02),
    )


CLAIMS = (
    Claim(
        "C141.zoneout",
        "When the training set is known by heart, the loss on other sequences is lower "
        "by more than 0.1 nats with zoneout; with other seeds alone it is not.",
        _helps,
        case="zoneout",
        control="plain_again",
    ),
    Claim(
        "C141.variational",
        "With variational dropout the best accuracy on other sequences is lower by "
        "more than two points, with an interval below zero; with other seeds alone it "
        "is not.",
        _harms,
        case="variational",
        control="plain_again",
    ),
)


def tables(record: Mapping[str, Any]) -> dict[str, str]:
    """Means over the seeds, with bootstrap intervals."""
    headers = ["LSTM", "best loss", "best accuracy", "last loss"]
    keys = ("loss", "accuracy", "last_loss")
    rows = []
    for name, label in LABELS.items():
        found = [record["cases"][name][key] for key in keys]
        cells = [
            f"{number(f['mean'])} ({f['low']:.3f} to {f['high']:.3f})" for f in found
        ]
        rows.append([label, *cells])
    return {"heldout": table(headers, rows)}


experiment = Experiment(
    small=SMALL,
    full=FULL,
    run=run,
    claims=CLAIMS,
    tables=tables,
)
