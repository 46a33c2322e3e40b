r"""seqref: sequence models whose every claim was run."""

from seqref.recurrent import (
    GRU,
    LSTM,
    LSTM1997,
    RNN,
    Bidirectional,
    BidirectionalState,
    ChoGRU,
    ChoGRUCell,
    CoupledGateLSTM,
    CoupledGateLSTMCell,
    GRUCell,
    GRUState,
    LSTM1997Cell,
    LSTMCell,
    LSTMState,
    PeepholeLSTM,
    PeepholeLSTMCell,
    RNNCell,
    RNNState,
    Stacked,
)

__version__ = "0.1.0"

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
    "LSTM1997Cell",
    "LSTMCell",
    "LSTMState",
    "PeepholeLSTM",
    "PeepholeLSTMCell",
    "RNNCell",
    "RNNState",
    "Stacked",
]
