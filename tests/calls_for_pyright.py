r"""Calls that pyright must accept, and calls that it must refuse; nothing runs them."""

# pyright: reportUnnecessaryTypeIgnoreComment=error

from typing import assert_type

import seqref
from seqref import LSTMCell


def right() -> None:
    assert_type(seqref.LSTM(3, 4, bias=False).cell, LSTMCell)
    assert_type(seqref.GRU(3, 4).initial_state(2), seqref.GRUState)
    seqref.RNN(3, 4, nonlinearity="relu")
    seqref.LSTM1997(3, 4, gradient="truncated")
    seqref.ProjectedLSTM(3, 4, 2)
    seqref.ZoneoutLSTM(3, 4, zoneout_c=0.1, zoneout_h=0.1)


def wrong() -> None:
    seqref.LSTM(3)  # pyright: ignore[reportCallIssue]
    seqref.LSTM(3, 4, False)  # pyright: ignore[reportCallIssue]
    seqref.GRU(3, "4")  # pyright: ignore[reportArgumentType]
    seqref.RNN(3, 4, gradient="whole")  # pyright: ignore[reportCallIssue]
    seqref.PeepholeLSTM(3, 4, bais=True)  # pyright: ignore[reportCallIssue]
    seqref.CoupledGateLSTM(3, 4, bias="no")  # pyright: ignore[reportArgumentType]
    seqref.ProjectedLSTM(3, 4)  # pyright: ignore[reportCallIssue]
    seqref.ZoneoutLSTM(3, 4, zoneout_c=0.1)  # pyright: ignore[reportCallIssue]
    seqref.VariationalLSTM(3, 4)  # pyright: ignore[reportCallIssue]


class Small(seqref.LSTM):
    r"""A subclass with a constructor of its own."""

    def __init__(self, size: int) -> None:
        super().__init__(size, size, bais=True)  # pyright: ignore[reportCallIssue]


Small(3)
