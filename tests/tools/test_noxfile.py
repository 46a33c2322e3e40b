"""What noxfile.py says to a Python that is too old."""

import runpy
import sys
from pathlib import Path
from types import ModuleType

import pytest

NOXFILE = Path(__file__).parents[2] / "noxfile.py"


def test_an_old_python_is_told_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before nox is asked for anything: here it has nothing but its name."""
    command = ModuleType("nox.command")
    command.CommandFailed = RuntimeError
    monkeypatch.setitem(sys.modules, "nox", ModuleType("nox"))
    monkeypatch.setitem(sys.modules, "nox.command", command)
    monkeypatch.setattr(sys, "version_info", (3, 10, 13, "final", 0))
    monkeypatch.setattr(sys, "version", "3.10.13 (main)")
    with pytest.raises(SystemExit) as error:
        runpy.run_path(str(NOXFILE))
    text = "seqref needs Python 3.11 or newer; this is Python 3.10.13 "
    assert str(error.value).startswith(text)
