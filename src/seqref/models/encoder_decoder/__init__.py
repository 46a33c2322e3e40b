r"""Encoder and decoder: from one sequence to another, with attention and without."""

from seqref.models.encoder_decoder.bahdanau import BahdanauDecoder, BahdanauState
from seqref.models.encoder_decoder.bound import BoundDecoder
from seqref.models.encoder_decoder.gnmt import GNMT, GNMTDecoder, GNMTState
from seqref.models.encoder_decoder.hand_over import FinalState, TanhBridge
from seqref.models.encoder_decoder.luong import LuongDecoder, LuongState
from seqref.models.encoder_decoder.model import BoundModel, EncoderDecoder
from seqref.models.encoder_decoder.plain import PlainDecoder

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
    "LuongDecoder",
    "LuongState",
    "PlainDecoder",
    "TanhBridge",
]
