r"""One run: train a network on fresh sequences, stop when solved, try it on others."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from experiments import lab


@dataclass(frozen=True)
class Problem:
    r"""A task as the training sees it.

    - `task(lag).draw(batch_size, random)`: inputs (batch, time, input) and targets.
    - `loss(outputs, targets)`: a scalar; `outputs` is (batch, time, output).
    - `score(outputs, targets)`: a number that is higher for better outputs.
    - `enough`: a batch with a loss below this counts towards the early stop.
    - `solved`: a run whose score is at least this has solved the task.
    """

    input_size: int
    output_size: int
    task: Callable[[int], Any]
    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[Tensor, Tensor], float]
    enough: float
    solved: float


@dataclass(frozen=True)
class Cell:
    r"""One setting of a grid; `horizon` is what the initialisation is told."""

    recipe: str
    hidden_size: int
    learning_rate: float
    lag: int
    updates: int
    horizon: float


def train(
    problem: Problem,
    network: nn.Module,
    cell: Cell,
    batch_size: int,
    seed: int,
    *,
    max_norm: float = 1.0,
    patience: int = 10,
    decay: bool = False,
) -> int:
    r"""Train in place; the number of updates that were made.

    Adam with its default betas, gradients clipped to a norm of `max_norm`, every batch
    drawn anew. Training stops early at the last of `patience` batches in a row whose
    loss, before any update on them, was below `Problem.enough`. With `decay` the
    learning rate goes down to 0 in a line.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=cell.learning_rate)
    random, in_a_row = lab.generator(seed + 1000), 0
    for update in range(cell.updates):
        x, targets = problem.task(cell.lag).draw(batch_size, random)
        loss = problem.loss(network(x), targets)
        in_a_row = in_a_row + 1 if loss.item() < problem.enough else 0
        # Before the update, which might undo what this loss has shown.
        if in_a_row == patience:
            return update
        if decay:
            left = 1 - update / cell.updates
            optimizer.param_groups[0]["lr"] = cell.learning_rate * left
        lab.descend(optimizer, loss, max_norm)
    return cell.updates


@torch.no_grad()
def score(
    problem: Problem, network: nn.Module, lag: int, tests: int, seed: int
) -> float:
    """The score on so many sequences that no run was trained on."""
    x, targets = problem.task(lag).draw(tests, lab.generator(seed + 2000))
    return problem.score(network(x), targets)
