r"""The audit: what it counts, and what it does not let through."""

import re
import textwrap
from pathlib import Path

import markdown
import pytest
from bs4 import BeautifulSoup

from pageblocks import audit as module
from pageblocks.audit import audit, main, page_of, summary
from pageblocks.extract import blocks_of, sha_of
from pageblocks.files import read_json, write_json
from pageblocks.shown import signature_problem

PAGE = """\
# Page

=== "tab"

    ```python title="x" linenums="1" hl_lines="1"
    x = 1  # (1)!

    def f(a, b="<&>"):
        return a
    ```

``` { .py .from-scratch }
print(f(x))
```

``` { .text .output }
1
```

``` { .python .no-exec reason="needs a telephone" }
call()
```

``` { .python .gpu }
y = 2
```

```python
--8<-- "src/seqref/lstm.py"
```

```bash
ls
```
"""
SOURCE = '''\
class LSTM:
    """A layer.

    Examples:
        >>> LSTM(1, 2)
    """

    def __init__(self, size: int, *, bias: bool = True) -> None:
        self.size = size

    def step(self, x, state=None):
        return x

    @property
    def width(self):
        return self.size
'''


@pytest.fixture
def root(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "src/seqref").mkdir(parents=True)
    (tmp_path / "src/seqref/__init__.py").write_text("from seqref.lstm import LSTM\n")
    (tmp_path / "src/seqref/lstm.py").write_text(SOURCE)
    (tmp_path / "docs/x.md").write_text(PAGE)
    record(tmp_path)
    build(tmp_path)
    return tmp_path


def record(root):
    r"""The record as a run of the page would leave it."""
    states = ["passed", "passed", "no-exec", "gpu-skipped", "shown"]
    reasons = {2: "needs a telephone", 3: "needs a GPU"}
    blocks = {}
    for block, state in zip(blocks_of(root / "docs/x.md", root), states, strict=True):
        entry = {"line": block.line, "sha": block.sha, "state": state}
        if block.index in reasons:
            entry["reason"] = reasons[block.index]
        if block.gpu:
            entry["tried"] = {"state": "passed"}
        if block.from_scratch:
            entry |= {"from_scratch": True, "alone": {"state": "passed"}}
        blocks[block.name] = entry
    page = {"sha": sha_of((root / "docs/x.md").read_text()), "blocks": blocks}
    write_json(root / "build/pages/ran.json", {"docs/x.md": page})


def build(root, *, colours=True, badges=False):
    r"""A page as the site would have it."""
    html = markdown.markdown(
        (root / "docs/x.md").read_text(),
        extensions=[
            "attr_list",
            "pymdownx.highlight",
            "pymdownx.snippets",
            "pymdownx.superfences",
            "pymdownx.tabbed",
            *(["pageblocks.badges"] if badges else []),
        ],
        extension_configs={
            **({"pageblocks.badges": {"root": str(root)}} if badges else {}),
            "pymdownx.highlight": {"pygments_lang_class": colours},
            "pymdownx.snippets": {"base_path": [str(root)], "check_paths": True},
            "pymdownx.tabbed": {"alternate_style": True},
        },
    )
    (root / "site").mkdir(exist_ok=True)
    (root / "site/x.html").write_text(f"<html><body>{html}</body></html>")
    return html


def problems(root):
    return audit(root / "site", root).problems


def test_counts(root, capsys):
    result = audit(root / "site", root)
    assert result.problems == []
    assert dict(result.counts) == {
        "rendered": 5,
        "passed": 2,
        "alone": 1,
        "no-exec": 1,
        "gpu-skipped": 1,
        "tried": 1,
        "shown": 1,
        "outputs": 1,
        "held back": 0,
    }
    text = summary(result)
    assert "not run: docs/x.md:20: needs a telephone" in text
    assert "skipped: docs/x.md:24: needs a GPU" in text
    assert main(["--site", str(root / "site"), "--root", str(root)]) == 0
    assert "audit passed" in capsys.readouterr().out


def edit(root, old, new, *, name="site/x.html"):
    path = root / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_block_that_never_ran(root, capsys):
    edit(root, "</body>", '<div class="language-python highlight"><pre>'
         "<code>z = 1</code></pre></div></body>")  # fmt: skip
    assert problems(root) == ["docs/x.md: rendered as Python, and never run: z = 1"]
    assert main(["--site", str(root / "site"), "--root", str(root)]) == 1
    assert "audit FAILED: 1 problems" in capsys.readouterr().out


def test_a_block_that_differs_by_one_character(root):
    edit(root, '<span class="n">a</span>\n', '<span class="n">b</span>\n')
    found = problems(root)
    assert "docs/x.md:9: the site shows other code than ran" in found
    assert "docs/x.md:5: this block is not on the site" in found


def test_a_block_that_is_missing_from_the_site(root):
    edit(root, "language-py from-scratch highlight", "language-text highlight")
    assert problems(root) == ["docs/x.md:12: this block is not on the site"]


