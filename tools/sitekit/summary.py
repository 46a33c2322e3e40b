r"""`{{summary}}`: the box at the top of a concept page, from its front matter."""

import xml.etree.ElementTree as etree
from typing import Any

from markdown import Markdown

from sitekit.concepts import read_concept, title_of
from sitekit.marker import register_marker
from sitekit.page import PageError, Site, SiteExtension, page_of

LABELS = {
    "what": "What it is",
    "cost_step": "Cost per step",
    "cost_sequence": "Cost per sequence",
    "parameters": "Parameters",
    "use_when": "Use it when",
    "usual_mistake": "The usual mistake",
}


class SummaryExtension(SiteExtension):
    """Renders the front matter of a concept page as a definition list."""

    def register(self, md: Markdown, site: Site) -> None:
        """Register `{{summary}}`."""
        self.md, self.site = md, site
        register_marker(md, "summary", self.build)

    def build(self, parent: etree.Element) -> None:
        """Append the box to `parent`."""
        page = page_of(self.md)
        if page.path is None or "concept" not in page.front_matter:
            where = page.find("{{summary}}")
            raise PageError(
                f"{where}: {{{{summary}}}} needs front matter with `concept`"
            )
        concept = read_concept(page.path, self.site)
        box = etree.SubElement(parent, "dl")
        box.set("class", "sk-summary")
        for key, label in LABELS.items():
            _row(box, label).text = concept.summary[key].strip()
        _row(box, "Published").text = str(concept.year)
        if concept.parents:
            self._parents(_row(box, "Grew from"), concept.parents)

    def _parents(self, value: etree.Element, parents: tuple[str, ...]) -> None:
        page = page_of(self.md)
        for index, name in enumerate(parents):
            title, has_page = title_of(name, self.site)
            item = etree.SubElement(value, "a" if has_page else "span")
            item.text = title
            item.tail = ", " if index + 1 < len(parents) else None
            if has_page:
                item.set("href", page.link(f"{name}.md"))


def _row(box: etree.Element, label: str) -> etree.Element:
    row = etree.SubElement(box, "div")
    etree.SubElement(row, "dt").text = label
    return etree.SubElement(row, "dd")


def makeExtension(**kwargs: Any) -> SummaryExtension:
    """Entry point of Python-Markdown."""
    return SummaryExtension(**kwargs)
