r"""Catches what reaches standard output while a block runs, whoever writes it.

`print`, a file descriptor, a child process, a C library and an object that held
`sys.stdout` since an earlier block all end in one file, in the order of writing.
"""

import contextlib
import ctypes
import io
import os
import sys
import tempfile
from collections.abc import Iterator


class Capture:
    r"""Standard output of a page. `sys.stdout` is one object for all of its blocks."""

    def __init__(self) -> None:
        # For appending: writers do not overwrite one another, whoever they are.
        self._file = tempfile.TemporaryFile("a+b", buffering=0)  # noqa: SIM115
        raw = io.FileIO(os.dup(self._file.fileno()), "a")
        # Unbuffered, so that what a child process writes keeps its place.
        self._stream = io.TextIOWrapper(
            raw, encoding="utf-8", newline="\n", write_through=True
        )
        self._stdout: object = self._stream
        self._read = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        r"""Send standard output, as an object and as a descriptor, to the file."""
        _flush(sys.stdout)
        before, kept = sys.stdout, os.dup(1)
        os.dup2(self._file.fileno(), 1)
        sys.stdout = self._stdout
        try:
            yield
        finally:
            _flush(sys.stdout, self._stream)
            self._stdout, sys.stdout = sys.stdout, before
            os.dup2(kept, 1)
            os.close(kept)

    def taken(self) -> str:
        r"""What was written since the last call."""
        size = self._file.seek(0, os.SEEK_END)
        data = os.pread(self._file.fileno(), size - self._read, self._read)
        self._read = size
        return data.decode("utf-8", errors="replace")

    def close(self) -> None:
        r"""Forget the file; what still holds the stream can no longer write."""
        self._stream.close()
        self._file.close()


def _flush(*streams: object) -> None:
    r"""Write out what Python and C libraries have in their buffers."""
    for stream in (*streams, sys.__stdout__):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.flush()  # type: ignore[union-attr]
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).fflush(None)
