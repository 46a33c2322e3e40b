r"""How far pronunciations are from those of the dictionary: PER and WER."""

from collections.abc import Sequence
from typing import NamedTuple

from seqref.tasks.pronunciation.dictionary import (
    Phonemes,
    check_pronunciation,
    check_pronunciations,
)


class Nearest(NamedTuple):
    r"""Edits to the nearest reference, and how many phonemes that one has."""

    edits: int
    phonemes: int


class ErrorRates(NamedTuple):
    r"""Shares of phonemes and of words that are wrong, from 0; PER may exceed 1."""

    per: float
    wer: float


def edit_distance(said: Sequence[object], reference: Sequence[object]) -> int:
    r"""Fewest insertions, deletions and replacements that turn one into the other.

    Cost:
        O(len(said) * len(reference)) time, O(len(reference)) memory.

    Source:
        The distance of Levenshtein.
    """
    row = list(range(len(reference) + 1))
    for i, name in enumerate(said, 1):
        diagonal, row[0] = row[0], i
        for j, wanted in enumerate(reference, 1):
            replaced = diagonal + (name != wanted)
            diagonal = row[j]
            row[j] = min(replaced, row[j] + 1, row[j - 1] + 1)
    return row[-1]


def nearest(said: Phonemes, references: Sequence[Phonemes]) -> Nearest:
    r"""Edits to the reference that is nearest; the first one of those equally near.

    Raises:
        ValueError: there is no reference.
        TypeError: `said` is one string, or `references` one bare pronunciation.
    """
    check_pronunciation("nearest", "said", said)
    check_pronunciations("nearest", "references", references)
    if not references:
        raise ValueError("nearest: `references` must hold at least one, got none")
    distances = [edit_distance(said, reference) for reference in references]
    best = distances.index(min(distances))
    return Nearest(distances[best], len(references[best]))


def error_rates(
    said: Sequence[Phonemes], references: Sequence[Sequence[Phonemes]]
) -> ErrorRates:
    r"""Phoneme and word error rates over words, each with all its pronunciations.

    PER is the sum of all words' edits over the sum of their references' phonemes, each
    word measured on its nearest reference. WER is the share of words that are equal to
    none of theirs.

    Args:
        said: One pronunciation for each word.
        references: The pronunciations of each word.

    Raises:
        ValueError: the numbers of words differ, there is none, or one has no reference.
        TypeError: `said`, or the references of a word, are one bare pronunciation in
            place of a list.
    """
    check_pronunciations("error_rates", "said", said)
    check_pronunciation("error_rates", "references", references)
    for several in references:
        check_pronunciations("error_rates", "references", several)
    if len(said) != len(references) or not said:
        raise ValueError(
            "error_rates: `said` and `references` must have the same words, at least "
            f"one, got {len(said)} and {len(references)}"
        )
    pairs = zip(said, references, strict=True)
    words = [nearest(one, several) for one, several in pairs]
    edits = sum(word.edits for word in words)
    phonemes = sum(word.phonemes for word in words)
    if phonemes == 0:
        raise ValueError("error_rates: `references` must have a phoneme, got none")
    wrong = sum(word.edits > 0 for word in words)
    return ErrorRates(edits / phonemes, wrong / len(words))
