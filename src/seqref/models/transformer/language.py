r"""The decoder-only language model: embedding, stack, and a head that may be tied."""

from typing import Any

import torch.nn.functional as F
from jaxtyping import Float, Int, Integer
from torch import Tensor, nn

from seqref.errors import check_size
from seqref.models._like import made_like
from seqref.models._tokens import check_tokens
from seqref.models.encoder_decoder.bound import blank
from seqref.models.encoder_decoder.fits import widths
from seqref.models.encoder_decoder.model import embedded
from seqref.models.transformer.blocks import called


class TransformerLM(nn.Module):
    r"""Scores of the next token, by a stack whose head may be the embedding itself.

    $$ e_t = E_{x_t} \qquad h_t = \text{layer}(e_{1:t}) \qquad
       \ell_t = E h_t \;\text{ (tied)} \quad \text{or} \quad W h_t + b $$

    `logits[:, t]` scores the token *after* `tokens[:, t]`. It has the members of a
    `LanguageModel`, so `seqref.decoding` takes it; `LanguageModel(vocab_size, layer)`
    is the same model with a free head.

    Args:
        vocab_size: Number of tokens, V.
        layer: A causal layer, such as a `Transformer` of causal blocks.
        head: A map from the layer's outputs to V scores, such as
            ``torch.nn.Linear(d_model, vocab_size, bias=False)``. None: tied, the scores
            are products with the rows of the embedding.

    Shapes:
        - `tokens`: (batch, time), whole numbers in 0 to V - 1; `lengths`: (batch,), the
          rest of each row is padding on the right, which is not read; `state`: what
          `initial_state` returns, or None for it
        - returns: `logits` (batch, time, vocab), zero in the padding, and the state

    Cost:
        The layer's, and V D multiply-adds a token for the head.

    Initialisation:
        Embedding rows normal with standard deviation 0.02, as in GPT-2: tied, rows of
        standard deviation 1 would begin with scores of $\sqrt{D}$. `layer` and `head`
        keep their own.

    Raises:
        TypeError: `layer` is no causal layer that tells its widths; `head` is no
            module; tokens or lengths are of a wrong kind.
        ValueError: `vocab_size` below 1; a `torch.nn.Linear` as head that returns
            another number of scores; a tied head over a layer whose outputs are not
            as wide as its inputs; tokens of a wrong shape, on another device, or on a
            CPU outside the vocabulary; a length below 0 or above time.

    Source:
        Radford et al. (2019), sec. 2.3. Tying: Press & Wolf (2017).
    """

    def __init__(
        self, vocab_size: int, layer: nn.Module, *, head: nn.Module | None = None
    ) -> None:
        super().__init__()
        where = "TransformerLM"
        check_size(where, "vocab_size", vocab_size)
        takes, gives = widths(where, layer)
        if head is None and takes != gives:
            raise ValueError(
                f"{where}: without a `head`, `layer` must return its input's width "
                f"{takes}, since the embedding scores its outputs, got {gives}"
            )
        if head is not None and not isinstance(head, nn.Module):
            raise TypeError(
                f"{where}: `head` must be a module, such as torch.nn.Linear, or None "
                f"for the embedding, got {type(head).__name__}"
            )
        if isinstance(head, nn.Linear) and head.out_features != vocab_size:
            raise ValueError(
                f"{where}: `head` must return vocab_size={vocab_size} scores, got "
                f"{head.out_features}"
            )
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, takes, **made_like(layer))
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.layer: Any = layer
        self.head = head

    def initial_state(self, batch_size: int) -> Any:
        r"""The layer's initial state."""
        return self.layer.initial_state(batch_size)

    def step(
        self, token_t: Int[Tensor, " batch"], state: Any
    ) -> tuple[Float[Tensor, "batch {self.vocab_size}"], Any]:
        r"""Scores of the next token after one more token."""
        weight = self.embedding.weight
        axes = (("batch", None),)
        where, device = "TransformerLM.step", weight.device
        check_tokens(where, "token_t", token_t, axes, self.vocab_size, device)
        h_t, state = self.layer.step(self.embedding(token_t), state)
        return self._scores(h_t), state

    def forward(
        self,
        tokens: Int[Tensor, "batch time"],
        state: Any = None,
        lengths: Integer[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time {self.vocab_size}"], Any]:
        where = "TransformerLM.forward"
        x = embedded(where, "tokens", self.embedding, tokens, lengths)
        h, state = called(self.layer, x, state, lengths)
        return blank(self._scores(h), lengths), state

    def _scores(self, h: Tensor) -> Tensor:
        if self.head is None:
            return F.linear(h, self.embedding.weight)
        return self.head(h)
