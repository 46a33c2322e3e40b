r"""Python-Markdown extension: formulas become MathML while the site is built.

It works over `pymdownx.arithmatex` with `generic: true`, which finds `$...$` and
`$$...$$`; this extension renders what was found. A formula that Temml cannot read
stops the build with page, line and formula. Two more faults stop it: a formula in a
heading, which the table of contents could not show, and a `$$` that was not
recognised because it shares its paragraph with other text.
"""

import html
import re
from xml.etree import ElementTree

from markdown import Markdown
from markdown.treeprocessors import Treeprocessor
from markdown.util import AtomicString

from sitekit.data import fill_tex
from sitekit.page import PageError, Site, SiteExtension, keeping_faults, page_of
from sitekit.temml import TexError, to_mathml

_WRAPPED = re.compile(r"\A\s*(\\\(|\\\[)(.*)(\\\)|\\\])\s*\Z", re.DOTALL)
_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})


class MathTreeprocessor(Treeprocessor):
    """Replaces what arithmatex found by MathML."""

    def __init__(self, md: Markdown, site: Site) -> None:
        super().__init__(md)
        self.site = site

    def run(self, root: ElementTree.Element) -> None:
        """Render every formula below `root`."""
        self._walk(root, in_heading=False)

    def _walk(self, element: ElementTree.Element, in_heading: bool) -> None:
        in_heading = in_heading or element.tag in _HEADINGS
        for child in element:
            if "arithmatex" in child.get("class", "").split():
                with keeping_faults(self.md):
                    self._render(child, in_heading)
            elif child.tag not in ("code", "pre", "script", "style"):
                self._refuse_bare_dollars(child.text)
                self._walk(child, in_heading)
            self._refuse_bare_dollars(child.tail)

    def _render(self, element: ElementTree.Element, in_heading: bool) -> None:
        match = _WRAPPED.match("".join(element.itertext()))
        if match is None:
            raise PageError(
                "sitekit.mathml needs pymdownx.arithmatex with `generic: true` and "
                "its own wrappers"
            )
        display = match.group(1) == r"\["
        # arithmatex escapes & and < in display formulas, and not in sentences.
        source = html.unescape(match.group(2)) if display else match.group(2)
        if in_heading:
            raise PageError(
                f"{self._place(source)}: formula in a heading: `{source.strip()}`; "
                "the table of contents cannot show it"
            )
        try:
            mathml = to_mathml(fill_tex(self.md, source, self.site).strip(), display)
        except TexError as error:
            raise PageError(
                f"{self._place(source)}: formula `{source.strip()}`: {error}"
            ) from error
        # The search index would show a formula as loose letters.
        mathml = mathml.replace("<math", '<math data-search-exclude="true"', 1)
        element.set("class", "math math-display" if display else "math")
        element[:] = []
        element.text = AtomicString(self.md.htmlStash.store(mathml))

    def _refuse_bare_dollars(self, text: str | None) -> None:
        if not text or "$$" not in text or isinstance(text, AtomicString):
            return
        rest = text[text.index("$$") :].split("\n")[0]
        page_of(self.md, site=self.site).faults.append(
            f"{self._place(rest)}: `{rest.strip()}` is not shown as a formula: "
            "$$ needs a paragraph of its own and a second $$"
        )

    def _place(self, source: str) -> str:
        """File and line of a formula: on the page, or in a docstring."""
        token = source.strip().split("\n")[0].strip()
        page = page_of(self.md, site=self.site)
        place = page.find(token)
        if page.path and place.rpartition(":")[2].isdigit():
            return place
        for path in sorted((self.site.root / "src").rglob("*.py")):
            lines = path.read_text(encoding="utf-8").split("\n")
            for number, line in enumerate(lines, start=1):
                if token in line:
                    return f"{self.site.name(path)}:{number}"
        return place


class MathmlExtension(SiteExtension):
    """Registers the rendering of formulas."""

    def register(self, md: Markdown, site: Site) -> None:
        """After the inline patterns (20), before anything that reads text."""
        md.treeprocessors.register(MathTreeprocessor(md, site), "sitekit_mathml", 19)


def makeExtension(**kwargs: object) -> MathmlExtension:
    """Entry point that Python-Markdown looks for."""
    return MathmlExtension(**kwargs)
