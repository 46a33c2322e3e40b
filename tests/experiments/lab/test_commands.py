"""`python -m experiments`: what it writes, where, and with which status it ends."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.counts import parameter_counts
from experiments.gradients import forget_gate
from experiments.lab import commands, provenance
from experiments.lab.claim import Claim, Outcome

NAME = "parameter_counts"
ROOT = Path(__file__).resolve().parents[3]


def test_list_names_experiments_and_claims(capsys):
    assert commands.main(["list"]) == 0
    text = capsys.readouterr().out
    assert "forget_gate: " in text
    for claim in forget_gate.experiment.claims:
        assert claim.id in text


def test_run_writes_the_record_and_what_it_renders_to(tmp_path, capsys):
    assert commands.main(["run", NAME, "--out", str(tmp_path)]) == 0
    assert "C38.count holds" in capsys.readouterr().out
    record = json.loads((tmp_path / f"{NAME}.json").read_text(encoding="utf-8"))
    assert record["run"]["size"] == "small"
    assert (tmp_path / f"{NAME}.lstm.md").is_file()


def test_render_restores_a_changed_table(tmp_path):
    arguments = ["--quiet", "--out", str(tmp_path)]
    assert commands.main(["run", NAME, *arguments]) == 0
    path = tmp_path / f"{NAME}.lstm.md"
    before = path.read_text(encoding="utf-8")
    path.write_text("changed", encoding="utf-8")
    assert commands.main(["render", NAME, "--out", str(tmp_path)]) == 0
    assert path.read_text(encoding="utf-8") == before


def test_a_small_run_goes_to_runs_and_leaves_docs_alone(tmp_path, monkeypatch):
    (tmp_path / "docs" / "_data").mkdir(parents=True)
    (tmp_path / "mkdocs.yml").touch()
    monkeypatch.chdir(tmp_path)
    assert commands.main(["run", NAME, "--quiet"]) == 0
    assert (tmp_path / "runs" / "experiments" / f"{NAME}.json").is_file()
    assert list((tmp_path / "docs" / "_data").iterdir()) == []


def test_a_full_run_goes_to_the_checkout_from_any_folder_in_it(tmp_path, monkeypatch):
    data = tmp_path / "docs" / "_data"
    data.mkdir(parents=True)
    (tmp_path / "mkdocs.yml").touch()
    monkeypatch.chdir(tmp_path / "docs")
    assert commands.default_folder(full=True) == data
    assert commands.main(["run", NAME, "--full", "--quiet"]) == 0
    assert (data / f"{NAME}.json").is_file()


def test_a_full_run_outside_a_checkout_needs_a_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert commands.main(["run", NAME, "--full"]) == 2
    assert "`--out` must name a folder" in capsys.readouterr().err


def test_a_small_result_never_takes_the_place_of_a_full_one(tmp_path, capsys):
    base = ["run", NAME, "--quiet", "--out", str(tmp_path)]
    path = tmp_path / f"{NAME}.json"
    assert commands.main([*base, "--full"]) == 0
    full = path.read_bytes()
    assert commands.main(base) == 2
    assert "must not hold a full result" in capsys.readouterr().err
    assert path.read_bytes() == full
    assert commands.main([*base, "--force"]) == 0
    assert path.read_bytes() != full


def test_an_unknown_experiment_is_named(capsys, tmp_path):
    assert commands.main(["run", "nonsense", "--out", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "`name` must be one of" in message
    assert "'nonsense'" in message


def test_a_claim_that_fails_gives_status_one(monkeypatch, tmp_path, capsys):
    def never(case):
        return Outcome(0.0, -1.0)

    claim = Claim("C38.never", "It never holds.", never, "lstm", "rnn")
    changed = replace(parameter_counts.experiment, claims=(claim,))
    monkeypatch.setattr(parameter_counts, "experiment", changed)
    assert commands.main(["run", NAME, "--out", str(tmp_path)]) == 1
    assert "C38.never DOES NOT HOLD" in capsys.readouterr().out


@pytest.mark.parametrize("part", ["", "inside"])
def test_a_folder_that_cannot_be_written_is_noticed_before_the_run(
    tmp_path, monkeypatch, capsys, part
):
    def never(*arguments, **keywords):
        raise AssertionError("a test should not reach the measurement")

    monkeypatch.setattr(commands, "measure", never)
    (tmp_path / "file").write_text("in the way")
    folder = str(tmp_path / "file" / part)
    assert commands.main(["run", NAME, "--out", folder]) == 2
    message = capsys.readouterr().err
    assert "`--out` must be a folder that can be written to" in message
    assert folder in message


def test_a_reader_that_has_enough_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "experiments", "list"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        cwd=ROOT,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_ctrl_c_gives_status_130(monkeypatch, capsys, tmp_path):
    def interrupt(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "measure", interrupt)
    assert commands.main(["run", NAME, "--out", str(tmp_path)]) == 130
    assert "stopped" in capsys.readouterr().err


def test_judge_writes_new_sentences_and_verdicts_and_nothing_else(
    tmp_path, monkeypatch, capsys
):
    arguments = ["--quiet", "--out", str(tmp_path)]
    assert commands.main(["run", NAME, *arguments]) == 0
    path = tmp_path / f"{NAME}.json"
    before = json.loads(path.read_text(encoding="utf-8"))
    first, second = parameter_counts.experiment.claims
    reworded = replace(first, sentence="Said in other words.")
    changed = replace(parameter_counts.experiment, claims=(reworded, second))
    monkeypatch.setattr(parameter_counts, "experiment", changed)
    assert commands.main(["judge", NAME, "--out", str(tmp_path)]) == 0
    after = json.loads(path.read_text(encoding="utf-8"))
    assert after["claims"][first.id]["sentence"] == "Said in other words."
    after["claims"][first.id]["sentence"] = first.sentence
    assert after == before
    fallen = replace(first, check=lambda case: Outcome(0.0, -1.0))
    changed = replace(parameter_counts.experiment, claims=(fallen, second))
    monkeypatch.setattr(parameter_counts, "experiment", changed)
    assert commands.main(["judge", NAME, "--out", str(tmp_path)]) == 1
    assert f"{first.id} DOES NOT HOLD" in capsys.readouterr().out


def test_changed_since_compares_the_code_with_that_of_the_record(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(commands, "default_folder", lambda full: tmp_path)
    assert commands.main(["run", NAME, "--quiet", "--no-render"]) == 0
    assert commands.changed_since(NAME) == "as measured"
    monkeypatch.setattr(commands, "hash_of", lambda module: "another")
    assert commands.changed_since(NAME) == "changed since"
    path = tmp_path / f"{NAME}.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    del record["run"]["sources"]
    path.write_text(json.dumps(record), encoding="utf-8")
    assert commands.changed_since(NAME).startswith("measured before")
    assert provenance.commit() is not None
