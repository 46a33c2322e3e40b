r"""Python-Markdown extension: one figure, drawn for light and for dark pages.

`![alt](path/name.svg){ .twin }` becomes two images, `name.light.svg` and
`name.dark.svg`; the theme shows the one that fits the colour scheme. Both get width
and height from the drawing, so that the page does not move while it loads, and
`loading="lazy"`, so that the hidden one is not fetched. A figure without alternative
text and a missing file stop the build with page and line.
"""

import re
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

from markdown import Markdown
from markdown.treeprocessors import Treeprocessor

from sitekit.page import PageError, Site, SiteExtension, keeping_faults, page_of

_INCH = 96.0
_PIXELS = {"": 1.0, "px": 1.0, "pt": _INCH / 72, "in": _INCH, "mm": _INCH / 25.4}
_LENGTH = re.compile(r"\A\s*([0-9.]+)\s*([a-z]*)\s*\Z")


def svg_size(path: Path) -> tuple[int, int]:
    """Width and height of a drawing in CSS pixels, from its root element."""
    root = ElementTree.parse(path).getroot()
    sizes = [_pixels(root.get(name)) for name in ("width", "height")]
    if None in sizes:
        box = re.split(r"[\s,]+", root.get("viewBox", "").strip())
        if len(box) != 4:
            raise ValueError(f"{path.name} has neither width and height nor a viewBox")
        sizes = [float(box[2]), float(box[3])]
    return round(sizes[0]), round(sizes[1])


def _pixels(length: str | None) -> float | None:
    match = _LENGTH.match(length or "")
    if match is None or match.group(2) not in _PIXELS:
        return None
    return float(match.group(1)) * _PIXELS[match.group(2)]


class TwinTreeprocessor(Treeprocessor):
    """Replaces each image of class `twin` by its light and its dark drawing."""

    def __init__(self, md: Markdown, site: Site) -> None:
        super().__init__(md)
        self.site = site

    def run(self, root: ElementTree.Element) -> None:
        """Rewrite every twin below `root`."""
        for image in [e for e in root.iter("img") if _has_twin_class(e)]:
            with keeping_faults(self.md):
                self._rewrite(image)

    def _rewrite(self, image: ElementTree.Element) -> None:
        source = image.get("src", "")
        page = page_of(self.md, site=self.site)
        if not image.get("alt", "").strip():
            raise PageError(
                f"{page.find(source)}: the figure `{source}` needs alternative text "
                "that says what it shows"
            )
        if not source.endswith(".svg"):
            raise PageError(
                f"{page.find(source)}: a .twin figure is named name.svg, got `{source}`"
            )
        folder = page.path.parent if page.path else self.site.docs
        kept = {k: v for k, v in image.attrib.items() if k != "src"}
        identifier = kept.pop("id", None)
        classes = [c for c in kept.pop("class").split() if c != "twin"]
        images = []
        for scheme in ("light", "dark"):
            name = f"{source.removesuffix('.svg')}.{scheme}.svg"
            path = folder / unquote(name)
            if not path.is_file():
                raise PageError(
                    f"{page.find(source)}: the figure `{source}` has no {scheme} "
                    f"drawing: {self.site.name(path.resolve())} is missing"
                )
            width, height = self._size(path, page.find(source))
            twin = dict(kept, src=f"{name}#only-{scheme}", loading="lazy")
            twin |= {"width": str(width), "height": str(height)}
            if classes:
                twin["class"] = " ".join(classes)
            images.append(ElementTree.Element("img", twin))
        tail = image.tail
        image.clear()
        image.tag, image.tail = "span", tail
        image.set("class", "twin")
        if identifier:
            image.set("id", identifier)
        image.extend(images)

    def _size(self, path: Path, place: str) -> tuple[int, int]:
        try:
            return svg_size(path)
        except (ElementTree.ParseError, ValueError) as error:
            raise PageError(f"{place}: {self.site.name(path)}: {error}") from error


def _has_twin_class(element: ElementTree.Element) -> bool:
    return "twin" in element.get("class", "").split()


class TwinsExtension(SiteExtension):
    """Registers the twins."""

    def register(self, md: Markdown, site: Site) -> None:
        """After attr_list (8), before MkDocs checks and rewrites links (0)."""
        md.treeprocessors.register(TwinTreeprocessor(md, site), "sitekit_twins", 5)


def makeExtension(**kwargs: object) -> TwinsExtension:
    """Entry point that Python-Markdown looks for."""
    return TwinsExtension(**kwargs)
