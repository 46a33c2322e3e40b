r"""Numbers in sentences, taken from the files that experiments wrote.

`{{data:name.key.sub}}` is the value at `key.sub` of `docs/_data/name.json`, and
`{{data:name.key.sub:.3g}}` the same in a format of Python's. A step into a list is its
index. A number in scientific notation reads 2.5 × 10⁻¹⁴; a thousands separator comes
only if the format asks for it (`:,`). The markers work wherever Markdown's inline
syntax does, code and headings excepted: a heading's anchor must not depend on a run.

An unknown file, key or format raises `PageError` with page, line and nearest keys.
So does any other `{{...}}` in a page's text that no extension knows.
"""

import difflib
import json
import math
import re
import xml.etree.ElementTree as etree
from functools import lru_cache
from pathlib import Path
from typing import Any

from markdown import Markdown
from markdown.inlinepatterns import InlineProcessor
from markdown.treeprocessors import Treeprocessor

from sitekit.page import PageError, Site, SiteExtension, page_of

MARKER = r"(?<!\\)\{\{data:([^{}:]+)(?::([^{}]*))?\}\}"

_FORMAT = re.compile(r"\+?,?(\.\d+)?[defg%]?")
_SCIENTIFIC = re.compile(r"(.*)e([+-]?)0*(\d+)")
_SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_PLAIN = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789\u2212")
_POWER = re.compile("(.*×\u00a010)([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)")
_NO_BREAK_SPACE = "\u00a0"
_MINUS = "\u2212"


class DataError(ValueError):
    """A marker names what does not exist, or asks for a format that does not fit."""


@lru_cache(maxsize=256)
def _load(path: Path, _mtime: int) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def load(site: Site, name: str) -> Any:
    """The content of `docs/_data/<name>.json`."""
    folder = site.docs / "_data"
    path = folder / f"{name}.json"
    if not path.is_file():
        known = sorted(p.stem for p in folder.glob("*.json"))
        raise DataError(f"no file docs/_data/{name}.json{_nearest(name, known)}")
    try:
        return _load(path, path.stat().st_mtime_ns)
    except json.JSONDecodeError as error:
        raise DataError(f"docs/_data/{name}.json is not valid JSON: {error}") from error


def _nearest(name: str, known: list[str]) -> str:
    if not known:
        return "; there are none"
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:6]
    return "; nearest: " + ", ".join(f"`{key}`" for key in near)


def lookup(site: Site, path: str) -> Any:
    """The value at `name.key.sub`; keys may themselves hold dots."""
    name, *parts = path.split(".")
    if not parts:
        raise DataError(f"`{path}` names a file and no key in it")
    value, walked = load(site, name), name
    while parts:
        taken, value = _step(value, parts, walked)
        walked += "." + ".".join(parts[:taken])
        parts = parts[taken:]
    return value


def _step(value: Any, parts: list[str], walked: str) -> tuple[int, Any]:
    """One step down; returns how many parts it used, and where it leads."""
    if isinstance(value, dict):
        for taken in range(len(parts), 0, -1):
            key = ".".join(parts[:taken])
            if key in value:
                return taken, value[key]
        known = [str(key) for key in value]
        raise DataError(f"`{walked}` has no `{parts[0]}`{_nearest(parts[0], known)}")
    if isinstance(value, list):
        if parts[0].isdigit() and int(parts[0]) < len(value):
            return 1, value[int(parts[0])]
        raise DataError(
            f"`{walked}` is a list of {len(value)}; `{parts[0]}` is no index into it"
        )
    raise DataError(f"`{walked}` is a value and has no `{parts[0]}`")


def _digits(value: int | float | str, spec: str) -> str:
    """The value as Python writes it, in ASCII."""
    if isinstance(value, str):
        if spec:
            raise DataError(f"format `{spec}` is for numbers; the value is {value!r}")
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        kind = {dict: "a table", list: "a list", bool: "true or false"}.get(
            type(value), "null"
        )
        raise DataError(f"only a number or a text can be shown; the value is {kind}")
    if not math.isfinite(value):
        raise DataError(f"the value is {value}, which is no number to print")
    if isinstance(value, float) and spec.endswith("d"):
        raise DataError(f"format `{spec}` is for integers; the value is {value!r}")
    if not _FORMAT.fullmatch(spec):
        raise DataError(
            f"unknown format `{spec}`; use for example `.3g`, `.2f`, `.1e`, `,`, `.1%`"
        )
    return format(value, spec)


