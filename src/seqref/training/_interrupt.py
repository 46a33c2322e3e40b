r"""Ctrl-C and the signals that end a job: stop between two steps, never inside one."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

# SIGHUP is no signal of Windows.
NAMES = {"SIGINT": "Ctrl-C", "SIGTERM": "SIGTERM", "SIGHUP": "SIGHUP"}


class Interrupt:
    r"""A signal asks to stop after the running step; a second one stops at once."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        return self.number is not None

    @property
    def name(self) -> str:
        r"""What the user knows the signal as."""
        if self.number is None:
            return "nobody"
        return NAMES[signal.Signals(self.number).name]

    def __enter__(self) -> "Interrupt":
        # Python lets no other thread set a handler.
        if threading.current_thread() is not threading.main_thread():
            return self
        for name in NAMES:
            number = getattr(signal, name, None)
            if number is None:
                continue
            # A process started with a signal ignored (nohup, a background job) keeps
            # it so, and a handler of the caller's is the caller's.
            usual = (signal.default_int_handler, signal.SIG_DFL)
            if signal.getsignal(number) is usual[number != signal.SIGINT]:
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._give_back()

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        self.number = signum
        self._give_back()

    def _give_back(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)
