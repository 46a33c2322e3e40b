r"""One run: train a network on fresh sequences, stop when solved, try it on others."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from experiments.lab.seeding import generator

Draw = Callable[[int, int, torch.Generator], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Problem:
    r"""A task as the training sees it.

    - `draw(batch_size, lag, random)` gives inputs (batch, time, input) and targets.
    - `loss(outputs, targets)`: a scalar; `outputs` is (batch, time, output).
    - `score(outputs, targets)`: a number that is higher for better outputs.
    - `enough`: a batch with a loss below this counts towards the early stop.
    - `solved`: a run whose score is at least this has solved the task.
    """

    input_size: int
    output_size: int
    draw: Draw
    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[Tensor, Tensor], float]
    enough: float
    solved: float


@dataclass(frozen=True)
class Schedule:
    r"""How a network is trained and tried.

    Adam with its default betas, gradients clipped to a norm of `max_norm`, every batch
    drawn anew. Training stops early at the last of `patience` batches in a row whose
    loss, before any update on them, was below `Problem.enough`. The score is taken on
    `tests` sequences.
    """

    batch_size: int = 32
    max_norm: float = 1.0
    patience: int = 10
    tests: int = 512


class Run(NamedTuple):
    r"""What became of one run: score on new sequences, updates that were made."""

    score: float
    updates: int


def train(
    problem: Problem,
    network: nn.Module,
    schedule: Schedule,
    lag: int,
    updates: int,
    learning_rate: float,
    seed: int,
) -> int:
    """Train in place; the number of updates that were made."""
    parameters = list(network.parameters())
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    random, in_a_row = generator(seed + 1000), 0
    for update in range(updates):
        x, targets = problem.draw(schedule.batch_size, lag, random)
        loss = problem.loss(network(x), targets)
        in_a_row = in_a_row + 1 if loss.item() < problem.enough else 0
        # Before the update, which might undo what this loss has shown.
        if in_a_row == schedule.patience:
            return update
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, schedule.max_norm)
        optimizer.step()
    return updates


@torch.no_grad()
def score(
    problem: Problem, network: nn.Module, schedule: Schedule, lag: int, seed: int
) -> float:
    """The score on sequences that no run was trained on."""
    x, targets = problem.draw(schedule.tests, lag, generator(seed + 2000))
    return problem.score(network(x), targets)
