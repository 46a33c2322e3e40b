r"""The lineage map: which concept grew from which, drawn from the pages' front matter.

`python -m sitekit.lineage` (with `tools` on the path) writes
`docs/assets/diagrams/lineage.light.svg` and `.dark.svg`; `--check` only says whether
they are current. The drawing depends on the front matter alone, so it is the same to
the byte on every machine. `{{lineage}}` shows it on a page, with a text that says the
same in words.

A column is a family, a row is a concept, and the rows run from old to new. Within a
family a concept stands further right than those that it grew from.

An arrow goes down from the box of the older concept and across to the newer one. Where
another box is in its way it goes round, on the right. No two arrows end at one point,
and a line hops over each line that it has nothing to do with.
"""

import argparse
import os
import sys
import tempfile
import xml.etree.ElementTree as etree
from dataclasses import dataclass, replace
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
_LANE, _CORNER, _HOP = 20, 6, 5
# Wide enough for the widest letters of the sans-serif fonts in use.
_LETTER, _PADDING = 8.4, 28


@dataclass(frozen=True)
class _Box:
    x: int
    y: int
    width: int


def _generations(lineage: list[Concept]) -> dict[str, int]:
    """How many concepts of its own family lead to each, by the longest way."""
    by_name = {concept.name: concept for concept in lineage}
    known: dict[str, int] = {}

    def generation(concept: Concept) -> int:
        if concept.name not in known:
            known[concept.name] = 0  # ends a circle, which `check_order` refuses
            older = [by_name[name] for name in concept.parents if name in by_name]
            kin = [one for one in older if one.family == concept.family]
            known[concept.name] = max((1 + generation(one) for one in kin), default=0)
        return known[concept.name]

    return {concept.name: generation(concept) for concept in lineage}


def _layout(lineage: list[Concept]) -> tuple[list[Concept], dict[str, _Box], list[int]]:
    """The concepts by row, the box of each, and where each family's column begins.

    The last entry of the columns is where the drawing ends.
    """
    depth = _generations(lineage)
    rows = sorted(lineage, key=lambda one: (one.year, depth[one.name], one.name))
    boxes: dict[str, _Box] = {}
    columns = [_LEFT]
    for family in dict.fromkeys(concept.family for concept in lineage):
        for row, concept in enumerate(rows):
            if concept.family == family:
                boxes[concept.name] = _Box(
                    columns[-1] + depth[concept.name] * _INDENT,
                    _TOP + row * _ROW,
                    round(len(concept.title) * _LETTER) + _PADDING,
                )
        kin = [boxes[one.name] for one in lineage if one.family == family]
        columns.append(max(box.x + box.width for box in kin) + _GAP)
    return rows, boxes, columns


@dataclass(frozen=True)
class _Edge:
    """A line down at `x` from `top` to `bottom`, then across to `stop`.

    `origin` is where it leaves the side of a box, or `x` where it leaves the bottom.
    """

    origin: int
    x: int
    top: int
    bottom: int
    stop: int

    def path(self, others: list["_Edge"]) -> str:
        """The line as SVG, with rounded corners and hops over the others."""
        parts, at = [f"M{self.origin} {self.top}"], self.x
        if self.x > self.origin:
            at = self.x - _CORNER
            parts += _hops(self.origin, at, self.top, others)
            parts.append(f"H{at} q{_CORNER} 0 {_CORNER} {_CORNER}")
        turn = _CORNER if self.stop > self.x else -_CORNER
        parts.append(f"V{self.bottom - _CORNER} q0 {_CORNER} {turn} {_CORNER}")
        parts += _hops(self.x + turn, self.stop, self.bottom, others)
        return " ".join([*parts, f"H{self.stop}"])


def _hops(start: int, stop: int, y: int, others: list[_Edge]) -> list[str]:
    """Arcs over the lines that go down between `start` and `stop`."""
    side = 1 if stop > start else -1
    low, high = sorted((start, stop))
    crossed = {
        one.x
        for one in others
        if low + _HOP < one.x < high - _HOP and one.top < y < one.bottom
    }
    arc = f"a{_HOP} {_HOP} 0 0 {int(side > 0)} {2 * side * _HOP} 0"
    return [f"H{x - side * _HOP} {arc}" for x in sorted(crossed, reverse=side < 0)]


