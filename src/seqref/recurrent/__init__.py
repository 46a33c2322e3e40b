r"""Recurrent layers: state carried by a nonlinear step."""

from seqref.recurrent.lstm import LSTM, LSTMCell, LSTMState
from seqref.recurrent.rnn import RNN, RNNCell, RNNState

__all__ = ["LSTM", "RNN", "LSTMCell", "LSTMState", "RNNCell", "RNNState"]
