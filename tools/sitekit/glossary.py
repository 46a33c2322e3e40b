r"""The glossary: `{{glossary}}` lists it, and a page's first use of a term links it.

`docs/reference/glossary.yml` holds the terms. On every other page the first place in
running text where a term (or one of its aliases) stands becomes a link to the
glossary whose `title` is the definition; the theme shows that as a tooltip on hover and
on keyboard focus. Headings, tables, code, links and formulas are left alone. A page
opts out with `glossary: false` in its front matter.
"""

import re
import xml.etree.ElementTree as etree
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from markdown import Markdown
from markdown.extensions.toc import slugify
from markdown.treeprocessors import Treeprocessor
from markdown.util import AtomicString

from sitekit.marker import register_marker
from sitekit.page import (
    PageError,
    Site,
    SiteExtension,
    load_yaml,
    page_of,
    preprocess,
)
from sitekit.validate import line_of, validate

FILE = "reference/glossary.yml"
PAGE = "reference/glossary.md"

# Text directly in these, or in inline markup inside them, is running text.
_TEXT_BLOCKS = {"p", "li", "dd"}
_INLINE = {"em", "strong", "span"}
_CLOSED_CLASSES = {
    "arithmatex",
    "bibtex",
    "citation-group",
    "gpu-stamp",
    "math",
    "sk-bibliography",
    "sk-references",
}


@dataclass(frozen=True)
class Term:
    """One entry of the glossary."""

    term: str
    names: tuple[str, ...]
    definition: str
    more: str
    link: str
    tooltip: bool

    @property
    def anchor(self) -> str:
        """The entry's anchor on the glossary page."""
        return slugify(self.term, "-")


def glossary(site: Site) -> list[Term]:
    """All terms, in alphabetical order."""
    path = site.docs / FILE
    if not path.is_file():
        raise PageError(f"{site.name(path)} does not exist")
    return _read(path, path.stat().st_mtime_ns, site)


@lru_cache(maxsize=16)
def _read(path: Path, _mtime: int, site: Site) -> list[Term]:
    name, text = site.name(path), path.read_text(encoding="utf-8")
    data = load_yaml(text, name)
    validate(data, "glossary", name, text)
    seen: dict[str, str] = {}
    terms = []
    for index, entry in enumerate(data):
        names = (entry["term"], *entry.get("aliases", ()))
        for word in names:
            if word.casefold() in seen:
                line = 1 + line_of(text, [index])
                other = seen[word.casefold()]
                raise PageError(
                    f"{name}:{line}: `{word}` is already a name of `{other}`"
                )
            seen[word.casefold()] = entry["term"]
        link = entry.get("link", "")
        if link and not (site.docs / link.partition("#")[0]).is_file():
            line = 1 + line_of(text, [index, "link"])
            raise PageError(f"{name}:{line}: `{entry['term']}`: no page {link}")
        terms.append(
            Term(
                term=entry["term"],
                names=names,
                definition=" ".join(entry["definition"].split()),
                more=entry.get("more", ""),
                link=link,
                tooltip=entry.get("tooltip", True),
            )
        )
    return sorted(terms, key=lambda term: term.term.casefold())


class _FirstUses(Treeprocessor):
    """Links the first use of each term."""

    def __init__(self, md: Markdown, site: Site) -> None:
        super().__init__(md)
        self.site = site

    def run(self, root: etree.Element) -> None:
        page = page_of(self.md)
        if page.front_matter.get("glossary") is False or page.uri in ("", PAGE):
            return
        # A docstring rendered into a page is no text of that page.
        if not page.exact:
            return
        if not (self.site.docs / FILE).is_file():
            return
        terms = {
            name.casefold(): term
            for term in glossary(self.site)
            if term.tooltip
            for name in term.names
        }
        # The page that explains a term needs no link to its definition.
        terms = {
            name: term
            for name, term in terms.items()
            if term.link.partition("#")[0] != page.uri
        }
        _Linker(terms, page.link(PAGE)).walk(root, open_text=False)


@lru_cache(maxsize=64)
def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    """Any of the names, the first in the list where several begin at one place."""
    words = "|".join(re.escape(name).replace(r"\ ", r"\s+") for name in names)
    return re.compile(rf"(?<![\w-])({words})(?![\w-])", re.IGNORECASE)


