"""What the tests of the training commands share."""

import signal
from contextlib import contextmanager

import pytest


@pytest.fixture
def usual_signals():
    """Makes a context in which no signal is ignored, as in a program started by hand.

    A background job is started with some of them ignored, and the commands keep that.
    """
    return _usual_signals


@contextmanager
def _usual_signals():
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    if hasattr(signal, "SIGHUP"):
        usual[signal.SIGHUP] = signal.SIG_DFL
    before = {number: signal.signal(number, act) for number, act in usual.items()}
    try:
        yield
        # The command has given them back.
        assert {number: signal.getsignal(number) for number in usual} == usual
    finally:
        for number, act in before.items():
            signal.signal(number, act)
