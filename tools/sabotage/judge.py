r"""Run a check in a tree with a limit, and say what of it failed."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from sabotage.read import Sabotage

_FAILED = re.compile(r"^(?:FAILED|ERROR) (?P<what>\S.*)$", re.MULTILINE)
# mkdocs and its plugins; import-linter; ruff.
_SAID = re.compile(
    r"^(?:WARNING|ERROR) +-? *(?P<site>\S.*)$|^(?P<import>.+) BROKEN$"
    r"|^(?P<line>\S+:\d+:\d+: .+)$",
    re.MULTILINE,
)
_PROGRAMS = {
    "pytest": ("-m", "pytest", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider"),
    "mkdocs": ("-m", "mkdocs"),
    "lint-imports": (
        "-c",
        "from importlinter.cli import lint_imports_command as run; run()",
        "--no-cache",
    ),
    "ruff": ("-m", "ruff"),
}


@dataclass(frozen=True)
class Outcome:
    r"""What a check did: whether it passed, what failed in it, whether it hung."""

    passed: bool
    failed: tuple[str, ...]
    hung: bool
    seconds: float
    text: str


def run(check: str, root: Path, limit: float) -> Outcome:
    r"""Run a check in the tree at `root`; what takes longer than `limit` is ended."""
    began = time.monotonic()
    name, *arguments = shlex.split(check)
    process = subprocess.Popen(
        [sys.executable, *_PROGRAMS[name], *arguments],
        cwd=root,
        env=_environment(root),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        # A group of its own, so that what it started ends with it.
        start_new_session=True,
    )
    try:
        text, hung = process.communicate(timeout=limit)[0], False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        text, hung = process.communicate()[0], True
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    failed = failures(name, text)
    seconds = time.monotonic() - began
    return Outcome(process.returncode == 0, failed, hung, seconds, text)


def failures(program: str, text: str) -> tuple[str, ...]:
    r"""The names of failed tests with their messages, or what a program complains of.

    Page and line stand in both.
    """
    if program == "pytest":
        # Only the summary: a test may print such a line too.
        text = text.rpartition("short test summary info")[2]
    pattern = _FAILED if program == "pytest" else _SAID
    lines = (next(filter(None, m.groups())) for m in pattern.finditer(text))
    return tuple(dict.fromkeys(lines))


def verdict(sabotage: Sabotage, outcome: Outcome) -> str:
    r"""`caught`, or in which way it was not.

    `survived`: the check passed. `hung`: it did not end. `otherwise`: it failed, and
    not everything that should notice did.
    """
    if outcome.hung:
        return "hung"
    if outcome.passed:
        return "survived"
    noticed = (
        any(matches(catcher, failed) for failed in outcome.failed)
        for catcher in sabotage.caught_by
    )
    return "caught" if all(noticed) else "otherwise"


def matches(catcher: str, failed: str) -> bool:
    r"""Whether a failure is what `caught_by` names; `...` in it is anything."""
    parts = map(re.escape, catcher.split("..."))
    return re.search(".*".join(parts), failed) is not None


def _environment(root: Path) -> dict[str, str]:
    paths = [str(root / "src"), str(root / "tools"), str(root)]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        # Compiled files are told apart by second and size, which a fault may share with
        # what it replaced.
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "NO_MKDOCS_2_WARNING": "1",
        "RUFF_NO_CACHE": "true",
        "RUFF_OUTPUT_FORMAT": "concise",
        # pytest cuts its summary to the width.
        "COLUMNS": "1000",
    }
