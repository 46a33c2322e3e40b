r"""GPU blocks: skips and their reach, --require-gpu, stamps and badges."""

import ast
import json
import sys
import textwrap
from pathlib import Path

import markdown
import pytest
import torch  # before pytester, which forgets modules that it imports
from bs4 import BeautifulSoup

from pageblocks import gpu, stamps, torch_state
from pageblocks.errors import PageError
from pageblocks.extract import blocks_in, blocks_of
from pageblocks.sources import home_of, modules_used

pytest_plugins = ["pytester"]

TOOLS = Path(__file__).parents[2] / "tools"
SETTINGS = f"""\
[tool.pytest.ini_options]
pythonpath = [{str(TOOLS)!r}]
addopts = ["--import-mode=importlib", "--strict-markers", "-p", "no:cacheprovider"]
filterwarnings = ["error", "ignore:Module already imported"]
"""
PAGE = """\
# Page

```python
from seqref import LSTM
a = 1
```

``` { .python .gpu }
b = a + 1
c = 2
a = a + 10
```

```python
def later():
    return b
```

```python
later()
```

```python
c = 3
print(a, c)
```

``` { .text .output }
1 3
```

=== "tab"

    ``` { .python .gpu }
    print(b)
    ```

    ``` { .text .output }
    2
    ```
"""
TRIALS = 2  # of its blocks that need a GPU, on a CPU
SOURCES = {
    "__init__.py": "from seqref.recurrent import LSTM\nfrom seqref import ops\n",
    "recurrent/__init__.py": "from seqref.recurrent.lstm import LSTM\n"
    "from .rnn import RNN as RNN\n",
    "recurrent/lstm.py": "from seqref import ops\nfrom ..errors import check\n"
    "class LSTM:\n    pass\n",
    "recurrent/rnn.py": "class RNN:\n    pass\n",
    "errors.py": "def check():\n    pass\n",
    "ops/__init__.py": "from seqref.ops.one import one\ndef two():\n    pass\n",
    "ops/one.py": "def one():\n    pass\n",
}


@pytest.fixture
def root(pytester):
    r"""A repository with a small package and a page with two GPU blocks."""
    pytester.makepyprojecttoml(SETTINGS)
    pytester.makeconftest('pytest_plugins = ["pageblocks.plugin"]')
    for name, text in SOURCES.items():
        path = pytester.path / "src/seqref" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (pytester.path / "docs").mkdir()
    (pytester.path / "docs/x.md").write_text(PAGE)
    pytester.syspathinsert(pytester.path / "src")
    return pytester.path


@pytest.fixture
def absent(monkeypatch):
    monkeypatch.setattr(gpu, "gpu_missing", lambda: "needs a GPU, and there is none")


@pytest.fixture
def present(monkeypatch):
    monkeypatch.setattr(gpu, "gpu_missing", lambda: None)
    monkeypatch.setattr(gpu, "gpu_name", lambda: "Test Device <9>")
    monkeypatch.setattr(gpu, "torch_version", lambda: "2.11.3")


@pytest.fixture
def run(pytester):
    def run(*arguments):
        # The package of this repository must not stand in for the small one.
        names = [name for name in sys.modules if name.split(".")[0] == "seqref"]
        saved = {name: sys.modules.pop(name) for name in names}
        try:
            return pytester.runpytest_inprocess("docs", *arguments)
        finally:
            sys.modules.update(saved)

    return run


def states(root, key="state"):
    record = json.loads((root / "build/pages/ran.json").read_text())
    return [b[key] for b in record["docs/x.md"]["blocks"].values() if key in b]


def test_gpu_blocks_and_what_needs_their_names_are_skipped(root, run, absent):
    result = run("-rs")
    result.assert_outcomes(passed=2 + TRIALS, skipped=4)
    result.stdout.fnmatch_lines_random(
        [
            "SKIPPED*docs/x.md:8: needs a GPU, and there is none",
            "SKIPPED*docs/x.md:14: needs `b` from the block in line 8, which was skip*",
            "SKIPPED*docs/x.md:19: needs `later` from the block in line 14*",
            "SKIPPED*docs/x.md:34: needs a GPU, and there is none",
        ]
    )
    assert sorted(states(root)) == ["gpu-skipped"] * 4 + ["passed"] * 2
    assert states(root, "tried") == [{"state": "passed"}] * TRIALS


