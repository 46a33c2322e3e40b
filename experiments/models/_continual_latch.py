r"""A task on a stream without marked ends: which of two marks came last?"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments import lab
from seqref import LSTM, LSTM1997

NOISE = 3
MARKS = 2
INPUTS = NOISE + MARKS


def stream(
    batch: int, steps: int, random: torch.Generator, share: float = 0.1
) -> tuple[Tensor, Tensor]:
    """Symbols one-hot, one in ten a mark and the first always; and the last mark."""
    is_mark = torch.rand(batch, steps, generator=random) < share
    is_mark[:, 0] = True
    mark = torch.randint(0, MARKS, (batch, steps), generator=random)
    noise = torch.randint(0, NOISE, (batch, steps), generator=random)
    symbol = torch.where(is_mark, NOISE + mark, noise)
    place = torch.arange(steps).expand(batch, -1).masked_fill(~is_mark, 0)
    return F.one_hot(symbol, INPUTS).float(), mark.gather(1, place.cummax(1).values)


def held_in_range(layer: LSTM1997 | LSTM, x: Tensor, steps: int) -> Tensor:
    """Outputs where no cell state may leave the range that it had in the first steps.

    What growth alone costs: the network is the same, and so is its stream.
    """
    state, outputs = layer.initial_state(x.shape[0]), []
    largest = torch.zeros(layer.hidden_size)
    for t, x_t in enumerate(x.unbind(1)):
        y_t, state = layer.step(x_t, state)
        outputs.append(y_t)
        if t < steps:
            largest = torch.maximum(largest, state.c.abs().amax(0))
        else:
            state = state._replace(c=state.c.clamp(-largest, largest))
    return torch.stack(outputs, dim=1)


def layer_of(kind: str, width: int) -> LSTM1997 | LSTM:
    """One of the trained layers by its name."""
    if kind == "lstm":
        return LSTM(INPUTS, width)
    return LSTM1997(INPUTS, width, gradient=kind)


def trained(config: Any, kind: str, seed: int) -> dict[str, float]:
    """Train on short pieces from a fresh state, test on one long stream."""
    with lab.seeded(seed):
        layer = layer_of(kind, config.train_width)
        head = nn.Linear(config.train_width, MARKS)
    parameters = [*layer.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    random = lab.generator(seed + 1000)
    for _ in range(config.train_updates):
        x, target = stream(config.train_batch, config.train_steps, random)
        loss = F.cross_entropy(head(layer(x)[0]).flatten(0, 1), target.flatten())
        lab.descend(optimizer, loss, max_norm=1.0)
    random = lab.generator(seed + 2000)
    x, target = stream(config.train_batch, config.test_steps, random)
    with torch.no_grad():
        y, state = layer(x)
        held = held_in_range(layer, x, config.train_steps)
        right, right_held = (
            (head(outputs).argmax(-1) == target).double().mean(0)
            for outputs in (y, held)
        )
    tail = config.test_steps // 10
    return {
        "first": right[: config.train_steps].mean().item(),
        "last": right[-tail:].mean().item(),
        "held": right_held[-tail:].mean().item(),
        "largest": state.c.abs().max().item(),
    }
