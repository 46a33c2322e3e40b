r"""The networks that are compared: layers of torch.nn, initialised in several ways.

A network is built as a module of `torch.nn`, changed by the functions of
`seqref.recurrent.initialisation`, and then moved to the layer of seqref with the same
parameters and the same equations, which is faster on a CPU for RNN and GRU.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from experiments.lab.seeding import seeded
from seqref.interop import from_torch
from seqref.recurrent.initialisation import (
    chrono_,
    forget_bias_,
    identity_,
    orthogonal_,
)


class Recipe(NamedTuple):
    r"""A layer of torch.nn, and what is done to it before training.

    `initialise` gets the layer and a horizon in steps, which chrono alone reads.
    """

    label: str
    make: Callable[[int, int], nn.RNNBase]
    initialise: Callable[[nn.RNNBase, float], Any]


def _tanh(input_size: int, width: int) -> nn.RNNBase:
    return nn.RNN(input_size, width, batch_first=True)


def _relu(input_size: int, width: int) -> nn.RNNBase:
    return nn.RNN(input_size, width, nonlinearity="relu", batch_first=True)


def _lstm(input_size: int, width: int) -> nn.RNNBase:
    return nn.LSTM(input_size, width, batch_first=True)


def _gru(input_size: int, width: int) -> nn.RNNBase:
    return nn.GRU(input_size, width, batch_first=True)


def _as_it_comes(layer: nn.RNNBase, horizon: float) -> None:
    pass


def _chrono_of(block: str) -> Callable[[nn.RNNBase, float], None]:
    """Chrono biases in one block of rows, the other as it comes."""

    def initialise(layer: nn.RNNBase, horizon: float) -> None:
        parameters = dict(layer.named_parameters())
        before = {name: value.detach().clone() for name, value in parameters.items()}
        for name, rows, found, _ in chrono_(layer, horizon):
            if found != block:
                with torch.no_grad():
                    parameters[name][slice(*rows)] = before[name][slice(*rows)]

    return initialise


CATALOGUE = {
    "rnn": Recipe("tanh RNN, default", _tanh, _as_it_comes),
    "rnn_orthogonal": Recipe(
        "tanh RNN, orthogonal", _tanh, lambda layer, _: orthogonal_(layer)
    ),
    "irnn": Recipe("ReLU RNN, identity", _relu, lambda layer, _: identity_(layer)),
    "lstm": Recipe("LSTM, default", _lstm, _as_it_comes),
    "lstm_bias_1": Recipe(
        "LSTM, forget bias 1", _lstm, lambda layer, _: forget_bias_(layer, 1.0)
    ),
    "lstm_bias_5": Recipe(
        "LSTM, forget bias 5", _lstm, lambda layer, _: forget_bias_(layer, 5.0)
    ),
    "lstm_chrono": Recipe("LSTM, chrono", _lstm, chrono_),
    "lstm_chrono_forget": Recipe(
        "LSTM, chrono, forget bias alone", _lstm, _chrono_of("f")
    ),
    "lstm_chrono_input": Recipe(
        "LSTM, chrono, input bias alone", _lstm, _chrono_of("i")
    ),
    "gru": Recipe("GRU, default", _gru, _as_it_comes),
    "gru_chrono": Recipe("GRU, chrono", _gru, chrono_),
}


class Network(nn.Module):
    r"""A recurrent layer and a linear read-out of its output at every step."""

    def __init__(self, layer: nn.RNNBase, output_size: int) -> None:
        super().__init__()
        self.layer: Any = from_torch(layer)  # type: ignore[call-overload]
        self.head = nn.Linear(layer.hidden_size, output_size)

    def forward(
        self, x: Float[Tensor, "batch time input"]
    ) -> Float[Tensor, "batch time output"]:
        """The read-out, step by step."""
        return self.head(self.layer(x)[0])


def layer_of(
    recipe: str, input_size: int, hidden_size: int, horizon: float
) -> nn.RNNBase:
    r"""The layer of torch.nn that a recipe names, initialised.

    Random numbers come from torch's global generator.

    Raises:
        ValueError: `recipe` is not in the catalogue.
    """
    if recipe not in CATALOGUE:
        raise ValueError(
            f"layer_of: `recipe` must be one of {', '.join(CATALOGUE)}, got {recipe!r}"
        )
    found = CATALOGUE[recipe]
    layer = found.make(input_size, hidden_size)
    found.initialise(layer, horizon)
    return layer


def build(
    recipe: str,
    input_size: int,
    hidden_size: int,
    output_size: int,
    horizon: float,
    seed: int,
) -> Network:
    """A network by its recipe; one seed gives the same network every time."""
    with seeded(seed):
        layer = layer_of(recipe, input_size, hidden_size, horizon)
        return Network(layer, output_size)
