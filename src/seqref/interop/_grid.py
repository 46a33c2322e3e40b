r"""How layers lie in torch.nn's modules: by depth, and in each depth by direction."""

from typing import Any, NamedTuple

from torch import nn

from seqref.recurrent import GRU, LSTM, RNN, Bidirectional, ChoGRU, Stacked

KINDS = (RNN, LSTM, GRU, ChoGRU)


class Place(NamedTuple):
    r"""A layer of one direction, and where it stands, in the caller's words."""

    name: str
    layer: Any


def grid_of(where: str, layer: object) -> list[list[Place]]:
    r"""The single layers by depth and direction, as torch.nn numbers them.

    Raises:
        TypeError: something is neither a layer of one direction, nor a `Bidirectional`
            of two, nor a `Stacked` of these; two kinds stand in one grid.
        ValueError: two widths, or one direction beside two, stand in one grid.
    """
    if type(layer) is Stacked:
        rows = [
            _directions(where, f"layer.layers[{i}]", each)
            for i, each in enumerate(layer.layers)
        ]
    else:
        rows = [_directions(where, "layer", layer)]
    _check_uniform(where, rows)
    return rows


def _directions(where: str, name: str, layer: object) -> list[Place]:
    if type(layer) in KINDS:
        return [Place(name, layer)]
    if type(layer) is Bidirectional:
        sides = ("forward_layer", "backward_layer")
        pair = [Place(f"{name}.{side}", getattr(layer, side)) for side in sides]
        for place in pair:
            if type(place.layer) is Stacked:
                raise TypeError(
                    f"{where}: `{place.name}` must be a layer, got Stacked: in "
                    "torch.nn each depth reads both directions of the depth below, "
                    "while two stacks side by side meet at the top alone"
                )
            _check_kind(where, place)
        return pair
    _check_kind(where, Place(name, layer))
    return []


def _check_kind(where: str, place: Place) -> None:
    if type(place.layer) in KINDS:
        return
    wanted = "RNN, LSTM, GRU"
    if "_layer" not in place.name:
        wanted += ", or Bidirectional of two"
    if place.name == "layer":
        wanted += ", or Stacked of these"
    raise TypeError(
        f"{where}: `{place.name}` must be {wanted}, of which torch.nn's modules are "
        f"made, got {qualified_name(place.layer)}"
    )


def _check_uniform(where: str, rows: list[list[Place]]) -> None:
    first = rows[0][0]
    for i, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise ValueError(
                f"{where}: all layers must have as many directions as `layer.layers[0]`"
                f", {len(rows[0])}, as in one torch.nn module, got {len(row)} in "
                f"`layer.layers[{i}]`"
            )
        for name, layer in row:
            if type(layer) is not type(first.layer):
                raise TypeError(
                    f"{where}: all layers must be of one kind, as in one torch.nn "
                    f"module, got {type(first.layer).__name__} as `{first.name}` and "
                    f"{type(layer).__name__} as `{name}`"
                )
            check_equal(where, "hidden_size", first, Place(name, layer))


def check_equal(where: str, attribute: str, one: Place, other: Place) -> None:
    r"""Raise `ValueError` unless two layers agree in what torch.nn has once."""
    first, second = (getattr(place.layer.cell, attribute) for place in (one, other))
    if first != second:
        raise ValueError(
            f"{where}: all layers must have one `{attribute}`, as in one torch.nn "
            f"module, got {first} in `{one.name}` and {second} in `{other.name}`"
        )


def qualified_name(value: object) -> str:
    r"""The kind of a value, with its module where that is none of ours."""
    kind = type(value)
    if isinstance(value, nn.Module) and kind.__module__.startswith("seqref."):
        return kind.__name__
    if kind.__module__ == "builtins":
        return kind.__name__
    return f"{kind.__module__}.{kind.__qualname__}"
