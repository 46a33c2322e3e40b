r"""What a command says, and streams whose loss ends nothing."""

import sys
import unicodedata
from types import TracebackType
from typing import Any


class Patient:
    r"""A stream that may be closed, full or gone; `lost` is the error that said so."""

    def __init__(self, stream: Any):
        self._stream = stream
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        self._try("flush")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _try(self, name: str, *arguments: str) -> None:
        if self._stream is None or self.lost is not None:
            return
        try:
            getattr(self._stream, name)(*arguments)
        except UnicodeError:
            raise
        except OSError as error:
            self.lost = error
        except ValueError as error:
            # What Python says of a stream that was closed inside the program.
            self.lost = OSError(str(error))


class PatientStreams:
    r"""Within it, standard output and standard error are patient.

    `lost` is the error that lost standard output; a lost standard error is nobody's
    loss.
    """

    @property
    def lost(self) -> OSError | None:
        return self._out.lost

    def __enter__(self) -> "PatientStreams":
        self._before = sys.stdout, sys.stderr
        self._out = Patient(sys.stdout)
        sys.stdout, sys.stderr = self._out, Patient(sys.stderr)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._out.flush()
        sys.stdout, sys.stderr = self._before


def say(text: str) -> None:
    r"""Print what the terminal's encoding has; `?` for every other character."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), flush=True)


def tell(text: str) -> None:
    r"""Print a line on standard error."""
    print(text, file=sys.stderr)


def shown(text: str) -> str:
    r"""`text` with its control characters written out: they would drive a terminal."""
    return "".join(
        c.encode("unicode_escape").decode()
        if unicodedata.category(c) == "Cc" and c not in "\n\t"
        else c
        for c in text
    )
