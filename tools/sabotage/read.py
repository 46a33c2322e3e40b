r"""The list of sabotages: what is replaced where, and what must notice."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

COMMANDS = ("pytest", "mkdocs", "lint-imports", "ruff")


class SabotageError(Exception):
    r"""An entry, or what it is to be planted in, is not as it should be."""


@dataclass(frozen=True)
class Sabotage:
    r"""One fault.

    Args:
        name: What it is called; no other has the name.
        breaks: What is wrong when it is planted, in one sentence.
        file: Where, from the root of the repository.
        old: The text that is replaced. It stands there `count` times.
        new: What takes its place.
        check: The command that must fail: `pytest` with arguments, `mkdocs build
            --strict`, `lint-imports` or `ruff check` with paths.
        caught_by: What must be among the failures: each the name of a test, or a part
            of a message; `...` is anything.
        count: How often `old` stands in the file.
        subject: The name of the list, without `.yml`.
    """

    name: str
    breaks: str
    file: str
    old: str
    new: str
    check: str
    caught_by: tuple[str, ...]
    count: int = 1
    subject: str = ""


def read(folder: Path) -> list[Sabotage]:
    r"""All sabotages of a folder, by file and in the order of each.

    Raises:
        SabotageError: an entry lacks something, has something more or a name that
            another one has, changes nothing, or names no known command.
    """
    sabotages = []
    for path in sorted(folder.glob("*.yml")):
        for entry in yaml.safe_load(path.read_text(encoding="utf-8")) or []:
            sabotages.append(_one(path, entry))
    names = [sabotage.name for sabotage in sabotages]
    for name in names:
        if names.count(name) > 1:
            raise SabotageError(f"{name}: {names.count(name)} entries have this name")
    return sabotages


def _one(path: Path, entry: Any) -> Sabotage:
    where = f"{path.name}: {entry.get('name') if isinstance(entry, dict) else entry}"
    known = {field.name for field in fields(Sabotage)} - {"subject"}
    got = set(entry) if isinstance(entry, dict) else set()
    if not known - {"count"} <= got <= known:
        raise SabotageError(
            f"{where}: must have {', '.join(sorted(known - {'count'}))} and may have "
            f"count, got {', '.join(sorted(got)) or 'no mapping'}"
        )
    made = Sabotage(
        **entry | {"caught_by": tuple(entry["caught_by"]), "subject": path.stem}
    )
    if made.old == made.new:
        raise SabotageError(f"{where}: `old` and `new` are the same")
    if not made.caught_by or isinstance(entry["caught_by"], str):
        raise SabotageError(f"{where}: `caught_by` must be a list of at least one")
    if made.check.split()[0] not in COMMANDS:
        raise SabotageError(
            f"{where}: `check` must begin with one of {', '.join(COMMANDS)}"
        )
    return made


def choose(sabotages: list[Sabotage], wanted: list[str]) -> list[Sabotage]:
    r"""Those with a name or a subject among `wanted`; all where nothing is.

    Raises:
        SabotageError: there is no such name or subject.
    """
    known = {s.name for s in sabotages} | {s.subject for s in sabotages}
    for word in wanted:
        if word not in known:
            raise SabotageError(f"{word}: no sabotage and no subject of this name")
    return [s for s in sabotages if not wanted or {s.name, s.subject} & {*wanted}]
