r"""Counting: read $a^n b^n$ and say at each $b$ whether it is the last."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqref.errors import check_shape, check_size
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
        TypeError: `counts` is no iterable, a count no int, or `dtype` no floating
            dtype.
        ValueError: a count is below 1, or there is none.

    Source:
        None: a design of this package on the language $a^n b^n$, by which Suzgun,
        Belinkov & Shieber (2018) and others try whether a network counts.
    """
    check_dtype("counting_words", dtype)
    listed = _listed("counting_words", counts)
    n = torch.tensor(listed, device=device)[:, None]
    t = torch.arange(2 * max(listed), device=device)
    is_a, is_b = t < n, (t >= n) & (t < 2 * n)
    x = torch.stack([is_a, is_b], dim=-1).to(dtype)
    is_last = (t == 2 * n - 1).to(dtype)
    targets = is_last.masked_fill(~is_b, math.nan)
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
        TypeError: one of them is no tensor.
        ValueError: the shapes differ, or are not (batch, time).
    """
    where = "words_right"
    check_shape(where, "targets", targets, (("batch", None), ("time", None)))
    axes = zip(("batch", "time"), targets.shape, strict=True)
    check_shape(where, "said", said, tuple(axes))
    return (((said > 0) == (targets > 0)) | targets.isnan()).all(dim=1)


def memoryless_loss(counts: Iterable[int]) -> float:
    r"""Least cross-entropy, in nats per $b$, of an answer that knows only it is a $b$.

    Of the $\sum n$ letters $b$ as many are last ones as there are words, so the best
    answer is that share $p$, and its loss $-p \ln p - (1 - p) \ln (1 - p)$.

    Raises:
        TypeError: `counts` is no iterable, or a count no int.
        ValueError: a count is below 1, or there is none.
    """
    listed = _listed("memoryless_loss", counts)
    p = len(listed) / sum(listed)
    return 0.0 if p == 1 else -p * math.log(p) - (1 - p) * math.log1p(-p)


def _listed(where: str, counts: Iterable[int]) -> list[int]:
    if not isinstance(counts, Iterable):
        kind = type(counts).__name__
        raise TypeError(f"{where}: `counts` must be an iterable of ints, got {kind}")
    listed = list(counts)
    if not listed:
        raise ValueError(f"{where}: `counts` must hold at least one n, got none")
    for n in listed:
        check_size(where, "counts", n)
    return listed
