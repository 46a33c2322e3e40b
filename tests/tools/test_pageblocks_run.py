r"""Pages under pytest: what passes, what fails and where, and what is restored."""

import json
import os
import random
import sys
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from pageblocks import collect
from pageblocks.isolate import isolated

pytest_plugins = ["pytester"]

TOOLS = Path(__file__).parents[2] / "tools"
SETTINGS = f"""\
[tool.pytest.ini_options]
pythonpath = [{str(TOOLS)!r}]
addopts = ["--import-mode=importlib", "--strict-markers", "-p", "no:cacheprovider"]
filterwarnings = ["error", "ignore:Module already imported"]
markers = ["browser: serves pages"]
"""


def output(text):
    return f"\n``` {{ .text .output }}\n{text}\n```\n"


def python(text, info="python"):
    return f"\n```{info}\n{textwrap.dedent(text).strip()}\n```\n"


@pytest.fixture
def site(pytester, monkeypatch):
    r"""A repository with pages; `site.run(...)` runs pytest in it."""
    pytester.makepyprojecttoml(SETTINGS)
    pytester.makeconftest('pytest_plugins = ["pageblocks.plugin"]')
    (pytester.path / "docs").mkdir()
    return Site(pytester)


class Site:
    def __init__(self, pytester):
        self.pytester = pytester
        self.root = pytester.path

    def page(self, *parts, name="x.md"):
        path = self.root / "docs" / name
        path.write_text("# Title\n" + "".join(parts))
        return path

    def run(self, *arguments):
        return self.pytester.runpytest_inprocess(*(arguments or ("docs",)))

    def record(self, page="docs/x.md"):
        path = self.root / "build/pages/ran.json"
        return json.loads(path.read_text())[page]["blocks"]

    def summary(self, result):
        lines = result.outlines
        start = next(i for i, x in enumerate(lines) if "short test summary" in x)
        return lines[start + 1 :]


def test_blocks_share_a_module_and_run_in_order(site):
    site.page(
        python("x = 1\ndef f():\n    return x"),
        python("x = x + 1\nprint(f(), __name__)"),
        output("2 page_docs_x"),
    )
    result = site.run()
    result.assert_outcomes(passed=2)
    assert "page_docs_x" not in sys.modules
    states = {k: (b["line"], b["state"]) for k, b in site.record().items()}
    assert states == {"L3": (3, "passed"), "L9": (9, "passed")}


def test_a_block_alone_replays_the_earlier_ones(site):
    site.page(
        python("x = [1]"), python("x.append(2)"), python("print(x)"), output("[1, 2]")
    )
    result = site.run("docs/x.md::L11")
    result.assert_outcomes(passed=1)
    assert set(site.record()) == {"L11"}


def test_replay_that_fails_names_the_earlier_line(site):
    site.page(python("x = 1 / 0"), python("y = 1"))
    result = site.run("docs/x.md::L7", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*docs/x.md:7: docs/x.md:4 failed before it"])


def test_failure_names_page_and_line_and_ends_the_page(site):
    site.page(
        python("def bad(n):\n    if n:\n        raise KeyError('no')"),
        '\n=== "tab"\n\n    ```python\n    x = 1\n\n    bad(x)\n    ```\n',
        python("print('never')"),
    )
    result = site.run("docs", "-rfs")
    result.assert_outcomes(passed=1, failed=1, skipped=1)
    result.stdout.fnmatch_lines(
        [
            '*File "docs/x.md", line 14, in <module>',
            "*bad(x)",
            '*File "docs/x.md", line 6, in bad',
            "*raise KeyError('no')",
            "KeyError: 'no'",
            "FAILED docs/x.md::L11 - docs/x.md:6: KeyError: 'no'",
            "SKIPPED * docs/x.md:17: docs/x.md:6 failed before it",
        ]
    )
    states = [b["state"] for b in site.record().values()]
    assert sorted(states) == ["failed", "not-reached", "passed"]


@pytest.mark.parametrize(
    ("code", "line", "message"),
    [
        ("x = 1\nx = = 2", 5, "SyntaxError"),
        ("x = 1\nraise SystemExit(0)", 5, "SystemExit: 0"),
        ("import warnings\n\nwarnings.warn('odd')", 6, "UserWarning: odd"),
        ("import socket\nsocket.create_connection(('127.0.0.1', 9))", 5, "socket"),
        ("print('x')", 3, "this block prints, and no output"),
        ("assert 1 == 2", 4, "AssertionError"),
    ],
)
def test_failures(site, code, line, message):
    site.page(python(code))
    result = site.run()
    result.assert_outcomes(failed=1)
    summary = "\n".join(site.summary(result))
    assert f"docs/x.md:{line}: " in summary
    assert message in summary


def test_wrong_output_is_reported_at_the_line_that_differs(site):
    site.page(python("print('a', 0.25)\nprint('b', 0.5)"), output("a 0.25\nb 0.6"))
    result = site.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["    b 0.6", "printed:", "    b 0.5", "FAILED docs/x.md::L3 - docs/x.md:10: *"]
    )