def test_a_name_that_is_read_before_it_is_bound_is_a_skip_too(root, run, absent):
    page = "``` { .python .gpu }\nb = 1\n```\n\n```python\nb = b + 1\n```\n"
    (root / "docs/x.md").write_text(page)
    run().assert_outcomes(skipped=2, passed=1)


def test_require_gpu_turns_skips_into_failures(root, run, absent):
    result = run("--require-gpu")
    result.assert_outcomes(passed=2 + TRIALS, failed=4)
    summary = "\n".join(x for x in result.outlines if x.startswith("FAILED"))
    assert "docs/x.md:8: needs a GPU" in summary
    assert "docs/x.md:14: needs `b`" in summary


def test_marked_tests_follow_the_same_rule(pytester, root, absent):
    code = "import pytest\n@pytest.mark.gpu\ndef test_it():\n    assert 0\n"
    pytester.makepyfile(test_it=code)
    pytester.runpytest_inprocess("test_it.py").assert_outcomes(skipped=1)
    result = pytester.runpytest_inprocess("test_it.py", "--require-gpu")
    result.assert_outcomes(errors=1)


def test_gpu_blocks_run_where_there_is_one(root, run, present):
    (root / "docs/x.md").write_text(PAGE.replace("\n1 3\n", "\n11 3\n"))
    run("--require-gpu").assert_outcomes(passed=6 + TRIALS)
    assert not (root / stamps.STAMPS).exists()
    run("-m", "gpu").assert_outcomes(passed=2, deselected=4 + TRIALS)


def test_a_stamp_is_written_by_a_run_that_passed_and_by_no_other(root, run, present):
    (root / "docs/x.md").write_text(
        PAGE.replace("\n1 3\n", "\n11 3\n").replace("    2\n", "    wrong\n")
    )
    result = run("--stamp-gpu")
    result.assert_outcomes(passed=5 + 1, failed=1 + 1)
    written = json.loads((root / stamps.STAMPS).read_text())
    assert set(written) == {"docs/x.md"}
    assert set(written["docs/x.md"]) == {"gpu-1"}
    stamp = written["docs/x.md"]["gpu-1"]
    assert (stamp["device"], stamp["torch"]) == ("Test Device <9>", "2.11.3")
    blocks = blocks_of(root / "docs/x.md", root)
    assert stamp["hash"] == stamps.hash_of(blocks, blocks[1], root)


def test_no_stamp_without_a_gpu(root, run, absent):
    run("--stamp-gpu")
    assert not (root / stamps.STAMPS).exists()


def hashes(root, source=PAGE):
    blocks = blocks_in(source, "docs/x.md", root)
    return [stamps.hash_of(blocks, b, root) for b in blocks if b.gpu]


def test_the_hash_moves_with_the_modules_that_are_imported(root):
    before = hashes(root)
    for name in ("recurrent/lstm.py", "errors.py", "ops/__init__.py"):
        path = root / "src/seqref" / name
        text = path.read_text()
        path.write_text(text + "# changed\n")
        assert all(a != b for a, b in zip(hashes(root), before, strict=True)), name
        path.write_text(text)
    assert hashes(root) == before
    for name in ("recurrent/rnn.py", "recurrent/__init__.py", "__init__.py"):
        path = root / "src/seqref" / name
        path.write_text(path.read_text() + "# changed\n")
    assert hashes(root) == before


