r"""The lineage map: which concept grew from which, drawn from the pages' front matter.

`python -m sitekit.lineage` (with `tools` on the path) writes
`docs/assets/diagrams/lineage.light.svg` and `.dark.svg`; `--check` only says whether
they are current. The drawing depends on the front matter alone, so it is the same to
the byte on every machine. `{{lineage}}` shows it on a page, with a text that says the
same in words.

A column is a family, a row is a concept, and the rows run from old to new. Within a
family a concept stands further right than those that it grew from.
"""

import argparse
import os
import sys
import tempfile
import xml.etree.ElementTree as etree
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from markdown import Markdown

from sitekit.concepts import Concept, concepts
from sitekit.marker import register_marker
from sitekit.page import PageError, Site, SiteExtension, page_of

FOLDER = "assets/diagrams"
THEMES = {
    "light": {"ink": "#1f2933", "line": "#52606d", "fill": "#eef2f7"},
    "dark": {"ink": "#e6eaf0", "line": "#9aa5b1", "fill": "#2a3240"},
}
_BOX_HEIGHT, _ROW = 36, 52
_LEFT, _TOP = 80, 48
_INDENT, _STEM, _GAP = 40, 18, 40
# Wide enough for the widest letters of the sans-serif fonts in use.
_LETTER, _PADDING = 8.4, 28


@dataclass(frozen=True)
class _Box:
    x: int
    y: int
    width: int


def _generations(found: list[Concept]) -> dict[str, int]:
    """How many concepts of its own family lead to each, by the longest way."""
    by_name = {concept.name: concept for concept in found}
    known: dict[str, int] = {}

    def generation(concept: Concept) -> int:
        if concept.name not in known:
            known[concept.name] = 0  # ends a circle, which `check_order` refuses
            older = [by_name[name] for name in concept.parents if name in by_name]
            kin = [one for one in older if one.family == concept.family]
            known[concept.name] = max((1 + generation(one) for one in kin), default=0)
        return known[concept.name]

    return {concept.name: generation(concept) for concept in found}


def _layout(found: list[Concept]) -> tuple[list[Concept], dict[str, _Box], list[int]]:
    """The concepts by row, the box of each, and where each family's column begins.

    The last entry of the columns is where the drawing ends.
    """
    depth = _generations(found)
    rows = sorted(found, key=lambda one: (one.year, depth[one.name], one.name))
    boxes: dict[str, _Box] = {}
    columns = [_LEFT]
    for family in dict.fromkeys(concept.family for concept in found):
        for row, concept in enumerate(rows):
            if concept.family == family:
                boxes[concept.name] = _Box(
                    columns[-1] + depth[concept.name] * _INDENT,
                    _TOP + row * _ROW,
                    round(len(concept.title) * _LETTER) + _PADDING,
                )
        kin = [boxes[one.name] for one in found if one.family == family]
        columns.append(max(box.x + box.width for box in kin) + _GAP)
    return rows, boxes, columns


def _edge(start: _Box, end: _Box) -> str:
    """Down from one box, then across to the side of another."""
    x, y = start.x + _STEM, start.y + _BOX_HEIGHT
    middle, stop = end.y + _BOX_HEIGHT // 2, end.x - 4
    if stop < x:  # the other stands further left: across to its right side
        stop = end.x + end.width + 4
    return f'<path class="edge" d="M{x} {y} V{middle} H{stop}" marker-end="url(#tip)"/>'


def _style(theme: str) -> str:
    colour = THEMES[theme]
    return (
        "text{font-family:Inter,system-ui,sans-serif;font-size:14px;"
        f"fill:{colour['ink']}}}"
        f".year,.family{{font-size:12px;fill:{colour['line']}}}"
        f".box{{fill:{colour['fill']};stroke:{colour['line']};stroke-width:1}}"
        f".edge{{fill:none;stroke:{colour['line']};stroke-width:1.5}}"
        f".tip{{fill:{colour['line']}}}"
    )


