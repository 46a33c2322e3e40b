r"""Letters and phonemes as tokens, and batches of them."""

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from seqref.errors import check_generator, check_size
from seqref.recurrent.variable_length import bucket_batches
from seqref.tasks._pairs import BOS, EOS, FIRST, IGNORED, Pairs
from seqref.tasks.pronunciation.dictionary import (
    LETTERS,
    PHONEMES,
    Lexicon,
    Phonemes,
    check_lexicon,
    check_pronunciations,
)

VOWELS = (
    *("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER"),
    *("EY", "IH", "IY", "OW", "OY", "UH", "UW"),
)
"""The phonemes that have a stress: 0 none, 1 primary, 2 secondary."""


class Alphabet:
    r"""Letters as source tokens, and phonemes, BOS and EOS as target tokens.

    The 26 letters are 0 to 25. In the target 0 is BOS, 1 is EOS, and the phonemes begin
    at 2, in alphabetical order. There is no token for padding: lengths say it.

    Args:
        stress: Whether each vowel is three phonemes, one for each stress.

    Source:
        None: a design of this package.
    """

    def __init__(self, *, stress: bool = False):
        self.stress = stress
        self.phonemes: tuple[str, ...] = PHONEMES
        if stress:
            self.phonemes = tuple(
                f"{name}{digit}"
                for name in PHONEMES
                for digit in ("012" if name in VOWELS else ("",))
            )
        self._letter = {letter: i for i, letter in enumerate(LETTERS)}
        self._phoneme = {name: i for i, name in enumerate(self.phonemes, FIRST)}

    @property
    def source_size(self) -> int:
        """Number of source tokens."""
        return len(LETTERS)

    @property
    def target_size(self) -> int:
        """Number of target tokens, BOS and EOS included."""
        return FIRST + len(self.phonemes)

    def encode(self, words: Sequence[str]) -> tuple[Tensor, Tensor]:
        r"""Words as padded rows of letters, and their lengths.

        Shapes:
            - returns: (batch, source), with 0 in the padding, and (batch,), both int64

        Raises:
            ValueError: there is no word, one is empty, or has a letter other than a to
                z.
            TypeError: `words` is one string.
        """
        where = "Alphabet.encode"
        if isinstance(words, str):
            raise TypeError(f"{where}: `words` must be a list of words, got one string")
        if not words:
            raise ValueError(f"{where}: `words` must hold at least one, got none")
        for word in words:
            strange = [letter for letter in word if letter not in self._letter]
            if strange or not word:
                got = f"{strange[0]!r} in {word!r}" if strange else "an empty word"
                raise ValueError(
                    f"{where}: `words` must be of the letters a to z, got {got}"
                )
        return _padded([[self._letter[letter] for letter in word] for word in words])

    def encode_phonemes(self, said: Sequence[Phonemes]) -> list[list[int]]:
        r"""Pronunciations as tokens, without BOS and EOS.

        Raises:
            ValueError: a phoneme is none of `phonemes`.
            TypeError: `said` is one bare pronunciation in place of a list.
        """
        where = "Alphabet.encode_phonemes"
        check_pronunciations(where, "said", said)
        for names in said:
            for name in names:
                if name not in self._phoneme:
                    kind = "of the dictionary"
                    if name.rstrip("012") in VOWELS:
                        kind = "with stress" if self.stress else "without stress"
                    raise ValueError(
                        f"{where}: `said` must hold phonemes {kind}, got {name!r}"
                    )
        return [[self._phoneme[name] for name in names] for names in said]

    def decode(self, tokens: Int[Tensor, " time"]) -> Phonemes:
        r"""The phonemes of a decoded row: up to EOS, whatever stands after it.

        Raises:
            ValueError: a token before EOS is BOS, or none of the alphabet's.
        """
        said = []
        for token in tokens.tolist():
            if token == EOS:
                break
            if not FIRST <= token < self.target_size:
                raise ValueError(
                    f"Alphabet.decode: `tokens` must be phonemes or EOS, got {token}"
                )
            said.append(self.phonemes[token - FIRST])
        return tuple(said)


class PronunciationBatches:
    r"""Batches of words of similar length, each pronunciation a row, in random order.

    Each pass goes once over all pairs of a word and one of its pronunciations; its
    order is drawn when the pass begins.

    Args:
        lexicon: Words and pronunciations.
        batch_size: Rows of a batch; one batch of a pass may have fewer.
        alphabet: Gives the tokens; None is the one without stress.
        generator: Source of the random order; torch's own where it is None.

    Raises:
        ValueError: `batch_size` is below 1, the lexicon is empty, or has a letter or a
            phoneme that the alphabet has not.
        TypeError: `batch_size` is no int, `generator` no generator, or a word has one
            bare pronunciation in place of a list.

    Source:
        None: a design of this package.
    """

    def __init__(
        self,
        lexicon: Lexicon,
        batch_size: int,
        *,
        alphabet: Alphabet | None = None,
        generator: torch.Generator | None = None,
    ):
        where = "PronunciationBatches"
        check_size(where, "batch_size", batch_size)
        check_generator(where, generator)
        check_lexicon(where, lexicon)
        self.batch_size, self.generator = batch_size, generator
        self.alphabet = Alphabet() if alphabet is None else alphabet
        pairs = [(w, said) for w, all_of_it in lexicon.items() for said in all_of_it]
        self._all = as_pairs(pairs, self.alphabet)

    def __len__(self) -> int:
        """Batches of one pass."""
        return math.ceil(self.rows / self.batch_size)

    @property
    def rows(self) -> int:
        """Pairs of a word and a pronunciation."""
        return len(self._all.source)

    def __iter__(self) -> Iterator[Pairs]:
        """One pass; each batch is as long as its longest row."""
        lengths = self._all.source_lengths
        order = bucket_batches(lengths, self.batch_size, generator=self.generator)
        for rows in order:
            chosen = Pairs(*(part[rows] for part in self._all))
            source = int(chosen.source_lengths.max())
            time = int(chosen.target_lengths.max())
            yield chosen._replace(
                source=chosen.source[:, :source],
                target_in=chosen.target_in[:, :time],
                target_out=chosen.target_out[:, :time],
            )


def as_pairs(pairs: Sequence[tuple[str, Phonemes]], alphabet: Alphabet) -> Pairs:
    r"""Words, each with one pronunciation, as one batch in the given order.

    Raises:
        ValueError: there is no pair, or one has a letter or a phoneme that the alphabet
            has not.
    """
    source, source_lengths = alphabet.encode([word for word, _ in pairs])
    said = alphabet.encode_phonemes([phonemes for _, phonemes in pairs])
    target_in, lengths = _padded([[BOS, *row] for row in said], EOS)
    target_out, _ = _padded([[*row, EOS] for row in said], IGNORED)
    return Pairs(source, source_lengths, target_in, target_out, lengths)


def _padded(rows: Sequence[Sequence[int]], value: int = 0) -> tuple[Tensor, Tensor]:
    # On the CPU, whatever torch's default device is.
    lengths = torch.tensor([len(row) for row in rows], device="cpu")
    padded = torch.full((len(rows), int(lengths.max())), value, device="cpu")
    padded[torch.arange(padded.shape[1], device="cpu") < lengths[:, None]] = (
        torch.tensor([token for row in rows for token in row], device="cpu")
    )
    return padded, lengths
