r"""Whole modules: from torch.nn's recurrent layers and cells, and back."""

from collections.abc import Iterator
from typing import Any, NoReturn, overload

from torch import nn
from torch.nn.utils import parametrize

from seqref.interop._copies import (
    check_copyable,
    copy_parameters,
    names_of,
    suffix_of,
)
from seqref.interop._grid import Place, check_equal, grid_of, qualified_name
from seqref.recurrent import (
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    ChoGRU,
    ChoGRUCell,
    GRUCell,
    LSTMCell,
    RNNCell,
    Stacked,
)

_LAYERS: dict[type, Any] = {nn.RNN: RNN, nn.LSTM: LSTM, nn.GRU: GRU}
_CELLS: dict[type, Any] = {
    nn.RNNCell: RNNCell,
    nn.LSTMCell: LSTMCell,
    nn.GRUCell: GRUCell,
}
_TORCH: dict[type, Any] = {ours: theirs for theirs, ours in (_LAYERS | _CELLS).items()}


@overload
def from_torch(module: nn.RNNCell) -> RNNCell: ...
@overload
def from_torch(module: nn.LSTMCell) -> LSTMCell: ...
@overload
def from_torch(module: nn.GRUCell) -> GRUCell: ...
@overload
def from_torch(module: nn.RNN) -> RNN | Bidirectional | Stacked: ...
@overload
def from_torch(module: nn.LSTM) -> LSTM | Bidirectional | Stacked: ...
@overload
def from_torch(module: nn.GRU) -> GRU | Bidirectional | Stacked: ...
def from_torch(module: nn.Module) -> nn.Module:
    r"""Make the layer or cell that computes what a torch.nn module computes.

    One layer of one direction becomes an `RNN`, `LSTM` or `GRU`; two directions become
    a `Bidirectional` of two; more than one layer becomes a `Stacked` of such layers,
    with the module's dropout between them. Parameters are copied with their dtype,
    device and `requires_grad`, without their gradients; training mode is kept. No
    random number is drawn. The result takes (batch, time, input), whatever the module's
    `batch_first` is.

    A dropout above 0 on a module of one layer is left out. torch.nn does nothing with
    it either, and warns when such a module is made.

    Args:
        module: A `torch.nn.RNN`, `LSTM`, `GRU`, `RNNCell`, `LSTMCell` or `GRUCell`, and
            no subclass of these.

    Raises:
        TypeError: `module` is of another kind.
        ValueError: what it computes has no equal here: `proj_size` above 0, `dropout`
            of 1; or a copy of the parameters would lose something: hooks of the module
            (those of parameters are not looked for), a parametrization, pruning, one
            parameter in two places.

    Source:
        The documentation of `torch.nn.LSTM` (2.13), variables.
    """
    where = "from_torch"
    source: Any = module
    if type(module) in _LAYERS:
        _check_layer(where, source)
        layers = [_layer_from(source, depth) for depth in range(source.num_layers)]
        several = len(layers) > 1
        result = Stacked(layers, dropout=source.dropout) if several else layers[0]
    elif type(module) in _CELLS:
        names = names_of(source.bias)
        check_copyable(where, [module], {f"module.{n}": (source, n) for n in names})
        kind = _CELLS[type(module)]
        result = kind(source.input_size, **_options(source), device="meta")
        copy_parameters(source, names, result, names)
    else:
        _refuse_module(where, module)
    return result.train(module.training)


def _refuse_module(where: str, module: object) -> NoReturn:
    known = ", ".join(kind.__name__ for kind in (*_LAYERS, *_CELLS))
    tail = ""
    is_module = isinstance(module, nn.Module)
    if is_module and parametrize.is_parametrized(module):
        tail = (
            ", with a parametrization, which a copy would lose (first call "
            "torch.nn.utils.parametrize.remove_parametrizations, which keeps the value)"
        )
    elif isinstance(module, (*_LAYERS, *_CELLS)):
        tail = (
            ", a subclass, which may compute something else (if it does not, load its "
            "state_dict into torch.nn's class and pass that)"
        )
    elif isinstance(module, nn.MultiheadAttention):
        tail = (
            ", which does not say what it attends to (attention_from_torch for its own "
            "past, cross_attention_from_torch for a source)"
        )
    elif is_module and type(module).__module__.startswith("seqref."):
        tail = ", which is a module of seqref already"
    raise TypeError(
        f"{where}: `module` must be one of torch.nn's {known}, got "
        f"{qualified_name(module)}{tail}"
    )


def _check_layer(where: str, source: Any) -> None:
    if source.proj_size > 0:
        raise ValueError(
            f"{where}: `module.proj_size` must be 0, got {source.proj_size} (load the "
            "weights of one layer into seqref.ProjectedLSTM: its page shows how)"
        )
    if source.dropout >= 1 and source.num_layers > 1:
        raise ValueError(
            f"{where}: `module.dropout` must be below 1, since at 1 no layer but the "
            f"first would see its input in training, got {source.dropout}"
        )
    names = [
        name + suffix_of(depth, direction)
        for depth, direction in _places_of(source)
        for name in names_of(source.bias)
    ]
    check_copyable(where, [source], {f"module.{n}": (source, n) for n in names})


def _places_of(source: Any) -> Iterator[tuple[int, int]]:
    for depth in range(source.num_layers):
        for direction in range(2 if source.bidirectional else 1):
            yield depth, direction


