r"""A progress bar that never ends what it shows."""

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

from seqref.errors import import_extra


class Bar:
    r"""A bar on standard error, or none: not asked for, or the stream is lost.

    Raises:
        RuntimeError: a bar is asked for and tqdm is not installed.
    """

    def __init__(self, total: int, made: int, unit: str, shown: bool = True):
        self._bar: Any = None
        if not shown:
            return
        tqdm = import_extra("tqdm", "a progress bar", "train")
        # Closed before the program began.
        if sys.stderr is None:
            return
        self._try(
            lambda: self._open(
                tqdm.tqdm,
                total=total,
                initial=made,
                unit=unit,
                dynamic_ncols=True,
            )
        )

    def update(self, count: int, text: Callable[[], str]) -> None:
        r"""Move the bar on, with a text beside it."""
        bar = self._bar
        if bar is None:
            return
        said = text()
        self._try(lambda: (bar.set_postfix_str(said, refresh=False), bar.update(count)))

    def __enter__(self) -> "Bar":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._try(self._bar.close)

    def _open(self, tqdm: Any, **options: Any) -> None:
        self._bar = tqdm(**options)

    def _try(self, act: Callable[[], Any]) -> None:
        try:
            act()
        # A full disk, a broken pipe, a terminal that has gone; a closed stream.
        except (OSError, ValueError):
            bar, self._bar = self._bar, None
            if bar is not None:
                # Else it writes once more when it is collected.
                bar.disable = True
