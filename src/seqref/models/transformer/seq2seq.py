r"""The transformer of 2017: encoder and decoder, from a source to a target."""

from torch import nn

from seqref.attention import CrossAttention, MultiHeadAttention
from seqref.errors import check_size
from seqref.models.encoder_decoder.model import Translator
from seqref.models.transformer.added_positions import AddPositions, SinusoidalPositions
from seqref.models.transformer.blocks import PostNormBlock
from seqref.models.transformer.decoder import PostNormDecoderBlock, TransformerDecoder
from seqref.models.transformer.feed_forward import FeedForward
from seqref.models.transformer.stack import Transformer
from seqref.models.transformer.two_way import TwoWayAttention


class TransformerSeq2Seq(Translator):
    r"""The model of *Attention is all you need*: post-norm, ReLU, sinusoidal positions.

    $$ m = \text{encoder}(E^x_{x_{1:S}} + p_{1:S}) \qquad
       y = \text{decoder}(E^y_{w_{1:T}} + p_{1:T};\ m) \qquad \ell_t = W y_t + b $$

    `target` begins with a token that says so (BOS), and `logits[:, t]` scores the token
    *after* `target[:, t]`. Any other encoder and decoder, pre-norm ones for instance,
    go into ``EncoderDecoder(source_size, target_size, encoder, decoder,
    hand_over=None)``.

    Args:
        source_size: Number of source tokens.
        target_size: Number of target tokens.
        d_model: Width of embeddings and blocks, D.
        n_heads: Heads of each attention.
        n_layers: Blocks on each side.
        d_hidden: Hidden values of each feed-forward network.
        dropout: On each sublayer's output, and on the sums of embeddings and positions.

    Shapes:
        - as `EncoderDecoder`

    Cost:
        $14 D^2$ multiply-adds a source position and $14 D^2$ a target position, for
        a block on each side with $4 D$ hidden values; beside them $2 S D$, $2 T D$ and
        $2 S D$ for attention.

    Initialisation:
        Of embeddings and head as `EncoderDecoder`; of the blocks each part's own.

    Raises:
        ValueError: a size below 1, an odd `d_model`, heads that do not divide it; as
            `EncoderDecoder`.
        TypeError: a size is no int; as `EncoderDecoder`.

    Source:
        Vaswani et al. (2017), sec. 3; the defaults are its base model's.
        Differs: three matrices of their own for source, target and head, where the
        paper shares one; rows drawn with standard deviation 1 in place of its factor
        $\sqrt{D}$.
    """

    def __init__(
        self,
        source_size: int,
        target_size: int,
        d_model: int = 512,
        n_heads: int = 8,
        n_layers: int = 6,
        d_hidden: int = 2048,
        *,
        dropout: float = 0.1,
    ) -> None:
        where = "TransformerSeq2Seq"
        check_size(where, "n_layers", n_layers)

        sizes = d_model, n_heads, d_hidden, dropout
        encoder = [_encoder_block(*sizes) for _ in range(n_layers)]
        decoder = [_decoder_block(*sizes) for _ in range(n_layers)]
        first, second = (
            AddPositions(SinusoidalPositions(d_model), dropout=dropout) for _ in "12"
        )
        super().__init__(
            source_size,
            target_size,
            Transformer([first, *encoder]),
            TransformerDecoder([second, *decoder]),
            None,
        )


def _encoder_block(
    d_model: int, n_heads: int, d_hidden: int, dropout: float
) -> nn.Module:
    attention = TwoWayAttention(CrossAttention(d_model, n_heads))
    return PostNormBlock(attention, FeedForward(d_model, d_hidden), dropout=dropout)


def _decoder_block(
    d_model: int, n_heads: int, d_hidden: int, dropout: float
) -> nn.Module:
    return PostNormDecoderBlock(
        MultiHeadAttention(d_model, n_heads),
        CrossAttention(d_model, n_heads),
        FeedForward(d_model, d_hidden),
        dropout=dropout,
    )
