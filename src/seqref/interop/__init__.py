r"""Exchange of weights and states with torch.nn, Keras, ONNX and transformers."""

from seqref.interop.keras import (
    cho_gru_from_keras,
    cho_gru_to_keras,
    gru_from_keras,
    gru_to_keras,
    lstm_from_keras,
    lstm_to_keras,
    rnn_from_keras,
    rnn_to_keras,
)
from seqref.interop.left_padding import from_left_padding, to_left_padding
from seqref.interop.onnx import (
    OnnxWeights,
    cho_gru_from_onnx,
    cho_gru_to_onnx,
    gru_from_onnx,
    gru_to_onnx,
    lstm_from_onnx,
    lstm_to_onnx,
    rnn_from_onnx,
    rnn_to_onnx,
)
from seqref.interop.torch_attention import (
    attention_from_torch,
    attention_to_torch,
    cross_attention_from_torch,
)
from seqref.interop.torch_modules import from_torch, to_torch
from seqref.interop.torch_states import state_from_torch, state_to_torch
from seqref.interop.transformers import from_transformers

__all__ = [
    "OnnxWeights",
    "attention_from_torch",
    "attention_to_torch",
    "cho_gru_from_keras",
    "cho_gru_from_onnx",
    "cho_gru_to_keras",
    "cho_gru_to_onnx",
    "cross_attention_from_torch",
    "from_left_padding",
    "from_torch",
    "from_transformers",
    "gru_from_keras",
    "gru_from_onnx",
    "gru_to_keras",
    "gru_to_onnx",
    "lstm_from_keras",
    "lstm_from_onnx",
    "lstm_to_keras",
    "lstm_to_onnx",
    "rnn_from_keras",
    "rnn_from_onnx",
    "rnn_to_keras",
    "rnn_to_onnx",
    "state_from_torch",
    "state_to_torch",
    "to_left_padding",
    "to_torch",
]
