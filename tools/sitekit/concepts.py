r"""Concept pages: those whose front matter has `concept`."""

import re
from dataclasses import dataclass
from pathlib import Path

from sitekit.page import PageError, Site, front_matter_block, split_front_matter
from sitekit.validate import validate

# Words that a file name cannot spell as a title should.
_TITLES = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU", "bptt": "BPTT", "ssm": "SSM"}


@dataclass(frozen=True)
class Concept:
    """What a concept page's front matter says."""

    name: str
    title: str
    answer: str
    year: int
    parents: tuple[str, ...]
    summary: dict[str, str]
    path: Path

    @property
    def stem(self) -> str:
        """The last part of the name: `lstm` of `recurrent/lstm`."""
        return self.name.rsplit("/", 1)[-1]

    @property
    def family(self) -> str:
        """The first part of the name: `recurrent` of `recurrent/lstm`."""
        return self.name.split("/", 1)[0]


def read_concept(path: Path, site: Site) -> Concept:
    """Read and validate one page's front matter."""
    name = site.name(path)
    text = path.read_text(encoding="utf-8")
    data, _, _ = split_front_matter(text, name)
    if not data:
        raise PageError(f"{name}:1: a concept page needs front matter")
    validate(data, "concept", name, front_matter_block(text), first_line=2)
    uri = path.resolve().relative_to(site.docs.resolve()).with_suffix("").as_posix()
    if data["concept"] != uri:
        raise PageError(f"{name}:2: `concept` is {data['concept']}, expected {uri}")
    return Concept(
        name=data["concept"],
        title=data["title"],
        answer=data["answer"],
        year=data["year"],
        parents=tuple(data["parents"]),
        summary=data["summary"],
        path=path,
    )


def concepts(site: Site) -> list[Concept]:
    """All concept pages, oldest first."""
    known = []
    for path in sorted(site.docs.rglob("*.md")):
        data, _, _ = split_front_matter(
            path.read_text(encoding="utf-8"), site.name(path)
        )
        if "concept" in data:
            known.append(read_concept(path, site))
    return sorted(known, key=lambda concept: (concept.year, concept.name))


def title_of(name: str, site: Site) -> tuple[str, bool]:
    """Title of a concept, and whether it has a page."""
    path = site.docs / f"{name}.md"
    if path.is_file():
        return read_concept(path, site).title, True
    stem = name.rsplit("/", 1)[-1]
    return _TITLES.get(stem, re.sub("_", " ", stem)), False
