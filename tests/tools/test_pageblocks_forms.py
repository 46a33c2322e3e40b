r"""Which fences are found: the extractor against what the site would render."""

import shutil
from pathlib import Path

import markdown
import pytest
from bs4 import BeautifulSoup

from pageblocks.audit import text_of
from pageblocks.errors import PageError
from pageblocks.extract import blocks_in, blocks_of
from pageblocks.markup import dialect

FIXTURES = Path(__file__).parent / "fixtures"

RUN = [
    "plain",
    "py",
    "python3",
    "capital",
    "blank before the language",
    "blanks after the language",
    "dot",
    "tildes",
    "four tildes",
    "four backticks",
    "braces",
    "tight braces",
    "language before braces",
    "id, class and data",
    "title, numbers and marks",
    "title in braces",
    "tab",
    "tab in a tab",
    "second tab",
    "admonition",
    "details",
    "admonition in details",
    "list",
    "list in a list",
    "quote",
    "quote in a quote",
    "markdown in HTML",
    "definition",
    "included, then a line of the page",
    "included",
    "gpu",
    "tab character",
]
NOT_RUN = [
    "in the front matter",
    "inside a string",
    "in a markdown example",
    "in a text example",
    "in a text example with tildes",
    "in a comment",
    "in an indented block",
    "in an indented block in a list",
    "inline",
    "double inline",
    "bash",
    "no language",
    "json",
]
CONFIG = """\
markdown_extensions:
  - admonition
  - attr_list
  - def_list
  - md_in_html
  - pymdownx.details
  - pymdownx.highlight: {pygments_lang_class: true}
  - pymdownx.inlinehilite
  - pymdownx.snippets: {base_path: ["."], check_paths: true}
  - pymdownx.superfences:
      custom_fences:
        - name: mermaid
          class: mermaid
          format: !!python/name:pymdownx.superfences.fence_code_format
  - pymdownx.tabbed: {alternate_style: true}
  - unknown.extension: {option: !ENV [NAME, other]}
"""


