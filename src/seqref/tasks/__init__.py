r"""Tasks: where the data of experiments and pages comes from."""

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
from seqref.tasks.delayed_recall import DelayedRecall
from seqref.tasks.ngrams import NGram

__all__ = [
    "UNK",
    "Chunk",
    "Corpus",
    "DelayedRecall",
    "NGram",
    "Streams",
    "Vocabulary",
    "python_source",
    "read_text",
    "split_text",
]
