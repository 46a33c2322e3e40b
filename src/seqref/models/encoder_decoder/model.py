r"""Encoder and decoder with their embeddings and a head: from tokens to scores."""

from typing import Any

from jaxtyping import Float, Int, Integer
from torch import Tensor, nn

from seqref.errors import check_lengths, check_shape, check_size
from seqref.models._like import made_like
from seqref.models._tokens import check_tokens
from seqref.models.encoder_decoder.bound import BoundDecoder, blank
from seqref.models.encoder_decoder.hand_over import FinalState, check_fits
from seqref.models.encoder_decoder.plain import PlainDecoder
from seqref.ops._padding import real_steps
from seqref.recurrence import output_width, width_of


class BoundModel(nn.Module):
    r"""A model bound to a batch of sources: scores of the next target token.

    What `EncoderDecoder.attend` returns. It has `initial_state`, `step` and the call of
    a `LanguageModel`, so `seqref.decoding` takes it as it is:
    ``beam_search(model.attend(source, lengths), start, width=4, ...)``, with
    ``attention=lambda state: state.weights`` for the coverage penalty.

    Shapes:
        - `token_t`: (rows,), `tokens`: (rows, time), whole numbers in 0 to V - 1, with
          rows the batch of the source or a multiple of it, as `BoundDecoder` says
        - returns: `logits` (rows, vocab) or (rows, time, vocab), zero in the padding,
          and the state

    Raises:
        ValueError: a wrong shape, device or length, a token outside the vocabulary.
        TypeError: tokens of a wrong dtype, a state of another kind.
    """

    def __init__(self, model: "Translator", decoder: BoundDecoder) -> None:
        super().__init__()
        self.embedding = model.target_embedding
        self.decoder = decoder
        self.head = model.head
        self.training = model.training

    def initial_state(self, batch_size: int) -> Any:
        r"""The state before the first token, for each row of the source.

        Shapes:
            - `batch_size`: the rows of the source, or a multiple of them
        """
        return self.decoder.initial_state(batch_size)

    def step(self, token_t: Int[Tensor, " rows"], state: Any) -> tuple[Tensor, Any]:
        r"""Scores of the next token after one more."""
        self._check("BoundModel.step", "token_t", token_t, (("rows", None),))
        y_t, state = self.decoder.step(self.embedding(token_t), state)
        return self.head(y_t), state

    def forward(
        self,
        tokens: Int[Tensor, "rows time"],
        state: Any = None,
        lengths: Integer[Tensor, " rows"] | None = None,
    ) -> tuple[Float[Tensor, "rows time vocab"], Any]:
        x = self._embedded("BoundModel.forward", tokens, lengths)
        y, state = self.decoder(x, state, lengths)
        return blank(self.head(y), lengths), state

    def align(
        self,
        tokens: Int[Tensor, "rows time"],
        state: Any = None,
        lengths: Integer[Tensor, " rows"] | None = None,
    ) -> Float[Tensor, "rows time source"]:
        r"""The weights of attention while each token is read, zero in the padding.

        Row t holds the weights that the scores after `tokens[:, t]` were made with.

        Shapes:
            - as the call; returns (rows, time, source)

        Raises:
            TypeError: the decoder has no attention.
        """
        x = self._embedded("BoundModel.align", tokens, lengths)
        return self.decoder.align(x, state, lengths)

    def _embedded(self, where: str, tokens: Tensor, lengths: Tensor | None) -> Tensor:
        return embedded(where, "tokens", self.embedding, tokens, lengths)

    def _check(self, where: str, name: str, tokens: Tensor, axes: Any) -> None:
        weight = self.embedding.weight
        check_tokens(where, name, tokens, axes, len(weight), weight.device)


def embedded(
    where: str,
    name: str,
    embedding: nn.Embedding,
    tokens: Tensor,
    lengths: Tensor | None,
    lengths_name: str = "lengths",
) -> Tensor:
    r"""The vectors of tokens; what stands in the padding is not read."""
    if isinstance(tokens, Tensor) and lengths is not None:
        check_shape(where, name, tokens, (("batch", None), ("time", None)))
        axis = "source" if lengths_name == "source_lengths" else "time"
        check_lengths(where, lengths, *tokens.shape, axis=axis, name=lengths_name)
        real = real_steps(lengths.to(tokens.device), tokens.shape[1])
        tokens = tokens.masked_fill(~real, 0)
    weight = embedding.weight
    axes = (("batch", None), ("time", None))
    check_tokens(where, name, tokens, axes, len(weight), weight.device)
    return embedding(tokens)