def test_a_page_that_is_missing_from_the_site(root):
    (root / "site/x.html").rename(root / "site/y.html")
    found = problems(root)
    assert "docs/x.md: its blocks ran, and it is not on the site" in found
    assert (
        sum("site/y.html: rendered as Python, and never run" in p for p in found) == 5
    )


def mark(root, name, **entries):
    r"""Change what the record holds of a block."""
    path = root / "build/pages/ran.json"
    held = read_json(path)
    held["docs/x.md"]["blocks"][name] |= entries
    write_json(path, held)


@pytest.mark.parametrize("state", ["failed", "not-reached"])
def test_a_block_that_did_not_pass(root, state):
    mark(root, "L5", state=state)
    assert problems(root) == [f"docs/x.md:5: rendered, and its run {state}"]


def test_a_block_whose_text_is_not_the_one_that_ran(root):
    mark(root, "L5", sha=sha_of("x = 2"))
    assert problems(root) == ["docs/x.md:5: rendered, and not run"]


def test_a_from_scratch_block_that_did_not_run_alone(root):
    mark(root, "L12", alone={"state": "failed"})
    assert problems(root) == ["docs/x.md:12: not run alone (failed)"]


def test_no_record(root):
    (root / "build/pages/ran.json").unlink()
    found = problems(root)
    assert len(found) == 5
    assert found[0] == "docs/x.md:5: rendered, and not run"


def test_a_page_that_changed_since_it_ran(root):
    edit(root, "# Page", "# A page", name="docs/x.md")
    assert problems(root) == ["docs/x.md: changed since its blocks ran"]
    edit(root, "y = 2", "y = 3", name="docs/x.md")
    assert "docs/x.md:25: the site shows other code than ran" in problems(root)


def test_shown_source_that_is_no_longer_the_file(root):
    edit(root, "return x", "return x + 1", name="src/seqref/lstm.py")
    assert any("other code than ran" in p for p in problems(root))


def test_a_console_block_and_a_site_without_language_classes(root):
    edit(root, "language-bash", "language-pycon")
    assert problems(root) == ["docs/x.md: a pycon block is not run"]
    build(root, colours=False)
    assert any("pygments_lang_class" in p for p in problems(root))


API = """
<div class="doc doc-object doc-class">
<h3 id="seqref.LSTM" class="doc doc-heading">LSTM</h3>
<div class="language-python doc-signature highlight"><pre><code>{signature}</code></pre>
</div>
<div class="doc doc-contents">
<div class="language-pycon highlight"><pre><code>{example}</code></pre></div>
<details class="mkdocstrings-source"><summary>Source</summary>
<div class="language-python highlight"><table><tr><td class="linenos"><pre>1</pre></td>
<td class="code"><pre><code><span class="linenos">11</span>{source}</code></pre></td>
</tr></table></div></details></div></div></body>
"""
SIGNATURE = "LSTM(size: int, *, bias: bool = True)"
STEP = "def step(self, x, state=None):\n    return x\n"
EXAMPLE = "&gt;&gt;&gt; LSTM(1, 2)"


def with_api(root, signature=SIGNATURE, example=EXAMPLE, source=STEP):
    html = API.format(signature=signature, example=example, source=source)
    edit(root, "</body>", html)
    return audit(root / "site", root)


def test_what_mkdocstrings_shows_is_compared(root):
    result = with_api(root)
    assert result.problems == []
    assert result.counts["rendered"] == 5
    assert result.counts["signatures"] == 1
    assert result.counts["source blocks"] == 1
    assert result.counts["docstring examples"] == 1


def test_source_that_differs_by_one_character(root):
    found = with_api(root, source=STEP.replace("return x", "return y")).problems
    assert len(found) == 1
    assert "is in no file of src: def step" in found[0]


def test_docstring_example_that_differs(root):
    found = with_api(root, example="&gt;&gt;&gt; LSTM(1, 3)").problems
    assert len(found) == 1


def test_signature_that_differs(root):
    found = with_api(root, signature="LSTM(size, *, bias=False)").problems
    assert found == [
        "docs/x.md: signature of seqref.LSTM: shows (size, *, bias=False), the file "
        "has (self, size: int, *, bias: bool=True)"
    ]


@pytest.mark.parametrize(
    ("text", "path", "problem"),
    [
        ("step(x, state=None)", "seqref.LSTM.step", None),
        ("step(\n    x, state: int = None\n) -> int", "seqref.lstm.LSTM.step", None),
        ("size = size", "seqref.LSTM.size", None),
        ("width: int", "seqref.LSTM.width", None),
        ("step(x)", "seqref.LSTM.step", "shows (x)"),
        ("step(x, s=None)", "seqref.LSTM.step", "shows (x, s=None)"),
        ("gone()", "seqref.LSTM.gone", "not in the source"),
        ("step(x", "seqref.LSTM.step", "cannot be read"),
        ("other: int", "seqref.LSTM.size", "does not name size"),
    ],
)
def test_signatures(root, text, path, problem):
    found = signature_problem(text, path, root / "src")
    assert found == problem or (problem and problem in found)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Layer(size, *, bias=True)", None),
        ("Layer(size, *, bias=False)", "has (self, size, *, bias=True)"),
        ("Layer()", "has (self, size, *, bias=True)"),
    ],
)
def test_signature_of_a_layer_is_that_of_its_cell(root, text, problem):
    (root / "src/seqref/base.py").write_text(
        "class Base:\n    def __init__(self, size, *, bias=True): ...\n"
    )
    (root / "src/seqref/layer.py").write_text(
        "from seqref.base import Base, built_from\n\n\n"
        "class Cell(Base[int]): ...\n\n\n"
        "class Layer:\n    @built_from(Cell)\n    def __init__(self): ...\n"
    )
    found = signature_problem(text, "seqref.layer.Layer", root / "src")
    assert found == problem or (problem and problem in found)


