r"""A table that would lose a cell is refused, with page and line."""

import markdown
import pytest

from pageblocks.errors import PageError as BlockError
from pageblocks.extract import blocks_in
from sitekit.page import PageError

HEAD = "| name | cost |\n| --- | --- |\n"
FOUND = ["tables", "attr_list", "pymdownx.superfences", "admonition"]
BAD = {
    "a bar in a formula of a row": (
        HEAD + "| $|x|$ | 2 |\n",
        3,
        "bar inside a formula",
    ),
    "a bar in a formula, cells as many as columns": (
        HEAD + "| one | 1 |\n| $|x$ |\n",
        4,
        "bar inside a formula",
    ),
    "a bar in a formula of the header": (
        "| $|x|$ | cost |\n| --- | --- |\n| a | 2 |\n",
        1,
        "header of a table, and is none",
    ),
    "too many cells": (HEAD + "| a | 2 | 3 |\n", 3, "has 3 cells, its header has 2"),
    "too few cells": (HEAD + "| a |\n", 3, "has 1 cells, its header has 2"),
    "text below": (HEAD + "| a | 2 |\nMore.\n", 4, "has 1 cells, its header has 2"),
    "text above": ("Words:\n" + HEAD + "| a | 2 |\n", 2, "header of a table"),
    "a rule of another width": (
        "| a | b |\n|---|\n| 1 | 2 |\n",
        1,
        "header of a table",
    ),
    "no border": ("a | b\n--|--\n1 | 2 | 3\n", 3, "has 3 cells"),
    "in a list": (
        "- item\n\n    | a | b |\n    |---|---|\n    | 1 |\n",
        5,
        "has 1 cells",
    ),
    "in a quotation": ("> | a | b |\n> |---|---|\n> | 1 |\n", 3, "has 1 cells"),
}
GOOD = {
    "a table": HEAD + "| a | 2 |\n",
    "an escaped bar": HEAD + "| a \\| b | $\\|x\\|$ |\n",
    "a bar in code": HEAD + "| `a | b` | `|` |\n",
    "bars as words": HEAD + "| $\\lvert x \\rvert$ | $a \\mid b$ |\n",
    "an empty cell": HEAD + "| a | |\n",
    "a price": HEAD + "| costs $5 | 2 |\n",
    "an example": "````markdown\n" + HEAD + "| a |\n````\n",
    "indented code": "Text:\n\n    a | b\n    --|--\n    1\n",
    "a rule": "Heading | more\n\n---\n\ntext\n",
    "a list": "- one | two\n- ---\n",
}


@pytest.mark.parametrize("case", BAD)
def test_the_build_refuses(small_site, case):
    text, line, message = BAD[case]
    with pytest.raises(PageError, match=rf"^docs/a.md:{line + 6}: .*{message}"):
        convert(small_site, text)


@pytest.mark.parametrize("case", GOOD)
def test_the_build_takes(small_site, case):
    assert convert(small_site, GOOD[case])


@pytest.mark.parametrize("case", BAD)
def test_the_run_of_the_page_refuses(tmp_path, case):
    text, line, message = BAD[case]
    configure(tmp_path)
    with pytest.raises(BlockError, match=rf"^docs/a.md:{line + 6}: .*{message}"):
        blocks_in(FRONT + text, "docs/a.md", tmp_path)


@pytest.mark.parametrize("case", GOOD)
def test_the_run_of_the_page_takes(tmp_path, case):
    configure(tmp_path)
    assert blocks_in(FRONT + GOOD[case], "docs/a.md", tmp_path) == []


def test_an_included_row_is_found_in_its_file(small_site):
    small_site.write("docs/_data/rows.md", HEAD + "| a |\n")
    text = '--8<-- "docs/_data/rows.md"\n'
    with pytest.raises(PageError, match=r"^docs/_data/rows.md:3: this row"):
        convert(small_site, text)
    configure(small_site.root)
    with pytest.raises(BlockError, match=r"^docs/a.md:7: this row"):
        blocks_in(FRONT + text, "docs/a.md", small_site.root)


FRONT = "---\ntitle: A\n---\n\n# A\n\n"


def convert(site, text: str) -> str:
    site.write("docs/a.md", FRONT + text)
    ours = {"sitekit.tables": {"root": str(site.root)}}
    others = {"pymdownx.snippets": {"base_path": [str(site.root)]}}
    md = markdown.Markdown(
        extensions=[*FOUND, *ours, *others], extension_configs=ours | others
    )
    return md.convert(FRONT.partition("---\n\n")[2] + text)


def configure(root) -> None:
    (root / "mkdocs.yml").write_text(
        "markdown_extensions:\n  - tables\n  - pymdownx.superfences\n"
        "  - pymdownx.snippets:\n      base_path: ['.']\n"
    )