def test_the_hash_moves_with_the_block_and_those_before_it(root):
    first, second = hashes(root)
    assert hashes(root, "new words\n\n" + PAGE) == [first, second]
    assert hashes(root, PAGE.replace("a = 1\n", "a = 2\n"))[0] != first
    changed = hashes(root, PAGE.replace("print(a, c)", "print(c, a)"))
    assert changed[0] == first
    assert changed[1] != second


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("import torch", []),
        ("from seqref import RNN", ["seqref"]),
        ("from seqref.recurrent import RNN", ["seqref.recurrent.rnn"]),
        ("import seqref.recurrent.rnn", ["seqref.recurrent.rnn"]),
        ("import seqref.ops.one as o\no.one()", ["seqref.ops.one"]),
        ("import seqref\nseqref.ops.one()", ["seqref.ops.one"]),
        ("def f():\n    from seqref.ops import one", ["seqref.ops.one"]),
        (
            "import seqref as s\nl = s.LSTM()",
            ["errors", "ops", "ops.one", "recurrent.lstm"],
        ),
    ],
)
def test_modules_are_found_from_the_text(root, code, names):
    found = set(modules_used([ast.parse(code)], root / "src"))
    if names == ["seqref"]:  # not a name of the package: the package itself is meant
        assert "seqref" in found
        return
    assert found == {n if n.startswith("seqref") else f"seqref.{n}" for n in names}


def test_home_of_a_dotted_path(root):
    src = root / "src"
    lstm = src / "seqref/recurrent/lstm.py"
    assert home_of("seqref.LSTM.step", src) == (lstm, ["LSTM", "step"])
    assert home_of("seqref.recurrent.lstm.LSTM", src) == (lstm, ["LSTM"])
    assert home_of("seqref.ops.two", src) == (src / "seqref/ops/__init__.py", ["two"])


def rendered(root, source=PAGE):
    return markdown.markdown(
        source,
        extensions=[
            "attr_list",
            "pymdownx.highlight",
            "pymdownx.superfences",
            "pymdownx.tabbed",
            "pageblocks.badges",
        ],
        extension_configs={
            "pageblocks.badges": {"root": str(root)},
            "pymdownx.tabbed": {"alternate_style": True},
        },
    )


def badges(root, source=PAGE):
    html = rendered(root, source)
    assert html.count("gpu highlight") == html.count("gpu-stamp--")
    parts = html.split("</div>")
    return [p.split(">")[1].split("<")[0] for p in parts if "gpu-stamp " in p]


NEVER = "not yet run on a GPU"
HELD = f"{NEVER}; what it prints is shown once it has been"


def test_badges_say_never_current_and_changed(root, run, present):
    assert badges(root) == [NEVER, HELD]
    source = PAGE.replace("\n1 3\n", "\n11 3\n")
    (root / "docs/x.md").write_text(source)
    run("--stamp-gpu").assert_outcomes(passed=6 + TRIALS)
    stamp = json.loads((root / stamps.STAMPS).read_text())["docs/x.md"]["gpu-1"]
    words = f"last run on Test Device &lt;9&gt;, torch 2.11, {stamp['date']}"
    assert badges(root, source) == [words] * 2
    path = root / "src/seqref/errors.py"
    path.write_text(path.read_text() + "\n\ndef more():\n    pass\n")
    changed = f"changed since it was {words}"
    assert badges(root, source) == [changed] * 2


def test_badges_leave_examples_and_other_pages_alone(root):
    source = textwrap.dedent("""\
        ````markdown
        ``` { .python .gpu }
        x = 1
        ```
        ````

        ``` { .python .gpu }
        x = 2
        ```
        """)
    assert badges(root, source) == [NEVER]


def outputs(html):
    blocks = BeautifulSoup(html, "html.parser").select("div.output.highlight code")
    return [block.get_text().strip() for block in blocks]


def test_what_a_block_prints_is_held_back_until_it_has_run(root, run, present):
    source = PAGE.replace("\n1 3\n", "\n11 3\n")
    (root / "docs/x.md").write_text(source)
    assert outputs(rendered(root, source)) == ["11 3"]
    run("--stamp-gpu").assert_outcomes(passed=6 + TRIALS)
    assert outputs(rendered(root, source)) == ["11 3", "2"]
    # A stamp of the page's other block does not show it.
    kept = json.loads((root / stamps.STAMPS).read_text())
    del kept["docs/x.md"]["gpu-2"]
    (root / stamps.STAMPS).write_text(json.dumps(kept))
    assert outputs(rendered(root, source)) == ["11 3"]
    # Code that changed since: the line says so, and what it printed then is shown.
    run("--stamp-gpu").assert_outcomes(passed=6 + TRIALS)
    path = root / "src/seqref/errors.py"
    path.write_text(path.read_text() + "x = 1\n")
    assert outputs(rendered(root, source)) == ["11 3", "2"]
    assert [b.partition(" last")[0] for b in badges(root, source)] == [
        "changed since it was"
    ] * 2


