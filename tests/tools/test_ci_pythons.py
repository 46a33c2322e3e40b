"""The Pythons that CI builds the site with."""

import os
import sys
from pathlib import Path

import pytest

from ci import pythons


def fake(folder: Path, name: str, answer: str) -> Path:
    """A program that answers the question as a Python would."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{answer}\n")
    path.chmod(0o755)
    return path


def says(*numbers: int, level: str = "final", kind: str = "cpython") -> str:
    listed = ", ".join([*map(str, numbers), f'"{level}"', f'"{kind}"'])
    return f"echo '[{listed}]'"


pytestmark = pytest.mark.skipif(os.name == "nt", reason="programs made by a shell")


def test_this_python() -> None:
    here = ".".join(map(str, sys.version_info[:3]))
    assert pythons.version_of(Path(sys.executable)) == here


@pytest.mark.parametrize(
    "answer",
    [
        "exit 1",  # no ensurepip, or a shim of pyenv
        "echo",
        says(3, 15, 0, level="beta"),
        says(3, 11, 9, kind="pypy"),
    ],
)
def test_not_a_python_that_can_begin(tmp_path: Path, answer: str) -> None:
    assert pythons.version_of(fake(tmp_path, "python3", answer)) is None


def test_a_file_that_cannot_run(tmp_path: Path) -> None:
    (tmp_path / "python3").touch()
    assert pythons.version_of(tmp_path / "python3") is None


def test_present(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    newest = fake(first, "python3.13", says(3, 13, 0))
    fake(first, "python3.9", says(3, 9, 18))
    fake(first, "python3-config", says(3, 11, 1))
    fake(first, "python3.12", "exit 1")
    oldest = fake(second, "python3", says(3, 11, 2))
    fake(second, "python3.13", says(3, 13, 0))
    here = pythons.present([tmp_path / "none", first, second], "3.11")
    assert list(here.items()) == [("3.11.2", oldest), ("3.13.0", newest)]


def test_versions_are_numbers() -> None:
    assert pythons.key("3.9") < pythons.key("3.11.0") < pythons.key("3.11.10")


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    within = tmp_path / "versions/3.12.1/bin"
    within.mkdir(parents=True)
    (tmp_path / "versions/2.7.18/bin").mkdir(parents=True)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", "/one:/two")
    listed = [Path("/usr/bin"), Path("/one"), Path("/two")]
    assert pythons.folders() == [within, *listed]


def test_what_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tmp_path / "pyproject.toml"
    line = "Programming Language :: Python ::"
    project.write_text(
        f'[project]\nclassifiers = ["{line} 3.11", "{line} 3.13", "Typing :: Typed"]'
    )
    python = fake(tmp_path, "python3", says(3, 11, 2))
    monkeypatch.setattr(pythons, "folders", lambda: [tmp_path])
    pythons.main(str(project))
    assert capsys.readouterr().out == f"3.11.2\t{python}\n3.13\tabsent\n"