def test_output_that_is_not_printed_fails(site):
    site.page(python("x = 1"), output("1"))
    result = site.run()
    result.assert_outcomes(failed=1)
    assert "docs/x.md:7: an output fence is shown" in "\n".join(site.summary(result))


def test_a_hanging_block_is_reported_at_its_line(site):
    site.page(python("import time"), python("x = 1\nwhile True:\n    time.sleep(0.01)"))
    result = site.run("docs", "-o", "page_timeout=0.1")
    result.assert_outcomes(passed=1, failed=1)
    summary = "\n".join(site.summary(result))
    assert "docs/x.md:9: " in summary or "docs/x.md:10: " in summary
    assert "Timeout" in summary


WORK = """
import time
end = time.thread_time() + 0.4
while time.thread_time() < end:
    pass
"""


def test_the_page_as_a_whole_has_a_limit(site, monkeypatch):
    monkeypatch.setattr(collect.PageFile, "patience", 60.0)  # this machine may be busy
    site.page(*[python(WORK)] * 4)
    result = site.run("docs", "-o", "page_timeout=1")
    result.assert_outcomes(passed=2, failed=1, skipped=1)
    summary = "\n".join(site.summary(result))
    assert "docs/x.md:17: the page may take 1 s" in summary


def test_expected_error(site):
    page = site.page(
        python("print('before')\nint('x')", ' { .python raises="ValueError" }'),
        output("before\nValueError: invalid literal for int() ...: 'x'"),
    )
    site.run().assert_outcomes(passed=1)
    page.write_text(page.read_text().replace("int('x')", "int('1')"))
    result = site.run()
    result.assert_outcomes(failed=1)
    assert "ValueError was to be raised" in "\n".join(site.summary(result))
    page.write_text(page.read_text().replace("int('1')", "{}['x']"))
    result = site.run()
    result.assert_outcomes(failed=1)
    assert "docs/x.md:5: KeyError: 'x'" in "\n".join(site.summary(result))


def test_source_pickle_and_classes_work_on_a_page(site):
    site.page(
        python("class Pair:\n    def both(self):\n        return 1, 2\n"),
        "\n!!! note\n\n    ```python\n    def f(x):\n        return x\n    ```\n",
        python(
            """
            import inspect, pickle
            assert inspect.getsource(Pair).startswith("class Pair:\\n    def both")
            assert inspect.getsource(f).strip() == "def f(x):\\n    return x"
            assert inspect.getsourcelines(f)[1] == 12
            assert isinstance(pickle.loads(pickle.dumps(Pair())), Pair)
            assert pickle.loads(pickle.dumps(f)) is f
            """
        ),
    )
    site.run().assert_outcomes(passed=3)


@pytest.mark.compile
def test_compile_works_on_a_page(site):
    site.page(
        python(
            """
            import torch
            @torch.compile(backend="eager", fullgraph=True)
            def f(x):
                return x * 2 + 1
            assert torch.equal(f(torch.ones(2)), torch.full((2,), 3.0))
            """
        )
    )
    # In a process of its own: torch's compiler can be imported only once.
    result = site.pytester.runpytest_subprocess("docs")
    result.assert_outcomes(passed=1)


def test_snippets_are_expanded_before_running(site):
    (site.root / "part.py").write_text("a = 1\nb = 2\n\n\ndef f():\n    return 1 / 0\n")
    site.page(
        python('--8<-- "part.py"\nc = a + b\nprint(c)'),
        output("3"),
        python("x = 1\nf()"),
    )
    result = site.run()
    result.assert_outcomes(passed=1, failed=1)
    assert "docs/x.md:4: ZeroDivisionError" in "\n".join(site.summary(result))


def test_shown_source_is_not_executed(site):
    (site.root / "src/seqref").mkdir(parents=True)
    (site.root / "src/seqref/lstm.py").write_text("raise RuntimeError\n")
    site.page(python('--8<-- "src/seqref/lstm.py"'))
    site.run().assert_outcomes(skipped=1)
    assert site.record()["L3"]["state"] == "shown"


def test_opt_out_is_not_executed_and_gives_no_names(site):
    site.page(
        python("x = 1 / 0", ' { .python .no-exec reason="divides by zero" }'),
        python("print(x)"),
        output("1"),
    )
    result = site.run("docs", "-rs")
    result.assert_outcomes(skipped=1, failed=1)
    result.stdout.fnmatch_lines(["SKIPPED*docs/x.md:3: not run: divides by zero"])
    assert site.record()["L3"]["reason"] == "divides by zero"


CHANGES = """
import os, random, sys
import matplotlib.pyplot as plt
import numpy as np
import torch
torch.set_default_dtype(torch.float64)
torch.set_default_device("meta")
torch.set_default_device(None)
torch.set_grad_enabled(False)
torch.set_printoptions(precision=1)
torch.manual_seed(3)
torch.use_deterministic_algorithms(True)
torch.autograd.set_detect_anomaly(True)
torch.set_num_threads(torch.get_num_threads() + 1)
np.set_printoptions(precision=1)
np.random.seed(0)
np.seterr(all="raise")
random.seed(0)
os.environ["PAGE_VARIABLE"] = "1"
os.environ.pop("PATH")
sys.path.append("nowhere")
plt.figure()
plt.rcParams["lines.linewidth"] = 7
open("file.txt", "w").close()
assert os.listdir() == ["file.txt"]
os.mkdir("deeper")
os.chdir("deeper")
"""


