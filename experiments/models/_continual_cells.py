r"""The cells on one stream: that of 1997, and what was done about its state."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from experiments.lab.seeding import seeded
from seqref import LSTM, LSTM1997, CoupledGateLSTM

Layer = LSTM1997 | LSTM | CoupledGateLSTM


@dataclass(frozen=True)
class Case:
    r"""A layer, and what its cell state must be multiplied by to compare it."""

    label: str
    build: Callable[[Any, int], Layer]
    scale: float = 1.0
    resets: bool = False


def lstm_1997(config: Any, seed: int) -> LSTM1997:
    """The layer as it comes."""
    with seeded(seed):
        return LSTM1997(config.input_size, config.hidden_size, dtype=torch.float64)


def shut_gates(config: Any, seed: int) -> LSTM1997:
    """The same layer with a negative input-gate bias, the paper's remedy for drift."""
    layer = lstm_1997(config, seed)
    with torch.no_grad():
        biases = dict(layer.cell.named_parameters())["bias_ih"]
        biases[: config.hidden_size] += config.input_gate_bias
    return layer


def with_forget_gate(layer: LSTM1997, bias: float, seed: int) -> LSTM:
    r"""The same layer with a forget gate, as an `LSTM`.

    With $c = 2 c'$ the cell of 1997 is $h_t = o_t \odot \tanh c'_t$ and
    $c'_t = c'_{t-1} + i_t \odot \tanh(a / 2)$, $a$ the candidate's pre-activation. So
    halving the candidate's weights makes an LSTM of it, with $f_t = 1$ and state $c'$.
    Here $f_t$ gets weights of its own, drawn as in a new `LSTM`, and `bias` on top.
    """
    size = layer.hidden_size
    with seeded(seed + 500):
        made = LSTM(layer.input_size, size, dtype=layer.cell.weight_hh.dtype)
    old = dict(layer.cell.named_parameters())
    with torch.no_grad():
        for name, parameter in made.cell.named_parameters():
            i, g, o = old[name].chunk(3)
            forget = parameter[size : 2 * size].clone()
            if name == "bias_ih":
                forget += bias
            parameter.copy_(torch.cat([i, forget, g / 2, o]))
    return made


def forget_gate(config: Any, seed: int) -> LSTM:
    """A forget gate as it comes, near one half."""
    return with_forget_gate(lstm_1997(config, seed), 0.0, seed)


def open_forget_gate(config: Any, seed: int) -> LSTM:
    """A forget gate that starts near 1."""
    return with_forget_gate(lstm_1997(config, seed), config.forget_bias, seed)


def coupled(config: Any, seed: int) -> CoupledGateLSTM:
    """Coupled gates as they come: weights of their own, other squashing functions."""
    with seeded(seed):
        return CoupledGateLSTM(
            config.input_size, config.hidden_size, dtype=torch.float64
        )


CASES = {
    "lstm_1997": Case("1997", lstm_1997),
    "shut_gates": Case("1997, input gates biased shut", shut_gates),
    "resets": Case("1997, reset at marked ends", lstm_1997, resets=True),
    "forget_open": Case("forget gate near 1", open_forget_gate, scale=2.0),
    "forget": Case("forget gate near 1/2", forget_gate, scale=2.0),
    "coupled": Case("coupled gates", coupled),
}


def squashed(case: Case, c_t: Tensor) -> Tensor:
    """What the cell shows of its state before the output gate."""
    halved = case.build in (lstm_1997, shut_gates)
    return torch.tanh(c_t / 2 if halved else c_t)
