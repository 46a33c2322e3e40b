r"""Python-Markdown extension: a table that would lose a cell stops the build.

Markdown cuts a row at every bar outside code, also at one inside a formula; it then
drops what is more than the header has, and fills up what is less. And lines that look
like a table, whose header has another number of cells than the rule below it, become a
paragraph. Each of these is an error that names page and line.
"""

import itertools
import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

from markdown import Markdown
from markdown.blockprocessors import BlockProcessor

from sitekit.page import Site, SiteExtension, page_of

_RULE = re.compile(r"\A\s*\|?(?:\s*:?-+:?\s*\|)+(?:\s*:?-+:?)?\s*\Z")
_CODE = re.compile(r"(`+).*?\1")
_DOLLAR = re.compile(r"(?<!\\)\$")

Refuse = Callable[[str, str], Any]


def check_tables(md: Markdown, refuse: Refuse) -> None:
    """Call `refuse(row, message)` for each row that would not become what it says.

    Args:
        md: A converter that has the extension `tables`, fully set up.
        refuse: Raises an error that names where `row` stands.
    """
    table: Any = md.parser.blockprocessors["table"]
    original = table._build_row

    def build_row(row: str, parent: ElementTree.Element, align: list) -> None:
        message = _problem(table._split_row(row), len(align))
        if message is not None:
            refuse(row, message)
        original(row, parent, align)

    table._build_row = build_row
    # Just before paragraphs (10): what comes here is no table, list or quotation.
    strays = _Strays(md, refuse)
    md.parser.blockprocessors.register(strays, "sitekit_table_strays", 11)


def _problem(cells: list[str], columns: int) -> str | None:
    """What is wrong with a row of a table with so many columns, if anything."""
    split = [cell.strip() for cell in cells if _dollars(cell) % 2]
    if len(split) > 1:
        return (
            f"a bar inside a formula ends the cell: `{split[0]}` | `{split[1]}`; "
            r"write `\lvert x \rvert`, `\mid` or `\|`"
        )
    if len(cells) != columns:
        return (
            f"this row of a table has {len(cells)} cells, its header has {columns}; "
            r"a bar that ends no cell is written `\|`, in a formula `\lvert x \rvert`"
        )
    return None


def _dollars(cell: str) -> int:
    return len(_DOLLAR.findall(_CODE.sub("", cell)))


class _Strays(BlockProcessor):
    """Refuses what looks like a table and is about to become a paragraph."""

    def __init__(self, md: Markdown, refuse: Refuse) -> None:
        super().__init__(md.parser)
        self.refuse = refuse

    def test(self, parent: ElementTree.Element, block: str) -> bool:
        """Never takes a block; may raise."""
        lines = block.split("\n")
        for above, line in itertools.pairwise(lines):
            if "|" in above and _RULE.match(line):
                self.refuse(
                    above,
                    "this looks like the header of a table, and is none: the rule "
                    "below it has another number of cells, or text stands right above",
                )
        return False

    def run(self, parent: ElementTree.Element, blocks: list[str]) -> None:
        """Not called, since no block is taken."""


class TablesExtension(SiteExtension):
    """Registers the check."""

    def register(self, md: Markdown, site: Site) -> None:
        """Once all extensions are there, among them the one that makes tables."""
        md.preprocessors.register(_Begin(md, site), "sitekit_tables", 999)


class _Begin:
    """A preprocessor that puts the check in place before the first page."""

    def __init__(self, md: Markdown, site: Site) -> None:
        self.md = md
        self.site = site
        self.done = False

    def run(self, lines: list[str]) -> list[str]:
        """Leave the lines alone."""
        if not self.done:
            check_tables(self.md, self._refuse)
            self.done = True
        return lines

    def _refuse(self, row: str, message: str) -> None:
        page = page_of(self.md, site=self.site)
        page.faults.append(f"{page.find(row.strip())}: {message}")


def makeExtension(**kwargs: object) -> TablesExtension:
    """Entry point that Python-Markdown looks for."""
    return TablesExtension(**kwargs)
