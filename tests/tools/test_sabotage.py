"""The list of sabotages can be planted as it stands, and the runner tells what it saw.

That each is caught is not tested here: `nox -s sabotage` plants them, which takes most
of an hour.
"""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from sabotage.__main__ import main
from sabotage.judge import failures, matches
from sabotage.read import SabotageError, choose, read
from sabotage.tree import planted, replaced

ROOT = Path(__file__).resolve().parents[2]
SABOTAGES = read(ROOT / "tests/sabotages")
each = pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda s: s.name)


def test_there_are_forty_and_no_two_break_the_same():
    assert len(SABOTAGES) >= 40
    assert len({sabotage.breaks for sabotage in SABOTAGES}) == len(SABOTAGES)


@each
def test_its_old_text_stands_in_the_tree(sabotage):
    """And a fault in Python is one that Python can read."""
    text = replaced(sabotage, ROOT)
    assert sabotage.new in text
    if sabotage.file.endswith(".py"):
        compile(text, sabotage.file, "exec")


@each
def test_what_should_catch_it_is_there(sabotage):
    program, *arguments = shlex.split(sabotage.check)
    if program == "pytest":
        files = re.compile(r"[\w/.-]+\.(?:py|md)")
        paths = [found[0] for word in arguments if (found := files.match(word))]
        assert paths
        for path in paths:
            assert (ROOT / path).exists(), path
    for catcher in sabotage.caught_by:
        named = re.match(r"(tests/\S+?\.py)::(test_\w+)", catcher)
        if named:
            text = (ROOT / named[1]).read_text(encoding="utf-8")
            assert f"def {named[2]}(" in text, catcher
        page = re.match(r"(?:docs/[^\s:]+|README)\.md", catcher)
        if page:
            assert (ROOT / page[0]).is_file(), catcher


# The runner, on a tree of two files.

ENTRY = {
    "name": "sum-is-difference",
    "breaks": "The sum is a difference.",
    "file": "thing.py",
    "old": "return a + b",
    "new": "return a - b",
    "check": "pytest test_thing.py",
    "caught_by": ["test_thing.py::test_sum"],
}
TESTS = """
from thing import add, same

def test_sum():
    assert add(1, 2) == 3

def test_nothing():
    print("FAILED test_thing.py::test_sum - not in the summary")
"""


@pytest.fixture
def tree(tmp_path, monkeypatch):
    (tmp_path / "tests/sabotages").mkdir(parents=True)
    (tmp_path / "thing.py").write_text(
        "def add(a, b):\n    return a + b\n\n\ndef same(a):\n    return a\n"
    )
    (tmp_path / "test_thing.py").write_text(TESTS)
    (tmp_path / "untracked.py").write_text("raise SystemExit")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(
        ["git", "add", "thing.py", "test_thing.py"], cwd=tmp_path, check=True
    )
    monkeypatch.chdir(tmp_path)
    # None is needed here, and to load them takes seconds.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return tmp_path


def plant(tree, *changes, arguments=()):
    entries = [ENTRY | change for change in changes]
    path = tree / "tests/sabotages/things.yml"
    path.write_text(yaml.safe_dump(entries), encoding="utf-8")
    before = (tree / "thing.py").read_bytes()
    status = main([*arguments])
    # The tree itself is never touched.
    assert (tree / "thing.py").read_bytes() == before
    return status


def test_a_fault_that_is_caught(tree, capsys):
    assert plant(tree, {}) == 0
    out = capsys.readouterr().out
    assert "[1/1] sum-is-difference: caught" in out
    line = "| sum-is-difference | The sum is a difference. | caught | test_thing.py::"
    assert line in out
    assert "1 of 1 caught as listed" in out


def test_a_fault_that_nothing_notices_and_one_that_is_taken_out_again(tree, capsys):
    silent = {"name": "same", "old": "return a\n", "new": "return -a\n"}
    after = {"name": "after"}
    assert plant(tree, silent, after) == 1
    out = capsys.readouterr().out
    assert "[1/2] same: survived" in out
    assert "[2/2] after: caught" in out
    assert "1 of 2 caught as listed" in out


def test_a_check_that_hangs_has_not_caught_it(tree, capsys):
    endless = {"new": "\n    while True:\n        pass"}
    assert plant(tree, endless, arguments=("--limit", "8")) == 1
    assert "sum-is-difference: hung" in capsys.readouterr().out


def test_a_fault_that_something_else_catches(tree, capsys):
    assert plant(tree, {"caught_by": ["test_thing.py::test_nothing"]}) == 1
    out = capsys.readouterr().out
    assert "sum-is-difference: otherwise" in out
    assert "failed: test_thing.py::test_sum - " in out


def test_all_that_is_listed_must_notice(tree, capsys):
    both = ["test_thing.py::test_sum", "test_thing.py::test_nothing"]
    assert plant(tree, {"caught_by": both}) == 1
    assert "sum-is-difference: otherwise" in capsys.readouterr().out


