r"""Attention: look back instead of remembering."""

from seqref.attention.additive import AdditiveAttention, AdditiveSource
from seqref.attention.multi_head import (
    CrossAttention,
    CrossSource,
    KVState,
    MultiHeadAttention,
)
from seqref.attention.multiplicative import (
    MultiplicativeAttention,
    MultiplicativeSource,
)
from seqref.attention.positions import (
    LearnedPositions,
    Rotary,
    alibi_bias,
    alibi_slopes,
    half_from_interleaved,
    interleaved_from_half,
    sinusoidal,
)
from seqref.attention.segment_recurrence import SegmentState, TransformerXLAttention
from seqref.attention.sliding_window import (
    LongformerSelfAttention,
    SlidingWindowAttention,
    WindowState,
)

__all__ = [
    "AdditiveAttention",
    "AdditiveSource",
    "CrossAttention",
    "CrossSource",
    "KVState",
    "LearnedPositions",
    "LongformerSelfAttention",
    "MultiHeadAttention",
    "MultiplicativeAttention",
    "MultiplicativeSource",
    "Rotary",
    "SegmentState",
    "SlidingWindowAttention",
    "TransformerXLAttention",
    "WindowState",
    "alibi_bias",
    "alibi_slopes",
    "half_from_interleaved",
    "interleaved_from_half",
    "sinusoidal",
]
