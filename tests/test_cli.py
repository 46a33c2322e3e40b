"""The console command `seqref`."""

import json
import os
import subprocess
import sys

import pytest

import seqref
from seqref import cli
from experiments.gradients import forget_gate
from experiments.counts import parameter_counts
from experiments.lab import commands
from experiments.lab.claim import Claim, Outcome

NAME = "parameter_counts"


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
        cli.main(["experimnts"])
    assert stop.value.code == 2
    assert "invalid choice: 'experimnts'" in capsys.readouterr().err


def test_list_names_experiments_and_claims(capsys):
    assert cli.main(["experiments", "list"]) == 0
    text = capsys.readouterr().out
    assert "forget_gate: " in text
    for claim in forget_gate.CLAIMS:
        assert claim.id in text


def test_run_writes_the_record_and_what_it_renders_to(tmp_path, capsys):
    assert cli.main(["experiments", "run", NAME, "--out", str(tmp_path)]) == 0
    assert "C38.count holds" in capsys.readouterr().out
    record = json.loads((tmp_path / f"{NAME}.json").read_text(encoding="utf-8"))
    assert record["run"]["size"] == "small"
    assert (tmp_path / f"{NAME}.lstm.md").is_file()


def test_render_restores_a_changed_table(tmp_path):
    arguments = ["--quiet", "--out", str(tmp_path)]
    assert cli.main(["experiments", "run", NAME, *arguments]) == 0
    path = tmp_path / f"{NAME}.lstm.md"
    before = path.read_text(encoding="utf-8")
    path.write_text("changed", encoding="utf-8")
    assert cli.main(["experiments", "render", NAME, "--out", str(tmp_path)]) == 0
    assert path.read_text(encoding="utf-8") == before


def test_a_small_run_goes_to_runs_and_leaves_docs_alone(tmp_path, monkeypatch):
    (tmp_path / "docs" / "_data").mkdir(parents=True)
    (tmp_path / "mkdocs.yml").touch()
    monkeypatch.chdir(tmp_path)
    assert cli.main(["experiments", "run", NAME, "--quiet"]) == 0
    assert (tmp_path / "runs" / "experiments" / f"{NAME}.json").is_file()
    assert list((tmp_path / "docs" / "_data").iterdir()) == []


def test_a_full_run_goes_to_the_checkout_from_any_folder_in_it(tmp_path, monkeypatch):
    data = tmp_path / "docs" / "_data"
    data.mkdir(parents=True)
    (tmp_path / "mkdocs.yml").touch()
    monkeypatch.chdir(tmp_path / "docs")
    assert commands.default_folder(full=True) == data
    assert cli.main(["experiments", "run", NAME, "--full", "--quiet"]) == 0
    assert (data / f"{NAME}.json").is_file()


def test_a_full_run_outside_a_checkout_needs_a_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["experiments", "run", NAME, "--full"]) == 2
    assert "`--out` must name a folder" in capsys.readouterr().err


def test_a_small_result_never_takes_the_place_of_a_full_one(tmp_path, capsys):
    base = ["experiments", "run", NAME, "--quiet", "--out", str(tmp_path)]
    path = tmp_path / f"{NAME}.json"
    assert cli.main([*base, "--full"]) == 0
    full = path.read_bytes()
    assert cli.main(base) == 2
    assert "must not hold a full result" in capsys.readouterr().err
    assert path.read_bytes() == full
    assert cli.main([*base, "--force"]) == 0
    assert path.read_bytes() != full


def test_an_unknown_experiment_is_named(capsys, tmp_path):
    assert cli.main(["experiments", "run", "nonsense", "--out", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "`name` must be one of" in message
    assert "'nonsense'" in message


def test_a_claim_that_fails_gives_status_one(monkeypatch, tmp_path, capsys):
    def never(case):
        return Outcome(0.0, -1.0)

    claim = Claim("C38.never", "It never holds.", never, "lstm", "rnn")
    monkeypatch.setattr(parameter_counts, "CLAIMS", (claim,))
    assert cli.main(["experiments", "run", NAME, "--out", str(tmp_path)]) == 1
    assert "C38.never DOES NOT HOLD" in capsys.readouterr().out


def test_a_module_runs_as_a_program(tmp_path, capsys):
    assert parameter_counts.main(["--quiet", "--out", str(tmp_path)]) == 0
    assert "C38.step holds" in capsys.readouterr().out


@pytest.mark.parametrize("part", ["", "inside"])
def test_a_folder_that_cannot_be_written_is_noticed_before_the_run(
    tmp_path, monkeypatch, capsys, part
):
    def never(*arguments, **keywords):
        raise AssertionError("a test should not reach the measurement")

    monkeypatch.setattr(commands, "measure", never)
    (tmp_path / "file").write_text("in the way")
    folder = str(tmp_path / "file" / part)
    assert cli.main(["experiments", "run", NAME, "--out", folder]) == 2
    message = capsys.readouterr().err
    assert "`--out` must be a folder that can be written to" in message
    assert folder in message


def test_a_reader_that_has_enough_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "seqref.cli", "experiments", "list"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_ctrl_c_gives_status_130(monkeypatch, capsys, tmp_path):
    def interrupt(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "measure", interrupt)
    assert cli.main(["experiments", "run", NAME, "--out", str(tmp_path)]) == 130
    assert "stopped" in capsys.readouterr().err
