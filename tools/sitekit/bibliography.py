r"""The one BibTeX file: its entries, their labels and text, and who cites them.

`docs/reference/bibliography.bib` is written by hand. pybtex reads and formats it; the
text of an entry that a page shows for copying is the file's own.
"""

import re
import xml.etree.ElementTree as etree
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pybtex.database import BibliographyData, Entry, parse_string
from pybtex.exceptions import PybtexError
from pybtex.plugin import find_plugin
from pybtex.richtext import Text

from sitekit.page import PageError, Site, split_front_matter

FILE = "reference/bibliography.bib"
PAGE = "reference/bibliography.md"
FURTHER_READING = "further reading"

_RAW_ENTRY = re.compile(r"^@\w+\{([^,\s]+),.*?^\}", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Reference:
    """One entry: what a citation reads, what the list reads, what to copy."""

    key: str
    label: str
    html: str
    bibtex: str
    further: bool

    def element(self) -> etree.Element:
        """The formatted entry as a span."""
        markup = self.html.replace("&nbsp;", "\u00a0")
        return etree.fromstring(f"<span>{markup}</span>")


def bibliography(site: Site) -> dict[str, Reference]:
    """All entries by key, in the order of their labels."""
    path = site.docs / FILE
    if not path.is_file():
        raise PageError(f"{site.name(path)} does not exist")
    return _read(path, path.stat().st_mtime_ns, site.name(path))


@lru_cache(maxsize=16)
def _read(path: Path, _mtime: int, name: str) -> dict[str, Reference]:
    text = path.read_text(encoding="utf-8")
    try:
        data = parse_string(text, "bibtex")
    except PybtexError as error:
        raise PageError(f"{name}: {error}") from error
    raw = {match.group(1): match.group(0) for match in _RAW_ENTRY.finditer(text)}
    for key in data.entries:
        if key not in raw:
            raise PageError(f"{name}: entry `{key}` must end with a line that is `}}`")
    labels = _labels(data, name)
    style = find_plugin("pybtex.style.formatting", "unsrt")()
    backend = find_plugin("pybtex.backends", "html")()
    formatted = {entry.key: entry.text for entry in style.format_bibliography(data)}
    entries = [
        Reference(
            key=key,
            label=labels[key],
            html=formatted[key].render(backend),
            bibtex=raw[key],
            further=FURTHER_READING in entry.fields.get("keywords", ""),
        )
        for key, entry in data.entries.items()
    ]
    entries.sort(key=lambda entry: (entry.label.casefold(), entry.key))
    return {entry.key: entry for entry in entries}


def _labels(data: BibliographyData, name: str) -> dict[str, str]:
    """Author and year; a letter follows the year where two would read the same."""
    plain = {key: _label(key, entry, name) for key, entry in data.entries.items()}
    count = Counter(plain.values())
    labels: dict[str, str] = {}
    for key in sorted(plain):
        authors, year = plain[key]
        same = [other for other in sorted(plain) if plain[other] == plain[key]]
        letter = chr(ord("a") + same.index(key)) if count[plain[key]] > 1 else ""
        labels[key] = f"{authors} ({year}{letter})"
    return labels


def _label(key: str, entry: Entry, name: str) -> tuple[str, str]:
    people = entry.persons.get("author") or entry.persons.get("editor")
    year = entry.fields.get("year")
    if not people or not year:
        raise PageError(f"{name}: entry `{key}` needs an author or editor and a year")
    names = [
        str(Text.from_latex(" ".join(person.prelast_names + person.last_names)))
        for person in people
    ]
    if len(names) > 2:
        return f"{names[0]} et al.", year
    return " & ".join(names), year


def split_citation(text: str) -> list[tuple[str, str]]:
    """Key and locator of each part of `@a, eq. 7; @b`; a bad part has no key."""
    parts = []
    for part in text.split(";"):
        match = re.fullmatch(r"\s*@([A-Za-z][\w:-]*)\s*(?:,\s*(.*?))?\s*", part)
        parts.append((match.group(1), match.group(2) or "") if match else ("", part))
    return parts


def cited_keys(text: str) -> set[str]:
    """Keys in the citations of a Markdown or YAML text."""
    citations = re.findall(r"\[(@[^\[\]]+)\]", text)
    return {key for citation in citations for key, _ in split_citation(citation) if key}


def citing_pages(site: Site) -> dict[str, list[tuple[str, str]]]:
    """For each key the pages that cite it: path below `docs/` and title."""
    pages: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(site.docs.rglob("*.md")):
        uri = path.relative_to(site.docs).as_posix()
        if uri == PAGE or uri.startswith("_"):
            continue
        text = path.read_text(encoding="utf-8")
        front_matter, body, _ = split_front_matter(text, site.name(path))
        questions = site.docs / f"interview/questions/{path.stem}.yml"
        if "concept" in front_matter and questions.is_file():
            text += questions.read_text(encoding="utf-8")
        heading = re.search(r"^# (.+?)(?: *\{[^}]*\})?$", body, re.MULTILINE)
        title = front_matter.get("title") or (heading.group(1) if heading else uri)
        for key in sorted(cited_keys(text)):
            pages.setdefault(key, []).append((uri, str(title)))
    return pages
