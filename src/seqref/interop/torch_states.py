r"""States: one tensor for all layers and directions in torch.nn, one each here."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seqref.errors import check_shape
from seqref.interop._grid import Place, grid_of, qualified_name
from seqref.recurrent import (
    Bidirectional,
    BidirectionalState,
    ChoGRUCell,
    GRUCell,
    GRUState,
    LSTMCell,
    LSTMState,
    RNNCell,
    RNNState,
    Stacked,
)

Places = Float[Tensor, "places batch hidden"]
TorchState = Places | tuple[Places, Places]
_STATES = (RNNState, LSTMState, GRUState)


def state_from_torch(state: TorchState | None, layer: object) -> Any:
    r"""Turn a state of a torch.nn layer into the state of the layer here.

    Args:
        state: What `torch.nn.RNN` or `torch.nn.GRU` takes and returns, `h_n`; for
            `torch.nn.LSTM` the pair `(h_n, c_n)`. None stays None.
        layer: The layer that is to take the state: an `RNN`, `LSTM`, `GRU` or
            `ChoGRU`, a `Bidirectional` of two, or a `Stacked` of these.

    Shapes:
        - `h_n`, `c_n`: (layers × directions, batch, hidden), layer by layer, in each
          layer forward before backward; `batch_first` does not move these axes
        - returns: the layer's state; each tensor (batch, hidden), a view into `h_n` or
          `c_n`, through which gradients flow

    Raises:
        ValueError: a tensor has the wrong shape, such as that of unbatched input; the
            layers differ in width, or in the number of directions.
        TypeError: `state` is of another kind than the layer's; the layer has no place
            in torch's order, as a `Bidirectional` of two stacks.

    Source:
        The documentation of `torch.nn.LSTM` (2.13), outputs.
    """
    where = "state_from_torch"
    if isinstance(layer, RNNCell | LSTMCell | GRUCell | ChoGRUCell):
        kind = layer.state_type
        raise TypeError(
            f"{where}: `layer` must be a layer, got {type(layer).__name__} (a cell's "
            "state has the same shape here and in torch.nn: "
            f"{kind.__name__}({', '.join(kind._fields)}))"
        )
    rows = grid_of(where, layer)
    if state is None:
        return None
    first = rows[0][0].layer
    n_places = len(rows) * len(rows[0])
    fields = _checked(where, state, first, n_places)
    kind = first.cell.state_type
    states = [kind(*(field[n] for field in fields)) for n in range(n_places)]
    if type(layer) is Bidirectional:
        return BidirectionalState(*states)
    if type(layer) is not Stacked:
        return states[0]
    if len(rows[0]) == 1:
        return tuple(states)
    pairs = zip(states[::2], states[1::2], strict=True)
    return tuple(BidirectionalState(*pair) for pair in pairs)


def _checked(where: str, state: Any, layer: Any, n_places: int) -> list[Tensor]:
    names = [f"{field}_n" for field in layer.cell.state_type._fields]
    kind = type(layer).__name__
    wanted = names[0] if len(names) == 1 else f"the pair ({', '.join(names)})"
    if isinstance(state, (*_STATES, BidirectionalState)):
        raise TypeError(
            f"{where}: `state` must be a state of torch.nn, {wanted}, got "
            f"{type(state).__name__}, which a layer of seqref takes as it is"
        )
    fields = [state] if len(names) == 1 else state
    is_pair = len(names) == 1 or (isinstance(state, tuple) and len(state) == 2)
    if not is_pair or not all(isinstance(field, Tensor) for field in fields):
        raise TypeError(
            f"{where}: `state` must be {wanted} for a layer of kind {kind}, got "
            f"{_in_words(state)}"
        )
    batch = None
    for name, field in zip(names, fields, strict=True):
        hint = "unbatched? pass h_n.unsqueeze(1)".replace("h_n", name)
        axes = (
            ("layers * directions", n_places),
            ("batch", batch),
            ("hidden_size", layer.hidden_size),
        )
        check_shape(where, name, field, axes, hint if field.dim() == 2 else "")
        batch = field.shape[1]
    return list(fields)


def _in_words(state: object) -> str:
    if not isinstance(state, tuple):
        return type(state).__name__
    return f"a tuple of {', '.join(type(part).__name__ for part in state) or 'nothing'}"


def state_to_torch(state: Any) -> TorchState | None:
    r"""Turn the state of a layer into one that a torch.nn layer takes.

    Args:
        state: An `RNNState`, `LSTMState` or `GRUState`; a `BidirectionalState` of two;
            or the tuple that a `Stacked` of such layers returns. None stays None.

    Shapes:
        - each tensor of `state`: (batch, hidden)
        - returns: `h_n`, or the pair `(h_n, c_n)` for an LSTM, each
          (layers × directions, batch, hidden): a copy, through which gradients flow

    Raises:
        ValueError: two tensors differ in shape, so that torch.nn has no one tensor for
            them, or one has not two axes; a tuple is empty; one direction stands beside
            two.
        TypeError: `state` holds anything else, or two kinds of state.

    Source:
        The documentation of `torch.nn.LSTM` (2.13), outputs.
    """
    where = "state_to_torch"
    if state is None:
        return None
    if type(state) is not tuple:
        rows = [_pair(where, "state", state)]
    elif not state:
        raise ValueError(f"{where}: `state` must hold at least 1 state, got 0")
    else:
        rows = [_pair(where, f"state[{i}]", each) for i, each in enumerate(state)]
    for i, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise ValueError(
                f"{where}: all layers must have as many directions as `state[0]`, "
                f"{len(rows[0])}, got {len(row)} in `state[{i}]`; one tensor of "
                "torch.nn has them all"
            )
    states = _alike(where, [place for row in rows for place in row])
    fields = [torch.stack(field) for field in zip(*states, strict=True)]
    return fields[0] if len(fields) == 1 else (fields[0], fields[1])


def _pair(where: str, name: str, state: Any) -> list[Place]:
    if not isinstance(state, BidirectionalState):
        return [Place(name, state)]
    return [Place(f"{name}.{side}", getattr(state, side)) for side in state._fields]


def _alike(where: str, places: list[Place]) -> list[Any]:
    first = places[0].layer
    for name, state in places:
        if not isinstance(state, _STATES):
            raise TypeError(
                f"{where}: `{name}` must be RNNState, LSTMState or GRUState, got "
                f"{_in_words(state) if type(state) is tuple else qualified_name(state)}"
            )
        if type(state) is not type(first):
            raise TypeError(
                f"{where}: all states must be of one kind, as in one torch.nn module, "
                f"got {type(first).__name__} and {type(state).__name__} as `{name}`"
            )
        for field, tensor in zip(state._fields, state, strict=True):
            axes = (("batch", None), ("hidden_size", None))
            check_shape(where, f"{name}.{field}", tensor, axes)
            if tensor.shape != first.h.shape:
                raise ValueError(
                    f"{where}: all states must have one shape, since torch.nn keeps "
                    f"them in one tensor, got {tuple(first.h.shape)} and "
                    f"{tuple(tensor.shape)} as `{name}.{field}`"
                )
    return [place.layer for place in places]
