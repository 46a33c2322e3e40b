r"""Three parts of a lexicon, where a word's own letters say which one it is in."""

import hashlib
from typing import NamedTuple

from seqref.errors import check_size
from seqref.tasks.pronunciation.dictionary import Lexicon

# Per cent of the words; the rest is held out.
TRAIN, TUNE = 85, 5


class Parts(NamedTuple):
    r"""Words to learn from, to tune on, and held out; no word is in two of them."""

    train: Lexicon
    tune: Lexicon
    heldout: Lexicon


def part_of(word: str) -> str:
    r"""The part that a word is in, by the SHA-256 digest of its letters.

    About 85 of 100 words are in `"train"`, 5 in `"tune"` and 10 in `"heldout"`. A word
    stays where it is whatever other words there are, on every machine.
    """
    place = digest_number(word, 0) % 100
    if place < TRAIN:
        return "train"
    return "tune" if place < TRAIN + TUNE else "heldout"


def split_lexicon(lexicon: Lexicon, words: int | None = None) -> Parts:
    r"""The three parts of a lexicon, all pronunciations of a word in one of them.

    Args:
        lexicon: As `read_dictionary` returns it.
        words: Take so many of its words, those whose digests come first: of the same
            lexicon always the same ones, a smaller subset part of a larger one. None
            takes all.

    Shapes:
        - returns: three lexicons in alphabetical order

    Raises:
        ValueError: `words` is below 1 or above the number of words.
        TypeError: `words` is no int.

    Source:
        None: there is no official split of the dictionary.
    """
    where = "split_lexicon"
    chosen = sorted(lexicon)
    if words is not None:
        check_size(where, "words", words)
        if words > len(lexicon):
            raise ValueError(
                f"{where}: `words` must be at most {len(lexicon)}, the words of "
                f"`lexicon`, got {words}"
            )
        # Not the bytes that choose the part.
        chosen = sorted(sorted(chosen, key=lambda word: digest_number(word, 1))[:words])
    parts = Parts({}, {}, {})
    for word in chosen:
        getattr(parts, part_of(word))[word] = lexicon[word]
    return parts


def digest_number(word: str, which: int) -> int:
    r"""A number from the first eight bytes of a word's digest (0), or the next (1)."""
    digest = hashlib.sha256(word.encode()).digest()
    return int.from_bytes(digest[8 * which : 8 * which + 8], "big")
