r"""Attention: look back instead of remembering."""

from seqref.attention.additive import AdditiveAttention, AdditiveSource
from seqref.attention.multiplicative import (
    MultiplicativeAttention,
    MultiplicativeSource,
)

__all__ = [
    "AdditiveAttention",
    "AdditiveSource",
    "MultiplicativeAttention",
    "MultiplicativeSource",
]
