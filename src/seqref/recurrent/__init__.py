r"""Recurrent layers: state carried by a nonlinear step."""

from seqref.recurrent.bidirectional import Bidirectional, BidirectionalState
from seqref.recurrent.bptt import truncated_chunks
from seqref.recurrent.gradients import (
    gradient_norm_by_lag,
    jacobian_log_norm,
    jacobian_product,
    state_jacobian,
)
from seqref.recurrent.gru import GRU, ChoGRU, ChoGRUCell, GRUCell, GRUState
from seqref.recurrent.independent import IndRNN, IndRNNCell, IndRNNState
from seqref.recurrent.initialisation import (
    chrono_,
    forget_bias_,
    identity_,
    orthogonal_,
)
from seqref.recurrent.lstm import LSTM, LSTMCell, LSTMState
from seqref.recurrent.lstm_history import (
    LSTM1997,
    CoupledGateLSTM,
    CoupledGateLSTMCell,
    LSTM1997Cell,
    PeepholeLSTM,
    PeepholeLSTMCell,
)
from seqref.recurrent.lstm_variants import (
    LayerNormLSTM,
    LayerNormLSTMCell,
    LockedDropout,
    ProjectedLSTM,
    ProjectedLSTMCell,
    VariationalLSTM,
    VariationalLSTMCell,
    VariationalLSTMState,
    ZoneoutLSTM,
    ZoneoutLSTMCell,
    zoneout,
)
from seqref.recurrent.minimal import (
    MinGRU,
    MinGRUCell,
    MinimalState,
    MinLSTM,
    MinLSTMCell,
)
from seqref.recurrent.rnn import RNN, RNNCell, RNNState
from seqref.recurrent.stacked import Stacked
from seqref.recurrent.variable_length import (
    bucket_batches,
    last_state,
    lengths_to_mask,
    pack,
    padding_fraction,
    token_batches,
    unpack,
)

__all__ = [
    "GRU",
    "LSTM",
    "LSTM1997",
    "RNN",
    "Bidirectional",
    "BidirectionalState",
    "ChoGRU",
    "ChoGRUCell",
    "CoupledGateLSTM",
    "CoupledGateLSTMCell",
    "GRUCell",
    "GRUState",
    "IndRNN",
    "IndRNNCell",
    "IndRNNState",
    "LSTM1997Cell",
    "LSTMCell",
    "LSTMState",
    "LayerNormLSTM",
    "LayerNormLSTMCell",
    "LockedDropout",
    "MinGRU",
    "MinGRUCell",
    "MinLSTM",
    "MinLSTMCell",
    "MinimalState",
    "PeepholeLSTM",
    "PeepholeLSTMCell",
    "ProjectedLSTM",
    "ProjectedLSTMCell",
    "RNNCell",
    "RNNState",
    "Stacked",
    "VariationalLSTM",
    "VariationalLSTMCell",
    "VariationalLSTMState",
    "ZoneoutLSTM",
    "ZoneoutLSTMCell",
    "bucket_batches",
    "chrono_",
    "forget_bias_",
    "gradient_norm_by_lag",
    "identity_",
    "jacobian_log_norm",
    "jacobian_product",
    "last_state",
    "lengths_to_mask",
    "orthogonal_",
    "pack",
    "padding_fraction",
    "state_jacobian",
    "token_batches",
    "truncated_chunks",
    "unpack",
    "zoneout",
]