# Tried on a CPU.

DEVICE = """\
# Page

```python
import torch

x = torch.ones(2)
```

``` { .python .gpu }
device = "cuda"
moved = x.to(device)
drawn = torch.rand(1)
assert (moved.device.type == "cuda") == (device == "cuda")
print(moved.sum().item())
```

``` { .text .output }
2.0
```

```python
seen = sorted(set(globals()) & {"device", "moved", "drawn"})
print(seen, torch.rand(1).item())
```

``` { .text .output }
[] DRAWN
```

``` { .python .gpu }
twice = 2 * moved
assert twice.device.type == device
```
"""


def fill(root, page):
    r"""The page's last print is what a fresh interpreter draws first."""
    generator = torch.Generator().manual_seed(torch_state._FRESH_SEED)
    drawn = f"{torch.rand(1, generator=generator).item():.6f}"
    (root / "docs/x.md").write_text(page.replace("DRAWN", drawn))


def test_the_code_of_a_gpu_block_runs_on_a_cpu(pytester, root, run, absent):
    fill(root, DEVICE)
    result = run()
    result.assert_outcomes(passed=2 + 2, skipped=2)
    states_of = states(root, "tried")
    assert states_of == [{"state": "passed"}] * 2
    # Alone, it replays what it needs.
    result = pytester.runpytest_inprocess("docs/x.md::L30-cpu")
    result.assert_outcomes(passed=1)


def test_a_fault_in_a_gpu_block_is_found_without_one(root, run, absent):
    fill(root, DEVICE.replace("2 * moved", "2 * move"))
    result = run()
    result.assert_outcomes(passed=3, failed=1, skipped=2)
    summary = "\n".join(x for x in result.outlines if x.startswith("FAILED"))
    assert "docs/x.md::L30-cpu - docs/x.md:31: tried on a CPU: NameError" in summary
    fill(root, DEVICE.replace("\n2.0\n", "\n3.0\n"))
    summary = "\n".join(x for x in run().outlines if x.startswith("FAILED"))
    assert "docs/x.md::L9-cpu - docs/x.md:18: tried on a CPU: the page does" in summary
    # What the page shows is what a GPU printed: no other run rewrites it.
    run("--update-output")
    assert "\n3.0\n" in (root / "docs/x.md").read_text()


@pytest.mark.parametrize(
    "line", ["y = x.cuda()", 'y = x.to("cuda")', "y = x.to('cuda:0')", 'd = "cuda"']
)
def test_a_block_that_could_not_be_tried_needs_a_reason(root, run, absent, line):
    fence = "``` { .python .gpu }"
    page = f"```python\nx = 1\n```\n\n{fence}\n{line}\n```\n"
    with pytest.raises(PageError, match=r'^docs/x.md:5: .*device = "cuda"'):
        blocks_in(page, "docs/x.md", root)
    page = page.replace(".gpu }", '.gpu reason="CUDA graphs" }')
    (_, block) = blocks_in(page, "docs/x.md", root)
    assert block.gpu_alone == "CUDA graphs"
    fill(root, page)
    result = run("-rs")
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(
        ["SKIPPED*docs/x.md:5: cannot be tried on a CPU: CUDA graphs"]
    )
    assert states(root, "tried") == [{"state": "gpu-alone", "reason": "CUDA graphs"}]


# The command as it stands in CONTRIBUTING.md, with a simulated device.

TESTS = """\
import pytest
import torch


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_it(device):
    assert torch.device(device).type == device
"""
COMMAND = ("tests", "docs", "-m", "gpu", "--require-gpu", "--stamp-gpu")