@pytest.fixture
def root(tmp_path):
    r"""A repository with the page of forms."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "src/seqref").mkdir(parents=True)
    (tmp_path / "src/seqref/shown.py").write_text('form = "shown source"\n')
    (tmp_path / "mkdocs.yml").write_text(CONFIG)
    shutil.copytree(FIXTURES / "snippets", tmp_path / "snippets")
    shutil.copy(FIXTURES / "forms.md", tmp_path / "docs/forms.md")
    return tmp_path


@pytest.fixture
def blocks(root):
    return blocks_of(root / "docs/forms.md", root)


def form_of(block):
    r"""What the block leaves in `form`."""
    namespace = {}
    exec(block.text, namespace)
    return namespace["form"]


def test_each_form_that_is_rendered_runs(blocks):
    executed = [b for b in blocks if b.no_exec is None and b.shown is None]
    assert [form_of(b) for b in executed] == RUN
    assert len(RUN) >= 25


def test_the_other_fates(blocks):
    assert [b.text for b in blocks if b.no_exec] == ['form = "no-exec"']
    assert [b.no_exec for b in blocks if b.no_exec] == ["a form that is shown only"]
    shown = [b for b in blocks if b.shown is not None]
    assert [b.shown for b in shown] == ["src/seqref/shown.py"]
    assert shown[0].text == 'form = "shown source"'
    assert [form_of(b) for b in blocks if b.gpu] == ["gpu"]


@pytest.mark.parametrize("form", NOT_RUN)
def test_forms_that_do_not_run_are_on_the_page(root, blocks, form):
    page = (root / "docs/forms.md").read_text()
    assert f'"{form}"' in page
    starts = {b.text.partition("\n")[0] for b in blocks}
    assert f'form = "{form}"' not in starts


def test_lines_are_those_of_the_page(root, blocks):
    page = (root / "docs/forms.md").read_text().split("\n")
    for block in blocks:
        opening = page[block.line - 1].strip(" >")
        assert opening[:3] in ("```", "~~~")
        assert page[block.fence.end - 1].strip(" >") in ("```", "~~~", "````", "~~~~")
        for line in block.fence.lines:
            if line.origin is None and line.text:
                assert page[line.number - 1].expandtabs(4).endswith(line.text)


def test_extractor_equals_the_rendered_site(root, blocks, monkeypatch):
    r"""An independent view: render with colours on, and read the HTML."""
    monkeypatch.chdir(root)
    source = (root / "docs/forms.md").read_text().split("---\n", 2)[2]
    names = ["admonition", "attr_list", "def_list", "md_in_html", "pymdownx.details"]
    names += ["pymdownx.highlight", "pymdownx.inlinehilite", "pymdownx.snippets"]
    names += ["pymdownx.superfences", "pymdownx.tabbed"]
    html = markdown.markdown(
        source,
        extensions=names,
        extension_configs={
            "pymdownx.highlight": {"pygments_lang_class": True},
            "pymdownx.tabbed": {"alternate_style": True},
        },
    )
    rendered = []
    for block in BeautifulSoup(html, "html.parser").select("div.highlight"):
        language = block["class"][0].removeprefix("language-")
        if dialect(language) == "run":
            rendered.append(text_of(block))
    assert rendered == [b.text for b in blocks]
    assert len(rendered) == len(RUN) + 2


REFUSED = {
    "console": ("```pycon\n>>> 1\n```", 1, "`pycon` fence looks like Python"),
    "python 2": ("\n```python2\nprint 1\n```", 2, "`python2` fence"),
    "stub": ("```pyi\nx: int\n```", 1, "`pyi` fence"),
    "relative": ("```sage\nx = 1\n```", 1, "`sage` fence"),
    "no reason": ("``` { .python .no-exec }\nx\n```", 1, "needs a reason"),
    "blank reason": ('``` { .python .no-exec reason=" " }\nx\n```', 1, "a reason"),
    "reason alone": ('``` { .python reason="r" }\nx\n```', 1, "belongs to"),
    "both": ('``` { .python .gpu .no-exec reason="r" }\nx\n```', 1, "excludes"),
    "class": ("x\n\n``` { .python .noexec }\nx\n```", 3, "unknown class `.noexec`"),
    "option": ('``` { .python raise="E" }\nx\n```', 1, "unknown option `raise="),
    "empty": ("```python\n\n```", 1, "empty"),
    "unclosed": ("text\n\n```python\nx = 1\n", 3, "never closed"),
    "closed by other": ("```python\nx = 1\n~~~\n", 1, "never closed"),
    "too short an end": ("````python\nx = 1\n```\n", 1, "never closed"),
    "dedented": ('=== "t"\n\n    ```python\nx = 1\n    ```\n', 3, "never closed"),
    "option outside": ('```python reason="r"\nx = 1\n```', 1, "outside braces"),
    "linenums": ("```python linenums\nx = 1\n```", 1, "outside braces"),
    "list marker": ("- ```python\n  x = 1\n  ```", 1, "list marker"),
    "orphan output": ("``` { .text .output }\n1\n```", 1, "follows no Python block"),
    "two outputs": (
        "```python\nprint(1)\n```\n" + "\n``` { .text .output }\n1\n```\n" * 2,
        9,
        "follows no Python block",
    ),
    "python output": (
        "```python\nprint(1)\n```\n\n``` { .python .output }\n1\n```",
        5,
        "an output fence is text",
    ),
    "only a gap": (
        "```python\nprint(1)\n```\n\n``` { .text .output }\n...\n```",
        5,
        "matches anything",
    ),
    "output of no-exec": (
        '``` { .python .no-exec reason="r" }\nx\n```\n\n``` { .text .output }\n1\n```',
        5,
        "is not run",
    ),
    "missing snippet": ('```python\n--8<-- "none.py"\n```', 2, "could not be found"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, tmp_path):
    source, line, message = REFUSED[name]
    with pytest.raises(PageError) as caught:
        blocks_in(source, "docs/x.md", tmp_path)
    assert (caught.value.page, caught.value.line) == ("docs/x.md", line)
    assert message in caught.value.message
    assert str(caught.value).startswith(f"docs/x.md:{line}: ")


def test_output_belongs_to_the_block_before_it(tmp_path):
    source = (
        "```python\nprint(1)\n```\n\nwords\n\n```bash\nls\n```\n\n"
        "``` { .text .output }\n1\n```\n\n```python\nx = 1\n```\n"
    )
    first, second = blocks_in(source, "docs/x.md", tmp_path)
    assert first.output is not None
    assert (first.output.text, first.output.line) == ("1", 11)
    assert second.output is None


def test_two_fences_from_one_include_have_two_names(tmp_path):
    (tmp_path / "part.md").write_text(
        "```python\na = 1\n```\n\n```python\nb = 2\n```\n"
    )
    blocks = blocks_in('\n--8<-- "part.md"\n', "docs/x.md", tmp_path)
    assert [(b.name, b.line, b.text) for b in blocks] == [
        ("L2", 2, "a = 1"),
        ("L2.2", 2, "b = 2"),
    ]
