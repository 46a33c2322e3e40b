r"""The command; see the package."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from sabotage import judge
from sabotage.judge import Outcome, verdict
from sabotage.kept import Kept
from sabotage.read import Sabotage, SabotageError, choose, read
from sabotage.tree import copy_tracked, planted, replaced

LISTS = "tests/sabotages"
RESULTS = "build/sabotage.jsonl"
Result = tuple[Sabotage, Outcome, str]


def main(argv: list[str] | None = None) -> int:
    r"""0: each was caught as it should be. 1: one was not. 2: the list is wrong."""
    parser = argparse.ArgumentParser(prog="nox -s sabotage --", description=__doc__)
    parser.add_argument("wanted", nargs="*", help="names or subjects; all where none")
    parser.add_argument(
        "--limit", type=float, default=300, help="seconds for one check (300)"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the session before, as far as no file has changed since",
    )
    given = parser.parse_args(argv)
    began, root = time.monotonic(), Path.cwd()
    try:
        chosen = choose(read(root / LISTS), given.wanted)
        for sabotage in chosen:
            replaced(sabotage, root)
        with tempfile.TemporaryDirectory(prefix="sabotage-") as folder:
            copy_tracked(root, Path(folder))
            kept = Kept(root / RESULTS, Path(folder), resume=given.resume)
            results = go_through(chosen, Path(folder), given.limit, kept)
    except SabotageError as error:
        print(f"nox -s sabotage: {error}", file=sys.stderr)
        return 2
    print(f"\n{table(results)}")
    caught = sum(verdict == "caught" for *_, verdict in results)
    minutes = (time.monotonic() - began) / 60
    print(f"\n{caught} of {len(results)} caught as listed, in {minutes:.0f} minutes.")
    return 0 if caught == len(results) else 1


def go_through(
    chosen: list[Sabotage], root: Path, limit: float, kept: Kept
) -> list[Result]:
    r"""Plant each in turn, but those of which it is known, and say how it goes.

    Raises:
        SabotageError: a check fails without any fault.
    """
    results: list[Result] = []
    sound: set[str] = set()
    for number, sabotage in enumerate(chosen, start=1):
        known = kept.find(sabotage)
        if known is None and sabotage.check not in sound:
            _check_sound(sabotage.check, root, limit)
            sound.add(sabotage.check)
        if known is None:
            with planted(sabotage, root):
                outcome = judge.run(sabotage.check, root, limit)
            word = verdict(sabotage, outcome)
            kept.add(sabotage, outcome, word)
        else:
            outcome, word = known
        results.append((sabotage, outcome, word))
        place = f"[{number:{len(str(len(chosen)))}}/{len(chosen)}]"
        before = "" if known is None else " before"
        took = f"{outcome.seconds:.0f} s{before}"
        print(f"{place} {sabotage.name}: {word}, {took}", flush=True)
        if word != "caught":
            print(f"    wanted: {'; '.join(sabotage.caught_by)}")
            print("    failed: " + "\n            ".join(outcome.failed or ["nothing"]))
    return results


def _check_sound(check: str, root: Path, limit: float) -> None:
    outcome = judge.run(check, root, limit)
    if not outcome.passed:
        raise SabotageError(
            f"without any fault, `{check}` "
            f"{'does not end' if outcome.hung else 'fails'}:\n{outcome.text[-3000:]}"
        )


def table(results: list[Result]) -> str:
    r"""A line for each sabotage: what it breaks, and what noticed."""
    lines = ["| Sabotage | What it breaks | Verdict | What noticed | Seconds |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for sabotage, outcome, word in results:
        cells = [sabotage.name, sabotage.breaks, word, _noticed(sabotage, outcome)]
        cells.append(f"{outcome.seconds:.0f}")
        escaped = (" ".join(cell.replace("|", r"\|").split()) for cell in cells)
        lines.append(f"| {' | '.join(escaped)} |")
    return "\n".join(lines)


def _noticed(sabotage: Sabotage, outcome: Outcome) -> str:
    r"""The failures that were expected, one for each, and how many more there are."""
    shown = []
    for catcher in sabotage.caught_by:
        shown += [f for f in outcome.failed if judge.matches(catcher, f)][:1]
    shown = [text[:160] for text in dict.fromkeys(shown or outcome.failed[:1])]
    more = len(outcome.failed) - len(shown)
    return "; ".join(shown or ["nothing"]) + (f"; and {more} more" if more > 0 else "")


if __name__ == "__main__":
    raise SystemExit(main())
