r"""Counting: read $a^n b^n$ and say at each $b$ whether it is the last."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqref.errors import check_size
from seqref.tasks._batch import check_dtype

A, B = (1.0, 0.0), (0.0, 1.0)


class Words(NamedTuple):
    r"""Words, what is to be answered at each step, and the steps of each word.

    `targets` is 1 at a word's last $b$, 0 at the others, and NaN where nothing is
    asked: at every $a$, and in the padding.
    """

    x: Float[Tensor, "batch time 2"]
    targets: Float[Tensor, "batch time"]
    lengths: Int[Tensor, " batch"]


def counting_words(
    counts: Iterable[int],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Words:
    r"""The word $a^n b^n$ for each $n$ in `counts`, padded on the right with zeros.

    A word is complete at its last $b$, and nothing but the number of $a$ says when
    that is.

    Args:
        counts: The n of each word, at least 1.
        dtype: Floating dtype of inputs and targets.
        device: Where the words go; `None` is torch's default device.

    Shapes:
        - returns: `x` (batch, time, input = 2), one-hot; `targets` (batch, time);
          `lengths` (batch,); time is twice the largest count

    Raises:
        TypeError: a count is no int, or `dtype` no floating dtype.
        ValueError: a count is below 1, or there is none.

    Source:
        None: a design of this package on the language $a^n b^n$, by which Suzgun,
        Belinkov & Shieber (2018) and others try whether a network counts.
    """
    found = list(counts)
    check_dtype("counting_words", dtype)
    if not found:
        raise ValueError("counting_words: `counts` must hold at least one n, got none")
    for n in found:
        check_size("counting_words", "counts", n)
    n = torch.tensor(found, device=device)[:, None]
    t = torch.arange(2 * max(found), device=device)
    is_a, is_b = t < n, (t >= n) & (t < 2 * n)
    x = torch.stack([is_a, is_b], dim=-1).to(dtype)
    targets = torch.full(is_b.shape, math.nan, dtype=dtype, device=device)
    targets[is_b] = (t == 2 * n - 1)[is_b].to(dtype)
    return Words(x, targets, 2 * n[:, 0])


def words_right(
    said: Float[Tensor, "batch time"], targets: Float[Tensor, "batch time"]
) -> Tensor:
    r"""Which words are right throughout: yes (above 0) at the last $b$ and only there.

    Args:
        said: A number for each step, such as a logit; above 0 means yes.
        targets: As in `Words`.

    Shapes:
        - `said`, `targets`: (batch, time); returns (batch,), bool

    Raises:
        ValueError: the shapes differ.
    """
    if said.shape != targets.shape:
        raise ValueError(
            f"words_right: `said` must have the shape of `targets`, "
            f"{tuple(targets.shape)}, got {tuple(said.shape)}"
        )
    return (((said > 0) == (targets > 0)) | targets.isnan()).all(dim=1)


def memoryless_loss(counts: Iterable[int]) -> float:
    r"""Least cross-entropy, in nats per $b$, of an answer that knows only it is a $b$.

    Of the $\sum n$ letters $b$ as many are last ones as there are words, so the best
    answer is that share $p$, and its loss $-p \ln p - (1 - p) \ln (1 - p)$.

    Raises:
        TypeError: a count is no int.
        ValueError: a count is below 1, or there is none.
    """
    found = list(counts)
    if not found:
        raise ValueError("memoryless_loss: `counts` must hold at least one n, got none")
    for n in found:
        check_size("memoryless_loss", "counts", n)
    p = len(found) / sum(found)
    return 0.0 if p == 1 else -p * math.log(p) - (1 - p) * math.log1p(-p)