def state():
    return {
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "path": list(sys.path),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "grad": torch.is_grad_enabled(),
        "anomaly": torch.is_anomaly_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "numpy": np.get_printoptions()["precision"],
        "errors": np.geterr(),
        "printed": repr(torch.tensor(1 / 3)),
        "random": random.getstate(),
        "torch random": torch.get_rng_state().tolist(),
        "numpy random": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "figures": plt.get_fignums(),
        "style": plt.rcParams["lines.linewidth"],
    }


def test_state_is_restored_after_a_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = state()
    with isolated():
        exec(CHANGES, {})
        changed = state()
    after = state()
    same = [key for key in before if changed[key] == before[key]]
    assert same == ["device"]
    assert after == before
    assert list(tmp_path.iterdir()) == []


def test_state_is_restored_after_a_failure():
    before = state()
    with pytest.raises(ZeroDivisionError), isolated():
        exec(CHANGES + "1 / 0", {})
    assert state() == before


def test_a_page_runs_in_an_empty_folder(site):
    site.page(python("import os\nassert os.listdir() == []\nopen('f', 'w').close()"))
    site.run().assert_outcomes(passed=1)
    assert not list(site.root.rglob("f"))


def test_each_page_starts_like_a_fresh_interpreter(site):
    code = "import torch\nprint(torch.rand(1).item(), torch.initial_seed())"
    for name in ("a.md", "b.md"):
        site.page(python(code), output("0. 1"), name=name)
    site.run("docs", "--update-output").assert_outcomes(passed=2)
    a, b = ((site.root / "docs" / n).read_text() for n in ("a.md", "b.md"))
    assert a == b
    assert "67280421310721" in a


def test_one_page_on_one_worker(site):
    for name in ("a.md", "b.md"):
        site.page(
            python("import os\nfirst = os.getpid()"),
            *[
                python(
                    "assert os.getpid() == first\nruns = globals().get('runs', 0) + 1"
                )
            ]
            * 6,
            python("print(runs)"),
            output("6"),
            name=name,
        )
    site.page(python("x = 1 / 0"), name="c.md")
    result = site.pytester.runpytest_subprocess("docs", "-n", "2")
    result.assert_outcomes(passed=16, failed=1)
    result.stdout.fnmatch_lines(["FAILED docs/c.md::L3 - docs/c.md:4: ZeroDivision*"])
    for page in ("docs/a.md", "docs/b.md"):
        assert len(site.record(page)) == 8


def test_readme_runs_when_it_is_named_and_data_does_not(site):
    (site.root / "README.md").write_text(python("print(1)") + output("2"))
    (site.root / "docs/_data").mkdir()
    site.page(python("x = 1 / 0"), name="_data/table.md")
    site.page(python("x = 1"))
    site.run("docs").assert_outcomes(passed=1)
    site.run("docs", "README.md").assert_outcomes(passed=1, failed=1)
    site.run("docs", "--codeblocks").assert_outcomes(passed=1)


def test_a_page_that_cannot_be_read_names_its_line(site):
    site.page("\ntext\n\n```pycon\n>>> 1\n```\n")
    result = site.run()
    result.assert_outcomes(errors=1)
    assert "docs/x.md:5: a `pycon` fence" in "\n".join(site.summary(result))


def test_tests_may_not_use_the_network(site):
    site.pytester.makepyfile(
        test_network="""
        import socket

        import pytest

        def test_blocked():
            with pytest.raises(Exception, match="A test tried to use socket"):
                socket.socket(socket.AF_INET)

        def test_unix():
            left, right = socket.socketpair()
            left.close(), right.close()

        @pytest.mark.browser
        def test_browser():
            socket.socket(socket.AF_INET).close()
        """
    )
    site.run("test_network.py").assert_outcomes(passed=3)


def test_from_scratch_blocks_run_twice(site):
    fence = "{ .python .from-scratch }"
    site.page(
        python("base = 2"),
        python("import math\nprint(math.sqrt(4.0))", fence),
        output("2.0"),
        python("import numpy as np\nhalf = np.float64(0.5)", fence),
        python("twice = base * 2", fence),
    )
    result = site.run()
    result.assert_outcomes(passed=5, failed=2)
    summary = "\n".join(site.summary(result))
    assert "docs/x.md::L16-alone - docs/x.md:17: a from-scratch block may im" in summary
    assert "docs/x.md::L21-alone - docs/x.md:22: run alone: NameError: name" in summary
    record = site.record()
    assert record["L7"]["alone"]["state"] == record["L7"]["state"] == "passed"
    assert record["L16"]["alone"]["state"] == "failed"
    assert record["L16"]["state"] == "passed"
    site.run("docs/x.md::L7-alone").assert_outcomes(passed=1)