def _edges(lineage: list[Concept], boxes: dict[str, _Box]) -> list[_Edge]:
    """The arrows. Those of one box that go round share a lane, the shortest inside."""
    routes: list[tuple[_Box, _Edge]] = []
    lanes: list[tuple[_Box, list[_Box]]] = []
    for name, start in boxes.items():
        x, around = start.x + _STEM, []
        for end in (boxes[one.name] for one in lineage if name in one.parents):
            near = [box for box in boxes.values() if start.y < box.y < end.y]
            if any(box.x <= x <= box.x + box.width for box in near):
                around.append(end)
            else:
                right = end.x - 4 > x
                stop = end.x - 4 if right else end.x + end.width + 4
                edge = _Edge(x, x, start.y + _BOX_HEIGHT, end.y, stop)
                routes.append((end, edge))
        if around:
            lanes.append((start, around))
    taken: list[_Edge] = []
    for start, ends in sorted(lanes, key=lambda one: _drop(*one)):
        last = start.y + _drop(start, ends)
        near = [box for box in boxes.values() if start.y <= box.y <= last]
        x = max(box.x + box.width for box in near) + _LANE
        while any(
            abs(one.x - x) < _LANE and one.top < last and start.y < one.bottom
            for one in taken
        ):
            x += _LANE
        # Below the middle, where another arrow may end.
        top = start.y + _BOX_HEIGHT * 5 // 6
        for end in ends:
            stop = end.x + end.width + 4
            taken.append(_Edge(start.x + start.width, x, top, end.y, stop))
            routes.append((end, taken[-1]))
    return [_docked(end, edge, routes) for end, edge in routes]


def _drop(start: _Box, ends: list[_Box]) -> int:
    return max(end.y for end in ends) - start.y


def _docked(end: _Box, edge: _Edge, routes: list[tuple[_Box, _Edge]]) -> _Edge:
    """The edge at a place of its own on the side of its box, the farthest lowest."""
    sharing = sorted(
        abs(one.x - one.stop)
        for box, one in routes
        if box == end and one.stop == edge.stop
    )
    place = 1 + sharing.index(abs(edge.x - edge.stop))
    return replace(edge, bottom=end.y + place * _BOX_HEIGHT // (len(sharing) + 1))


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


def draw(lineage: list[Concept], theme: str) -> str:
    """The map as SVG.

    Args:
        lineage: The concepts, oldest first.
        theme: `light` or `dark`.

    Returns:
        The file's content.
    """
    families = list(dict.fromkeys(concept.family for concept in lineage))
    rows, boxes, columns = _layout(lineage)
    edges = _edges(lineage, boxes)
    width = max([columns[-1], *(edge.x + _LANE for edge in edges)])
    height = _TOP + max(len(lineage), 1) * _ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label='
        f'"{escape(alt_text(lineage), {chr(34): "&quot;"})}">',
        f"<style>{_style(theme)}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path class="tip" d="M0 0 8 4 0 8z"/></marker>'
        "</defs>",
    ]
    for x, family in zip(columns, families, strict=False):
        parts.append(f'<text class="family" x="{x}" y="26">{escape(family)}</text>')
    for edge in edges:
        line = edge.path([other for other in edges if other.x != edge.x])
        parts.append(f'<path class="edge" d="{line}" marker-end="url(#tip)"/>')
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


def alt_text(lineage: list[Concept]) -> str:
    """The map in words."""
    by_name = {concept.name: concept for concept in lineage}
    sentences = []
    for concept in lineage:
        known = [by_name[name].title for name in concept.parents if name in by_name]
        origin = f" grew from {' and '.join(known)}" if known else ""
        sentences.append(f"{concept.title} ({concept.year}){origin}")
    return "Lineage of the concepts: " + "; ".join(sentences) + "."


def check_order(lineage: list[Concept], site: Site) -> None:
    """Raise `PageError` if a concept is older than one it grew from."""
    by_name = {concept.name: concept for concept in lineage}
    for concept in lineage:
        for name in concept.parents:
            parent = by_name.get(name)
            if name == concept.name or (parent and parent.year > concept.year):
                raise PageError(
                    f"{site.name(concept.path)}:1: {concept.name} ({concept.year}) "
                    f"cannot have grown from {name}"
                )


def files(site: Site) -> dict[Path, str]:
    """What the two files must hold."""
    lineage = concepts(site)
    check_order(lineage, site)
    return {
        site.docs / FOLDER / f"lineage.{theme}.svg": draw(lineage, theme)
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
