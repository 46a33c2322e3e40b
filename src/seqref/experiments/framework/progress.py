r"""Progress bars for long runs; they need the extra `train`."""

import importlib
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def bars(items: Iterable[T], label: str) -> Iterable[T]:
    r"""A `Track` that shows a progress bar on standard error.

    Raises:
        RuntimeError: tqdm is not installed.
    """
    try:
        tqdm = importlib.import_module("tqdm")
    except ImportError as error:
        raise RuntimeError(
            "progress bars need tqdm, which is not installed: "
            "pip install 'seqref[train]', or pass --quiet"
        ) from error
    return tqdm.tqdm(items, desc=label, leave=False, dynamic_ncols=True)
