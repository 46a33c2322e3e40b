r"""Every layer that the package exports, and what it takes to build one.

Layers are found in `seqref.__all__`, so a new one stands in every shared test without
being named in any. Its arguments are given by their names below; an argument that has
no default and no value here is an error that says so.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import seqref

INPUT, HIDDEN = 3, 5


def lower(width: int, hidden: int, **options: Any) -> nn.Module:
    return seqref.GRU(width, hidden, **options)


# What an argument without a default gets, from the two widths and the options.
VALUES = {
    "input_size": lambda width, hidden, **_: width,
    "hidden_size": lambda width, hidden, **_: hidden,
    "proj_size": lambda width, hidden, **_: hidden - 1,
    "zoneout_c": lambda width, hidden, **_: 0.3,
    "zoneout_h": lambda width, hidden, **_: 0.1,
    "dropout_x": lambda width, hidden, **_: 0.2,
    "dropout_h": lambda width, hidden, **_: 0.3,
    "layers": lambda width, hidden, **options: [
        seqref.LSTM(width, hidden + 1, **options),
        seqref.Stacked(
            [lower(hidden + 1, 4, **options), seqref.RNN(4, hidden, **options)]
        ),
    ],
    "d_state": lambda width, hidden, **_: hidden,
    "d_model": lambda width, hidden, **_: width,
    # As many as divide any width.
    "n_heads": lambda width, hidden, **_: width,
    "memory": lambda width, hidden, **_: hidden,
    "window": lambda width, hidden, **_: 4,
    "forward_layer": lower,
    "backward_layer": seqref.LSTM,
}
# Further values of an argument with a default, each of which makes a case of its own.
# A window of one step more than `memory` is the widest that no cut changes.
MORE = {
    "nonlinearity": ("tanh", "relu"),
    "candidate": ("positive",),
    "n_kv_heads": (1,),
    "window": (HIDDEN + 1,),
}
# Arguments by which a layer draws random numbers in training.
NOISE = ("zoneout_c", "zoneout_h", "dropout_x", "dropout_h")


@dataclass(frozen=True)
class Case:
    """A layer's class and the arguments that make it one case of a test."""

    name: str
    kind: Any
    chosen: tuple[tuple[str, Any], ...] = ()

    @property
    def arguments(self) -> list[str]:
        return list(inspect.signature(self.kind).parameters)

    @property
    def is_noisy(self) -> bool:
        return any(name in NOISE for name in self.arguments)

    @property
    def has_cell(self) -> bool:
        return "input_size" in self.arguments

    def __call__(
        self, width: int = INPUT, hidden: int = HIDDEN, **options: Any
    ) -> nn.Module:
        """A layer; options of a composition are those of its parts."""
        parameters = inspect.signature(self.kind).parameters.values()
        own = {p.name for p in parameters}
        given = {name: value for name, value in options.items() if name in own}
        inner = {name: value for name, value in options.items() if name not in own}
        for p in parameters:
            if p.default is p.empty and p.name not in given:
                if p.name not in VALUES:
                    raise KeyError(
                        f"{self.name}: tests/layers.py has no value for `{p.name}`: "
                        "add one to VALUES"
                    )
                given[p.name] = VALUES[p.name](width, hidden, **inner)
        return self.kind(**given, **dict(self.chosen))


def is_layer(value: object) -> bool:
    """A module over a whole sequence with a state; a cell has no `step`."""
    return (
        inspect.isclass(value)
        and issubclass(value, nn.Module)
        and all(callable(getattr(value, name, None)) for name in MEMBERS)
    )


MEMBERS = ("initial_state", "step")


def found_in(package: Any) -> Iterator[Case]:
    for name in package.__all__:
        kind = getattr(package, name)
        if is_layer(kind):
            yield Case(name, kind)
            parameters = inspect.signature(kind).parameters
            for argument, values in MORE.items():
                default = getattr(
                    parameters.get(argument), "default", inspect.Parameter.empty
                )
                for value in values if default is not inspect.Parameter.empty else ():
                    if value == default:
                        continue
                    yield Case(f"{name}-{value}", kind, ((argument, value),))


LAYERS = {case.name: case for case in found_in(seqref)}
# Those with a cell, which they run over a sequence.
OF_A_CELL = [name for name, case in LAYERS.items() if case.has_cell]
CAUSAL = [name for name, case in LAYERS.items() if getattr(case(), "causal", True)]
# Those whose results do not depend on where a sequence is cut.
UNCUT = [name for name in CAUSAL if getattr(LAYERS[name](), "chunk_invariant", True)]


def stirred(layer: nn.Module) -> nn.Module:
    """The layer with values in place of constants, which would hide a fault in use."""
    with torch.no_grad():
        for parameter in layer.parameters():
            if len(parameter.unique()) == 1:
                parameter.add_(torch.empty_like(parameter).uniform_(-0.5, 0.5))
    return layer