def _options(source: Any) -> dict[str, Any]:
    options = {"hidden_size": source.hidden_size, "bias": source.bias}
    if hasattr(source, "nonlinearity"):
        options["nonlinearity"] = source.nonlinearity
    return options


def _layer_from(source: Any, depth: int) -> Any:
    r"""One depth of a torch.nn module: a layer, or two of them in `Bidirectional`."""
    n_directions = 2 if source.bidirectional else 1
    width = source.input_size if depth == 0 else n_directions * source.hidden_size
    names, layers = names_of(source.bias), []
    for direction in range(n_directions):
        layer = _LAYERS[type(source)](width, **_options(source), device="meta")
        numbered = [name + suffix_of(depth, direction) for name in names]
        copy_parameters(source, numbered, layer.cell, names)
        layers.append(layer)
    return Bidirectional(*layers) if source.bidirectional else layers[0]


@overload
def to_torch(layer: RNNCell, *, batch_first: bool = True) -> nn.RNNCell: ...
@overload
def to_torch(layer: LSTMCell, *, batch_first: bool = True) -> nn.LSTMCell: ...
@overload
def to_torch(layer: GRUCell, *, batch_first: bool = True) -> nn.GRUCell: ...
@overload
def to_torch(layer: RNN, *, batch_first: bool = True) -> nn.RNN: ...
@overload
def to_torch(layer: LSTM, *, batch_first: bool = True) -> nn.LSTM: ...
@overload
def to_torch(layer: GRU, *, batch_first: bool = True) -> nn.GRU: ...
@overload
def to_torch(
    layer: Bidirectional | Stacked, *, batch_first: bool = True
) -> nn.RNN | nn.LSTM | nn.GRU: ...
def to_torch(layer: nn.Module, *, batch_first: bool = True) -> nn.Module:
    r"""Make the one torch.nn module that computes what a layer or cell computes.

    The inverse of `from_torch`: parameters are copied with their dtype, device and
    `requires_grad`, without their gradients; training mode is kept. No random number is
    drawn.

    Args:
        layer: An `RNN`, `LSTM` or `GRU`; a `Bidirectional` of two; a `Stacked` of such
            layers; or an `RNNCell`, `LSTMCell` or `GRUCell`. No subclass of these.
        batch_first: Handed to the module. A cell has no such argument and ignores it.

    Raises:
        TypeError: `layer` is of another kind, such as `ChoGRU`, or its layers are of
            several kinds.
        ValueError: torch.nn has no equal: `residual`, layers that differ in width,
            bias, nonlinearity or number of directions; or a copy of the parameters
            would lose something: hooks of a module (those of parameters are not looked
            for), a parametrization, pruning, one parameter in two places.

    Source:
        The documentation of `torch.nn.LSTM` (2.13), variables.
    """
    where = "to_torch"
    ours: Any = layer
    if isinstance(layer, ChoGRUCell):
        _refuse_cho(where, "layer", layer)
    if type(layer) in _CELLS.values():
        names = names_of(ours.bias)
        owned = {f"layer.{n}": (layer, n) for n in names}
        check_copyable(where, layer.modules(), owned)
        result = _TORCH[type(layer)](ours.input_size, **_options(ours), device="meta")
        copy_parameters(layer, names, result, names)
        return result.train(layer.training)
    rows = grid_of(where, layer)
    _check_one_module(where, ours, rows)
    first = rows[0][0].layer
    result = _TORCH[type(first)](
        first.input_size,
        **_options(first.cell),
        num_layers=len(rows),
        batch_first=batch_first,
        bidirectional=len(rows[0]) == 2,
        dropout=getattr(layer, "dropout", 0.0),
        device="meta",
    )
    for depth, row in enumerate(rows):
        for direction, place in enumerate(row):
            names = names_of(first.bias)
            numbered = [name + suffix_of(depth, direction) for name in names]
            copy_parameters(place.layer.cell, names, result, numbered)
    # On CUDA, cuDNN wants all weights in one piece of memory.
    result.flatten_parameters()
    return result.train(layer.training)


def _refuse_cho(where: str, name: str, layer: nn.Module) -> NoReturn:
    raise TypeError(
        f"{where}: `{name}` must reset after the recurrent product, as torch.nn.GRU "
        f"does, got {type(layer).__name__}, which resets before it, and no map of "
        "weights turns one into the other"
    )


def _check_one_module(where: str, layer: Any, rows: list[list[Place]]) -> None:
    if getattr(layer, "residual", False):
        raise ValueError(
            f"{where}: `layer.residual` must be False, since no module of torch.nn "
            "adds the input of a layer to its output, got True"
        )
    places = [place for row in rows for place in row]
    first, owned = places[0], {}
    for place in places:
        cell = place.layer.cell
        if type(place.layer) is ChoGRU:
            _refuse_cho(where, place.name, place.layer)
        check_equal(where, "bias", first, place)
        if isinstance(cell, RNNCell):
            check_equal(where, "nonlinearity", first, place)
        for name in names_of(cell.bias):
            owned[f"{place.name}.cell.{name}"] = (cell, name)
    check_copyable(where, layer.modules(), owned)
    for place in places:
        if type(place.layer.cell) not in _TORCH:
            raise TypeError(
                f"{where}: `{place.name}.cell` must be a cell of seqref, got "
                f"{qualified_name(place.layer.cell)}, of which torch.nn has no equal"
            )
