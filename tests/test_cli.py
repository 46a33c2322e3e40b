"""The console command `seqref`."""

import subprocess
import sys

import pytest

import seqref
from seqref import cli


def test_help_names_every_command(capsys):
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    for command in cli.COMMANDS:
        assert command.name in text


def test_help_imports_no_command():
    code = (
        "import sys\n"
        "from seqref import cli\n"
        "cli.build_parser()\n"
        "names = {c.module for c in cli.COMMANDS} | {'matplotlib'}\n"
        "print(sorted(names & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    words = capsys.readouterr().out.split()
    assert words[0] == "seqref"
    assert words[1] in (seqref.__version__, "(not")


@pytest.mark.parametrize("command", [c.name for c in cli.COMMANDS])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    assert f"seqref {command}" in capsys.readouterr().out


def test_an_unknown_command_is_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["train-ml"])
    assert stop.value.code == 2
    assert "invalid choice: 'train-ml'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "status", "told"),
    [
        (ValueError("`x` must be y"), 2, "tool: error: `x` must be y\n"),
        (MemoryError(), 2, "tool: error: not enough memory: no more is known\n"),
        (KeyboardInterrupt(), 130, "tool: stopped\n"),
        (BrokenPipeError(), 141, ""),
    ],
)
def test_status_of_what_was_raised(capsys, raised, status, told):
    def called():
        raise raised

    assert cli.status_of("tool", called) == status
    assert capsys.readouterr().err == told
