r"""Asks the server for processes, and stands for them as `subprocess.Popen` would."""

import atexit
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

SERVER = Path(__file__).with_name("server.py")
# A stream that the new process does not have.
CLOSED = -10


class Preloaded:
    r"""An interpreter that has imported some modules, and is forked for each process.

    On a system that cannot fork, each process is an interpreter of its own.

    Args:
        modules: What it imports.
        options: Python's own options, such as `-I`.
    """

    def __init__(self, modules: Sequence[str], options: Sequence[str] = ()) -> None:
        self._command = [sys.executable, *options]
        if not hasattr(os, "fork"):
            return
        self._control, theirs = socket.socketpair()
        with theirs:
            # One thread from the start: a process with several cannot be forked safely.
            self._server = subprocess.Popen(
                [*self._command, str(SERVER), str(theirs.fileno()), *modules],
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        atexit.register(self.close)

    def close(self) -> None:
        r"""End the server; processes that are still there live on."""
        atexit.unregister(self.close)
        self._control.close()
        self._server.wait()

    def start(
        self,
        argv: Sequence[str],
        *,
        module: bool = False,
        quick: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        path: Sequence[str] = (),
        stdin: int = subprocess.DEVNULL,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> "Process | subprocess.Popen[bytes]":
        r"""Start a script, or with `module` what `python -m` would, in a new process.

        Args:
            argv: The script's path or the module's name, and its arguments.
            module: Whether it is a module's name.
            quick: Whether it may end, where it ends well, without taking itself apart.
            env: The environment; by default that of this process.
            cwd: The folder to start in.
            path: What stands first on the path of imports.
            stdin: A file descriptor, DEVNULL, or CLOSED.
            stdout: As stdin, or None for this process's own.
            stderr: As stdout.
        """
        env = dict(os.environ if env is None else env)
        argv = [str(word) for word in argv]
        if not hasattr(os, "fork"):
            return subprocess.Popen(
                [*self._command, *(["-m"] if module else []), *argv],
                env=env | ({"PYTHONPATH": os.pathsep.join(path)} if path else {}),
                cwd=cwd,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
            )
        asked = [stdin, stdout, stderr]
        with open(os.devnull, "r+b") as nothing:
            handles = [
                nothing.fileno() if handle in (subprocess.DEVNULL, CLOSED) else handle
                for handle in asked
            ]
            handles = [n if h is None else h for n, h in enumerate(handles)]
            ours, theirs = socket.socketpair()
            with theirs:
                try:
                    wanted = [theirs.fileno(), *handles]
                    socket.send_fds(self._control, [b"."], wanted)
                except OSError:
                    ours.close()
                    raise
        job = {
            "argv": argv,
            "module": module,
            "quick": quick,
            "env": env,
            "cwd": os.fspath(cwd or os.getcwd()),
            "path": list(path),
            "closed": [n for n, handle in enumerate(asked) if handle == CLOSED],
        }
        ours.sendall(json.dumps(job).encode() + b"\n")
        return Process(ours)


class Process:
    r"""A process that was started, with the methods of `subprocess.Popen` in use here.

    Attributes:
        pid: Its number.
        returncode: Its exit status, minus the signal's number if one ended it; None
            until it was seen to end.
    """

    def __init__(self, answer: socket.socket) -> None:
        self._answer, self._read = answer, b""
        self.returncode: int | None = None
        self.pid = int(self._line(None) or 0)

    def _line(self, timeout: float | None) -> bytes | None:
        r"""The next line of the server's, or None if it does not come in time."""
        end = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._read:
            left = None if end is None else max(0.0, end - time.monotonic())
            self._answer.settimeout(left)
            try:
                more = self._answer.recv(64)
            except (TimeoutError, BlockingIOError):
                return None
            if not more:
                self._answer.close()
                raise RuntimeError("the server of processes has ended")
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        return line

    def poll(self) -> int | None:
        r"""The exit status, or None while the process runs."""
        if self.returncode is None:
            status = self._line(0.0)
            if status is not None:
                self.returncode = os.waitstatus_to_exitcode(int(status))
                self._answer.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        r"""The exit status, when there is one.

        Raises:
            subprocess.TimeoutExpired: The process is still there after that time.
        """
        if self.returncode is None:
            status = self._line(timeout)
            if status is None:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            self.returncode = os.waitstatus_to_exitcode(int(status))
            self._answer.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        r"""Send a signal, unless the process is known to have ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        r"""End it at once, wherever it is."""
        self.send_signal(signal.SIGKILL)


@functools.cache
def preloaded(*modules: str, options: tuple[str, ...] = ()) -> Preloaded:
    r"""One such interpreter for this process, started when first asked for."""
    return Preloaded(modules, options)
