"""List the Pythons of this machine on which the site must build.

Prints a line for each: version, a tab, its path. A version that pyproject.toml
promises and that is not here has `absent` in the place of its path.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

NAME = re.compile(r"python3(\.\d+)?(\.exe)?")
CLASSIFIER = re.compile(r"Programming Language :: Python :: (3\.\d+)")
# Without ensurepip and venv (a package of their own on Debian) nobody can begin.
QUESTION = (
    "import ensurepip, json, sys, venv; print(json.dumps([*sys.version_info[:4], "
    "sys.implementation.name]))"
)


def folders() -> list[Path]:
    """Where Pythons stand: along PATH, in /usr/bin, and the versions of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    path = [Path(folder) for folder in os.get_exec_path()]
    return [*sorted(pyenv.glob("versions/3.*/bin")), Path("/usr/bin"), *path]


def candidates(places: Iterable[Path]) -> Iterator[Path]:
    """Every file that is called python3 or python3.N."""
    for folder in dict.fromkeys(places):
        if folder.is_dir():
            yield from sorted(p for p in folder.iterdir() if NAME.fullmatch(p.name))


def version_of(python: Path) -> str | None:
    """Its full version; None if it is no release of CPython that can make a venv."""
    try:
        done = subprocess.run(
            [python, "-c", QUESTION], capture_output=True, text=True, check=True
        )
        *numbers, level, kind = json.loads(done.stdout)
    except (OSError, subprocess.CalledProcessError, ValueError):
        return None
    if (level, kind) != ("final", "cpython"):
        return None
    return ".".join(map(str, numbers))


def key(version: str) -> tuple[int, ...]:
    """A version as numbers: 3.9 stands before 3.11."""
    return tuple(map(int, version.split(".")))


def present(places: Iterable[Path], oldest: str) -> dict[str, Path]:
    """The first Python of each full version from `oldest` on, oldest first."""
    pythons: dict[str, Path] = {}
    for python in candidates(places):
        version = version_of(python)
        if version and key(version) >= key(oldest):
            pythons.setdefault(version, python)
    return dict(sorted(pythons.items(), key=lambda pair: key(pair[0])))


def promised(pyproject: Path) -> list[str]:
    """The versions 3.N among the classifiers of a project."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    matches = map(CLASSIFIER.fullmatch, project["classifiers"])
    return [match[1] for match in matches if match]


def main(pyproject: str = "pyproject.toml") -> None:
    """Print what stands at the top of this file."""
    wanted = promised(Path(pyproject))
    here = present(folders(), min(wanted, key=key))
    for version, python in here.items():
        print(version, python, sep="\t")
    for version in wanted:
        if not any(key(one)[:2] == key(version) for one in here):
            print(version, "absent", sep="\t")


if __name__ == "__main__":
    main(*sys.argv[1:])
