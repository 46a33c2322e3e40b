r"""GNMT: eight layers on each side, and attention that the bottom layer asks for."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqref.attention import AdditiveAttention
from seqref.errors import check_size
from seqref.models.encoder_decoder.bound import (
    AttendingDecoder,
    Source,
    at_last_step,
    blank,
)
from seqref.models.encoder_decoder.fits import check_attention, no_weights
from seqref.models.encoder_decoder.model import Translator
from seqref.recurrent import LSTM, Bidirectional, LSTMState, Stacked


class GNMTState(NamedTuple):
    r"""State of a `GNMTDecoder`.

    `layers` are the layers' states from the bottom; `weights` (rows, source) those of
    the last step, zeros before the first. What asks is the bottom layer's `h`.
    """

    layers: tuple[LSTMState, ...]
    weights: Float[Tensor, "rows source"]


class GNMTDecoder(AttendingDecoder):
    r"""A stack of LSTMs: the bottom one's last output asks, the others get the answer.

    $$
    \begin{aligned}
    c_t &= \sum_j \alpha_{tj} m_j \qquad
    \alpha_t = \mathrm{attention}(h^1_{t-1}, m) \\
    h^1_t &= \mathrm{LSTM}_1(x_t, h^1_{t-1}) \qquad u^1_t = h^1_t \\
    h^l_t &= \mathrm{LSTM}_l([u^{l-1}_t; c_t], h^l_{t-1}) \qquad
    u^2_t = h^2_t \qquad u^l_t = h^l_t + u^{l-1}_t \quad (l \ge 3) \\
    y_t &= u^L_t
    \end{aligned}
    $$

    Since the bottom layer needs no context, its whole target is one call, then all
    contexts are, and then each layer above: no step waits for the layers of another.

    Args:
        input_size: Width of a token's vector.
        hidden_size: Width of every layer.
        attention: With `prepare` and `attend`, and a query of width `hidden_size`.
        num_layers: L, at least 2.
        device: Where the layers' parameters are made.
        dtype: Their dtype.

    Shapes:
        - bound, `x_t`: (rows, input); `y_t`: (rows, hidden); state: `GNMTState`

    Cost:
        O(L D^2 + S D) time a step.

    Initialisation:
        As `LSTM`, in every layer.

    Raises:
        ValueError: a size below 1, fewer than 2 layers, another query width; a wrong
            shape or length.
        TypeError: `attention` has no `prepare` and `attend`; a size is no int.

    Source:
        Wu et al. (2016), sec. 3, figure 1.
        Differs: LSTM as in `torch.nn`, with a tanh of $c_t$ that the paper's equation
        does not print. Public implementations differ too: some ask with the bottom
        layer's *current* output, some feed it the context of the step before.
    """

    state_type = GNMTState

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        attention: nn.Module,
        num_layers: int = 8,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        where = "GNMTDecoder"
        check_size(where, "input_size", input_size)
        check_size(where, "hidden_size", hidden_size)
        check_size(where, "num_layers", num_layers, minimum=2)
        check_attention(where, attention, hidden_size)
        self.input_size = input_size
        self.output_size = hidden_size
        self.attention: Any = attention
        above = hidden_size + self.attention.memory_size
        like: Any = {"device": device, "dtype": dtype}
        layers = [LSTM(input_size, hidden_size, **like)]
        layers += [LSTM(above, hidden_size, **like) for _ in range(num_layers - 1)]
        self.layers = nn.ModuleList(layers)

    def layer_state(self, rows: int) -> tuple[LSTMState, ...]:
        layers: Any = self.layers
        return tuple(layer.initial_state(rows) for layer in layers)

    def state_from(self, start: Any, source: Source) -> GNMTState:
        return GNMTState(tuple(start), no_weights(start[0].h, source))

    def advance(
        self, x_t: Tensor, state: GNMTState, source: Source
    ) -> tuple[Tensor, GNMTState]:
        before = state.layers[0].h
        context, weights = self.attention.attend(before, source.attended)
        layers: Any = self.layers
        u_t, bottom = layers[0].step(x_t, state.layers[0])
        states = [bottom]
        for i, layer in enumerate(layers[1:], start=1):
            joined = torch.cat([u_t, context], dim=1)
            h_t, following = layer.step(joined, state.layers[i])
            u_t = h_t + u_t if i >= 2 else h_t
            states.append(following)
        return u_t, GNMTState(tuple(states), weights)

    def sequence(
        self, x: Tensor, state: GNMTState, source: Source, lengths: Tensor | None
    ) -> tuple[Tensor, GNMTState, Tensor]:
        layers: Any = self.layers
        u, bottom = layers[0](x, state.layers[0], lengths)
        before = torch.cat([state.layers[0].h[:, None], u], dim=1)[:, :-1]
        contexts, weights = self._attended(before, source)
        states = [bottom]
        for i, layer in enumerate(layers[1:], start=1):
            joined = torch.cat([u, contexts], dim=2)
            h, following = layer(joined, state.layers[i], lengths)
            u = h + u if i >= 2 else h
            states.append(following)
        weights = blank(weights, lengths)
        last = at_last_step(state.weights, weights, lengths)
        return u, GNMTState(tuple(states), last), weights

    def _attended(self, queries: Tensor, source: Source) -> tuple[Tensor, Tensor]:
        rows, time = queries.shape[:2]
        if rows == source.batch:
            return self.attention.attend(queries, source.attended)
        # Rows that share a source ask one after the other, as one longer row.
        each = rows // source.batch if source.batch else 0
        shared = queries.reshape(source.batch, each * time, queries.shape[2])
        context, weights = self.attention.attend(shared, source.attended)
        shape = (rows, time)
        context = context.reshape(*shape, context.shape[2])
        return context, weights.reshape(*shape, weights.shape[2])


class GNMT(Translator):
    r"""Google's neural machine translation model of 2016.

    An encoder of `num_layers` LSTMs, of which the bottom one alone reads both ways, and
    a decoder of as many, `GNMTDecoder`. In both the residual connections begin with the
    third layer from the bottom: it is the first whose input is added to its output.

    Args:
        source_size: Number of source tokens.
        target_size: Number of target tokens.
        hidden_size: Width of embeddings and of every layer, of each direction too.
        num_layers: Layers on each side, at least 2; 8 in the paper.
        device: Where the parameters are made.
        dtype: Their dtype.

    Shapes:
        - as `EncoderDecoder`

    Cost:
        Of each side O(L D^2) time a position, and O(S D) for each target token.

    Initialisation:
        As `LSTM`, `AdditiveAttention` and `EncoderDecoder`.

    Raises:
        ValueError: a size below 1, fewer than 2 layers; as `EncoderDecoder`.
        TypeError: a size is no int; as `EncoderDecoder`.

    Source:
        Wu et al. (2016), sec. 3. The paper does not say what the decoder starts from;
        here it is zeros.
        Differs: token embeddings in place of word pieces, no dropout, no model
        parallelism, no quantisation.
    """

    def __init__(
        self,
        source_size: int,
        target_size: int,
        hidden_size: int = 1024,
        num_layers: int = 8,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_size("GNMT", "hidden_size", hidden_size)
        check_size("GNMT", "num_layers", num_layers, minimum=2)
        like: Any = {"device": device, "dtype": dtype}
        size = hidden_size
        first = Bidirectional(LSTM(size, size, **like), LSTM(size, size, **like))
        layers: list[nn.Module] = [first, LSTM(2 * size, size, **like)]
        if num_layers > 2:
            rest = [LSTM(size, size, **like) for _ in range(num_layers - 2)]
            layers.append(Stacked(rest, residual=True))
        attention = AdditiveAttention(size, size, size, **like)
        decoder = GNMTDecoder(size, size, attention, num_layers, **like)
        super().__init__(source_size, target_size, Stacked(layers), decoder, None)