def command(pytester, *arguments):
    (pytester.path / "tests").mkdir(exist_ok=True)
    (pytester.path / "tests/test_on_devices.py").write_text(TESTS)
    names = [name for name in sys.modules if name.split(".")[0] == "seqref"]
    saved = {name: sys.modules.pop(name) for name in names}
    try:
        return pytester.runpytest_inprocess(*arguments)
    finally:
        sys.modules.update(saved)


def test_the_command_takes_exactly_what_needs_a_gpu(pytester, root, present):
    result = command(pytester, *COMMAND, "--collect-only", "-q")
    collected = {line for line in result.outlines if "::" in line}
    assert collected == {
        "tests/test_on_devices.py::test_it[cuda]",
        "docs/x.md::L8",
        "docs/x.md::L34",
    }


def test_the_command_with_a_device_stamps_and_the_stamps_age(pytester, root, present):
    fill(root, PAGE.replace("\n1 3\n", "\n11 3\n"))
    result = command(pytester, *COMMAND)
    result.assert_outcomes(passed=3, deselected=7)
    result.stdout.fnmatch_lines(["docs/x.md:8: stamped in docs/_data/gpu_stamps.json"])
    written = json.loads((root / stamps.STAMPS).read_text())["docs/x.md"]
    assert set(written) == {"gpu-1", "gpu-2"}
    source = (root / "docs/x.md").read_text()
    assert all(b.startswith("last run on Test Dev") for b in badges(root, source))
    # An earlier block, the block itself, a module that they import: each ages it.
    first = source.replace("a = 1\n", "a = 1  # one\n")
    fill(root, first)
    assert all(b.startswith("changed since") for b in badges(root, first))
    second = source.replace("print(b)", "print(b + 0)")
    fill(root, second)
    states_of = [b.partition(" it was")[0] for b in badges(root, second)]
    assert states_of[1] == "changed since"
    assert states_of[0].startswith("last run on")
    fill(root, source)
    path = root / "src/seqref/recurrent/lstm.py"
    path.write_text(path.read_text() + "# changed\n")
    assert all(b.startswith("changed since") for b in badges(root, source))


def test_the_command_without_a_device_fails_with_the_reason(pytester, root, absent):
    result = command(pytester, *COMMAND, "-rfE")
    result.assert_outcomes(failed=2, errors=1, deselected=7)
    reason = "needs a GPU, and there is none, and --require-gpu was given"
    assert result.outlines.count(reason) == 1
    result.stdout.fnmatch_lines(
        [
            f"docs/x.md:8: {reason}",
            f"docs/x.md:34: {reason}",
            "FAILED docs/x.md::L8 - docs/x.md:8: needs a GPU*",
            "ERROR tests/test_on_devices.py::test_it?cuda? - *",
        ]
    )
    assert not (root / stamps.STAMPS).exists()
    result = command(pytester, "tests", "docs", "-m", "gpu", "-rs")
    result.assert_outcomes(skipped=3, deselected=7)
    assert sum("needs a GPU, and there is none" in x for x in result.outlines) >= 2


def test_the_command_is_the_one_that_is_documented():
    root = Path(__file__).parents[2]
    written = " ".join(COMMAND)
    assert written in (root / "CONTRIBUTING.md").read_text()
    session = (root / "noxfile.py").read_text()
    assert '"-m=gpu", "--require-gpu", "--stamp-gpu"' in session


def test_every_gpu_block_of_the_site_is_tried_or_says_why():
    root = Path(__file__).parents[2]
    found = [
        block
        for path in sorted((root / "docs").rglob("*.md"))
        if ".gpu" in path.read_text()
        for block in blocks_of(path, root)
        if block.gpu
    ]
    assert len(found) >= 6
    # None has to be left to a GPU today. One that has to is named here, for review.
    assert [block.where for block in found if block.gpu_alone] == []


def test_no_test_is_left_to_a_gpu_alone():
    tests = Path(__file__).parents[1]
    marked = {
        path.relative_to(tests).as_posix()
        for path in tests.rglob("*.py")
        if "mark.gpu" in path.read_text()
    }
    # The fixture `device`, and the small tests in this file.
    assert marked == {"conftest.py", "tools/test_pageblocks_gpu.py"}
