r"""Citations: `[@hochreiter1997]`, `[@hochreiter1997, eq. 7]`, `[@a; @b]`.

A citation reads "Hochreiter & Schmidhuber (1997), eq. 7" and links the entry on the
bibliography page. `{{references}}`, alone in a paragraph, lists what the page cites;
`{{bibliography}}` lists every entry. Both show each entry's BibTeX, folded.

A key that `docs/reference/bibliography.bib` lacks raises `PageError`.
"""

import difflib
import re
import xml.etree.ElementTree as etree
from typing import Any

from markdown import Markdown
from markdown.inlinepatterns import InlineProcessor
from markdown.treeprocessors import Treeprocessor

from sitekit.bibliography import (
    FILE,
    PAGE,
    Reference,
    bibliography,
    citing_pages,
    split_citation,
)
from sitekit.marker import register_marker
from sitekit.page import PageError, Site, SiteExtension, page_of

_CITATION = r"(?<![\\!])\[(@[^\[\]]*)\](?!\()"


class _CitationPattern(InlineProcessor):
    ANCESTOR_EXCLUDES = ("a",)

    def __init__(self, md: Markdown, site: Site) -> None:
        super().__init__(_CITATION, md)
        self.site = site

    def handleMatch(self, m: re.Match, data: str):
        container = etree.Element("span")
        container.set("class", "citation-group")
        previous: etree.Element | None = None
        for key, locator in split_citation(m.group(1)):
            reference = self._reference(key, m.group(0))
            if previous is not None:
                previous.tail = (previous.tail or "") + "; "
            previous = etree.SubElement(container, "a")
            previous.set("class", "citation")
            previous.set("href", f"{page_of(self.md).link(PAGE)}#{key}")
            previous.text = reference.label
            previous.tail = f", {locator}" if locator else None
        return container, m.start(0), m.end(0)

    def _reference(self, key: str, token: str) -> Reference:
        known = bibliography(self.site)
        if key in known:
            self.md.sitekit_cited.add(key)  # type: ignore[attr-defined]
            return known[key]
        # In a file of data the brackets are not written.
        where = page_of(self.md).find(token, f"@{key}")
        if not key:
            raise PageError(
                f"{where}: {token} is no citation; write [@key], [@key, eq. 7] "
                "or [@key; @other]"
            )
        near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
        hint = "; nearest: " + ", ".join(near) if near else ""
        raise PageError(f"{where}: {token}: no entry `{key}` in docs/{FILE}{hint}")


def _item(reference: Reference) -> etree.Element:
    item = etree.Element("li")
    item.append(reference.element())
    return item


def _bibtex(reference: Reference) -> etree.Element:
    details = etree.Element("details")
    details.set("class", "bibtex")
    etree.SubElement(details, "summary").text = "BibTeX"
    block = etree.SubElement(details, "div")
    block.set("class", "language-text highlight")
    code = etree.SubElement(etree.SubElement(block, "pre"), "code")
    code.text = reference.bibtex + "\n"
    return details


class _Lists(Treeprocessor):
    """Fills `{{references}}` and `{{bibliography}}` once all citations are known."""

    def __init__(self, md: Markdown, site: Site) -> None:
        super().__init__(md)
        self.site = site

    def run(self, root: etree.Element) -> None:
        cited = self.md.sitekit_cited  # type: ignore[attr-defined]
        for element in root.iter("ul"):
            kind = element.attrib.pop("data-sitekit", "")
            if kind == "references":
                if not cited:
                    where = page_of(self.md).find("{{references}}")
                    raise PageError(f"{where}: {{{{references}}}}: nothing is cited")
                self._references(element, cited)
            elif kind == "bibliography":
                self._bibliography(element)

    def _references(self, element: etree.Element, cited: set[str]) -> None:
        element.set("class", "sk-references")
        for key, reference in bibliography(self.site).items():
            if key in cited:
                item = _item(reference)
                item.append(_bibtex(reference))
                element.append(item)

    def _bibliography(self, element: etree.Element) -> None:
        element.set("class", "sk-bibliography")
        cited_by = citing_pages(self.site)
        page = page_of(self.md)
        for key, reference in bibliography(self.site).items():
            item = _item(reference)
            item.set("id", key)
            if key in cited_by:
                span = etree.SubElement(item, "span")
                span.set("class", "sk-cited-by")
                span.text = " Cited on: "
                for index, (uri, title) in enumerate(cited_by[key]):
                    link = etree.SubElement(span, "a")
                    link.set("href", page.link(uri))
                    link.text = title
                    link.tail = ", " if index + 1 < len(cited_by[key]) else "."
            elif reference.further:
                item[-1].tail = " Further reading."
            item.append(_bibtex(reference))
            element.append(item)


class CitationExtension(SiteExtension):
    """Citations in sentences, and the lists of what they cite."""

    def register(self, md: Markdown, site: Site) -> None:
        """Register the pattern above Markdown's own `[text]` forms."""
        md.registerExtension(self)
        self.md = md
        self.reset()
        md.inlinePatterns.register(_CitationPattern(md, site), "sitekit_cite", 175)
        md.treeprocessors.register(_Lists(md, site), "sitekit_reference_lists", 18)
        for name in ("references", "bibliography"):
            register_marker(md, name, _placeholder(name))

    def reset(self) -> None:
        """Forget what the last page cited."""
        self.md.sitekit_cited = set()


def _placeholder(name: str):
    def build(parent: etree.Element) -> None:
        etree.SubElement(parent, "ul").set("data-sitekit", name)

    return build


def makeExtension(**kwargs: Any) -> CitationExtension:
    """Entry point of Python-Markdown."""
    return CitationExtension(**kwargs)
