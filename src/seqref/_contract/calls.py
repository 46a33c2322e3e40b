r"""How a model is called where the user does not say: its batch first."""

import inspect
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


def plain_call(model: Any, *inputs: Any) -> Any:
    r"""The model on the inputs, its batch first."""
    if not _is_of_torch(model):
        return model(*inputs)
    _needs_batch_first(model)
    y, state = model(*inputs)
    # Without an initial state, hand it out batch first; the other axes stay.
    return y, _batch_first(state)


def call_with_state(model: Any, x: Tensor, state: Any) -> Any:
    if _is_of_torch(model):
        _needs_batch_first(model)
    return model(x, state)


def call_with_lengths(model: Any, x: Tensor, lengths: Tensor) -> Any:
    r"""torch.nn's recurrent layers on a packed batch; others with `lengths`."""
    if _is_of_torch(model):
        _needs_batch_first(model)
        packed = pack_padded_sequence(
            x, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        y, state = model(packed)
        return pad_packed_sequence(y, batch_first=True)[0], _batch_first(state)
    function = model.forward if isinstance(model, nn.Module) else model
    try:
        named = "lengths" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        # Functions in C and scripted modules have no signature.
        named = False
    return model(x, lengths=lengths) if named else model(x, lengths)


def _is_of_torch(model: Any) -> bool:
    # A subclass may return what it likes.
    forward = getattr(type(model), "forward", None)
    return forward in (nn.RNN.forward, nn.LSTM.forward, nn.GRU.forward)


def _batch_first(state: Any) -> Any:
    parts = state if isinstance(state, tuple) else (state,)
    return tuple(part.transpose(0, 1) for part in parts)


def _needs_batch_first(model: nn.RNNBase) -> None:
    if not model.batch_first:
        raise ValueError(
            f"{type(model).__name__} has batch_first=False, and these checks put the "
            "batch first: build it with batch_first=True, or transpose in `call`"
        )
