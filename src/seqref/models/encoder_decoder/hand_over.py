r"""What the decoder starts from: the way from the encoder's last state to its first."""

from typing import Any

from torch import Tensor, nn

from seqref.models._like import made_like
from seqref.models.encoder_decoder.fits import widths
from seqref.recurrence import map_state
from seqref.recurrent import BidirectionalState

HANDED = ("h", "c")


class TanhBridge(nn.Module):
    r"""The decoder's first state from one vector of the encoder's last.

    $$ s_0 = \tanh(W_s h + b_s) $$

    $h$ is the encoder's last `h`: of a `Bidirectional` the backward direction's, which
    has read the whole source down to its first position; of a stack the top layer's.
    Every `h` and `c` in the decoder layer's state gets weights of its own; whatever
    else the state has, such as a mask of dropout, stays the layer's own.

    Args:
        encoder: The encoder whose last state is read.
        layer: The decoder's layer whose first state is made.

    Shapes:
        - `state`: what `encoder` returns; returns: as `layer.initial_state(batch)`

    Initialisation:
        Uniform in $(-1/\sqrt{n}, 1/\sqrt{n})$, n the width of $h$.

    Raises:
        TypeError: the encoder's state has no `h`, or the layer's has neither `h` nor
            `c`, or one that is no vector.

    Source:
        Bahdanau, Cho & Bengio (2015), appendix A.2.2: $s_0 = \tanh(W_s
        \overleftarrow{h}_1)$, biases left out. For a $c$ it is our own choice, and
        keeps it between -1 and 1.
    """

    def __init__(self, encoder: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        widths("TanhBridge", layer)
        if not callable(getattr(encoder, "initial_state", None)):
            raise TypeError(
                "TanhBridge: `encoder` must have `initial_state`, such as seqref.LSTM "
                f"or seqref.Bidirectional, got {type(encoder).__name__}"
            )
        fresh: Any = encoder
        size = last_h("TanhBridge", fresh.initial_state(1)).shape[1]
        # In a tuple it is no submodule: the decoder owns its parameters.
        self._layer: Any = (layer,)
        made: list[nn.Module] = []

        def add(part: Tensor) -> Tensor:
            if part.dim() != 2:
                raise TypeError(
                    "TanhBridge: `layer` must have a state of vectors, got "
                    f"{type(layer).__name__}, whose `h` has shape "
                    f"(batch, {', '.join(map(str, part.shape[1:]))})"
                )
            made.append(nn.Linear(size, part.shape[1], **made_like(layer)))
            return part

        _replaced(layer.initial_state(1), add)  # pyright: ignore
        if not made:
            raise TypeError(
                "TanhBridge: `layer` must have a state with `h` or `c`, got "
                f"{type(layer).__name__}"
            )
        self.maps = nn.ModuleList(made)

    def forward(self, state: Any) -> Any:
        h = last_h("TanhBridge.forward", state)
        maps = iter(self.maps)
        return _replaced(
            self._layer[0].initial_state(len(h)), lambda part: next(maps)(h).tanh()
        )


def last_h(where: str, state: Any) -> Tensor:
    r"""The last `h` of an encoder's state; of two directions, the backward one's.

    Raises:
        TypeError: there is none.
    """
    part = state
    while isinstance(part, tuple) and part and not isinstance(part, Tensor):
        if isinstance(part, BidirectionalState):
            part = part.backward
        elif hasattr(part, "h"):
            return part.h  # pyright: ignore
        else:
            part = part[-1]
    raise TypeError(
        f"{where}: the encoder's state must have a field `h`, got "
        f"{type(state).__name__}"
    )


def _replaced(state: Any, make: Any) -> Any:
    fields = getattr(state, "_fields", None)
    if fields is None:
        if not isinstance(state, tuple):
            return state
        return tuple(_replaced(part, make) for part in state)
    new = [
        make(part)
        if name in HANDED and isinstance(part, Tensor)
        else _replaced(part, make)
        for name, part in zip(fields, state, strict=True)
    ]
    return type(state)._make(new)


def check_fits(where: str, encoder: Any, decoder: Any) -> None:
    r"""Raise unless the encoder's last state can be the decoder's first.

    Raises:
        ValueError: they differ in kind or width.
    """
    given, wanted = encoder.initial_state(1), decoder.layer_state(1)

    def same(one: Tensor, two: Tensor) -> Tensor:
        if one.shape != two.shape:
            raise ValueError
        return one

    try:
        map_state(same, given, wanted)
    except (TypeError, ValueError):
        raise ValueError(
            f"{where}: `hand_over` must be a module where the encoder's state is not "
            f"of the kind and widths of the decoder's, got {_told(given)} for "
            f"{_told(wanted)} (pass TanhBridge(encoder, layer), or None to start from "
            "the layer's own initial state)"
        ) from None


def _told(state: Any) -> str:
    if isinstance(state, Tensor):
        return str(tuple(state.shape[1:]))
    fields = getattr(state, "_fields", None)
    if fields is None:
        return f"({', '.join(map(_told, state))})"
    return f"{type(state).__name__}({', '.join(map(_told, state))})"


class FinalState(nn.Module):
    r"""Hand the encoder's last state over as it is: `h`, `c`, and every layer's."""

    def forward(self, state: Any) -> Any:
        return state
