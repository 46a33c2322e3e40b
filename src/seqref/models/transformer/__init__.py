r"""Transformers: blocks, stacks, and the three models that are built of them."""

from seqref.models.transformer.added_positions import (
    AddPositions,
    PositionState,
    SinusoidalPositions,
)
from seqref.models.transformer.blocks import PostNormBlock, PreNormBlock
from seqref.models.transformer.decoder import (
    PostNormDecoderBlock,
    PreNormDecoderBlock,
    TransformerDecoder,
)
from seqref.models.transformer.feed_forward import (
    FeedForward,
    GatedFeedForward,
    gelu_tanh,
)
from seqref.models.transformer.language import TransformerLM
from seqref.models.transformer.masked import MaskedLM
from seqref.models.transformer.residual import ResidualBlock
from seqref.models.transformer.seq2seq import TransformerSeq2Seq
from seqref.models.transformer.stack import Transformer
from seqref.models.transformer.two_way import TwoWayAttention

__all__ = [
    "AddPositions",
    "FeedForward",
    "GatedFeedForward",
    "MaskedLM",
    "PositionState",
    "PostNormBlock",
    "PostNormDecoderBlock",
    "PreNormBlock",
    "PreNormDecoderBlock",
    "ResidualBlock",
    "SinusoidalPositions",
    "Transformer",
    "TransformerDecoder",
    "TransformerLM",
    "TransformerSeq2Seq",
    "TwoWayAttention",
    "gelu_tanh",
]
