r"""Variants of the LSTM: layer norm, a projection, zoneout, and dropout by sequence."""

from seqref.recurrent.lstm_variants.layer_norm import LayerNormLSTM, LayerNormLSTMCell
from seqref.recurrent.lstm_variants.noise import (
    LockedDropout,
    VariationalLSTM,
    VariationalLSTMCell,
    VariationalLSTMState,
    ZoneoutLSTM,
    ZoneoutLSTMCell,
    zoneout,
)
from seqref.recurrent.lstm_variants.projection import ProjectedLSTM, ProjectedLSTMCell

__all__ = [
    "LayerNormLSTM",
    "LayerNormLSTMCell",
    "LockedDropout",
    "ProjectedLSTM",
    "ProjectedLSTMCell",
    "VariationalLSTM",
    "VariationalLSTMCell",
    "VariationalLSTMState",
    "ZoneoutLSTM",
    "ZoneoutLSTMCell",
    "zoneout",
]
