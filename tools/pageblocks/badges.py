r"""Python-Markdown extension: under each `.gpu` block, when and where it last ran.

What a block prints is shown only once it ran somewhere: until there is a stamp, its
output fence is held back.
"""

from html import escape
from pathlib import Path
from typing import Any

import markdown
from markdown.extensions import Extension
from markdown.preprocessors import Preprocessor

from pageblocks.extract import blocks_in
from pageblocks.fences import watch_fences
from pageblocks.files import read_json
from pageblocks.stamps import STAMPS, badge, is_held_back


class BadgeExtension(Extension):
    r"""Adds `<p class="gpu-stamp gpu-stamp--STATE">` after each `.gpu` block."""

    def __init__(self, **options: Any) -> None:
        self.config = {"root": [".", "The repository root"]}
        super().__init__(**options)

    def extendMarkdown(self, md: markdown.Markdown) -> None:
        # Before snippets are expanded (32), so that the source is the page's own.
        reader = _PageReader(md, Path(self.getConfig("root")))
        md.preprocessors.register(reader, "gpu_badges", 100)


class _PageReader(Preprocessor):
    r"""Reads the page before anything else does, and watches its fences."""

    def __init__(self, md: markdown.Markdown, root: Path) -> None:
        super().__init__(md)
        self.root = root.resolve()
        self.words: dict[int, str] = {}
        self.held: set[int] = set()
        self.watching = False

    def run(self, lines: list[str]) -> list[str]:
        # The fence processor exists only once all extensions are loaded.
        if not self.watching:
            watch_fences(self.md, self._with_badge)
            self.watching = True
        self.words, self.held = {}, set()
        if any(".gpu" in line for line in lines):
            self._read(lines)
        return lines

    def _read(self, lines: list[str]) -> None:
        r"""The badges and what is held back, by where superfences meets each fence."""
        blocks = blocks_in("\n".join(lines), self._page(lines), self.root)
        stamps = read_json(self.root / STAMPS)
        for block in blocks:
            if block.gpu:
                state, words = badge(blocks, block, self.root, stamps)
                self.words[block.fence.start] = (
                    f'<p class="gpu-stamp gpu-stamp--{state}">{escape(words)}</p>'
                )
            if block.output is not None and is_held_back(blocks, block, stamps):
                self.held.add(block.output.start)

    def _page(self, lines: list[str]) -> str:
        r"""The page's path: MkDocs knows it; elsewhere it is found by its text."""
        known: Any = self.md.treeprocessors
        if "relpath" in known:
            return f"docs/{known['relpath'].file.src_uri}"
        text = "\n".join(lines).strip()
        for path in sorted((self.root / "docs").rglob("*.md")):
            if path.read_text(encoding="utf-8").strip().endswith(text):
                return path.relative_to(self.root).as_posix()
        return "docs/unknown.md"

    def _with_badge(self, fences: Any, start: int, end: int, formatter: Any) -> Any:
        if start in self.held:
            return lambda **_: ""
        words = self.words.get(start)
        if words is None:
            return formatter
        return lambda **given: formatter(**given) + words


def makeExtension(**options: Any) -> BadgeExtension:
    r"""Called by Markdown, which finds the extension by this name."""
    return BadgeExtension(**options)
