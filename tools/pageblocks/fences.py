r"""Finds the fences that the site renders from a page, with their true lines.

The page goes through the same Markdown extensions as on the site. Each fence is
replaced by a numbered element, and the fences whose element is in the resulting
HTML are the ones a reader sees: a fence inside an indented example, another fence
or a comment is not among them.
"""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import markdown

from pageblocks.errors import PageError
from pageblocks.markup import snippet_config, structural_markdown
from pageblocks.snippets import Line, expand
from sitekit.tables import check_tables

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n.*?\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.S)
_FENCE_LIKE = re.compile(
    r"^[\s>]*(?:[-*+][ \t]+|\d+[.)][ \t]+)?(?:`{3,}[^`]*|~{3,}.*)$"
)


@dataclass(frozen=True, eq=False)
class Fence:
    r"""A fence as the site renders it.

    Args:
        language: First word of the info string.
        classes: Classes after the language.
        options: `key="value"` options that are not about the look of the fence.
        lines: The content, line by line, without the fence's own indentation.
        line: Page line of the opening fence.
        end: Page line of the closing fence.
        start: Its place among the expanded lines, from 0.
    """

    language: str
    classes: tuple[str, ...]
    options: dict[str, str]
    lines: tuple[Line, ...]
    line: int
    end: int
    start: int

    @property
    def text(self) -> str:
        return "\n".join(line.text for line in self.lines)


def fences_in(source: str, page: str, root: Path) -> list[Fence]:
    r"""Every fence that the site renders from this text, in order."""
    lines = expand(_without_front_matter(source), page, root, snippet_config(root))
    tracer = _tracer(root)
    return tracer.trace(lines, page)


def watch_fences(md: markdown.Markdown, replace: Callable[..., Any]) -> None:
    r"""Call `replace(fences, start, end, formatter)` for each fence that is found.

    It returns the formatter to use. `start` and `end` count lines after snippets
    have been expanded, from 0; `end` is one past the closing fence.
    """
    fences: Any = md.preprocessors["fenced_code_block"]
    original = fences.process_nested_block

    def process(ws: str, content: str, start: int, end: int) -> None:
        if fences.formatter is not None:
            fences.formatter = replace(fences, start, end, fences.formatter)
        original(ws, content, start, end)

    fences.process_nested_block = process


class _Tracer:
    r"""One Markdown instance, used for page after page."""

    def __init__(self, root: Path) -> None:
        self.md = structural_markdown(root)
        watch_fences(self.md, self._note)
        if "table" in self.md.parser.blockprocessors:
            check_tables(self.md, self._refuse_row)
        self.page = ""
        self.lines: list[Line] = []
        self.fences: list[tuple[int, int, Fence]] = []

    def trace(self, lines: list[Line], page: str) -> list[Fence]:
        self.lines, self.fences, self.page = lines, [], page
        html = self.md.reset().convert("\n".join(line.text for line in lines))
        self._refuse_strays(page)
        seen = _Seen()
        seen.feed(html)
        return [self.fences[number][2] for number in sorted(seen.numbers)]

    def _note(self, fences: Any, start: int, end: int, _: Any) -> Callable[..., str]:
        content = fences.rebuild_block(fences.code).split("\n") if fences.code else []
        origin = self.lines[start + 1 : end - 1]
        fence = Fence(
            language=fences.lang or "",
            classes=tuple(fences.classes),
            options={k: v for k, v in fences.attrs.items() if k[:5] != "data-"},
            lines=tuple(
                Line(text, line.number, line.origin)
                for text, line in zip(content, origin, strict=True)
            ),
            line=self.lines[start].number,
            end=self.lines[end - 1].number,
            start=start,
        )
        self.fences.append((start, end, fence))
        number = len(self.fences) - 1
        return lambda **_: f'<div data-fence="{number}"></div>'

    def _refuse_row(self, row: str, message: str) -> None:
        inside = {i for start, end, _ in self.fences for i in range(start, end)}
        number = next(
            line.number
            for index, line in enumerate(self.lines)
            if index not in inside and row.strip() in line.text
        )
        raise PageError(self.page, number, message)

    def _refuse_strays(self, page: str) -> None:
        r"""Refuse lines that look like a fence and are part of none."""
        inside = {i for start, end, _ in self.fences for i in range(start, end)}
        for index, line in enumerate(self.lines):
            if index not in inside and _FENCE_LIKE.match(line.text):
                raise PageError(
                    page,
                    line.number,
                    f"`{line.text.strip()}` looks like a code fence, and the site does "
                    "not render it as one: it is never closed, stands behind a list "
                    "marker, or has an option outside braces",
                )


class _Seen(HTMLParser):
    r"""The numbered fences that are elements of the HTML."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: set[int] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        number = dict(attrs).get("data-fence")
        if tag == "div" and number is not None:
            self.numbers.add(int(number))


@functools.cache
def _tracer(root: Path) -> _Tracer:
    return _Tracer(root)


def _without_front_matter(source: str) -> list[str]:
    r"""The page's lines; those of the front matter are blank, so lines keep place."""
    match = _FRONT_MATTER.match(source)
    if match is not None:
        source = "\n" * match[0].count("\n") + source[match.end() :]
    return source.split("\n")
