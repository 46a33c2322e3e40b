r"""Three tasks of any length: as many answers as there are items to be read before.

Copying: a string, a delimiter, and the string again, each symbol asked for after the
true ones before it. All answers are right there where the string that a model writes by
itself, each time its likeliest symbol, is right. Recall: pairs of a key and a value in
one step each, then the keys in another order. Counting: $a^n b^n$, and at each $b$
whether it is the last.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    one_hot,
    pad,
)

from seqref.tasks import counting_words

SYMBOLS, VALUES = 48, 8
# Stands where nothing is asked; `cross_entropy` passes over it.
NOTHING = -100


class Batch(NamedTuple):
    """Inputs, what is to be answered, and where it is asked."""

    x: Tensor
    targets: Tensor
    asked: Bool[Tensor, "batch time"]


class Task(NamedTuple):
    r"""How a batch of one length is made, and how outputs are judged.

    - `draw(length, batch_size, random)`: a `Batch`.
    - `loss(outputs, batch)`: the mean over what is asked.
    - `right(outputs, batch)`: which answers are right, (batch, time).
    """

    input_size: int
    output_size: int
    draw: Callable[[int, int, torch.Generator], Batch]
    loss: Callable[[Tensor, Batch], Tensor]
    right: Callable[[Tensor, Batch], Tensor]


def distinct(
    length: int, batch_size: int, random: torch.Generator
) -> Int[Tensor, "batch length"]:
    """Symbols in a random order, each at most once in a row."""
    drawn = torch.rand(batch_size, SYMBOLS, generator=random)
    return drawn.argsort(dim=1)[:, :length]


def copying(length: int, batch_size: int, random: torch.Generator) -> Batch:
    """A string, a delimiter, and the string without its last symbol."""
    string = distinct(length, batch_size, random)
    delimiter = torch.full((batch_size, 1), SYMBOLS)
    read = torch.cat([string, delimiter, string[:, :-1]], dim=1)
    targets = pad(string, (length, 0), value=NOTHING)
    x = one_hot(read, SYMBOLS + 1).float()
    return Batch(x, targets, targets != NOTHING)


def recall(length: int, batch_size: int, random: torch.Generator) -> Batch:
    """Pairs of a key and a value, no key twice, and each key again without it."""
    keys = distinct(length, batch_size, random)
    values = torch.randint(VALUES, keys.shape, generator=random)
    order = torch.rand(keys.shape, generator=random).argsort(dim=1)
    shown = one_hot(torch.cat([keys, keys.gather(1, order)], dim=1), SYMBOLS)
    known = pad(one_hot(values, VALUES), (0, 0, 0, length))
    answers = values.gather(1, order)
    targets = pad(answers, (length, 0), value=NOTHING)
    x = torch.cat([shown, known], dim=-1).float()
    return Batch(x, targets, targets != NOTHING)


def counting(length: int, batch_size: int, random: torch.Generator) -> Batch:
    r"""The last `batch_size` of the words $a^n b^n$ with $n$ up to `length`."""
    x, targets, _ = counting_words(range(max(1, length - batch_size + 1), length + 1))
    return Batch(x, targets, ~targets.isnan())


def loss_of_classes(outputs: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy over what is asked."""
    return cross_entropy(outputs.flatten(0, 1), batch.targets.flatten())


def likeliest_is_right(outputs: Tensor, batch: Batch) -> Tensor:
    """Whether the largest score is that of the answer."""
    return outputs.argmax(dim=-1) == batch.targets


def loss_of_signs(outputs: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of yes and no over what is asked."""
    said, targets = outputs[..., 0][batch.asked], batch.targets[batch.asked]
    return binary_cross_entropy_with_logits(said, targets)


def sign_is_right(outputs: Tensor, batch: Batch) -> Tensor:
    """Whether the output is above 0 where the answer is yes, and nowhere else."""
    return (outputs[..., 0] > 0) == (batch.targets > 0)


_CLASSES = loss_of_classes, likeliest_is_right
TASKS = {
    "copying": Task(SYMBOLS + 1, SYMBOLS, copying, *_CLASSES),
    "recall": Task(SYMBOLS + VALUES, VALUES, recall, *_CLASSES),
    "counting": Task(2, 1, counting, loss_of_signs, sign_is_right),
}
