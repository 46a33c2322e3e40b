r"""A copy of the repository in which faults are planted, and taken out again."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sabotage.read import Sabotage, SabotageError


def copy_tracked(root: Path, to: Path) -> None:
    r"""Copy what git tracks, as it lies there now, and make `to` a repository too."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        # A file that is deleted and not yet committed is still listed.
        if (root / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, to / name)
    subprocess.run(["git", "init", "-q"], cwd=to, check=True)


def replaced(sabotage: Sabotage, root: Path) -> str:
    r"""The file's text with the fault in it.

    Raises:
        SabotageError: there is no such file, or the old text does not stand in it as
            often as it should.
    """
    path = root / sabotage.file
    if not path.is_file():
        raise SabotageError(f"{sabotage.name}: there is no file {sabotage.file}")
    text = path.read_text(encoding="utf-8")
    times = text.count(sabotage.old)
    if times != sabotage.count:
        raise SabotageError(
            f"{sabotage.name}: `old` must stand {sabotage.count} times in "
            f"{sabotage.file}, got {times}"
        )
    return text.replace(sabotage.old, sabotage.new)


@contextmanager
def planted(sabotage: Sabotage, root: Path) -> Iterator[None]:
    r"""Have the fault in the tree, and the file as it was afterwards.

    Raises:
        SabotageError: as `replaced`.
    """
    path, text = root / sabotage.file, replaced(sabotage, root)
    before = path.read_bytes()
    path.write_text(text, encoding="utf-8")
    try:
        yield
    finally:
        path.write_bytes(before)
