r"""Writes the files of a new concept, and its lines in the files that list concepts."""

import re
from dataclasses import dataclass
from pathlib import Path
from string import Template

TEMPLATES = Path(__file__).resolve().parent / "templates"
FAMILIES = ("recurrent",)


class ScaffoldError(ValueError):
    """The name cannot be used, or a place was not found."""


@dataclass(frozen=True)
class Concept:
    r"""What a concept is called.

    Args:
        name: Family and stem: `recurrent/independent`.
        layer: The layer's class: `IndRNN`.
        experiment: `subject/name` of what it measures; none where it measures nothing.
    """

    name: str
    layer: str
    experiment: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z]+/[a-z][a-z0-9_]*", self.name):
            raise ScaffoldError(f"NAME must be family/stem, got {self.name!r}")
        if self.family not in FAMILIES:
            known = ", ".join(FAMILIES)
            raise ScaffoldError(f"NAME must be of a family of {known}, got {self.name}")
        if not re.fullmatch(r"[A-Z]\w*", self.layer):
            raise ScaffoldError(f"--layer must be a class name, got {self.layer!r}")
        wanted = r"([a-z]+/[a-z][a-z0-9_]*)?"
        if not re.fullmatch(wanted, self.experiment):
            raise ScaffoldError(
                f"--experiment must be subject/name, got {self.experiment!r}"
            )

    @property
    def family(self) -> str:
        """`recurrent` of `recurrent/independent`."""
        return self.name.partition("/")[0]

    @property
    def stem(self) -> str:
        """`independent` of `recurrent/independent`."""
        return self.name.partition("/")[2]

    @property
    def title(self) -> str:
        """`Independent`."""
        return self.stem.replace("_", " ").capitalize()

    @property
    def classes(self) -> tuple[str, ...]:
        """Layer, cell and state."""
        return self.layer, f"{self.layer}Cell", f"{self.layer}State"


def files(concept: Concept) -> dict[str, str]:
    """Path and text of each new file."""
    family, stem = concept.family, concept.stem
    templates = {
        f"src/seqref/{family}/{stem}.py": "module",
        f"tests/{family}/test_{stem}.py": "test",
        f"docs/{family}/{stem}.md": "page",
        f"docs/interview/questions/{stem}.yml": "questions",
    }
    if concept.experiment:
        templates[f"experiments/{concept.experiment}.py"] = "experiment"
    words = {
        "family": family,
        "stem": stem,
        "slug": stem.replace("_", "-"),
        "title": concept.title,
        "layer": concept.layer,
    }
    return {
        path: Template((TEMPLATES / f"{name}.txt").read_text("utf-8")).substitute(words)
        for path, name in templates.items()
    }


def order(name: str) -> tuple[int, str]:
    """Constants, classes, functions, each by name: the order in which ruff sorts."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, name


def with_lines(lines: list[str], first: int, last: int, new: list[str]) -> list[str]:
    """Each of `new` before the first line of the block that comes after it."""

    def key(line: str) -> tuple[int, str]:
        return order(line.strip().strip('",'))

    block = lines[first:last]
    for line in new:
        after = (i for i, old in enumerate(block) if key(old) > key(line))
        block.insert(next(after, len(block)), line)
    return [*lines[:first], *block, *lines[last:]]


def block_of(lines: list[str], begin: str, path: str) -> tuple[int, int]:
    """Where the lines of a list in brackets begin and end."""
    for index, line in enumerate(lines):
        if line == begin:
            end = next(
                i for i in range(index + 1, len(lines)) if lines[i] in ("]", ")")
            )
            return index + 1, end
    raise ScaffoldError(f"{path} has no line {begin!r}")


def exported(text: str, concept: Concept, path: str, *, family: bool) -> str:
    """An `__init__` that exports the classes: of the family, or of the package."""
    lines = text.split("\n")
    if family:
        module = f"seqref.{concept.family}.{concept.stem}"
        names = ", ".join(sorted(concept.classes, key=order))
        line = f"from {module} import {names}"
        after = [
            i
            for i, old in enumerate(lines)
            if old.startswith("from seqref.") and old.split()[1] > module
        ]
        end = (i for i, old in enumerate(lines) if old.startswith("__all__"))
        lines.insert(after[0] if after else next(end), line)
    else:
        begin = f"from seqref.{concept.family} import ("
        new = [f"    {name}," for name in concept.classes]
        lines = with_lines(lines, *block_of(lines, begin, path), new)
    new = [f'    "{name}",' for name in concept.classes]
    return "\n".join(with_lines(lines, *block_of(lines, "__all__ = [", path), new))


def in_nav(text: str, concept: Concept) -> str:
    """The navigation with the page at the end of its family."""
    entry = f": {concept.family}/"
    lines = text.split("\n")
    last = max(
        (i for i, line in enumerate(lines) if entry in line and line.endswith(".md")),
        default=None,
    )
    if last is None:
        raise ScaffoldError(f"mkdocs.yml has no page of {concept.family} in `nav`")
    indent = lines[last][: len(lines[last]) - len(lines[last].lstrip())]
    lines.insert(last + 1, f"{indent}- {concept.title}{entry}{concept.stem}.md")
    return "\n".join(lines)


def in_changelog(text: str, concept: Concept) -> str:
    """The changelog with a line at the end of what was added."""
    head, mark, rest = text.partition("\n### Added\n")
    if not mark:
        raise ScaffoldError("CHANGELOG.md has no section `### Added`")
    entries, gap, after = rest.partition("\n\n")
    return f"{head}{mark}{entries}\n- `{concept.layer}`: FILL IN.{gap}{after}"


def changes(concept: Concept, root: Path) -> dict[str, str]:
    """Path and new text of each file that lists concepts."""
    family = f"src/seqref/{concept.family}/__init__.py"
    package = "src/seqref/__init__.py"

    def read(path: str) -> str:
        return (root / path).read_text(encoding="utf-8")

    return {
        family: exported(read(family), concept, family, family=True),
        package: exported(read(package), concept, package, family=False),
        "mkdocs.yml": in_nav(read("mkdocs.yml"), concept),
        "CHANGELOG.md": in_changelog(read("CHANGELOG.md"), concept),
    }


def write(concept: Concept, root: Path) -> list[str]:
    r"""Write everything, or nothing: new files, then lines in those that list them.

    Raises:
        ScaffoldError: A file is there already, or a place is not found.
    """
    new = files(concept)
    there = [path for path in new if (root / path).exists()]
    if there:
        raise ScaffoldError(f"there already: {', '.join(there)}")
    changed = changes(concept, root)
    for path, text in {**new, **changed}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8", newline="\n")
    return [*new, *changed]
