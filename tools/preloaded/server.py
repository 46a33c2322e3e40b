r"""The interpreter that is forked: imports what it is told to, then forks on request.

Run as a script, with the number of a socket and the modules to import. A request is one
byte with four file descriptors: a socket, and the standard streams of the new process.
On that socket stand the job, as JSON, and then the process's number and wait status.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import threading
from typing import Any


def _serve(control: socket.socket) -> dict[str, Any] | None:
    r"""Answer requests; returns a job in the process that shall do it, None at last."""
    while True:
        word, handles, _, _ = socket.recv_fds(control, 1, 4)
        if not word:
            return None
        # The keeper waits for the process and says how it ended.
        if os.fork() == 0:
            control.close()
            return _keep(socket.socket(fileno=handles[0]), handles[1:])
        for handle in handles:
            os.close(handle)


def _bury(*_: Any) -> None:
    r"""Take note of keepers that have ended, so that their time counts as ours."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _keep(answer: socket.socket, streams: list[int]) -> dict[str, Any]:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with answer.makefile("rw", encoding="utf-8") as words:
        job = json.loads(words.readline())
        process = os.fork()
        if process:
            for handle in streams:
                os.close(handle)
            words.write(f"{process}\n")
            words.flush()
            words.write(f"{os.waitpid(process, 0)[1]}\n")
            words.flush()
            os._exit(0)
    answer.close()
    _set_streams(streams, job["closed"])
    return job


def _set_streams(streams: list[int], closed: list[int]) -> None:
    r"""Put the streams where a new process has them; closed ones are None in Python."""
    for number, handle in enumerate(streams):
        os.dup2(handle, number)
    for handle in streams:
        os.close(handle)
    names = ("stdin", "stdout", "stderr")
    for number in closed:
        os.close(number)
        setattr(sys, names[number], None)
        setattr(sys, f"__{names[number]}__", None)


def _run(job: dict[str, Any]) -> None:
    # As Python sets it when it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["env"])
    sys.argv = job["argv"]
    sys.path[:0] = job["path"]
    if job["module"]:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
    if job["quick"]:
        _end()


def _end() -> None:
    r"""What Python does at its end, but for taking apart half a million objects."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(0)


if __name__ == "__main__":
    for name in sys.argv[2:]:
        importlib.import_module(name)
    # A fork that does not go through what was imported does not copy it either.
    gc.freeze()
    signal.signal(signal.SIGCHLD, _bury)
    # Ctrl-C at the terminal is for those who asked, not for the server.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    job = _serve(socket.socket(fileno=int(sys.argv[1])))
    if job is not None:
        _run(job)
