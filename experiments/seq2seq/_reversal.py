r"""Models that write random symbols, in their order or backwards."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from experiments import lab
from seqref.models import EncoderDecoder
from seqref.tasks.reversal import Reversal


@dataclass(frozen=True)
class Training:
    """Length of the longest source, symbols, updates, rows of one, step, test rows."""

    longest: int = 12
    symbols: int = 8
    updates: int = 400
    batch_size: int = 32
    learning_rate: float = 0.01
    tests: int = 400


Read = Callable[[Tensor, Tensor], Tensor]


def as_it_is(source: Tensor, lengths: Tensor) -> Tensor:
    """The source: what is to be written is its reversal."""
    return source


def flipped(source: Tensor, lengths: Tensor) -> Tensor:
    """The source from its last symbol to its first, which is what is to be written."""
    place = lengths[:, None] - 1 - torch.arange(source.shape[1])
    return torch.where(place >= 0, source.gather(1, place.clamp_min(0)), 0)


def trained(
    build: Callable[[int], EncoderDecoder], read: Read, training: Training, seed: int
) -> EncoderDecoder:
    """A model of so many tokens, after its updates."""
    task = Reversal(training.longest, 1, training.symbols)
    with lab.seeded(seed):
        model = build(task.vocab_size)
    optimizer = torch.optim.Adam(model.parameters(), lr=training.learning_rate)
    stream = lab.generator(seed)
    for _ in range(training.updates):
        pairs = task.draw(training.batch_size, stream)
        lengths = pairs.source_lengths, pairs.target_lengths
        source = read(pairs.source, pairs.source_lengths)
        logits = model(source, pairs.target_in, *lengths)
        loss = cross_entropy(logits.flatten(0, 1), pairs.target_out.flatten())
        lab.descend(optimizer, loss, max_norm=1.0)
    return model


def right(model: nn.Module, read: Read, length: int, training: Training) -> Tensor:
    """Which symbols of new sources of one length are right, each after true ones.

    A row that is right as a whole is what greedy decoding writes, too.
    """
    task = Reversal(length, None, training.symbols)
    pairs = task.draw(training.tests, lab.generator(10_000 + length))
    with torch.no_grad():
        logits = model(read(pairs.source, pairs.source_lengths), pairs.target_in)
    return (logits.argmax(dim=-1) == pairs.target_out)[:, :length]
