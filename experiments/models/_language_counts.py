r"""What counts alone give: characters, and pairs of them, in the part to learn from."""

import math

import torch
from torch import Tensor

from experiments.models._language_runs import Text, Training, cut_out

# By name, what is counted before the character that is predicted.
NAMES = {"frequencies": 0, "bigram": 1}


def log2_shares(counts: Tensor) -> Tensor:
    """Of each row the shares in bits; one is added to each count, so that none is 0."""
    counts = counts.double() + 1
    return (counts / counts.sum(dim=-1, keepdim=True)).log() / math.log(2)


def counted(training: Training, text: Text) -> dict[str, Tensor]:
    """Bits of each held-out window by name, over the places that a model is asked."""
    size, train = text.vocab_size, text.train
    single = log2_shares(torch.bincount(train, minlength=size))
    pairs = torch.bincount(train[:-1] * size + train[1:], minlength=size * size)
    after = log2_shares(pairs.reshape(size, size))
    windows = cut_out(text.heldout, training)[:, training.context :]
    read, targets = windows[:, :-1], windows[:, 1:]
    return {
        "frequencies": -single[targets].mean(dim=1),
        "bigram": -after[read, targets].mean(dim=1),
    }
