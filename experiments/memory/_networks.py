r"""The networks that are compared: layers of torch.nn, initialised in several ways.

A network is built as a module of `torch.nn`, changed by the functions of
`seqref.recurrent.initialisation`, and then moved to the layer of seqref with the same
parameters and the same equations, which is faster on a CPU for RNN and GRU.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from experiments import lab
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
    kind: Callable[..., nn.RNNBase]
    initialise: Callable[[nn.RNNBase, float], Any] = lambda layer, horizon: None


def _chrono_of(block: str) -> Callable[[nn.RNNBase, float], None]:
    """Chrono biases in one block of rows, the other as it comes."""

    @torch.no_grad()
    def initialise(layer: nn.RNNBase, horizon: float) -> None:
        before = {name: value.clone() for name, value in layer.state_dict().items()}
        for name, rows, changed, _ in chrono_(layer, horizon):
            if changed != block:
                there = slice(*rows)
                layer.get_parameter(name)[there] = before[name][there]

    return initialise


def _alone(initialise: Callable[..., Any], *values: float) -> Any:
    """An initialisation that is told no horizon."""
    return lambda layer, horizon: initialise(layer, *values)


CATALOGUE = {
    "rnn": Recipe("tanh RNN, default", nn.RNN),
    "rnn_orthogonal": Recipe("tanh RNN, orthogonal", nn.RNN, _alone(orthogonal_)),
    "irnn": Recipe(
        "ReLU RNN, identity", partial(nn.RNN, nonlinearity="relu"), _alone(identity_)
    ),
    "lstm": Recipe("LSTM, default", nn.LSTM),
    "lstm_bias_1": Recipe("LSTM, forget bias 1", nn.LSTM, _alone(forget_bias_, 1.0)),
    "lstm_bias_5": Recipe("LSTM, forget bias 5", nn.LSTM, _alone(forget_bias_, 5.0)),
    "lstm_chrono": Recipe("LSTM, chrono", nn.LSTM, chrono_),
    "lstm_chrono_forget": Recipe(
        "LSTM, chrono, forget bias alone", nn.LSTM, _chrono_of("f")
    ),
    "lstm_chrono_input": Recipe(
        "LSTM, chrono, input bias alone", nn.LSTM, _chrono_of("i")
    ),
    "gru": Recipe("GRU, default", nn.GRU),
    "gru_chrono": Recipe("GRU, chrono", nn.GRU, chrono_),
}


class Network(nn.Module):
    r"""A recurrent layer and a linear read-out of its output at every step."""

    def __init__(self, layer: Any, output_size: int) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(layer.hidden_size, output_size)

    def forward(
        self, x: Float[Tensor, "batch time input"]
    ) -> Float[Tensor, "batch time output"]:
        """The read-out, step by step."""
        return self.head(self.layer(x)[0])


def layer_of(
    recipe: str, input_size: int, hidden_size: int, horizon: float
) -> nn.RNNBase:
    """The layer of torch.nn that a recipe names, from torch's global generator."""
    _, kind, initialise = CATALOGUE[recipe]
    layer = kind(input_size, hidden_size, batch_first=True)
    initialise(layer, horizon)
    return layer


def build(
    recipe: str, sizes: tuple[int, int, int], horizon: float, seed: int
) -> Network:
    r"""A network by its recipe; `sizes` are those of input, state and output.

    One seed gives the same network every time.
    """
    with lab.seeded(seed):
        layer: Any = layer_of(recipe, *sizes[:2], horizon)
        return Network(from_torch(layer), sizes[2])