def format_text(value: int | float | str, spec: str = "") -> str:
    """The value for a sentence: true minus signs, powers of ten as superscripts."""
    text = _digits(value, spec)
    if isinstance(value, str):
        return text
    match = _SCIENTIFIC.fullmatch(text)
    if match:
        mantissa, sign, exponent = match.groups()
        power = (sign if sign == "-" else "") + exponent
        times = f"{_NO_BREAK_SPACE}×{_NO_BREAK_SPACE}10"
        text = f"{mantissa}{times}{power.translate(_SUPERSCRIPT)}"
    return text.replace("-", _MINUS)


def format_tex(value: int | float | str, spec: str = "") -> str:
    """The value for a formula."""
    text = _digits(value, spec)
    if isinstance(value, str):
        return rf"\text{{{text}}}"
    match = _SCIENTIFIC.fullmatch(text)
    if match:
        mantissa, sign, exponent = match.groups()
        power = (sign if sign == "-" else "") + exponent
        text = rf"{mantissa} \times 10^{{{power}}}"
    return text.replace(",", "{,}").replace("%", r"\%")


def _value(md: Markdown, site: Site, match: re.Match) -> tuple[Any, str]:
    path, spec = match.group(1), match.group(2) or ""
    try:
        value = lookup(site, path)
        _digits(value, spec)
    except DataError as error:
        where = page_of(md).find(match.group(0))
        raise PageError(f"{where}: {match.group(0)}: {error}") from error
    return value, spec


def fill_tex(md: Markdown, tex: str, site: Site | None = None) -> str:
    """Replace the data markers in a formula by numbers in TeX."""
    site = site or page_of(md).site
    return re.sub(MARKER, lambda m: format_tex(*_value(md, site, m)), tex)


def fill_text(md: Markdown, text: str, site: Site | None = None) -> str:
    """Replace the data markers in a plain text."""
    site = site or page_of(md).site
    return re.sub(MARKER, lambda m: format_text(*_value(md, site, m)), text)


class _DataPattern(InlineProcessor):
    def __init__(self, md: Markdown, site: Site) -> None:
        super().__init__(MARKER, md)
        self.site = site

    def handleMatch(self, m: re.Match, data: str):
        value, spec = _value(self.md, self.site, m)
        element = etree.Element("data")
        element.set("class", "sk-data")
        element.set("value", value if isinstance(value, str) else repr(value))
        element.set("title-marker", m.group(0))
        element.text = format_text(value, spec)
        return element, m.start(0), m.end(0)


class _UnknownMarker(InlineProcessor):
    def handleMatch(self, m: re.Match, data: str):
        where = page_of(self.md).find(m.group(0))
        raise PageError(
            f"{where}: {m.group(0)} is not understood here. Known in a sentence: "
            "{{data:name.key}}; alone in a paragraph, if its extension is loaded: "
            "{{summary}}, {{questions}}, {{references}}, {{bibliography}}, "
            "{{glossary}}, {{lineage}}, {{claims}}"
        )


class _Finish(Treeprocessor):
    """Refuses a marker in a heading; sets powers of ten as superscripts.

    Superscript characters are for alternative texts, which hold no markup. In a
    sentence plain digits in `sup` look alike whatever the font lacks.
    """

    def run(self, root: etree.Element) -> None:
        for heading in root.iter():
            if heading.tag not in ("h1", "h2", "h3", "h4", "h5", "h6"):
                continue
            for element in heading.iter("data"):
                marker = element.get("title-marker", "")
                where = page_of(self.md).find(marker)
                page_of(self.md).faults.append(f"{where}: {marker} stands in a heading")
        for element in root.iter("data"):
            element.attrib.pop("title-marker", None)
            match = _POWER.fullmatch(element.text or "")
            if match:
                element.text = match.group(1)
                power = etree.SubElement(element, "sup")
                power.text = match.group(2).translate(_PLAIN)


class DataExtension(SiteExtension):
    """`{{data:name.key:format}}` in sentences, lists, tables and alternative texts."""

    def register(self, md: Markdown, site: Site) -> None:
        """Register the marker above links and images, below code spans."""
        patterns = md.inlinePatterns
        patterns.register(_DataPattern(md, site), "sitekit_data", 185)
        unknown = _UnknownMarker(r"(?<!\\)\{\{[^{}\n]*\}\}", md)
        patterns.register(unknown, "sitekit_unknown_marker", 184)
        md.treeprocessors.register(_Finish(md), "sitekit_data_finish", 19)


def makeExtension(**kwargs: Any) -> DataExtension:
    """Entry point of Python-Markdown."""
    return DataExtension(**kwargs)
