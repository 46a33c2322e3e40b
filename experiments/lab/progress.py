r"""Progress bars for long runs; they need the extra `train`."""

from collections.abc import Iterable
from typing import TypeVar

from seqref.errors import import_extra

T = TypeVar("T")


def bars(items: Iterable[T], label: str) -> Iterable[T]:
    r"""A `Track` that shows a progress bar on standard error.

    Raises:
        RuntimeError: tqdm is not installed.
    """
    tqdm = import_extra("tqdm", "a progress bar (--quiet shows none)", "train")
    return tqdm.tqdm(items, desc=label, leave=False, dynamic_ncols=True)
