r"""Pronunciation: the phonemes of an English word, from its letters."""

from seqref.tasks.pronunciation.alignment import Aligner
from seqref.tasks.pronunciation.alphabet import (
    Alphabet,
    PronunciationBatches,
    as_pairs,
)
from seqref.tasks.pronunciation.dictionary import PHONEMES, read_dictionary
from seqref.tasks.pronunciation.graphones import Graphones
from seqref.tasks.pronunciation.rates import (
    ErrorRates,
    Nearest,
    edit_distance,
    error_rates,
    nearest,
)
from seqref.tasks.pronunciation.split import Parts, part_of, split_lexicon

__all__ = [
    "PHONEMES",
    "Aligner",
    "Alphabet",
    "ErrorRates",
    "Graphones",
    "Nearest",
    "Parts",
    "PronunciationBatches",
    "as_pairs",
    "edit_distance",
    "error_rates",
    "nearest",
    "part_of",
    "read_dictionary",
    "split_lexicon",
]
