r"""Whether the parts of a decoder fit, and what its first state lacks."""

from typing import Any

from torch import Tensor, nn

from seqref.models.encoder_decoder.bound import Source
from seqref.recurrence import Recurrent, output_width, width_of


def widths(where: str, layer: Any) -> tuple[int, int]:
    r"""Input and output width of a causal layer; any other is a `TypeError`."""
    if not getattr(layer, "causal", True):
        raise TypeError(
            f"{where}: `layer` must be causal, and {type(layer).__name__} declares "
            "causal = False: its outputs depend on tokens that are still to be written"
        )
    takes, gives = width_of(layer, "input_size"), output_width(layer)
    is_layer = isinstance(layer, nn.Module) and isinstance(layer, Recurrent)
    if not is_layer or takes is None or gives is None:
        raise TypeError(
            f"{where}: `layer` must be a causal layer with `initial_state`, `step`, "
            "`input_size` and `output_size` or `hidden_size`, such as seqref.LSTM, got "
            f"{type(layer).__name__}"
        )
    return takes, gives


def check_attention(
    where: str, attention: Any, gives: int, *, tells_position: bool = False
) -> None:
    r"""Raise unless the attention can be asked by what a layer gives.

    Raises:
        TypeError: a member is missing.
        ValueError: its query has another width, or it needs the target step and the
            decoder does not tell it.
    """
    members = ("prepare", "attend", "query_size", "memory_size")
    if not all(hasattr(attention, name) for name in members):
        raise TypeError(
            f"{where}: `attention` must have `prepare`, `attend`, `query_size` and "
            f"`memory_size`, such as AdditiveAttention, got {type(attention).__name__}"
        )
    if attention.query_size != gives:
        raise ValueError(
            f"{where}: `attention` must have query_size={gives}, the width of the "
            f"layer's outputs, got {attention.query_size}"
        )
    if getattr(attention, "uses_position", False) and not tells_position:
        raise ValueError(
            f"{where}: `attention` must not need the target step, as a monotonic "
            "window does: only LuongDecoder tells it"
        )


def embedding_width(where: str, takes: int, attention: Any, beside: str) -> int:
    r"""What a layer's input leaves for the token; nothing is a `ValueError`."""
    width = getattr(attention, beside)
    if takes <= width:
        raise ValueError(
            f"{where}: `layer` must have an input_size above the attention's {beside}="
            f"{width}, since it reads a token's embedding and the context, got {takes}"
        )
    return takes - width


def first_output(state: Any, width: int) -> Tensor:
    r"""The top layer's hidden state; zeros where a state has none of that width."""
    top = state
    while not hasattr(top, "h") and isinstance(top, tuple) and top:
        top = top[-1]
    h = top if isinstance(top, Tensor) else getattr(top, "h", None)
    if isinstance(h, Tensor) and h.dim() == 2 and h.shape[1] == width:
        return h
    return first_tensor(state).new_zeros(len(first_tensor(state)), width)


def first_tensor(state: Any) -> Tensor:
    r"""The first tensor of a state of any structure."""
    while not isinstance(state, Tensor):
        state = state[0]
    return state


def no_weights(like: Tensor, source: Source) -> Tensor:
    r"""Zeros in place of the weights before the first step."""
    return like.new_zeros(len(like), source.attended.real.shape[1])
