r"""Models: embedding, layers and head, put together for a task."""

from seqref.models.classifier import SequenceClassifier
from seqref.models.encoder_decoder import (
    GNMT,
    BahdanauDecoder,
    BahdanauState,
    BoundDecoder,
    BoundModel,
    EncoderDecoder,
    FinalState,
    GNMTDecoder,
    GNMTState,
    LuongDecoder,
    LuongState,
    PlainDecoder,
    TanhBridge,
)
from seqref.models.language_model import LanguageModel

__all__ = [
    "GNMT",
    "BahdanauDecoder",
    "BahdanauState",
    "BoundDecoder",
    "BoundModel",
    "EncoderDecoder",
    "FinalState",
    "GNMTDecoder",
    "GNMTState",
    "LanguageModel",
    "LuongDecoder",
    "LuongState",
    "PlainDecoder",
    "SequenceClassifier",
    "TanhBridge",
]
