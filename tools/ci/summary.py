"""Print what CI ran: machine, steps with times, tests by outcome, reasons to skip.

And what of the stored records is older than the code that measured it.
"""

import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

from ci.machine import describe


def read_steps(path: Path) -> list[tuple[str, str, int, int]]:
    """Rows of name, required, optional or absent, exit code and seconds."""
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    return [(name, need, int(code), int(took)) for name, need, code, took in rows]


def read_tests(path: Path) -> tuple[Counter[str], Counter[str], list[str]]:
    """Outcomes, reasons of skips and names of failures of one JUnit file."""
    outcomes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    failed = []
    for case in ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            outcomes["failed"] += 1
            failed.append(name)
        elif skipped is not None:
            outcomes["skipped"] += 1
            reasons[skipped.get("message") or "no reason given"] += 1
        else:
            outcomes["passed"] += 1
    return outcomes, reasons, failed


def read_records(path: Path) -> dict[str, list[str]]:
    """Names of records by what `python -m experiments list --changed` says of them."""
    states: dict[str, list[str]] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        name, colon, state = line.partition(": ")
        # A warning of Python or torch may stand among the lines.
        if colon and name.isidentifier():
            states.setdefault(state, []).append(name)
    return states


def print_records(path: Path) -> None:
    """How many records are as their code measured them, and which are not."""
    states = read_records(path)
    if not states:
        print("\nrecords: nothing is known of their code")
        return
    print("\nrecords: " + ", ".join(f"{len(n)} {state}" for state, n in states.items()))
    for name in states.get("changed since", ()):
        print(f"  changed since: {name}")


def main(steps_file: str, records_file: str, *junit_files: str) -> int:
    """Print the summary; 1 if a required step failed or no test ran, else 0."""
    steps = read_steps(Path(steps_file))
    print(f"\n=== What ran\n\n{describe(Path('.nox/tests'))}\n")
    print(f"{'step':<12} {'verdict':<19} {'seconds':>7}")
    broken = []
    for name, need, code, took in steps:
        verdict = "passed" if code == 0 else f"failed ({code})"
        if need == "absent":
            verdict = "absent here"
        elif code != 0 and need == "optional":
            verdict += ", allowed"
        elif code != 0:
            broken.append(name)
        print(f"{name:<12} {verdict:<19} {took:>7}")
    print(f"{'in all':<12} {'':<19} {sum(step[3] for step in steps):>7}")

    total: Counter[str] = Counter()
    why: Counter[str] = Counter()
    for file in junit_files:
        path = Path(file)
        if not path.exists():
            print(f"\n{path.stem}: no results")
            continue
        outcomes, reasons, failed = read_tests(path)
        total += outcomes
        why += reasons
        counts = ", ".join(f"{outcomes[key]} {key}" for key in sorted(outcomes))
        print(f"\n{path.stem}: {counts or 'no tests'}")
        for name in failed:
            print(f"  failed: {name}")
    print_records(Path(records_file))
    if why:
        print("\nSkipped, and why:")
        for reason, count in why.most_common():
            print(f"  {count:>4}  {reason}")
    if broken:
        print(f"\nFailed: {', '.join(broken)}")
    passed, failed_count = total["passed"], total["failed"]
    print(f"\n{passed} passed, {failed_count} failed, {total['skipped']} skipped")
    return 1 if broken or failed_count or not passed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
