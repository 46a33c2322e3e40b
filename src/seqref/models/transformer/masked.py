r"""The masked language model: an encoder, and scores at every position."""

from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Integer
from torch import Tensor, nn

from seqref.errors import check_shape, check_size
from seqref.models._like import made_like
from seqref.models._tokens import check_tokens
from seqref.models.encoder_decoder.bound import blank
from seqref.models.encoder_decoder.model import embedded
from seqref.models.transformer.blocks import Norm, called
from seqref.models.transformer.feed_forward import Activation
from seqref.ops._padding import real_steps
from seqref.recurrence import output_width, width_of


class MaskedLM(nn.Module):
    r"""Scores of the token that stands at each position, from both sides of it.

    $$ h = \text{encoder}(E_{x_{1:n}} + S_{s_{1:n}}) \qquad
       \ell_t = E\, \mathrm{norm}(\phi(W h_t + b)) + c $$

    The loss is taken where the input token was hidden behind a mask, and there alone:
    elsewhere the input holds the answer. For the same reason there is no `step`.

    Args:
        vocab_size: Number of tokens, V, the mask counted.
        encoder: A layer that returns its input's width, such as a `Transformer` over
            `TwoWayAttention`.
        n_segments: Number of kinds of segment, each with a vector that is added to its
            tokens, 2 in BERT; 0 for none.
        activation: $\phi$ of the head.
        norm: Makes the head's norm, from the width.

    Shapes:
        - `tokens`: (batch, time), whole numbers in 0 to V - 1; `lengths`: (batch,), the
          rest of each row is padding on the right, which is not read; `segments`:
          (batch, time), None for segment 0
        - returns: `logits` (batch, time, vocab), zero in the padding

    Cost:
        The encoder's, and $D^2 + V D$ multiply-adds a token for the head.

    Initialisation:
        Rows of the embeddings normal with standard deviation 0.02; the head's matrix as
        `torch.nn.Linear`, its last bias zero. `encoder` keeps its own.

    Raises:
        TypeError: `encoder` is no layer that tells its widths; tokens, segments or
            lengths are of a wrong kind; `step` was called.
        ValueError: a size below its least; an encoder that does not return its input's
            width; tokens or segments of a wrong shape, on another device, or on a CPU
            out of range; `segments` where there are none; a wrong length.

    Source:
        Devlin et al. (2019), sec. 3.1; the head and its norm are in their code alone.
    """

    causal = False

    def __init__(
        self,
        vocab_size: int,
        encoder: nn.Module,
        *,
        n_segments: int = 0,
        activation: Activation = F.gelu,
        norm: Norm = nn.LayerNorm,
    ) -> None:
        super().__init__()
        where = "MaskedLM"
        check_size(where, "vocab_size", vocab_size)
        check_size(where, "n_segments", n_segments, minimum=0)
        width = width_of(encoder, "input_size")
        has_state = callable(getattr(encoder, "initial_state", None))
        if not isinstance(encoder, nn.Module) or width is None or not has_state:
            raise TypeError(
                f"{where}: `encoder` must be a layer over a sequence with "
                f"`input_size`, such as Transformer, got {type(encoder).__name__}"
            )
        if output_width(encoder) != width:
            raise ValueError(
                f"{where}: `encoder` must return its input's width {width}, since the "
                f"embedding scores its outputs, got {output_width(encoder)}"
            )
        like = made_like(encoder)
        self.vocab_size = vocab_size
        self.encoder: Any = encoder
        self.activation = activation
        self.embedding = nn.Embedding(vocab_size, width, **like)
        self.segments = nn.Embedding(n_segments, width, **like) if n_segments else None
        self.transform = nn.Linear(width, width, **like)
        self.norm = norm(width).to(**like)
        self.bias = nn.Parameter(torch.zeros(vocab_size, **like))
        nn.init.normal_(self.embedding.weight, std=0.02)
        if self.segments is not None:
            nn.init.normal_(self.segments.weight, std=0.02)

    def step(self, token_t: Tensor, state: Any = None) -> NoReturn:
        r"""Raise `TypeError`: a token is scored from both of its sides."""
        raise TypeError(
            "MaskedLM.step: a masked language model has no step, since the scores at "
            "each position need the tokens after it; for a model that writes from left "
            "to right use TransformerLM"
        )

    def forward(
        self,
        tokens: Int[Tensor, "batch time"],
        lengths: Integer[Tensor, " batch"] | None = None,
        segments: Int[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time {self.vocab_size}"]:
        where = "MaskedLM.forward"
        x = embedded(where, "tokens", self.embedding, tokens, lengths)
        x = x + self._segments(where, tokens, lengths, segments)
        h, _ = called(self.encoder, x, None, lengths)
        h = self.norm(self.activation(self.transform(h)))
        return blank(F.linear(h, self.embedding.weight, self.bias), lengths)

    def _segments(
        self,
        where: str,
        tokens: Tensor,
        lengths: Tensor | None,
        segments: Tensor | None,
    ) -> Tensor | float:
        if self.segments is None:
            if segments is not None:
                raise ValueError(
                    f"{where}: `segments` must be None, since the model has "
                    "n_segments=0"
                )
            return 0.0
        if segments is None:
            # One row for all: segment 0.
            return self.segments.weight[0]
        axes = ("batch", tokens.shape[0]), ("time", tokens.shape[1])
        check_shape(where, "segments", segments, axes)
        if lengths is not None:
            real = real_steps(lengths.to(segments.device), segments.shape[1])
            segments = segments.masked_fill(~real, 0)
        weight = self.segments.weight
        check_tokens(where, "segments", segments, axes, len(weight), weight.device)
        return self.segments(segments)