def test_signature_of_what_a_plain_module_hands_on(root):
    shelf = root / "src/seqref/shelf.py"
    shelf.write_text("from seqref.lstm import LSTM\n\n\ndef own(x): ...\n")
    assert (
        signature_problem(
            "step(x, state=None)", "seqref.shelf.LSTM.step", shelf.parents[1]
        )
        is None
    )
    assert signature_problem("own(x)", "seqref.shelf.own", shelf.parents[1]) is None
    found = signature_problem("step(x)", "seqref.shelf.LSTM.step", shelf.parents[1])
    assert "shows (x)" in found
    found = signature_problem("gone(x)", "seqref.shelf.gone", shelf.parents[1])
    assert found == "seqref.shelf.gone is not in the source"


def test_pages_of_both_kinds_of_address(root):
    (root / "docs/a/b").mkdir(parents=True)
    for name in ("index.md", "a/index.md", "a/b.md", "a/b/README.md"):
        (root / "docs" / name).write_text("")
    pages = {
        "index.html": "docs/index.md",
        "a/index.html": "docs/a/index.md",
        "a/b.html": "docs/a/b.md",
        "a/b/index.html": "docs/a/b.md",
        "x/index.html": "docs/x.md",
        "404.html": None,
    }
    assert {n: page_of(Path(n), root) for n in pages} == pages


def test_no_site_is_an_error(root, capsys):
    assert module.main(["--site", str(root / "none"), "--root", str(root)]) == 1
    assert "no built site here" in capsys.readouterr().err


def test_code_is_read_past_numbers_anchors_and_annotations():
    html = textwrap.dedent("""\
        <div class="language-python highlight"><span class="filename">a.py</span>
        <pre><span></span><code><span id="l-1"><a name="l-1" href="#l-1"></a>
        <span class="linenos" data-linenos="1 ">1 </span>x = 1  # (1)!
        </span><span class="hll">y</span> = 2
        </code></pre></div>""").replace("</a>\n", "</a>")
    block = BeautifulSoup(html, "html.parser").div
    assert module.text_of(block) == "x = 1  # (1)!\ny = 2"


def test_a_gpu_block_that_was_not_tried_on_a_cpu(root):
    mark(root, "L24", tried={"state": "failed"})
    assert problems(root) == ["docs/x.md:24: not tried on a CPU (failed)"]
    page = (root / "docs/x.md").read_text()
    (root / "docs/x.md").write_text(page.replace(".gpu }", '.gpu reason="graphs" }'))
    record(root)
    mark(root, "L24", tried={"state": "gpu-alone", "reason": "graphs"})
    build(root)
    result = audit(root / "site", root)
    assert result.problems == []
    assert "docs/x.md:24, on a CPU: graphs" in result.opted_out


def with_gpu_output(root):
    r"""The page, with an output below its block that needs a GPU."""
    page = PAGE.replace("y = 2\n```\n", "print(2)\n```\n" + OUTPUT)
    (root / "docs/x.md").write_text(page)
    record(root)


OUTPUT = "\n``` { .text .output }\n2\n```\n"


def test_an_output_of_a_block_that_never_ran_is_a_problem(root):
    with_gpu_output(root)
    build(root)
    (problem,) = audit(root / "site", root).problems
    assert problem == (
        "docs/x.md: the site shows 2 outputs; of 2 on the page 1 are held back"
    )
    html = build(root, badges=True)
    result = audit(root / "site", root)
    assert result.problems == []
    assert (result.counts["outputs"], result.counts["held back"]) == (1, 1)
    shown = (
        '<div class="language-text output highlight"><pre><code>2</code></pre></div>'
    )
    badge = re.search('<p class="gpu-stamp.*?</p>', html)[0]
    html = html.replace(badge, f"{badge}\n{shown}", 1)
    (root / "site/x.html").write_text(f"<html><body>{html}</body></html>")
    assert "docs/x.md: an output stands under a block that never ran on a GPU" in (
        audit(root / "site", root).problems
    )


def test_an_output_that_is_not_on_the_site_is_a_problem(root):
    html = (root / "site/x.html").read_text()
    soup = BeautifulSoup(html, "html.parser")
    soup.select_one("div.output.highlight").decompose()
    (root / "site/x.html").write_text(str(soup))
    (problem,) = audit(root / "site", root).problems
    assert "the site shows 0 outputs; of 1 on the page 0 are held back" in problem
