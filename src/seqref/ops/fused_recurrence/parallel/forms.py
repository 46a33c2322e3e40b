r"""Each recurrence in the one shape that the driver and the loop call."""

from typing import Any

from torch import Tensor

from seqref.ops.fused_recurrence.parallel.cho_gru import (
    ChoGRUSaved,
    cho_gru_backward,
    cho_gru_forward,
)
from seqref.ops.fused_recurrence.parallel.common import Gradients, LSTMGradients
from seqref.ops.fused_recurrence.parallel.driver import Form
from seqref.ops.fused_recurrence.parallel.gru import GRUSaved, gru_backward, gru_forward
from seqref.ops.fused_recurrence.parallel.lstm import (
    LSTMSaved,
    lstm_backward,
    lstm_forward,
)
from seqref.ops.fused_recurrence.parallel.rnn import RNNSaved, rnn_backward, rnn_forward
from seqref.ops.fused_recurrence.reference import (
    States,
    Weights,
    cho_gru_step,
    gru_step,
    lstm_step,
    rnn_step,
)


def _rnn(nonlinearity: str) -> Form:
    def step(x_t: Tensor, states: States, weights: Weights) -> States:
        return (rnn_step(x_t, states[0], weights, nonlinearity),)

    def forward(x: Tensor, states: States, weights: Weights, _: Any) -> RNNSaved:
        return rnn_forward(x, states[0], weights, nonlinearity)

    def backward(
        saved: Any, weights: Weights, y_bar: Tensor, h_bar: Tensor, skip: Any
    ) -> Gradients:
        return rnn_backward(RNNSaved(*saved), weights, y_bar, h_bar, nonlinearity, skip)

    return Form(step, forward, backward)


def _lstm() -> Form:
    def step(x_t: Tensor, states: States, weights: Weights) -> States:
        return lstm_step(x_t, states[0], states[1], weights)

    def forward(x: Tensor, states: States, weights: Weights, ended: Any) -> LSTMSaved:
        return lstm_forward(x, states[0], states[1], weights, ended)

    def backward(
        saved: Any,
        weights: Weights,
        y_bar: Tensor,
        h_bar: Tensor,
        c_bar: Tensor,
        skip: Any,
    ) -> LSTMGradients:
        return lstm_backward(LSTMSaved(*saved), weights, y_bar, h_bar, c_bar, skip)

    return Form(step, forward, backward, ("h_0", "c_0"))


def _gru() -> Form:
    def step(x_t: Tensor, states: States, weights: Weights) -> States:
        return (gru_step(x_t, states[0], weights),)

    def forward(x: Tensor, states: States, weights: Weights, _: Any) -> GRUSaved:
        return gru_forward(x, states[0], weights)

    def backward(
        saved: Any, weights: Weights, y_bar: Tensor, h_bar: Tensor, skip: Any
    ) -> Gradients:
        return gru_backward(GRUSaved(*saved), weights, y_bar, h_bar, skip)

    return Form(step, forward, backward)


def _cho_gru() -> Form:
    def step(x_t: Tensor, states: States, weights: Weights) -> States:
        return (cho_gru_step(x_t, states[0], weights),)

    def forward(x: Tensor, states: States, weights: Weights, _: Any) -> ChoGRUSaved:
        return cho_gru_forward(x, states[0], weights)

    def backward(
        saved: Any, weights: Weights, y_bar: Tensor, h_bar: Tensor, skip: Any
    ) -> Gradients:
        return cho_gru_backward(ChoGRUSaved(*saved), weights, y_bar, h_bar, skip)

    return Form(step, forward, backward)


FORMS = {
    "rnn_tanh": _rnn("tanh"),
    "rnn_relu": _rnn("relu"),
    "lstm": _lstm(),
    "gru": _gru(),
    "cho_gru": _cho_gru(),
}
