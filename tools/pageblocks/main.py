r"""A page as the program that a reader would make of it: the module `__main__`."""

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing import spawn
from pathlib import Path
from types import ModuleType
from typing import Any

from pageblocks.extract import Block


class MainModule:
    r"""The module in which the blocks of a page run.

    While a block runs, it is `sys.modules["__main__"]`: code under
    `if __name__ == "__main__":` runs, and pickle finds the page's classes.

    Args:
        page: Path of the page, relative to the repository root.
    """

    def __init__(self, page: str) -> None:
        self._module = ModuleType("__main__")
        self._module.__file__ = page
        self.names: dict[str, Any] = self._module.__dict__
        self._program: list[str] = []
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)

    def close(self) -> None:
        r"""Remove what child processes read."""
        self._folder.cleanup()

    @contextlib.contextmanager
    def running(self, block: Block) -> Iterator[None]:
        r"""Make the page the main module while a block of it runs."""
        self._program += [*[""] * (block.line - len(self._program)), block.text, ""]
        before = sys.modules["__main__"]
        sys.modules["__main__"] = self._module
        try:
            with self._told_to_children():
                yield
        finally:
            sys.modules["__main__"] = before

    @contextlib.contextmanager
    def _told_to_children(self) -> Iterator[None]:
        r"""Let a process that is spawned read the page's blocks so far as its main."""
        prepared = spawn.get_preparation_data
        path = Path(self._folder.name) / "page.py"

        def prepare(name: str) -> dict[str, Any]:
            path.write_text("\n".join(self._program), encoding="utf-8")
            data = prepared(name)
            data.pop("init_main_from_name", None)
            return data | {"init_main_from_path": str(path)}

        spawn.get_preparation_data = prepare
        try:
            yield
        finally:
            spawn.get_preparation_data = prepared