def test_a_session_that_was_stopped_goes_on_where_it_was(tree, capsys):
    silent = {"name": "same", "old": "return a\n", "new": "return -a\n"}
    plant(tree, {}, silent)
    kept = tree / "build/sabotage.jsonl"
    first, _ = kept.read_text().splitlines(keepends=True)
    # Stopped while the second result was written.
    kept.write_text(first + '{"key": "12')
    capsys.readouterr()
    assert plant(tree, {}, silent, arguments=("--resume",)) == 1
    out = capsys.readouterr().out
    assert re.search(r"^\[1/2\] sum-is-difference: caught, \d+ s before$", out, re.M)
    assert re.search(r"^\[2/2\] same: survived, \d+ s$", out, re.M)
    assert "| caught | test_thing.py::test_sum" in out
    assert len(kept.read_text().splitlines()) == 2
    # What has changed since, entry or file, is planted again; the rest is not.
    assert plant(tree, {"breaks": "It."}, silent, arguments=("--resume",)) == 1
    out = capsys.readouterr().out
    assert " before" not in out.splitlines()[0]
    assert " before" in out.splitlines()[1]
    (tree / "thing.py").write_text((tree / "thing.py").read_text() + "\n")
    plant(tree, {}, silent, arguments=("--resume",))
    assert " before" not in capsys.readouterr().out
    # And without being told to, it begins anew.
    plant(tree, {}, silent)
    assert " before" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"old": "return b + a"}, "must stand 1 times in thing.py, got 0"),
        ({"old": "return a"}, "must stand 1 times in thing.py, got 2"),
        ({"file": "gone.py"}, "there is no file gone.py"),
        ({"new": "return a + b"}, "`old` and `new` are the same"),
        ({"caught_by": []}, "must be a list of at least one"),
        ({"check": "rm thing.py"}, "must begin with one of pytest,"),
        ({"colour": "red"}, "got breaks, caught_by, check, colour, file"),
    ],
)
def test_an_entry_that_cannot_be_planted_is_named_before_anything_runs(
    tree, capsys, change, message
):
    assert plant(tree, {"name": "first"}, change) == 2
    out, err = capsys.readouterr()
    assert "sum-is-difference" in err
    assert message in err
    assert out == ""


def test_a_check_that_fails_without_a_fault_is_no_check(tree, capsys):
    (tree / "test_thing.py").write_text("def test_sum():\n    assert False\n")
    assert plant(tree, {}) == 2
    assert "without any fault, `pytest test_thing.py` fails" in capsys.readouterr().err


def test_names_are_used_once(tree, capsys):
    assert plant(tree, {}, {}) == 2
    assert "2 entries have this name" in capsys.readouterr().err


def test_some_are_chosen_by_name_or_by_subject():
    first = SABOTAGES[0]
    assert choose(SABOTAGES, []) == SABOTAGES
    assert choose(SABOTAGES, [first.name]) == [first]
    of_subject = [s for s in SABOTAGES if s.subject == first.subject]
    assert choose(SABOTAGES, [first.subject]) == of_subject
    with pytest.raises(SabotageError, match="no-such: no sabotage and no subject"):
        choose(SABOTAGES, ["no-such"])


def test_the_file_is_put_back_after_an_error(tree):
    (tree / "tests/sabotages/things.yml").write_text(yaml.safe_dump([ENTRY]))
    (sabotage,) = read(tree / "tests/sabotages")
    path = tree / "thing.py"
    before, within = path.read_bytes(), []

    def stopped():
        with planted(sabotage, tree):
            within.append(path.read_bytes())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert b"a - b" in within[0]
    assert path.read_bytes() == before


def test_failures_are_read_from_what_each_program_prints():
    pytests = (
        "FAILED printed.py::test_by_a_test\n= short test summary info =\n"
        "FAILED docs/a.md::L12 - output differs\nERROR tests/test_b.py\n1 failed in 1s"
    )
    assert failures("pytest", pytests) == (
        "docs/a.md::L12 - output differs",
        "tests/test_b.py",
    )
    site = "INFO    -  Building\nWARNING -  Doc file 'a.md' contains a link 'b.md'\n"
    assert failures("mkdocs", site) == ("Doc file 'a.md' contains a link 'b.md'",)
    assert failures("lint-imports", "Imports go one way BROKEN\nx KEPT\n") == (
        "Imports go one way",
    )
    ruff = "src/a.py:3:5: F401 `b` imported but unused\nFound 1 error.\n"
    assert failures("ruff", ruff) == ("src/a.py:3:5: F401 `b` imported but unused",)


def test_a_catcher_is_a_part_of_a_failure_and_dots_are_anything():
    failed = "docs/a.md::L12 - printed 0.5, the page says 0.6 (a+b)"
    assert matches("docs/a.md::L...the page says 0.6 (a+b)", failed)
    assert not matches("docs/a.md::L...the page says 0.7", failed)
    assert not matches("docs/a.md::L.2", failed)
