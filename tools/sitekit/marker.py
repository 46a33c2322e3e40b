r"""Markers that stand alone in a paragraph, such as `{{summary}}`."""

import xml.etree.ElementTree as etree
from collections.abc import Callable

from markdown import Markdown
from markdown.blockprocessors import BlockProcessor


class _MarkerBlock(BlockProcessor):
    def __init__(
        self, md: Markdown, name: str, build: Callable[[etree.Element], None]
    ) -> None:
        super().__init__(md.parser)
        self.token = "{{" + name + "}}"
        self.build = build

    def test(self, parent: etree.Element, block: str) -> bool:
        return block.strip() == self.token

    def run(self, parent: etree.Element, blocks: list[str]) -> None:
        blocks.pop(0)
        self.build(parent)


def register_marker(
    md: Markdown, name: str, build: Callable[[etree.Element], None]
) -> None:
    """Call `build(parent)` wherever `{{name}}` is a paragraph of its own."""
    processor = _MarkerBlock(md, name, build)
    md.parser.blockprocessors.register(processor, f"sitekit_{name}", 75)
