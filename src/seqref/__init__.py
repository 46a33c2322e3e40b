r"""seqref: sequence models whose every claim was run."""

from seqref.recurrent import (
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    BidirectionalState,
    ChoGRU,
    ChoGRUCell,
    GRUCell,
    GRUState,
    LSTMCell,
    LSTMState,
    RNNCell,
    RNNState,
    Stacked,
)

__version__ = "0.1.0"

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Bidirectional",
    "BidirectionalState",
    "ChoGRU",
    "ChoGRUCell",
    "GRUCell",
    "GRUState",
    "LSTMCell",
    "LSTMState",
    "RNNCell",
    "RNNState",
    "Stacked",
]
