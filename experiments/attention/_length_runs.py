r"""One network: trained on inputs up to a length, and tried on longer ones."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import seqref
from experiments import lab
from experiments.attention._length_tasks import TASKS, Task
from seqref import LearnedPositions, MultiHeadAttention, Rotary
from seqref.attention import alibi_slopes
from seqref.models import (
    AddPositions,
    FeedForward,
    PositionState,
    PreNormBlock,
    SinusoidalPositions,
    Transformer,
)


@dataclass(frozen=True)
class Training:
    r"""Sizes, updates, and the lengths of training and of the trial.

    Updates draw a length from 1 to `train_to`; of counting each has all words up to it.
    The rate rises to its value over `warm_up` updates and falls to 0 in a line. Copying
    has blocks and a rate of its own: it takes one block to find the symbol before.
    """

    train_to: int = 10
    try_at: tuple[int, ...] = (10, 15, 20, 40)
    d_model: int = 32
    n_heads: int = 2
    n_layers: int = 1
    copying_layers: int = 2
    hidden_size: int = 32
    batch_size: int = 64
    learning_rate: float = 0.01
    copying_rate: float = 0.006
    warm_up: int = 20
    copying_updates: int = 500
    recall_updates: int = 150
    counting_updates: int = 200
    tests: int = 256


@dataclass(frozen=True)
class Kind:
    """A layer, and whether its positions begin at a random one in training."""

    label: str
    make: Callable[[Training], nn.Module]
    shifted: bool = False


def furthest(config: Training) -> int:
    """Steps of the longest trial."""
    return 2 * max(config.try_at)


def stack(
    config: Training, below: nn.Module | None = None, inside: Any = None
) -> nn.Module:
    """Pre-norm blocks, with what is added below them or used in their attention."""
    width = config.d_model
    layers: list[nn.Module] = [] if below is None else [AddPositions(below)]
    for _ in range(config.n_layers):
        attention = MultiHeadAttention(width, config.n_heads, positions=inside)
        layers.append(PreNormBlock(attention, FeedForward(width, 2 * width)))
    return Transformer(layers, last_norm=nn.LayerNorm(width))


def learned(config: Training) -> nn.Module:
    """A table with a row for each step of the longest trial."""
    return stack(config, LearnedPositions(furthest(config), config.d_model))


def waves(config: Training) -> nn.Module:
    """Sinusoidal positions."""
    return stack(config, SinusoidalPositions(config.d_model))


def rotary(config: Training) -> nn.Module:
    """Rotary positions."""
    return stack(config, inside=Rotary(config.d_model // config.n_heads))


def alibi(config: Training) -> nn.Module:
    """A bias by distance."""
    return stack(config, inside=alibi_slopes(config.n_heads))


KINDS = {
    "lstm": Kind("LSTM", lambda c: seqref.LSTM(c.d_model, c.hidden_size)),
    "gru": Kind("GRU", lambda c: seqref.GRU(c.d_model, c.hidden_size)),
    "none": Kind("no positions", stack),
    "sinusoidal": Kind("sinusoidal", waves),
    "learned": Kind("learned", learned),
    "rotary": Kind("rotary", rotary),
    "alibi": Kind("ALiBi", alibi),
    "learned_shifted": Kind("learned, random start", learned, shifted=True),
}


class Network(nn.Module):
    """A linear map of inputs, a layer, and a linear map of its outputs."""

    def __init__(self, task: Task, layer: Any) -> None:
        super().__init__()
        self.inward = nn.Linear(task.input_size, layer.input_size)
        # As rows of an embedding: beside sinusoids torch's own weights are small.
        nn.init.normal_(self.inward.weight)
        self.layer = layer
        width = getattr(layer, "output_size", None) or layer.hidden_size
        self.outward = nn.Linear(width, task.output_size)

    def forward(self, x: Tensor, starts: Tensor | None = None) -> Tensor:
        """Scores at each step; `starts` are the positions of the first."""
        state = self.layer.initial_state(len(x))
        if starts is not None:
            state = PositionState(starts), *state[1:]
        return self.outward(self.layer(self.inward(x), state)[0])

    @property
    def table(self) -> Tensor | None:
        """Learned positions, if there are any."""
        first = getattr(self.layer, "layers", [None])[0]
        return getattr(getattr(first, "positions", None), "weight", None)


def train(config: Training, name: str, kind: Kind, network: Network, seed: int) -> None:
    """Adam on lengths up to `train_to`, gradients clipped to a norm of 1."""
    task, random = TASKS[name], lab.generator(seed + 1000)
    updates = getattr(config, f"{name}_updates")
    rate = config.copying_rate if name == "copying" else config.learning_rate
    optimizer = torch.optim.Adam(network.parameters(), lr=rate, fused=True)
    for update in range(updates):
        rising = min(1.0, (update + 1) / config.warm_up)
        optimizer.param_groups[0]["lr"] = rate * rising * (1 - update / updates)
        length = int(torch.randint(config.train_to, (), generator=random)) + 1
        if name == "counting":
            length = config.train_to
        batch = task.draw(length, config.batch_size, random)
        starts = None
        if kind.shifted:
            room = furthest(config) - batch.x.shape[1] + 1
            starts = torch.randint(room, (len(batch.x),), generator=random)
        loss = task.loss(network(batch.x, starts), batch)
        lab.descend(optimizer, loss, max_norm=1.0)


@torch.no_grad()
def tried(config: Training, name: str, network: Network, seed: int) -> dict[str, Any]:
    """By length, shares of sequences without an error and of answers that are right."""
    task, random = TASKS[name], lab.generator(seed + 2000)
    exact, answers = [], []
    for length in config.try_at:
        # Nothing is drawn in counting: there is one word of each length.
        tests = 1 if name == "counting" else config.tests
        batch = task.draw(length, tests, random)
        right = task.right(network(batch.x), batch)
        exact.append((right | ~batch.asked).all(dim=1).double().mean().item())
        answers.append(right[batch.asked].double().mean().item())
    return {"exact": exact, "answers": answers}


def measure(config: Training, name: str, kind: str, seed: int) -> dict[str, Any]:
    """Train one network and try it; how many rows of a table have moved, and where."""
    if name == "copying":
        config = replace(config, n_layers=config.copying_layers)
    with lab.seeded(seed):
        network = Network(TASKS[name], KINDS[kind].make(config))
    table = network.table
    before = None if table is None else table.detach().clone()
    train(config, name, KINDS[kind], network, seed)
    result = tried(config, name, network, seed)
    result["parameters"] = lab.parameter_count(network)
    if table is not None and before is not None:
        moved = (table != before).any(dim=1)
        shown = 2 * config.train_to
        result["moved"] = int(moved[:shown].sum())
        result["moved_beyond"] = int(moved[shown:].sum())
    return result
