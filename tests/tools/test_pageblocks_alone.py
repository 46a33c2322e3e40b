r"""From-scratch blocks run alone, in an interpreter that has torch and no more."""

import pytest

from pageblocks.scratch import forbidden_import, run_alone

IGNORED = [{"message": "harmless", "category": "UserWarning"}]


def run(code, limit=30.0):
    return run_alone(code, "docs/x.md", 10, IGNORED, limit)


def test_a_block_that_needs_torch_alone():
    report = run(
        "import torch, math, os, sys, warnings\n"
        "warnings.warn('harmless', UserWarning)\n"
        "print(torch.ones(2).sum().item(), os.listdir(), __name__)\n"
        "import inspect\n"
        "def f(x):\n    return x\n"
        "print(inspect.getsource(f), inspect.getsourcelines(f)[1])\n"
        "print('page' in str(sys.path), 'seqref' in sys.modules)\n"
    )
    assert "type" not in report
    first, *rest = report["printed"].splitlines()
    assert first == "2.0 [] __main__"
    assert rest[:2] == ["def f(x):", "    return x"]
    assert report["printed"].endswith(" 14\nFalse True\n")
    assert report["seconds"] > 0


def test_output_is_seen_whoever_writes_it():
    report = run(
        "import os, subprocess, sys\n"
        "print('a', end=' ')\n"
        "os.write(1, b'b ')\n"
        "subprocess.run([sys.executable, '-c', 'print(\"c\")'], check=True)\n"
        "if __name__ == '__main__':\n    os.system('echo d')\n"
        "print('\u00e9\\r', end='')\n"
    )
    assert "type" not in report
    assert report["printed"] == "a b c\nd\n\u00e9\r"


@pytest.mark.parametrize(
    ("code", "line", "kind", "message"),
    [
        ("x = 1\nprint(earlier)", 11, "NameError", "earlier"),
        ("x = 1\n__import__('numpy')", 11, "ImportError", "not numpy"),
        ("import importlib\nimportlib.import_module('seqref')", 11, "Module", "seqref"),
        ("import warnings\nwarnings.warn('odd')", 11, "UserWarning", "odd"),
        ("x = = 1", 10, "SyntaxError", "invalid syntax"),
        ("import os\n\nos._exit(3)", 10, "RuntimeError", "interpreter died"),
        (
            "import socket\nsocket.create_connection(('127.0.0.1', 9))",
            11,
            "RuntimeError",
            "network",
        ),
    ],
)
def test_what_alone_runs_refuse(code, line, kind, message):
    report = run(code)
    assert kind in report["type"]
    assert message in report["message"]
    assert report["line"] == line


def test_a_hanging_block_is_reported_at_its_line():
    report = run("import time\nx = 1\nwhile True:\n    time.sleep(0.01)", limit=1.0)
    assert report["type"] == "TimeoutError"
    assert "still running after 1 s" in report["message"]
    assert report["line"] in (12, 13)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import torch, math\nfrom torch import nn\nimport os.path", None),
        ("x = 1\nimport numpy as np", (2, "numpy")),
        ("def f():\n    from seqref.recurrent import LSTM", (2, "seqref")),
        ("from . import x", (1, ".")),
        ("from collections import deque\nimport torch.nn.functional as F", None),
    ],
)
def test_imports_are_read_from_the_text(code, found):
    assert forbidden_import(code) == found
