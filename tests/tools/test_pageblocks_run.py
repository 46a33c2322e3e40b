r"""Pages under pytest: what passes, what fails and where, and what is restored."""

import builtins
import decimal
import gc
import json
import locale
import logging
import multiprocessing
import os
import random
import signal
import sys
import textwrap
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import seqref
from pageblocks import collect, plugin, torch_state
from pageblocks.isolate import isolated
from pageblocks.patches import unpatched

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
        output("2 __main__"),
    )
    before = sys.modules["__main__"]
    result = site.run()
    result.assert_outcomes(passed=2)
    assert sys.modules["__main__"] is before
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


def test_code_below_a_guard_of_the_main_module_runs(site):
    guard = 'if __name__ == "__main__":\n    '
    site.page(python(f"x = 1\n{guard}assert x == 2"))
    result = site.run()
    result.assert_outcomes(failed=1)
    assert "docs/x.md:6: AssertionError" in "\n".join(site.summary(result))
    arguments = "import argparse\nargparse.ArgumentParser().parse_args()"
    site.page(
        python(f'{guard}print("ran")'), output("ran"), python(f"{guard}pass"),
        python(arguments),
    )  # fmt: skip
    site.run("docs", "-p", "no:cacheprovider").assert_outcomes(passed=3)


PROCESSES = """
import multiprocessing
if __name__ == "__main__":
    with multiprocessing.get_context("{method}").Pool(1) as pool:
        print(pool.map(double, [1, 2]), pool.apply(name))
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_find_the_functions_of_a_page(site, method):
    site.page(
        python("def double(x):\n    return 2 * x"),
        python("def name():\n    return double.__module__, __name__"),
        python(PROCESSES.format(method=method)),
        output("[2, 4] ('__mp_main__', '__mp_main__')"),
    )
    # In a process of its own: a fork server outlives the page that starts it.
    site.pytester.runpytest_subprocess("docs").assert_outcomes(passed=3)


WRITERS = {
    "a child process": "import subprocess, sys\n"
    "subprocess.run([sys.executable, '-c', 'print(1)'], check=True)",
    "a shell": "import os\nos.system('echo 1')",
    "a descriptor": "import os\nos.write(1, b'1\\n')",
    "the first stream": "import sys\nprint(1, file=sys.__stdout__)",
    "bytes": "import sys\nsys.stdout.buffer.write(b'1\\n')",
    "a library of C": "import ctypes\nctypes.CDLL(None).puts(b'1')",
    "a thread": "import threading\n"
    "t = threading.Thread(target=print, args=(1,))\nt.start()\nt.join()",
}


@pytest.mark.parametrize("how", WRITERS)
def test_output_is_seen_whoever_writes_it(site, how):
    site.page(python("x = 1"), python(WRITERS[how]))
    result = site.run()
    result.assert_outcomes(passed=1, failed=1)
    summary = "\n".join(site.summary(result))
    assert "docs/x.md:7: this block prints, and no output" in summary
    site.page(python(WRITERS[how]), output("1"))
    site.run().assert_outcomes(passed=1)


HOLDERS = {
    "a handler": (
        "import logging, sys\nlog = logging.getLogger('page')\n"
        "log.addHandler(logging.StreamHandler(sys.stdout))",
        "log.warning(1)",
    ),
    "basicConfig": (
        "import logging, sys\n"
        "logging.basicConfig(stream=sys.stdout, format='%(message)s', level='INFO')",
        "logging.info(1)",
    ),
    "the stream": ("import sys\nout = sys.stdout", "out.write('1\\n')"),
    "partial": (
        "import functools, sys\nsay = functools.partial(print, file=sys.stdout)",
        "say(1)",
    ),
    "a wrapper": (
        "import sys\nclass Tee:\n    def __init__(self, out):\n        self.out = out\n"
        "    def write(self, text):\n        self.out.write(text.replace('2', '1'))\n"
        "    def flush(self):\n        self.out.flush()\nsys.stdout = Tee(sys.stdout)",
        "print(2)",
    ),
}


@pytest.mark.parametrize("what", HOLDERS)
def test_output_through_what_an_earlier_block_made_is_seen(site, what):
    make, use = HOLDERS[what]
    site.page(python(make), python("x = 1"), python(use))
    result = site.run()
    result.assert_outcomes(passed=2, failed=1)
    assert "this block prints, and no output" in "\n".join(site.summary(result))
    site.page(python(make), python(use), output("1"), python("x = 1"), python(use))
    result = site.run()
    result.assert_outcomes(passed=3, failed=1)


def test_output_keeps_the_order_of_writing(site):
    site.page(
        python(
            """
            import os, sys, subprocess
            print("a", end=" ")
            os.write(1, b"b ")
            subprocess.run([sys.executable, "-c", "print('c', end=' ')"], check=True)
            print("d", end=" ")
            os.write(1, b"e")
            """
        ),
        output("a b c d e"),
    )
    site.run().assert_outcomes(passed=1)


def test_output_after_the_last_block_is_an_error(site):
    # A child process that outlives its block holds such a copy.
    site.page(python("import os\ncopy = os.dup(1)"), python("import threading"))
    site.pytester.makeconftest(
        """
        import os
        import pytest
        from pageblocks import collect

        pytest_plugins = ["pageblocks.plugin"]

        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_call(item):
            yield
            if isinstance(item, collect.BlockItem) and item.name == "L8":
                os.write(item.parent.page_run._main.names["copy"], b"late")
        """
    )
    result = site.run()
    result.assert_outcomes(passed=2, errors=1)
    summary = "\n".join(site.summary(result))
    assert "docs/x.md:8: printed after this block had ended: late" in summary


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


@pytest.mark.parametrize("file", ["src/seqref/lstm.py", "docs/recipes/whole.py"])
def test_shown_source_is_not_executed(site, file):
    (site.root / file).parent.mkdir(parents=True)
    (site.root / file).write_text("raise RuntimeError\n")
    site.page(python(f'--8<-- "{file}"'))
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
import builtins, decimal, gc, locale, logging, multiprocessing, os, random, signal, sys
import time
import matplotlib.pyplot as plt
import numpy as np
import seqref
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
torch.use_deterministic_algorithms(True, warn_only=True)
torch.utils.deterministic.fill_uninitialized_memory = False
torch.set_flush_denormal(True)
torch.set_float32_matmul_precision("medium")
torch.backends.cudnn.rnn.fp32_precision = "ieee"
torch.backends.cudnn.enabled = False
torch.backends.cudnn.benchmark = True
torch.backends.cudnn.deterministic = True
torch.backends.mkldnn.fp32_precision = "bf16"
torch.backends.cuda.enable_math_sdp(False)
torch.set_autocast_enabled("cpu", True)
torch.set_autocast_dtype("cpu", torch.float16)
torch.autograd.set_multithreading_enabled(False).__enter__()
torch.nn.modules.module.register_module_forward_hook(print)
torch.nn.modules.module.register_module_forward_pre_hook(print)
torch.nn.modules.module.register_module_full_backward_hook(print)
from torch.optim.optimizer import register_optimizer_step_post_hook
register_optimizer_step_post_hook(print)
torch.serialization.add_safe_globals([Mine, torch.nn.Linear])
torch.serialization.register_package(0, print, print)
torch.fx.experimental._config.translation_validation = True
torch.nn.Linear.forward = lambda self, x: x
torch.nn.Linear.extra = lambda self: None
torch.nn.Linear.flag = 1
torch.nn.functional.tanh = torch.sin
torch.nn.GRU = torch.nn.LSTM
torch.Tensor.sum = torch.Tensor.mean
seqref.LSTM.step = None
seqref.ops.fused_recurrence.fused_lstm = print
seqref.__version__ = "9"
builtins.bin = print
time.sleep = print
np.mean = np.sum
decimal.getcontext().prec = 3
locale.setlocale(locale.LC_ALL, "C")
multiprocessing.set_start_method("spawn", force=True)
gc.disable()
sys.setrecursionlimit(777)
sys.displayhook = print
sys.argv.append("more")
sys.meta_path.reverse()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.umask(0o001)
logging.getLogger().setLevel("DEBUG")
logging.getLogger().addHandler(logging.NullHandler())
logging.getLogger("concurrent.futures").propagate = False
logging.getLogger("new.of.the.page").addHandler(logging.NullHandler())
logging.disable(logging.ERROR)
Functions().__enter__()
Dispatches().__enter__()
np.set_printoptions(precision=1)
np.random.seed(0)
np.seterr(all="raise")
random.seed(0)
os.environ["PAGE_VARIABLE"] = "1"
os.environ.pop("PATH")
sys.path.append("nowhere")
plt.figure()
plt.rcParams["lines.linewidth"] = 7
with open("helper_of_a_page.py", "w") as file:
    file.write("x = 1")
sys.path.insert(0, os.getcwd())
import helper_of_a_page
os.mkdir("deeper")
os.chdir("deeper")
"""


