r"""Noise inside an LSTM where a small training set is learned by heart.

The task is to tell the sign of a sum: of two features out of several, over the first
half of a sequence of normal noise. Networks see a hundred or fewer sequences again and
again, until they know them, and are tried on others at regular intervals. For each
seed the best loss and the best accuracy on those others are taken, whenever they came.
The kinds differ in the layer alone: plain, zoneout, variational dropout with both of
its masks and with either; and plain once more with other seeds, as a measure of chance.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from experiments import lab
from seqref import LSTM, VariationalLSTM, ZoneoutLSTM


@dataclass(frozen=True)
class Config:
    """The task, the network, the rates of the noise and the training of one run."""

    steps: int = 20
    features: int = 8
    width: int = 32
    n_training: int = 100
    n_heldout: int = 2000
    updates: int = 300
    check_every: int = 10
    learning_rate: float = 0.005
    zoneout_c: float = 0.5
    zoneout_h: float = 0.05
    dropout_x: float = 0.25
    dropout_h: float = 0.25
    seeds: tuple[int, ...] = tuple(range(5))
    control_seeds: tuple[int, ...] = tuple(range(20, 25))


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
    if name == "zoneout":
        c, h = config.zoneout_c, config.zoneout_h
        return ZoneoutLSTM(*sizes, zoneout_c=c, zoneout_h=h)
    if name.startswith("variational"):
        x = 0.0 if name == "variational_state" else config.dropout_x
        h = 0.0 if name == "variational_inputs" else config.dropout_h
        return VariationalLSTM(*sizes, dropout_x=x, dropout_h=h)
    return LSTM(*sizes)


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
    random = lab.generator(seed)
    x, target = batch(config, config.n_training, random)
    heldout = batch(config, config.n_heldout, random)
    scores = []
    with lab.seeded(seed):
        network = Network(config, name)
        optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
        for update in range(1, config.updates + 1):
            loss = binary_cross_entropy_with_logits(network(x), target)
            lab.descend(optimiser, loss)
            if update % config.check_every == 0:
                scores.append(score(network, *heldout))
    losses, rights = zip(*scores, strict=True)
    return {
        "loss": min(losses),
        "accuracy": max(rights),
        "last_loss": losses[-1],
        "own_accuracy": score(network, x, target)[1],
    }


def run(config: Config, track: lab.Track) -> dict:
    """Every kind over all seeds, and its differences from the plain layer."""
    runs, cases = {}, {}
    # Each case has its differences from the plain layer.
    names = [name for name in LABELS if name == "plain" or lab.wanted(name)]
    for name in track(names, "lstm_variants_training"):
        seeds = config.control_seeds if name == "plain_again" else config.seeds
        runs[name] = [train(config, name, seed) for seed in seeds]
        case = cases[name] = {}
        for key in runs[name][0]:
            values, plain = ([row[key] for row in runs[n]] for n in (name, "plain"))
            case[key] = lab.mean_interval(values)
            differences = [a - b for a, b in zip(values, plain, strict=True)]
            case[f"{key}_difference"] = lab.mean_interval(differences)
        del case["own_accuracy_difference"]
    return {"series": {"runs": runs}, "cases": cases}


def lower(key: str, least: float) -> lab.Check:
    r"""That a quantity is lower than the plain layer's, by more than so much.

    Other seeds of the plain layer differ as well, and so in both directions.
    """
    return lab.all_of(
        lab.below(f"{key}_difference.high", 0, lab.share),
        lab.above(lambda case: -case[f"{key}_difference"]["mean"], least),
        number=f"{key}_difference.mean",
    )


def mean_text(values: Mapping[str, float]) -> str:
    """A mean with its bootstrap interval: 0.591 (0.531 to 0.643)."""
    low, high = values["low"], values["high"]
    return f"{lab.number(values['mean'])} ({low:.3f} to {high:.3f})"


experiment = lab.Experiment(
    # More noise and more seeds than in the full run: over eight of them the difference
    # of two sets of plain layers now and then came near what is claimed of zoneout.
    small=Config(
        steps=10,
        width=16,
        n_training=60,
        n_heldout=1000,
        updates=220,
        check_every=20,
        learning_rate=0.01,
        zoneout_c=0.7,
        zoneout_h=0.3,
        dropout_x=0.75,
        dropout_h=0.75,
        seeds=tuple(range(16)),
        control_seeds=tuple(range(20, 36)),
    ),
    run=run,
    claims=[
        lab.Claim(
            "C141.zoneout",
            "When the training set is known by heart, the loss on other sequences is "
            "lower by more than 0.1 nats with zoneout; with other seeds alone it is "
            "not.",
            lower("last_loss", 0.1),
            case="zoneout",
            control="plain_again",
        ),
        lab.Claim(
            "C141.variational",
            "With variational dropout the best accuracy on other sequences is lower by "
            "more than two points, with an interval below zero; with other seeds alone "
            "it is not.",
            lower("accuracy", 0.02),
            case="variational",
            control="plain_again",
        ),
    ],
    numbers=[
        *(
            lab.each(f"{key}.mean", key)
            for key in ("loss", "accuracy", "last_loss", "own_accuracy")
        ),
        *(
            lab.each(
                f"accuracy_difference.{end}",
                f"accuracy_points_{end}",
                lambda share: 100 * share,
            )
            for end in ("mean", "low", "high")
        ),
    ],
    tables={
        "heldout": lab.Table(
            labels=LABELS,
            heading="LSTM",
            columns={
                "best loss": lab.cell("loss", mean_text),
                "best accuracy": lab.cell("accuracy", mean_text),
                "last loss": lab.cell("last_loss", mean_text),
            },
        )
    },
)
