r"""Results on disk, so that a session that was stopped goes on where it was."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from sabotage.judge import Outcome
from sabotage.read import Sabotage


class Kept:
    r"""A line of JSON for each result, found again by its sabotage and the whole tree.

    Args:
        path: The file.
        tree: The copy of the repository, before anything is planted.
        resume: Whether what is in the file counts; else it is emptied.
    """

    def __init__(self, path: Path, tree: Path, *, resume: bool) -> None:
        self._path, self._tree = path, _hash_of(tree)
        self._known: dict[str, dict] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if resume and path.is_file():
            # The last line is not whole if the session was killed while it was written.
            whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
            lines = [json.loads(line) for line in whole.splitlines()]
            self._known = {line.pop("key"): line for line in lines}
            path.write_text(whole + "\n" if whole else "", encoding="utf-8")
        else:
            path.write_text("", encoding="utf-8")

    def find(self, sabotage: Sabotage) -> tuple[Outcome, str] | None:
        r"""What is known of a sabotage in a tree like this one."""
        line = self._known.get(self._key(sabotage))
        if line is None:
            return None
        outcome = {**line["outcome"], "failed": tuple(line["outcome"]["failed"])}
        return Outcome(**outcome, text=""), line["verdict"]

    def add(self, sabotage: Sabotage, outcome: Outcome, verdict: str) -> None:
        r"""Write a result down at once."""
        kept = {key: value for key, value in asdict(outcome).items() if key != "text"}
        line = {"key": self._key(sabotage), "name": sabotage.name}
        line |= {"verdict": verdict, "outcome": kept}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _key(self, sabotage: Sabotage) -> str:
        return hashlib.sha256(f"{self._tree} {sabotage}".encode()).hexdigest()


def _hash_of(tree: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(tree.rglob("*")):
        name = path.relative_to(tree)
        if path.is_file() and name.parts[0] != ".git":
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            total.update(f"{name.as_posix()} {content}\n".encode())
    return total.hexdigest()