@lru_cache(maxsize=1024)
def _one(name: str) -> re.Pattern[str]:
    return _pattern((name,))


class _Linker:
    """Walks the tree once, linking each term where it first stands."""

    def __init__(self, terms: dict[str, Term], target: str) -> None:
        self.terms = terms
        self.target = target
        self.names = sorted(terms, key=len, reverse=True)
        # For all names, linked already or not: compiling one for those that are left
        # after each link took longer than all else here.
        self.pattern = _pattern(tuple(self.names)) if terms else None

    def _search(self, text: str) -> re.Match[str] | None:
        """The first place of a term that is not linked yet; the longest name there."""
        start = 0
        while self.pattern and (match := self.pattern.search(text, start)):
            for name in self.names:
                if name in self.terms:
                    place = _one(name).match(text, match.start())
                    if place:
                        return place
            start = match.start() + 1
        return None

    def walk(self, element: etree.Element, open_text: bool) -> None:
        """Link terms in `element`'s own text and in its children's."""
        if not self.terms or not _may_enter(element, open_text):
            return
        open_text = element.tag in _TEXT_BLOCKS or (
            open_text and element.tag in _INLINE
        )
        if open_text:
            self._link_text(element)
        index = 0
        while index < len(element):
            child = element[index]
            if child.get("class") != "term":
                self.walk(child, open_text)
            if open_text:
                self._link_tail(element, index)
            index += 1

    def _link_text(self, element: etree.Element) -> None:
        first = self._first(element.text)
        if first:
            element.text, link = first
            element.insert(0, link)

    def _link_tail(self, element: etree.Element, index: int) -> None:
        first = self._first(element[index].tail)
        if first:
            element[index].tail, link = first
            element.insert(index + 1, link)

    def _first(self, text: str | None) -> tuple[str, etree.Element] | None:
        """What precedes the first term in `text`, and its link with the rest."""
        if not text or isinstance(text, AtomicString):
            return None
        match = self._search(text)
        if match is None:
            return None
        term = self.terms[" ".join(match.group(1).casefold().split())]
        # Each term is linked once a page.
        for name in term.names:
            self.terms.pop(name.casefold(), None)
        link = etree.Element("a")
        link.set("class", "term")
        link.set("href", f"{self.target}#{term.anchor}")
        link.set("title", term.definition)
        link.text = match.group(1)
        link.tail = text[match.end() :]
        return text[: match.start()], link


def _may_enter(element: etree.Element, open_text: bool) -> bool:
    if not isinstance(element.tag, str):
        return False
    if _CLOSED_CLASSES & set(element.get("class", "").split()):
        return False
    if element.tag in _TEXT_BLOCKS or (open_text and element.tag in _INLINE):
        return True
    return element.tag in ("div", "blockquote", "ul", "ol", "dl", "details", "section")


class GlossaryExtension(SiteExtension):
    """The glossary page and the links to it."""

    def register(self, md: Markdown, site: Site) -> None:
        """Register `{{glossary}}` and the linking of first uses."""
        self.md, self.site = md, site
        register_marker(md, "glossary", self.build)
        md.treeprocessors.register(_FirstUses(md, site), "sitekit_terms", 12)

    def build(self, parent: etree.Element) -> None:
        """Append the whole glossary to `parent`."""
        box = etree.SubElement(parent, "dl")
        box.set("class", "sk-glossary")
        for term in glossary(self.site):
            heading = etree.SubElement(box, "dt")
            heading.set("id", term.anchor)
            heading.text = term.term
            value = etree.SubElement(box, "dd")
            text = term.definition + ("\n\n" + term.more if term.more else "")
            if term.link:
                target = page_of(self.md).link(term.link)
                text += f" [Read more]({target})"
            page_of(self.md).sources.append(self.site.docs / FILE)
            self.md.parser.parseChunk(value, preprocess(self.md, text))


def makeExtension(**kwargs: Any) -> GlossaryExtension:
    """Entry point of Python-Markdown."""
    return GlossaryExtension(**kwargs)
