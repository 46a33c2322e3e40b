r"""The layers of the experiment, and what is measured of one of them."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from experiments.lab.seeding import generator, seeded
from seqref import GRU, LSTM, RNN
from seqref.recurrent import (
    chrono_,
    forget_bias_,
    gradient_norm_by_lag,
    identity_,
    orthogonal_,
)

NAMES = {
    "rnn_default": "RNN tanh, default",
    "rnn_orthogonal": "RNN tanh, orthogonal",
    "rnn_identity": "RNN ReLU, identity",
    "lstm_default": "LSTM, default",
    "lstm_orthogonal": "LSTM, orthogonal",
    "lstm_bias_1": "LSTM, forget bias 1",
    "lstm_bias_5": "LSTM, forget bias 5",
    "lstm_chrono_200": "LSTM, chrono 200",
    "lstm_chrono_1000": "LSTM, chrono 1,000",
    "gru_default": "GRU, default",
    "gru_orthogonal": "GRU, orthogonal",
    "gru_chrono_200": "GRU, chrono 200",
    "gru_chrono_1000": "GRU, chrono 1,000",
}


def build(case: str, input_size: int, hidden_size: int, seed: int) -> nn.Module:
    """The layer of a case, its parameters drawn from `seed`."""
    kind, rule, *values = case.split("_")
    sizes = (input_size, hidden_size)
    with seeded(seed):
        if kind == "rnn":
            activation = "relu" if rule == "identity" else "tanh"
            layer: nn.Module = RNN(*sizes, nonlinearity=activation, dtype=torch.float64)
        else:
            gated = {"lstm": LSTM, "gru": GRU}[kind]
            layer = gated(*sizes, dtype=torch.float64)
        if rule == "orthogonal":
            orthogonal_(layer)
        elif rule == "identity":
            identity_(layer)
        elif rule == "bias":
            forget_bias_(layer, float(values[0]))
        elif rule == "chrono":
            chrono_(layer, float(values[0]))
    return layer


def gates_of_biases(layer: Any) -> Float[Tensor, " hidden"] | None:
    r"""$\sigma$ of the bias of the gate that keeps, in each unit; None without one."""
    if isinstance(layer, RNN):
        return None
    total = (layer.cell.bias_ih + layer.cell.bias_hh).detach()
    # f of an LSTM's i, f, g, o and z of a GRU's r, z, n: the second of both.
    return total.chunk(layer.cell.n_blocks)[1].sigmoid()


def left_by_biases(gates: Float[Tensor, " hidden"], steps: int) -> float:
    r"""The root mean square over the units of $f^k$."""
    return gates.pow(2 * steps).mean().sqrt().item()


def measure_layer(
    layer: Any, rows: int, warm_up: int, lags: tuple[int, ...], seed: int
) -> dict[str, Any]:
    """One layer on one batch of inputs drawn from `seed`: medians over its rows."""
    draw = generator(seed)
    size = (rows, warm_up + max(lags), layer.input_size)
    x = torch.randn(size, generator=draw, dtype=torch.float64).requires_grad_()
    _, state = layer(x)
    bar = torch.randn(state.h.shape, generator=draw, dtype=torch.float64)
    (x_bar,) = torch.autograd.grad((state.h * bar).sum(), x)
    zeros = [torch.zeros_like(part) for part in state]
    state_bar = type(state)(*zeros)._replace(h=bar)
    norms = gradient_norm_by_lag(layer, x.detach(), state_bar)
    states = (norms / norms[:, :1]).median(dim=0).values
    # Entry k belongs to the input k steps before the last.
    inputs = (x_bar.norm(dim=2).flip(1) / norms[:, :1]).median(dim=0).values
    below = (states[: max(lags) + 1] < 0.01).nonzero()
    found = {
        "state": states[list(lags)].tolist(),
        "input": inputs[list(lags)].tolist(),
        "one_percent": below[0].item() if len(below) else math.inf,
    }
    gates = gates_of_biases(layer)
    if gates is not None:
        found["biases"] = [left_by_biases(gates, lag - 1) for lag in lags]
    if isinstance(layer, LSTM):
        found["slope"] = (1 - state.c.tanh() ** 2).mean().item()
        found["cell"] = state.c.abs().mean().item()
    return found
