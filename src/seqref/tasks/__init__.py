r"""Tasks: where the data of experiments and pages comes from."""

from seqref.tasks._pairs import BOS, EOS, IGNORED, Pairs
from seqref.tasks.adding import Adding
from seqref.tasks.characters import (
    UNK,
    Chunk,
    Corpus,
    Streams,
    Vocabulary,
    python_source,
    read_text,
    split_text,
)
from seqref.tasks.copying import Copying
from seqref.tasks.counting import Words, counting_words, words_right
from seqref.tasks.delayed_recall import DelayedRecall
from seqref.tasks.digits import Digits, inked_digits
from seqref.tasks.ngrams import NGram
from seqref.tasks.pronunciation import (
    Alphabet,
    ErrorRates,
    Graphones,
    PronunciationBatches,
    edit_distance,
    error_rates,
    read_dictionary,
    split_lexicon,
)
from seqref.tasks.reversal import Reversal

__all__ = [
    "BOS",
    "EOS",
    "IGNORED",
    "UNK",
    "Adding",
    "Alphabet",
    "Chunk",
    "Copying",
    "Corpus",
    "DelayedRecall",
    "Digits",
    "ErrorRates",
    "Graphones",
    "NGram",
    "Pairs",
    "PronunciationBatches",
    "Reversal",
    "Streams",
    "Vocabulary",
    "Words",
    "counting_words",
    "edit_distance",
    "error_rates",
    "inked_digits",
    "python_source",
    "read_dictionary",
    "read_text",
    "split_lexicon",
    "split_text",
    "words_right",
]
