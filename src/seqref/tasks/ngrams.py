r"""Interpolated n-gram models of characters: the baseline a neural model must beat."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqref.errors import check_size, check_tensor

# Contexts are grouped by the binary logarithm of their count; a context seen more
# than 2**15 times shares the last group.
BUCKETS = 16


class _Counts(NamedTuple):
    r"""Counts of one order: sorted codes of n-grams and of their contexts."""

    grams: np.ndarray
    gram_counts: np.ndarray
    contexts: np.ndarray
    context_counts: np.ndarray


class NGram:
    r"""A character n-gram model with Jelinek-Mercer interpolation.

    $$ p_k(x_t \mid u_k) = \lambda_k(u_k)\, \frac{c(u_k x_t)}{c(u_k)}
       + (1 - \lambda_k(u_k))\, p_{k-1}(x_t \mid u_{k-1}), \qquad p_0 = 1/V $$

    Here $u_k$ is the last $k - 1$ characters before $x_t$, $c(u_k x_t)$ how often the
    training text has them followed by $x_t$, and $c(u_k) = \sum_x c(u_k x)$. The
    model's probability is $p_n$, $n$ the order. One weight $\lambda_k$ serves all
    contexts of order $k$ whose count has the same binary logarithm (rounded down);
    the weight of a context that was never seen is 0, so $p_k = p_{k-1}$ there. The
    weights come from expectation maximisation on text that was not counted.

    The first characters of a text have fewer than $n - 1$ characters before them and
    are predicted by the orders that fit.

    Args:
        tokens: The training text as indices; it is counted.
        tune: Text that is not in `tokens`; the weights are fitted to it.
        order: The n of the n-gram: 1 sees no context, 5 the last four characters.
        vocab_size: Number of indices, V.
        iterations: Steps of expectation maximisation, at least 0.

    Shapes:
        - `tokens`: (time,); `tune`: (time,), both whole numbers in 0 to V - 1

    Cost:
        O(n T log T) time and O(n T) memory for T training characters.

    Raises:
        ValueError: `order` or `vocab_size` below 1, V**order beyond 64 bits,
            `iterations` below 0, an index outside the vocabulary, or a text that is
            empty.
        TypeError: `tokens` or `tune` is no tensor of integers; a number is no int.

    Source:
        Jelinek & Mercer (1980), in the recursive form of Chen & Goodman (1999).
        Differs: weights grouped by the logarithm of the context's count; one
        pseudo-count for each outcome in every weight's update; ends in the uniform
        distribution.
    """

    def __init__(
        self,
        tokens: Int[Tensor, " time"],
        tune: Int[Tensor, " tune"],
        order: int,
        vocab_size: int,
        iterations: int = 30,
    ):
        _check("NGram", order, vocab_size, iterations)
        self.order, self.vocab_size = order, vocab_size
        text = self._checked("NGram", "tokens", tokens)
        held = self._checked("NGram", "tune", tune)
        self._counts: list[_Counts] = []
        self._learn(text, held, (), iterations)

    @classmethod
    def of_orders(
        cls,
        tokens: Int[Tensor, " time"],
        tune: Int[Tensor, " tune"],
        orders: Sequence[int],
        vocab_size: int,
        iterations: int = 30,
    ) -> "Iterator[NGram]":
        r"""Models of several orders, each the same as if it were made alone.

        Each order is counted once, and looked up once in `tune`, for all models.

        Args:
            tokens: As for the class.
            tune: As for the class.
            orders: Rising. A model is made when it is asked for.
            vocab_size: As for the class.
            iterations: As for the class.

        Raises:
            ValueError, TypeError: as for the class; `orders` does not rise.
        """
        where = "NGram.of_orders"
        if not orders or any(b <= a for a, b in pairwise(orders)):
            raise ValueError(f"{where}: `orders` must rise, got {orders}")
        for order in orders:
            _check(where, order, vocab_size, iterations)
        models = [cls.__new__(cls) for _ in orders]
        for model, order in zip(models, orders, strict=True):
            model.order, model.vocab_size = order, vocab_size
        text = models[0]._checked(where, "tokens", tokens)
        held = models[0]._checked(where, "tune", tune)

        def made() -> "Iterator[NGram]":
            counts, evidence = [], ()
            for model in models:
                model._counts = counts
                evidence = model._learn(text, held, evidence, iterations)
                counts = model._counts
                yield model

        return made()

    def log_probs(self, tokens: Int[Tensor, " time"]) -> Float[np.ndarray, " time"]:
        r"""Natural logarithm of each character's probability given those before it.

        Raises:
            ValueError: `tokens` is empty or holds an index outside the vocabulary.
            TypeError: `tokens` is no tensor of integers.
        """
        text = self._checked("NGram.log_probs", "tokens", tokens)
        evidence = _evidence(text, self._counts, self.vocab_size)
        return np.log(_interpolated(evidence, self.weights, self.vocab_size)[-1])

    def bits_per_character(self, tokens: Int[Tensor, " time"]) -> float:
        r"""Mean cross-entropy in bits over every character but the first.

        The first character has no context in any model; it serves as the context of
        the second. A neural model that reads `tokens[:-1]` and predicts `tokens[1:]`
        predicts the same characters.

        Units:
            Bits per character.

        Raises:
            ValueError: `tokens` has fewer than 2 characters, or holds an index
                outside the vocabulary.
            TypeError: `tokens` is no tensor of integers.
        """
        where = "NGram.bits_per_character"
        text = self._checked(where, "tokens", tokens)
        if len(text) < 2:
            raise ValueError(
                f"{where}: `tokens` must have at least 2 characters, got {len(text)}"
            )
        return float(-self.log_probs(tokens)[1:].mean() / math.log(2))

    def distribution(
        self, context: Int[Tensor, " time"]
    ) -> Float[np.ndarray, " vocab"]:
        r"""Probabilities of the next character after `context`; they sum to 1.

        The context may be empty.

        Raises:
            ValueError: `context` is not one row, or holds an index outside the
                vocabulary.
            TypeError: `context` is no tensor of integers.
        """
        text = self._checked("NGram.distribution", "context", context, least=0)
        before = text.tolist()[-(self.order - 1) :] if self.order > 1 else []
        rows = np.array([[*before, x] for x in range(self.vocab_size)], dtype=np.int64)
        parts = [_evidence(row, self._counts, self.vocab_size) for row in rows]
        last = tuple(np.stack(p, -1)[:, -1] for p in zip(*parts, strict=True))
        return _interpolated(last, self.weights, self.vocab_size)[-1]

    def _checked(
        self, where: str, name: str, tokens: Tensor, least: int = 1
    ) -> np.ndarray:
        check_tensor(where, name, tokens)
        kind = tokens.dtype
        if kind == torch.bool or kind.is_floating_point or kind.is_complex:
            raise TypeError(f"{where}: `{name}` must hold whole numbers, got {kind}")
        text = tokens.detach().cpu().numpy().astype(np.int64, copy=False)
        if text.ndim != 1 or len(text) < least:
            raise ValueError(
                f"{where}: `{name}` must be one row of characters, got shape "
                f"{text.shape}"
            )
        if len(text) and (text.min() < 0 or text.max() >= self.vocab_size):
            raise ValueError(
                f"{where}: `{name}` must lie in 0 to {self.vocab_size - 1}, "
                f"got {text.min()} to {text.max()}"
            )
        return text

    def _learn(
        self,
        text: np.ndarray,
        held: np.ndarray,
        evidence: tuple[np.ndarray, ...],
        iterations: int,
    ) -> tuple[np.ndarray, ...]:
        r"""Count and look up the orders that are not there yet; fit all weights."""
        missing = range(len(self._counts) + 1, self.order + 1)
        added = [_count(text, k, self.vocab_size) for k in missing]
        more = _evidence(held, added, self.vocab_size, first=missing.start)
        if evidence:
            more = tuple(map(np.concatenate, zip(evidence, more, strict=True)))
        self._counts = self._counts + added
        self.weights = _fitted(more, self.vocab_size, iterations)
        return more


def _check(where: str, order: int, vocab_size: int, iterations: int) -> None:
    check_size(where, "order", order)
    check_size(where, "vocab_size", vocab_size)
    check_size(where, "iterations", iterations, minimum=0)
    if vocab_size**order >= 2**63:
        raise ValueError(
            f"{where}: `vocab_size` ** `order` must be below 2**63, "
            f"got {vocab_size} ** {order}"
        )


def _evidence(
    text: np.ndarray, counted: "list[_Counts]", vocab_size: int, first: int = 1
) -> tuple[np.ndarray, ...]:
    r"""For each order and character: relative frequency, group, context seen?"""
    relative = np.zeros((len(counted), len(text)))
    buckets = np.zeros(relative.shape, dtype=np.int64)
    seen = np.zeros(relative.shape, dtype=bool)
    for row, counts in enumerate(counted):
        k = first + row
        codes = _codes(text, k, vocab_size)
        gram = _look_up(counts.grams, counts.gram_counts, codes)
        context = _look_up(counts.contexts, counts.context_counts, codes // vocab_size)
        # The first k - 1 characters have no context of this length.
        seen[row, k - 1 :] = context > 0
        relative[row, k - 1 :] = gram / np.maximum(context, 1)
        exponent = np.log2(np.maximum(context, 1)).astype(np.int64)
        buckets[row, k - 1 :] = np.minimum(exponent, BUCKETS - 1)
    return relative, buckets, seen


def _interpolated(
    evidence: tuple[np.ndarray, ...], weights: np.ndarray, vocab_size: int
) -> np.ndarray:
    r"""p_0 to p_n for each character, by the recursion of the class."""
    relative, buckets, seen = evidence
    p = np.empty((len(relative) + 1, relative.shape[1]))
    p[0] = 1 / vocab_size
    for k in range(1, len(relative) + 1):
        weight = np.where(seen[k - 1], weights[k - 1][buckets[k - 1]], 0.0)
        p[k] = weight * relative[k - 1] + (1 - weight) * p[k - 1]
    return p


def _fitted(
    evidence: tuple[np.ndarray, ...], vocab_size: int, iterations: int
) -> np.ndarray:
    r"""The weights of each order and group, by expectation maximisation."""
    relative, buckets, seen = evidence
    weights = np.full((len(relative), BUCKETS), 0.5)
    for _ in range(iterations):
        p = _interpolated(evidence, weights, vocab_size)
        # Probability, given the character, that its mixture was left at order k
        # (`stop`) or at an order below it; the top order is always reached.
        reach = np.ones(relative.shape[1])
        for k in range(len(relative), 0, -1):
            weight = weights[k - 1][buckets[k - 1]]
            stop = np.where(seen[k - 1], weight * relative[k - 1] / p[k], 0.0)
            at, reached = buckets[k - 1][seen[k - 1]], reach[seen[k - 1]]
            stopped = (reach * stop)[seen[k - 1]]
            # One pseudo-count each way keeps a weight inside (0, 1).
            weights[k - 1] = (np.bincount(at, stopped, BUCKETS) + 1) / (
                np.bincount(at, reached, BUCKETS) + 2
            )
            reach = reach * (1 - stop)
    return weights


def _codes(text: np.ndarray, order: int, vocab_size: int) -> np.ndarray:
    r"""Each window of `order` characters as one number in base `vocab_size`."""
    length = max(len(text) - order + 1, 0)
    codes = np.zeros(length, dtype=np.int64)
    for offset in range(order):
        codes = codes * vocab_size + text[offset : offset + length]
    return codes


def _count(text: np.ndarray, order: int, vocab_size: int) -> _Counts:
    grams, gram_counts = np.unique(_codes(text, order, vocab_size), return_counts=True)
    contexts, first = np.unique(grams // vocab_size, return_index=True)
    if len(grams) == 0:
        return _Counts(grams, gram_counts, contexts, gram_counts)
    return _Counts(grams, gram_counts, contexts, np.add.reduceat(gram_counts, first))


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    if len(keys) == 0:
        return np.zeros(len(wanted), dtype=np.int64)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)
