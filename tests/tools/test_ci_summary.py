"""The summary that CI ends with."""

import re
from pathlib import Path

import pytest

from ci.summary import main

JUNIT = """<testsuites><testsuite>
<testcase classname="a" name="good"/>
{extra}
<testcase classname="a" name="away"><skipped message="no GPU here"/></testcase>
</testsuite></testsuites>"""


def _run(tmp_path: Path, steps: str, extra: str = "") -> int:
    (tmp_path / "steps.tsv").write_text(steps)
    (tmp_path / "tests.xml").write_text(JUNIT.format(extra=extra))
    files = (tmp_path / name for name in ("steps.tsv", "records.log", "tests.xml"))
    return main(*map(str, files))


def test_all_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = "tests\trequired\t0\t30\nzensical\toptional\t1\t2\n"
    assert _run(tmp_path, steps) == 0
    printed = capsys.readouterr().out
    assert "failed (1), allowed" in printed
    assert "   1  no GPU here" in printed
    assert ["in", "all", "32"] in [line.split() for line in printed.splitlines()]
    assert printed.endswith("1 passed, 0 failed, 1 skipped\n")


def test_machine_and_absent_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(tmp_path, "site-3.13\tabsent\t0\t0\n") == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines()]
    assert ["site-3.13", "absent", "here", "0"] in rows
    assert sum(line.startswith("machine: ") for line in printed.splitlines()) == 1


def test_failed_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(tmp_path, "lint\trequired\t2\t1\n") == 1
    assert "Failed: lint" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["failure", "error"])
def test_failed_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    extra = f'<testcase classname="a" name="bad"><{kind}/></testcase>'
    assert _run(tmp_path, "tests\trequired\t0\t1\n", extra) == 1
    assert "failed: a::bad" in capsys.readouterr().out


def test_no_test_ran(tmp_path: Path) -> None:
    (tmp_path / "steps.tsv").write_text("tests\trequired\t0\t1\n")
    files = (tmp_path / name for name in ("steps.tsv", "records.log", "missing.xml"))
    assert main(*map(str, files)) == 1


def test_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A record that is older than its code is named, and is no failure."""
    steps = "tests\trequired\t0\t1\n"
    assert _run(tmp_path, steps) == 0
    assert "records: nothing is known of their code\n" in capsys.readouterr().out
    (tmp_path / "records.log").write_text(
        "/lib/x.py:3: UserWarning: y\none: as measured\ntwo: changed since\n"
        "three: measured before hashes of sources were kept\nfour: changed since\n"
    )
    assert _run(tmp_path, steps) == 0
    printed = capsys.readouterr().out
    assert (
        "\nrecords: 1 as measured, 2 changed since, "
        "1 measured before hashes of sources were kept\n"
        "  changed since: two\n  changed since: four\n"
    ) in printed


def test_ci_asks_what_has_changed() -> None:
    """By the command whose words are looked for, into the file that is read."""
    root = Path(__file__).parents[2]
    script = (root / ".ci/run").read_text(encoding="utf-8")
    assert re.search(
        r"^step records \w+ .* -m experiments list --changed$", script, re.M
    )
    assert 'ci.summary "$out/steps.tsv" "$out/records.log" ' in script
    commands = (root / "experiments/lab/commands.py").read_text(encoding="utf-8")
    assert '"changed since"' in commands
