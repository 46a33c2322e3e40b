r"""Models that are compared: what one vector or attention, its order and weights do."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from seqref import (
    GRU,
    LSTM,
    AdditiveAttention,
    Bidirectional,
    ChoGRU,
    GRUState,
    MultiplicativeAttention,
)
from seqref.models import (
    BoundDecoder,
    EncoderDecoder,
    FinalState,
    LuongDecoder,
    TanhBridge,
)
from seqref.models.encoder_decoder.bound import Source, by_scan
from seqref.models.encoder_decoder.fits import no_weights

EMBEDDING = 16


def lstms(attends: bool, width: int, vocab: int) -> EncoderDecoder:
    """Both halves are LSTMs of that width, with Luong's attention or without."""
    encoder = LSTM(EMBEDDING, width)
    decoder: Any = LSTM(EMBEDDING, width)
    if attends:
        attention = MultiplicativeAttention(width, width, score="general")
        decoder = LuongDecoder(LSTM(EMBEDDING + width, width), attention)
    return EncoderDecoder(vocab, vocab, encoder, decoder, hand_over=FinalState())


class OrderState(NamedTuple):
    """The layer's state, the last context, the last weights."""

    layer: GRUState
    context: Tensor
    weights: Tensor


class OrderDecoder(nn.Module):
    """Attention before the step or after it; all else is equal."""

    attends = True
    state_type = OrderState

    def __init__(self, order: str, embedding: int, width: int) -> None:
        super().__init__()
        self.order, self.input_size, self.output_size = order, embedding, width
        self.layer = ChoGRU(embedding + width, width)
        self.attention = AdditiveAttention(width, width, width)
        self.combine = nn.Linear(2 * width, width)

    def attend(
        self, memory: Tensor, lengths: Tensor | None = None, start: Any = None
    ) -> BoundDecoder:
        """Bind it to a source."""
        source = Source(self.attention.prepare(memory, lengths), start, len(memory))
        return BoundDecoder(self, source)

    def layer_state(self, rows: int) -> GRUState:
        """The layer's own first state."""
        return self.layer.initial_state(rows)

    def state_from(self, start: GRUState, source: Source) -> OrderState:
        """The state before the first step."""
        context = torch.zeros_like(start.h)
        return OrderState(start, context, no_weights(start.h, source))

    def advance(
        self, x_t: Tensor, state: OrderState, source: Source
    ) -> tuple[Tensor, OrderState]:
        """One step."""
        context, weights = state.context, state.weights
        if self.order != "after":
            context, weights = self._asked(state.layer.h, source)
        h_t, layer = self.layer.step(torch.cat([x_t, context], dim=1), state.layer)
        if self.order == "after":
            context, weights = self._asked(h_t, source)
        y_t = torch.tanh(self.combine(torch.cat([h_t, context], dim=1)))
        return y_t, OrderState(layer, context, weights)

    def _asked(self, query: Tensor, source: Source) -> tuple[Tensor, Tensor]:
        if self.order == "blind":
            query = torch.zeros_like(query)
        return self.attention.attend(query, source.attended)

    def sequence(
        self, x: Tensor, state: OrderState, source: Source, lengths: Tensor | None
    ) -> tuple[Tensor, Any, Tensor]:
        """All steps, one after the other."""
        return by_scan(self, x, state, source, lengths)


def around(decoder: Any, width: int, vocab: int) -> EncoderDecoder:
    """A model with this decoder and an encoder that reads both ways."""
    encoder = Bidirectional(GRU(EMBEDDING, width // 2), GRU(EMBEDDING, width // 2))
    bridge = TanhBridge(encoder, decoder.layer)
    return EncoderDecoder(vocab, vocab, encoder, decoder, hand_over=bridge)


def ordered(order: str, width: int, vocab: int) -> EncoderDecoder:
    """A model of one of the orders."""
    return around(OrderDecoder(order, EMBEDDING, width), width, vocab)


# From weights (rows, source), and which positions are real, to others.
Change = Callable[[Tensor, Tensor], Tensor]


def levelled(weights: Tensor, real: Tensor) -> Tensor:
    """Equal weights over the real positions."""
    return (real / real.sum(dim=1, keepdim=True)).to(weights.dtype)


def permuted(generator: torch.Generator, weights: Tensor, real: Tensor) -> Tensor:
    """Each row's real weights in a random order of its own."""
    noise = torch.rand(weights.shape, generator=generator)
    return weights.gather(1, noise.masked_fill(~real, 2.0).argsort(dim=1))


class Replaced(nn.Module):
    """An attention whose weights go through `change` before the context is made."""

    def __init__(self, attention: Any, change: Change) -> None:
        super().__init__()
        self.attention, self.change = attention, change
        self.query_size = attention.query_size
        self.memory_size = attention.memory_size

    def prepare(self, memory: Tensor, lengths: Tensor | None = None) -> Any:
        """As the attention."""
        return self.attention.prepare(memory, lengths)

    def attend(self, query: Tensor, source: Any) -> tuple[Tensor, Tensor]:
        """Contexts and weights, as they were changed, a query for each source."""
        weights = self._weights(query, source)
        return torch.bmm(weights[:, None], source.values)[:, 0], weights

    def _weights(self, query: Tensor, source: Any) -> Tensor:
        return self.change(self.attention.attend(query, source)[1], source.real)


class Level(Replaced):
    """Equal weights; nothing is asked."""

    def __init__(self, attention: Any) -> None:
        super().__init__(attention, levelled)

    def _weights(self, query: Tensor, source: Any) -> Tensor:
        return levelled(source.values, source.real)
