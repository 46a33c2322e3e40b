r"""Attention: look back instead of remembering."""

from seqref.attention.additive import AdditiveAttention, AdditiveSource

__all__ = ["AdditiveAttention", "AdditiveSource"]
