r"""One run at a time in a folder: a lock that ends with the process that holds it."""

import contextlib
import errno
import os
import sys
import warnings
from pathlib import Path
from types import TracebackType

from seqref.training._file import in_words

NAME = ".lock"
# What a system says whose file system has no locks, such as a network's without a
# daemon for them.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
NO_WRITING = {errno.EACCES, errno.EPERM, errno.EROFS}
# Windows locks bytes, and nobody can read those: this one is past the text.
PLACE = 1 << 20

# A forked child (a worker that loads data) must not hold what its parent held.
_held: set[int] = set()


class Lock:
    r"""Refuses a folder that another run works in, be it of this process or another.

    `take` does nothing where the folder is missing or the lock is held already. The
    operating system gives the lock back when the process ends, however it ends; the
    file that is left by a killed process does no harm.

    Args:
        folder: Gets a file `.lock` while the lock is held.
        name: How the caller calls the folder, such as ``"fit: `checkpoints.folder`"``.
    """

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name
        self._handle: int | None = None
        self._none = False

    @property
    def held(self) -> bool:
        return self._handle is not None

    def take(self) -> None:
        r"""Hold the lock from here on.

        Raises:
            RuntimeError: another run holds it.
            OSError: the file of the lock cannot be opened.
        """
        path = self.folder / NAME
        while self._handle is None and not self._none and os.path.isdir(self.folder):
            try:
                handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                if error.errno in NO_WRITING and not os.path.lexists(path):
                    # A folder to read from only: the first write says so.
                    return
                raise in_words(
                    error, f"{self.name}: {str(path)!r} cannot be opened"
                ) from error
            if not self._lock(handle, path):
                os.close(handle)
                self._none = True
                return
            if _is(handle, path):
                self._handle = handle
                _held.add(handle)
                # For the message of others alone; a full disk does not matter here.
                with contextlib.suppress(OSError):
                    os.ftruncate(handle, 0)
                    os.write(handle, f"{os.getpid()}\n".encode())
            else:
                # Who held it has deleted it meanwhile: this is no longer the file.
                os.close(handle)

    def _lock(self, handle: int, path: Path) -> bool:
        r"""Whether the system could lock the file."""
        try:
            _lock_file(handle)
        except OSError as error:
            if error.errno in NO_LOCKS:
                warnings.warn(
                    f"{self.name} {str(self.folder)!r}: its file system has no locks, "
                    "so a second run in it is not noticed",
                    RuntimeWarning,
                    stacklevel=2,
                )
                return False
            os.close(handle)
            raise RuntimeError(
                f"{self.name} {str(self.folder)!r} is in use by another run"
                f"{_holder(path)}; wait for its end, or choose another folder"
            ) from error
        return True

    def release(self) -> None:
        r"""Delete the file and give the lock back."""
        if self._handle is None:
            return
        handle, self._handle = self._handle, None
        _held.discard(handle)
        path = self.folder / NAME
        # While it is locked, so that nobody can hold what is no longer there; Windows
        # deletes no open file.
        if os.name == "posix":
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(handle)
        else:
            os.close(handle)
            with contextlib.suppress(OSError):
                path.unlink()

    def __enter__(self) -> "Lock":
        self.take()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def _is(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    try:
        text = path.read_bytes()[:20].decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return f" (process {text})" if text.isdecimal() else ""


if sys.platform == "win32":
    import msvcrt

    def _lock_file(handle: int) -> None:
        os.lseek(handle, PLACE, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock_file(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _forget() -> None:
    for handle in _held:
        with contextlib.suppress(OSError):
            os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
