r"""A joint n-gram model of letters and phonemes: the baseline without a network."""

import math
from collections.abc import Iterator
from heapq import nlargest
from typing import NamedTuple

import numpy as np

from seqref.errors import check_size
from seqref.tasks.pronunciation.alignment import Aligner, Graphone
from seqref.tasks.pronunciation.dictionary import Lexicon, Phonemes, check_lexicon

END = ("", ())
"""The graphone that ends a word."""

START = -1
"""Stands before the first graphone of each word: seen, and never predicted."""


class _Followers(NamedTuple):
    r"""What followed a history: letter by letter, with the counts of each graphone."""

    of_letter: dict[str, dict[int, int]]
    total: int
    kinds: int


class Graphones:
    r"""Pronounces words by an n-gram model of aligned letters and phonemes.

    $$ P(w, \varphi) = \sum_{\text{cuts}} \prod_{i=1}^{L+1}
       p_n(g_i \mid g_{i-n+1}, \dots, g_{i-1}), \qquad
       p_k(g \mid u) = \frac{c(u g) + t(u)\, p_{k-1}(g \mid u')}{c(u) + t(u)} $$

    A graphone $g$ is a letter with its none, one or two phonemes; a cut of $\varphi$
    makes the $L$ letters of $w$ into $g_1, \dots, g_L$. $g_0$ is START, which is never
    predicted and has nothing before it, and $g_{L+1}$ is END. The history $u$ is that
    of the last $k - 1$ graphones, fewer where START is reached; $u'$ lacks the oldest
    one. $c$ counts in the likeliest cut of each word that `Aligner` gives, and $t(u)$
    is how many kinds of graphones followed $u$ (Witten and Bell's weight). Where $u$
    was never seen, $p_k = p_{k-1}$; $p_0$ is uniform.

    Args:
        lexicon: Words and pronunciations to learn from.
        order: The n above: 1 sees each letter alone.
        iterations: Steps of expectation maximisation of the alignment.

    Raises:
        ValueError: `order` is below 1, `iterations` below 0, the lexicon is empty, or
            no word can be aligned.
        TypeError: `order` or `iterations` is no int, or a word has one bare
            pronunciation in place of a list.

    Source:
        None: in the manner of joint n-gram models of letters and phonemes.
    """

    def __init__(self, lexicon: Lexicon, order: int = 6, iterations: int = 8):
        check_size("Graphones", "order", order)
        check_lexicon("Graphones", lexicon)
        self.order = order
        self.aligner = Aligner(lexicon, iterations)
        cuts = (self.aligner.align(w, p) for w, all_ in lexicon.items() for p in all_)
        words = [[*cut, END] for cut in cuts if cut is not None]
        # By letter, so that a letter's candidates stand side by side.
        self.graphones = sorted({graphone for word in words for graphone in word})
        index = {graphone: i for i, graphone in enumerate(self.graphones)}
        self._candidates: dict[str, list[int]] = {}
        for i, (letter, _) in enumerate(self.graphones):
            self._candidates.setdefault(letter, []).append(i)
        self._followers = self._count([[index[g] for g in word] for word in words])
        self._known: dict[tuple[tuple[int, ...], str], np.ndarray] = {}

    def pronounce(
        self, word: str, n_best: int = 1, beam: int = 16
    ) -> list[tuple[Phonemes, float]]:
        r"""The likeliest pronunciations that a beam search over cuts sees, best first.

        Cuts of one pronunciation count together, those that the search ends with: their
        sum is a lower bound of $P(w, \varphi)$, and all of it if the beam drops none.

        Args:
            word: Its letters must occur in the lexicon that was learned from.
            n_best: How many, at most: fewer where the search ends with fewer.
            beam: Cuts that are kept after each letter.

        Shapes:
            - returns: pairs of phonemes and the natural logarithm of that sum

        Raises:
            ValueError: `word` is empty or has a letter that was never seen, or a number
                is below 1.
            TypeError: a number is no int.
        """
        where = "Graphones.pronounce"
        check_size(where, "n_best", n_best)
        check_size(where, "beam", beam)
        strange = sorted(set(word) - (self._candidates.keys() - {""}))
        if strange or not word:
            got = ", ".join(map(repr, strange)) or "none"
            raise ValueError(f"{where}: `word` must have known letters, got {got}")
        kept: list[tuple[float, tuple[int, ...]]] = [(0.0, (START,))]
        for letter in [*word, ""]:
            kept = nlargest(beam, self._extended(kept, letter))
        merged: dict[Phonemes, list[float]] = {}
        for log_p, history in kept:
            said = tuple(p for g in history[1:] for p in self.graphones[g][1])
            merged.setdefault(said, []).append(log_p)
        sums = [(said, float(np.logaddexp.reduce(p))) for said, p in merged.items()]
        return nlargest(n_best, sums, key=lambda pair: pair[1])

    def log_probability(self, graphones: list[Graphone]) -> float:
        r"""Natural logarithm of the probability of one cut of one word.

        Raises:
            ValueError: one of the graphones was never seen.
        """
        total, history = 0.0, (START,)
        for graphone in [*graphones, END]:
            letter = graphone[0]
            places = self._candidates.get(letter, [])
            known = {self.graphones[i]: n for n, i in enumerate(places)}
            if graphone not in known:
                raise ValueError(
                    "Graphones.log_probability: `graphones` must have been seen, got "
                    f"{graphone}"
                )
            at = known[graphone]
            total += math.log(self._distribution(self._last(history), letter)[at])
            history += (places[at],)
        return total

    def _last(self, history: tuple[int, ...]) -> tuple[int, ...]:
        return history[max(len(history) - self.order + 1, 0) :]

    def _count(self, words: list[list[int]]) -> dict[tuple[int, ...], _Followers]:
        counts: dict[tuple[int, ...], dict[str, dict[int, int]]] = {}
        for word in words:
            begun = [START, *word]
            for place, graphone in enumerate(word, 1):
                letter = self.graphones[graphone][0]
                for first in range(max(place - self.order + 1, 0), place + 1):
                    after = counts.setdefault(tuple(begun[first:place]), {})
                    seen = after.setdefault(letter, {})
                    seen[graphone] = seen.get(graphone, 0) + 1
        return {u: _followers(after) for u, after in counts.items()}

    def _extended(
        self, kept: list[tuple[float, tuple[int, ...]]], letter: str
    ) -> Iterator[tuple[float, tuple[int, ...]]]:
        for log_p, history in kept:
            p = self._distribution(self._last(history), letter)
            places = self._candidates[letter]
            for graphone, more in zip(places, np.log(p).tolist(), strict=True):
                yield log_p + more, (*history, graphone)

    def _distribution(self, history: tuple[int, ...], letter: str) -> np.ndarray:
        r"""Probabilities of the letter's graphones after a history."""
        key = history, letter
        if key not in self._known:
            if history:
                lower = self._distribution(history[1:], letter)
            else:
                n = len(self._candidates[letter])
                lower = np.full(n, 1 / len(self.graphones))
            self._known[key] = self._mixed(history, letter, lower)
        return self._known[key]

    def _mixed(
        self, history: tuple[int, ...], letter: str, lower: np.ndarray
    ) -> np.ndarray:
        after = self._followers.get(history)
        if after is None:
            return lower
        p = after.kinds * lower
        first = self._candidates[letter][0]
        for graphone, count in after.of_letter.get(letter, {}).items():
            p[graphone - first] += count
        return p / (after.total + after.kinds)


def _followers(after: dict[str, dict[int, int]]) -> _Followers:
    counts = [count for seen in after.values() for count in seen.values()]
    return _Followers(after, sum(counts), len(counts))
