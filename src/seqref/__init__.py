r"""seqref: sequence models whose every claim was run."""

from seqref.recurrent import LSTM, RNN, LSTMCell, LSTMState, RNNCell, RNNState

__version__ = "0.1.0"

__all__ = ["LSTM", "RNN", "LSTMCell", "LSTMState", "RNNCell", "RNNState"]
