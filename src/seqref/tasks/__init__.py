r"""Tasks: where the data of experiments and pages comes from."""

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

__all__ = [
    "UNK",
    "Adding",
    "Chunk",
    "Copying",
    "Corpus",
    "DelayedRecall",
    "Digits",
    "NGram",
    "Streams",
    "Vocabulary",
    "Words",
    "counting_words",
    "inked_digits",
    "python_source",
    "read_text",
    "split_text",
    "words_right",
]