class Mine:
    r"""A class that a page tells `torch.load` to trust."""


class Functions(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class Dispatches(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


NAMES = {"Mine": Mine, "Functions": Functions, "Dispatches": Dispatches}


def _mask():
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def state():
    root, nn = logging.getLogger(), torch.nn.modules.module
    optimizer = sys.modules["torch.optim.optimizer"]
    return {
        "warn only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,
        "denormal": float("1e-310") * float("1.0"),
        "legacy": torch_state._legacy(torch),
        "precision": [torch_state._read(torch, p) for p in torch_state._PRECISIONS],
        "flags": [torch_state._read(torch, path) for path in torch_state._FLAGS],
        "attention": torch.backends.cuda.math_sdp_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "autocast dtype": torch.get_autocast_dtype("cpu"),
        "backward threads": torch._C._is_multithreading_enabled(),
        "modes": torch._C._len_torch_function_stack(),
        "dispatch": torch._C._len_torch_dispatch_stack(),
        "forward hooks": len(nn._global_forward_hooks),
        "forward pre-hooks": len(nn._global_forward_pre_hooks),
        "backward hooks": len(nn._global_backward_hooks),
        "full hooks": nn._global_is_full_backward_hook,
        "optimizer hooks": len(optimizer._global_optimizer_post_hooks),
        "trusted": {Mine, torch.nn.Linear} & {*torch.serialization.get_safe_globals()},
        "ways to load": len(torch.serialization._package_registry),
        "compiler": torch.fx.experimental._config.translation_validation,
        "method": torch.nn.Linear.forward,
        "new method": hasattr(torch.nn.Linear, "extra"),
        "new attribute": hasattr(torch.nn.Linear, "flag"),
        "function": torch.nn.functional.tanh,
        "class": torch.nn.GRU,
        "tensor": torch.Tensor.sum,
        "our method": seqref.LSTM.step,
        "our function": seqref.ops.fused_recurrence.fused_lstm,
        "our variable": seqref.__version__,
        "builtin": builtins.bin,
        "library": time.sleep,
        "numpy's function": np.mean,
        "decimal": decimal.getcontext().prec,
        "locale": locale.setlocale(locale.LC_ALL),
        "start": multiprocessing.get_start_method(allow_none=True),
        "collector": gc.isenabled(),
        "recursion": sys.getrecursionlimit(),
        "display": sys.displayhook,
        "argv": list(sys.argv),
        "finders": list(sys.meta_path),
        "signal": signal.getsignal(signal.SIGTERM),
        "mask": _mask(),
        "level": root.level,
        "handlers": [h for h in root.handlers if "pytest" not in type(h).__module__],
        "propagate": logging.getLogger("concurrent.futures").propagate,
        "new logger": list(logging.getLogger("new.of.the.page").handlers),
        "disabled": root.manager.disable,
        "modules": "helper_of_a_page" in sys.modules,
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
        exec(CHANGES, NAMES | {"__name__": "__main__"})
        changed = state()
    after = state()
    same = [key for key in before if changed[key] == before[key]]
    assert set(same) <= {"device", "locale"}  # the locale may be "C" already
    assert after == before
    assert list(tmp_path.iterdir()) == []


def test_state_is_restored_after_a_failure():
    before = state()
    with pytest.raises(ZeroDivisionError), isolated():
        exec(CHANGES + "1 / 0", NAMES | {"__name__": "__main__"})
    assert state() == before


LEAKS = {
    "a method": (
        "import torch\ntorch.nn.Linear.forward = lambda self, x: x",
        "import torch\nassert torch.nn.Linear(2, 3)(torch.ones(2)).shape == (3,)",
    ),
    "denormals": (
        "import torch\nassert torch.set_flush_denormal(True)",
        "assert float('1e-310') * float('1.0') > 0",
    ),
    "trust": (
        "import torch\nclass A:\n    pass\ntorch.serialization.add_safe_globals([A])",
        "import torch\n"
        "names = [g.__name__ for g in torch.serialization.get_safe_globals()]\n"
        "assert 'A' not in names",
    ),
    "a hook": (
        "import torch\n"
        "torch.nn.modules.module.register_module_forward_hook(lambda m, i, o: o + 1)",
        "import torch\nassert torch.nn.Identity()(torch.zeros(())).item() == 0",
    ),
    "a filter": (
        "import warnings\nwarnings.simplefilter('ignore')",
        "import warnings\n"
        "try:\n    warnings.warn('x')\nexcept UserWarning:\n    pass\n"
        "else:\n    raise AssertionError",
    ),
}


@pytest.mark.parametrize("what", LEAKS)
def test_no_page_reaches_the_next(site, what):
    change, check = LEAKS[what]
    site.page(python(change), name="a.md")
    site.page(python(check), name="b.md")
    site.run().assert_outcomes(passed=2)


def test_what_torch_wraps_for_its_compiler_stays(monkeypatch):
    code = compile("def wrapped(): pass", "/lib/torch/_dynamo/eval_frame.py", "exec")
    names = {}
    exec(code, names)
    monkeypatch.setattr(torch, "manual_seed", torch.manual_seed)
    monkeypatch.setattr(torch.nn.Linear, "forward", torch.nn.Linear.forward)
    before = torch.nn.Linear.forward
    with unpatched():
        torch.manual_seed = torch.nn.Linear.forward = names["wrapped"]
    assert torch.manual_seed is names["wrapped"]
    assert torch.nn.Linear.forward is before


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


def test_a_test_named_by_an_address_is_refused(site):
    site.pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("function", [lambda: 1], ids=str)
        def test_each(function):
            assert function()
        """
    )
    result = site.run(".")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*named by an address in memory: *test_each*at 0x*"])


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_worker_that_crashes_costs_one_test(site, workers):
    site.pytester.makepyfile(
        """
        import os
        import pytest

        @pytest.mark.parametrize("i", range(20))
        def test_each(i):
            if i == 10:
                os._exit(1)
        """
    )
    result = site.pytester.runpytest_subprocess("-n", workers, timeout=300)
    result.assert_outcomes(passed=19, failed=1)
    result.stdout.fnmatch_lines(["*'gw?' crashed while running*test_each?10?*"])


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


@pytest.mark.parametrize(
    ("first", "other", "same"),
    [
        ("docs/x.md::L3", "docs/x.md::L9", True),
        ("docs/x.md::L3", "docs/y.md::L3", False),
        ("tests/test_x.py::test_a[1]", "tests/test_x.py::test_a[2]", False),
        (
            "tests/experiments/test_all.py::test_claims_hold[first_model]",
            "tests/experiments/test_all.py::test_a_run_is_a_function[first_model]",
            True,
        ),
        (
            "tests/experiments/test_all.py::test_claims_hold[first_model]",
            "tests/experiments/models/test_first_model.py::test_numbers[1]",
            True,
        ),
        (
            "tests/experiments/test_all.py::test_claims_hold[first_model]",
            "tests/experiments/test_all.py::test_claims_hold[gru_speed]",
            False,
        ),
        ("tests/experiments/lab/test_x.py::a", "tests/experiments/lab/test_x.py::b", 0),
    ],
)
def test_what_shares_a_run_goes_to_one_worker(first, other, same):
    assert (plugin.scope_of(first) == plugin.scope_of(other)) == same
