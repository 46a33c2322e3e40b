r"""Which phonemes each letter stands for, learned by expectation maximisation."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from seqref.errors import check_size
from seqref.tasks.pronunciation.dictionary import (
    Lexicon,
    Phonemes,
    check_lexicon,
    check_pronunciation,
)

MOST = 2
"""Phonemes that one letter may stand for, at most."""

TIE = 1e-9
"""Logarithms of probabilities that differ by no more count as equal."""

Graphone = tuple[str, Phonemes]
"""A letter with its none, one or two phonemes: `("x", ("K", "S"))`."""


class _Group(NamedTuple):
    r"""Pairs with equally many letters and equally many phonemes."""

    letters: np.ndarray
    chunks: list[np.ndarray]

    @property
    def sizes(self) -> tuple[int, int, int]:
        r"""Pairs, letters and phonemes."""
        return *self.letters.shape, self.chunks[0].shape[1] - 1


class Aligner:
    r"""A unigram model of graphones: letters with none, one or two phonemes each.

    $$ P(w, \varphi) = \sum_{\text{cuts of } \varphi} \prod_i q(w_i, \varphi_i) $$

    Here $\varphi_i$ is the piece of the phonemes that letter $w_i$ gets, in order. The
    table $q$ sums to 1 over letters and pieces, and no iteration of expectation
    maximisation lowers the likelihood of the pairs. Sums are taken in logarithms, so
    that long words do not underflow.

    Args:
        lexicon: Words and pronunciations to learn from. A pronunciation of more than
            two phonemes a letter is left out.
        iterations: Steps of expectation maximisation, from a uniform table.

    Cost:
        O(letters * phonemes) time for a pair and an iteration.

    Raises:
        ValueError: `iterations` is below 0, the lexicon is empty, or no pair can be
            aligned.
        TypeError: `iterations` is no int, or a word has one bare pronunciation in place
            of a list.
    """

    def __init__(self, lexicon: Lexicon, iterations: int = 8):
        check_size("Aligner", "iterations", iterations, minimum=0)
        check_lexicon("Aligner", lexicon)
        pairs = [(w, said) for w, all_of_it in lexicon.items() for said in all_of_it]
        letters = sorted({letter for word, _ in pairs for letter in word})
        self.letters = {letter: i for i, letter in enumerate(letters)}
        names = sorted({name for _, said in pairs for name in said})
        self.phonemes = {name: i for i, name in enumerate(names)}
        n = len(names)
        self._learned(np.ones((len(self.letters), 1 + n + n * n)))
        self.log_likelihoods: list[float] = []
        groups = list(self._groups(pairs))
        if not groups:
            raise ValueError(
                "Aligner: `lexicon` must have a word with at most "
                f"{MOST} phonemes a letter, got {len(pairs)} others"
            )
        for _ in range(iterations):
            counts = np.zeros_like(self.q)
            self.log_likelihoods.append(
                sum(self._expect(group, counts) for group in groups)
            )
            self._learned(counts)

    def log_probability(self, word: str, phonemes: Phonemes) -> float:
        r"""Natural logarithm of $P$ above; minus infinity where no cut is known.

        Raises:
            TypeError: `phonemes` is one string.
        """
        check_pronunciation("Aligner.log_probability", "phonemes", phonemes)
        if not self._knows(word, phonemes):
            return -np.inf
        return float(self._forward(self._group([(word, phonemes)]))[-1][0, -1])

    def align(self, word: str, phonemes: Phonemes) -> list[Graphone] | None:
        r"""The likeliest cut of the phonemes; None where no cut has a probability.

        A letter or a phoneme that was never seen has none. Of cuts that are equally
        likely, the one whose last letters have the fewest.

        Raises:
            TypeError: `phonemes` is one string.
        """
        check_pronunciation("Aligner.align", "phonemes", phonemes)
        if not self._knows(word, phonemes):
            return None
        phonemes = tuple(phonemes)
        group = self._group([(word, phonemes)])
        best = self._forward(group, np.maximum)
        place, pieces = len(phonemes), []
        if best[-1][0, place] == -np.inf:
            return None
        for i in range(len(word) - 1, -1, -1):
            q = self._table(group, i)
            ways = [
                best[i][0, place - k] + q[k][0, place - k] if k <= place else -np.inf
                for k in range(MOST + 1)
            ]
            # The same factors in another order may differ by rounding.
            k = int(np.argmax(np.array(ways) >= max(ways) - TIE))
            pieces.append((word[i], phonemes[place - k : place]))
            place -= k
        return pieces[::-1]

    def _learned(self, counts: np.ndarray) -> None:
        self.q = counts / counts.sum()
        with np.errstate(divide="ignore"):
            self._log_q = np.log(self.q)

    def _knows(self, word: str, phonemes: Phonemes) -> bool:
        known = self.letters.keys() >= set(word)
        return known and self.phonemes.keys() >= set(phonemes)

    def _groups(self, pairs: list[tuple[str, Phonemes]]) -> Iterator[_Group]:
        by_size: dict[tuple[int, int], list[tuple[str, Phonemes]]] = {}
        for word, said in pairs:
            if len(said) <= MOST * len(word):
                by_size.setdefault((len(word), len(said)), []).append((word, said))
        return (self._group(alike) for alike in by_size.values())

    def _group(self, pairs: list[tuple[str, Phonemes]]) -> _Group:
        letters = np.array([[self.letters[c] for c in word] for word, _ in pairs])
        said = np.array(
            [[self.phonemes[name] for name in names] for _, names in pairs], np.int64
        ).reshape(len(pairs), -1)
        n = len(self.phonemes)
        # The piece of k phonemes that begins at each place, as a column of the table.
        nothing = np.zeros((len(pairs), said.shape[1] + 1), np.int64)
        chunks = [nothing, 1 + said, 1 + n + n * said[:, :-1] + said[:, 1:]]
        return _Group(letters, chunks)

    def _table(self, group: _Group, i: int) -> list[np.ndarray]:
        r"""Logarithm of q of letter i with pieces: for k = 0, 1, 2, (pairs, places)."""
        return [self._log_q[group.letters[:, i, None], piece] for piece in group.chunks]

    def _forward(
        self, group: _Group, join: np.ufunc = np.logaddexp
    ) -> list[np.ndarray]:
        r"""Logarithm of the probability of the first i letters with j phonemes."""
        pairs, letters, phonemes = group.sizes
        alpha = np.full((letters + 1, pairs, phonemes + 1), -np.inf)
        alpha[0, :, 0] = 0
        for i in range(letters):
            for k, q in enumerate(self._table(group, i)):
                width = q.shape[1]
                onto = alpha[i + 1, :, k : k + width]
                join(onto, alpha[i, :, :width] + q, out=onto)
        return list(alpha)

    def _expect(self, group: _Group, counts: np.ndarray) -> float:
        r"""Add the expected counts of a group; returns its log-likelihood."""
        alpha = self._forward(group)
        total = alpha[-1][:, -1]
        # Logarithms of the rest of the word's probability, over that of the pair.
        beta = np.full_like(alpha[0], -np.inf)
        beta[:, -1] = -total
        for i in range(len(alpha) - 2, -1, -1):
            before = np.full_like(beta, -np.inf)
            for k, q in enumerate(self._table(group, i)):
                width = q.shape[1]
                flow = q + beta[:, k : k + width]
                onto = before[:, :width]
                np.logaddexp(onto, flow, out=onto)
                letter = np.broadcast_to(group.letters[:, i, None], q.shape)
                expected = np.exp(alpha[i][:, :width] + flow)
                np.add.at(counts, (letter, group.chunks[k]), expected)
            beta = before
        return float(total.sum())