class Translator(nn.Module):
    r"""What every model from a source to a target has: embeddings, two halves, a head.

    A concrete one builds the parts.
    """

    def __init__(
        self,
        source_size: int,
        target_size: int,
        encoder: nn.Module,
        decoder: nn.Module,
        hand_over: nn.Module | None,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        check_size(where, "source_size", source_size)
        check_size(where, "target_size", target_size)
        takes = width_of(encoder, "input_size")
        if not callable(getattr(encoder, "initial_state", None)) or takes is None:
            raise TypeError(
                f"{where}: `encoder` must be a layer over a sequence with "
                "`input_size`, such as seqref.Bidirectional or seqref.LSTM, got "
                f"{type(encoder).__name__}"
            )
        if not hasattr(decoder, "attend"):
            decoder = PlainDecoder(decoder)
        if hand_over is not None and not isinstance(hand_over, nn.Module):
            kind = hand_over if isinstance(hand_over, type) else type(hand_over)
            raise TypeError(
                f"{where}: `hand_over` must be a module, such as FinalState(), or "
                f"None, got {kind.__name__}"
            )
        _check_memory(where, encoder, decoder)
        self.source_size, self.target_size = source_size, target_size
        self.encoder: Any = encoder
        self.decoder: Any = decoder
        self.hand_over = hand_over
        like = made_like(decoder)
        width, out = self.decoder.input_size, self.decoder.output_size
        self.source_embedding = nn.Embedding(source_size, takes, **made_like(encoder))
        self.target_embedding = nn.Embedding(target_size, width, **like)
        self.head = nn.Linear(out, target_size, **like)

    def encode(
        self,
        source: Int[Tensor, "batch source"],
        source_lengths: Integer[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch source memory"], Any]:
        r"""The encoder's outputs, and its state after each row's last real position.

        Shapes:
            - `source`: (batch, source); `source_lengths`: (batch,)
            - returns: memory (batch, source, memory), zero in the padding, and a state
        """
        return self._encoded(f"{self._name()}.encode", source, source_lengths)

    def attend(
        self,
        source: Int[Tensor, "batch source"],
        source_lengths: Integer[Tensor, " batch"] | None = None,
    ) -> BoundModel:
        r"""Read the sources, and return the model of their targets.

        Shapes:
            - `source`: (batch, source); `source_lengths`: (batch,)
        """
        return self._bound(f"{self._name()}.attend", source, source_lengths)

    def forward(
        self,
        source: Int[Tensor, "batch source"],
        target: Int[Tensor, "batch time"],
        source_lengths: Integer[Tensor, " batch"] | None = None,
        target_lengths: Integer[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch time vocab"]:
        where = f"{self._name()}.forward"
        if isinstance(target, Tensor) and isinstance(source, Tensor):
            axes = (("batch", len(source)), ("time", None))
            check_shape(where, "target", target, axes)
        bound = self._bound(where, source, source_lengths)
        x = embedded(
            where,
            "target",
            self.target_embedding,
            target,
            target_lengths,
            "target_lengths",
        )
        y, _ = bound.decoder(x, None, target_lengths)
        return blank(self.head(y), target_lengths)

    def _encoded(
        self, where: str, source: Tensor, lengths: Tensor | None
    ) -> tuple[Tensor, Any]:
        x = embedded(
            where, "source", self.source_embedding, source, lengths, "source_lengths"
        )
        if lengths is None:
            return self.encoder(x)
        return self.encoder(x, None, lengths)

    def _bound(self, where: str, source: Tensor, lengths: Tensor | None) -> BoundModel:
        memory, state = self._encoded(where, source, lengths)
        start = None if self.hand_over is None else self.hand_over(state)
        return BoundModel(self, self.decoder.attend(memory, lengths, start))

    def _name(self) -> str:
        return type(self).__name__


def _check_memory(where: str, encoder: nn.Module, decoder: nn.Module) -> None:
    gives = output_width(encoder)
    # A decoder of several attentions tells the width itself.
    reads = width_of(getattr(decoder, "attention", decoder), "memory_size")
    if None not in (gives, reads) and gives != reads:
        raise ValueError(
            f"{where}: the attention of `decoder` must have memory_size={gives}, the "
            f"width of the encoder's outputs, got {reads}"
        )


class EncoderDecoder(Translator):
    r"""Scores of each target token from the source and the tokens before it.

    $$ m, s = \text{encoder}(E^x_{x_1}, \dots, E^x_{x_S}) \qquad
       y_{1:T} = \text{decoder}(E^y_{w_1}, \dots, E^y_{w_T};\ m, s) \qquad
       \ell_t = W y_t + b $$

    `target` begins with a token that says so (BOS), and `logits[:, t]` scores the token
    *after* `target[:, t]`: `seqref.training.shift_target` makes both. The encoder may
    read both ways. A decoder is `BahdanauDecoder`, `LuongDecoder`, or any causal layer,
    which then knows the source by its first state alone.

    Args:
        source_size: Number of source tokens.
        target_size: Number of target tokens, V.
        encoder: Any layer over a sequence, with `input_size`.
        decoder: A module with `attend`, or any causal layer.
        hand_over: A module from the encoder's last state to the first of the decoder's
            layer: `FinalState()` as it is, h and c; `TanhBridge(encoder, layer)` where
            kinds or widths differ. None: the decoder starts from its layer's own.

    Shapes:
        - `source`: (batch, source); `target`: (batch, time); `source_lengths`,
          `target_lengths`: (batch,), the rest of each row is padding on the right,
          which is not read and may hold any whole number
        - returns: `logits` (batch, time, vocab), zero in the padding

    Cost:
        The encoder's and the decoder's, plus O(T D V) for the head.

    Initialisation:
        Embedding rows standard normal, head uniform in $(-1/\sqrt{D}, 1/\sqrt{D})$;
        encoder and decoder keep their own.

    Raises:
        TypeError: `encoder` or `decoder` is no such layer; tokens or lengths are of a
            wrong kind.
        ValueError: a size below 1; `FinalState` where the states differ in kind or
            width; an attention for memories of another width; tokens of a wrong shape,
            on another device, or on a CPU outside the vocabulary; a length below 0 or
            beyond its axis.

    Source:
        Sutskever, Vinyals & Le (2014), sec. 2; Cho et al. (2014), sec. 2.2; with
        attention Bahdanau, Cho & Bengio (2015) and Luong, Pham & Manning (2015).
        Differs: any layers; one embedding width per layer input.
    """

    def __init__(
        self,
        source_size: int,
        target_size: int,
        encoder: nn.Module,
        decoder: nn.Module,
        *,
        hand_over: nn.Module | None,
    ) -> None:
        super().__init__(source_size, target_size, encoder, decoder, hand_over)
        if isinstance(hand_over, FinalState):
            check_fits("EncoderDecoder", encoder, self.decoder)