def draw(found: list[Concept], theme: str) -> str:
    """The map as SVG.

    Args:
        found: The concepts, oldest first.
        theme: `light` or `dark`.

    Returns:
        The file's content.
    """
    families = list(dict.fromkeys(concept.family for concept in found))
    rows, boxes, columns = _layout(found)
    width, height = columns[-1], _TOP + max(len(found), 1) * _ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label='
        f'"{escape(alt_text(found), {chr(34): "&quot;"})}">',
        f"<style>{_style(theme)}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path class="tip" d="M0 0 8 4 0 8z"/></marker>'
        "</defs>",
    ]
    for x, family in zip(columns, families, strict=False):
        parts.append(f'<text class="family" x="{x}" y="26">{escape(family)}</text>')
    for concept in rows:
        for parent in concept.parents:
            if parent in boxes:
                parts.append(_edge(boxes[parent], boxes[concept.name]))
    for concept in rows:
        box = boxes[concept.name]
        middle = box.y + _BOX_HEIGHT // 2 + 5
        parts.append(
            f'<text class="year" x="{_LEFT - 20}" y="{middle}" text-anchor="end">'
            f"{concept.year}</text>"
            f'<rect class="box" x="{box.x}" y="{box.y}" width="{box.width}" '
            f'height="{_BOX_HEIGHT}" rx="6"/>'
            f'<text x="{box.x + box.width // 2}" y="{middle}" text-anchor="middle">'
            f"{escape(concept.title)}</text>"
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def alt_text(found: list[Concept]) -> str:
    """The map in words."""
    by_name = {concept.name: concept for concept in found}
    sentences = []
    for concept in found:
        known = [by_name[name].title for name in concept.parents if name in by_name]
        origin = f" grew from {' and '.join(known)}" if known else ""
        sentences.append(f"{concept.title} ({concept.year}){origin}")
    return "Lineage of the concepts: " + "; ".join(sentences) + "."


def check_order(found: list[Concept], site: Site) -> None:
    """Raise `PageError` if a concept is older than one it grew from."""
    by_name = {concept.name: concept for concept in found}
    for concept in found:
        for name in concept.parents:
            parent = by_name.get(name)
            if name == concept.name or (parent and parent.year > concept.year):
                raise PageError(
                    f"{site.name(concept.path)}:1: {concept.name} ({concept.year}) "
                    f"cannot have grown from {name}"
                )


def files(site: Site) -> dict[Path, str]:
    """What the two files must hold."""
    found = concepts(site)
    check_order(found, site)
    return {
        site.docs / FOLDER / f"lineage.{theme}.svg": draw(found, theme)
        for theme in THEMES
    }


def stale(site: Site) -> list[Path]:
    """The files that are missing or differ from what the front matter says."""
    return [
        path
        for path, content in files(site).items()
        if not path.is_file() or path.read_text(encoding="utf-8") != content
    ]


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class LineageExtension(SiteExtension):
    """Shows the map."""

    def register(self, md: Markdown, site: Site) -> None:
        """Register `{{lineage}}`."""
        self.md, self.site = md, site
        register_marker(md, "lineage", self.build)

    def build(self, parent: etree.Element) -> None:
        """Append the picture; `sitekit.twins` makes it a light and a dark one."""
        page = page_of(self.md)
        image = etree.SubElement(etree.SubElement(parent, "p"), "img")
        image.set("class", "twin")
        image.set("src", page.link(f"{FOLDER}/lineage.svg"))
        image.set("alt", alt_text(concepts(self.site)))


def makeExtension(**kwargs: Any) -> LineageExtension:
    """Entry point of Python-Markdown."""
    return LineageExtension(**kwargs)


def main(arguments: list[str] | None = None) -> int:
    """Write the two files, or check them."""
    parser = argparse.ArgumentParser(prog="sitekit.lineage", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args(arguments)
    site = Site()
    outdated = stale(site)
    if options.check:
        for path in outdated:
            print(f"not current: {site.name(path)}")
        return 1 if outdated else 0
    for path, content in files(site).items():
        _write(path, content)
        print(site.name(path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
