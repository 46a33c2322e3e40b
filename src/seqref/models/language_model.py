r"""A language model over any causal layer: embedding, layer, linear head."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seqref.errors import (
    can_be_read,
    check_generator,
    check_number,
    check_size,
)
from seqref.models._like import made_like
from seqref.models._tokens import check_tokens
from seqref.recurrence import Recurrent, output_width, width_of


class LanguageModel(nn.Module):
    r"""Scores of the next token after each token of a sequence.

    $$ e_t = E_{x_t} \qquad (h_t, s_t) = \text{layer}(e_t, s_{t-1}) \qquad
       \ell_t = W h_t + b \qquad p(x_{t+1} = v \mid x_{1:t}) =
       \frac{\exp \ell_{t,v}}{\sum_u \exp \ell_{t,u}} $$

    `logits[:, t]` scores the token *after* `tokens[:, t]`: the targets are the tokens
    shifted by one.

    Args:
        vocab_size: Number of tokens, V.
        layer: Any causal layer of the package: with `input_size`, and `output_size` or
            `hidden_size`.

    Shapes:
        - `tokens`: (batch, time), whole numbers in 0 to V - 1; `state`: what
          `initial_state` returns, or None for it
        - returns: `logits` (batch, time, vocab), and the state after the last token

    Cost:
        The layer's, plus O(T D V) for the head.

    Initialisation:
        Embedding rows standard normal, head uniform in $(-1/\sqrt{D}, 1/\sqrt{D})$:
        the defaults of `torch.nn.Embedding` and `torch.nn.Linear`, both in the dtype
        and on the device of the layer, which keeps its own.

    Raises:
        TypeError: `layer` is not a causal layer that tells its widths, or declares
            `causal = False`, as `Bidirectional` and a stack with one in it do;
            `vocab_size` or `tokens` is of the wrong kind.
        ValueError: `vocab_size` below 1; `tokens` of the wrong rank, on another device
            than the parameters, or on a CPU outside the vocabulary (other devices are
            not asked: they would wait).

    Source:
        The next-token model of Graves (2013).
        Differs: any causal layer, a learned embedding in place of one-hot inputs, no
        connections past the layer.
    """

    def __init__(self, vocab_size: int, layer: nn.Module):
        super().__init__()
        check_size("LanguageModel", "vocab_size", vocab_size)
        if not getattr(layer, "causal", True):
            raise TypeError(
                f"LanguageModel: `layer` must be causal, and {type(layer).__name__} "
                "declares causal = False: its outputs depend on later inputs, which "
                "are the targets"
            )
        takes, gives = width_of(layer, "input_size"), output_width(layer)
        if not isinstance(layer, Recurrent) or takes is None or gives is None:
            raise TypeError(
                "LanguageModel: `layer` must be a causal layer with `initial_state`, "
                "`step`, `input_size` and `output_size` or `hidden_size`, such as "
                f"seqref.LSTM, got {type(layer).__name__}"
            )
        self.vocab_size = vocab_size
        like = made_like(layer)
        self.embedding = nn.Embedding(vocab_size, takes, **like)
        self.layer = layer
        self.head = nn.Linear(gives, vocab_size, **like)

    def initial_state(self, batch_size: int) -> Any:
        r"""The layer's initial state."""
        return self.layer.initial_state(batch_size)

    def step(
        self, token_t: Int[Tensor, " batch"], state: Any
    ) -> tuple[Float[Tensor, "batch {self.vocab_size}"], Any]:
        r"""Scores of the next token after one more token."""
        axes = (("batch", None),)
        self._check("LanguageModel.step", "token_t", token_t, axes)
        h_t, state = self.layer.step(self.embedding(token_t), state)
        return self.head(h_t), state

    def forward(
        self, tokens: Int[Tensor, "batch time"], state: Any = None
    ) -> tuple[Float[Tensor, "batch time {self.vocab_size}"], Any]:
        axes = (("batch", None), ("time", None))
        self._check("LanguageModel.forward", "tokens", tokens, axes)
        h, state = self.layer(self.embedding(tokens), state)
        return self.head(h), state

    @torch.no_grad()
    def sample(
        self,
        prompt: Int[Tensor, "batch time"],
        length: int,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "batch {length}"]:
        r"""Draw `length` tokens after `prompt`, one at a time.

        The mode stays as it is: call `eval()` first where a layer has noise in
        training, such as dropout, which `generator` does not control.

        Args:
            prompt: What was there before; at least one token a row.
            length: How many tokens to draw.
            temperature: The logits are divided by it. 1 draws from the model, less
                widens the odds between tokens, 0 takes the likeliest.
            generator: Where the random numbers come from; None is torch's own.

        Shapes:
            - `prompt`: (batch, time), time at least 1
            - returns: (batch, length), drawn after the prompt and in its dtype

        Raises:
            ValueError: an empty `prompt`, a negative `length` or `temperature`; a row
                whose scores hold NaN or infinity, or nothing but minus infinity.
            TypeError: `length` is no int, `temperature` no number, or `generator` no
                generator.
        """
        where = "LanguageModel.sample"
        axes = (("batch", None), ("time", None))
        self._check(where, "prompt", prompt, axes)
        check_size(where, "length", length, minimum=0)
        if prompt.shape[1] == 0:
            raise ValueError(f"{where}: `prompt` must hold at least 1 token, got 0")
        check_number(where, "temperature", temperature, minimum=0)
        check_generator(where, generator)
        logits, state = self(prompt)
        scores = logits[:, -1]
        drawn = []
        for _ in range(length):
            token = _draw(where, scores, temperature, generator)
            drawn.append(token)
            scores, state = self.step(token, state)
        if not drawn:
            return prompt[:, :0]
        return torch.stack(drawn, dim=1).to(prompt.dtype)

    def _check(
        self, where: str, name: str, tokens: Tensor, axes: tuple[tuple[str, None], ...]
    ) -> None:
        device = self.embedding.weight.device
        check_tokens(where, name, tokens, axes, self.vocab_size, device)


def _draw(
    where: str, scores: Tensor, temperature: float, generator: torch.Generator | None
) -> Tensor:
    best = scores.max(dim=-1, keepdim=True).values
    _check_scores(where, best)
    if temperature == 0:
        return scores.argmax(dim=-1)
    # A temperature that the dtype rounds to 0 would make 0 / 0 of the largest score.
    temperature = max(temperature, torch.finfo(scores.dtype).tiny)
    # The largest score is set to 0 first: a small temperature then cannot overflow.
    scaled = (scores - best) / temperature
    # At an infinite temperature a forbidden token would be infinity over infinity.
    scaled = scaled.masked_fill(scores == -torch.inf, -torch.inf)
    weights = torch.softmax(scaled, dim=-1)
    return torch.multinomial(weights, 1, generator=generator).squeeze(-1)


def _check_scores(where: str, best: Tensor) -> None:
    # The largest of scores is NaN where one of them is.
    if not can_be_read(best) or best.isfinite().all():
        return
    row = int((~best.isfinite()).nonzero()[0, 0])
    raise ValueError(
        f"{where}: the scores of each row must hold a largest finite one and no NaN, "
        f"got a largest of {best[row].item()} in row {row}"
    )
