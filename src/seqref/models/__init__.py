r"""Models: embedding, layers and head, put together for a task."""

from seqref.models.classifier import SequenceClassifier
from seqref.models.language_model import LanguageModel

__all__ = ["LanguageModel", "SequenceClassifier"]
