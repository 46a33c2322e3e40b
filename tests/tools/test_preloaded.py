r"""Processes forked from an interpreter that has imported something already."""

import os
import signal
import subprocess
import time

import pytest

from preloaded import CLOSED, Preloaded

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


@pytest.fixture(scope="module")
def server():
    made = Preloaded(["decimal"])
    yield made
    made.close()


@pytest.fixture
def run(server, tmp_path):
    def run(code, **options):
        script = tmp_path / "script.py"
        script.write_text(code, encoding="utf-8")
        with open(tmp_path / "said", "w+b") as said:
            streams = {"stdout": said.fileno(), "stderr": said.fileno()} | options
            child = server.start([str(script), "word"], **streams)
            status = child.wait(60)
        return status, (tmp_path / "said").read_text(encoding="utf-8")

    return run


def test_a_process_of_its_own(run, tmp_path):
    code = """
import os, sys
print("decimal" in sys.modules, "fractions" in sys.modules, __name__, sys.argv[1:])
print(os.getcwd(), os.environ.get("PLACE"), "HOME" in os.environ, sys.path[0])
print(sys.stdin.read() == "", os.getpid(), os.getpgrp())
"""
    status, text = run(code, cwd=tmp_path, env={"PLACE": "here"}, path=["first"])
    assert status == 0
    first, second, third = text.splitlines()
    assert first == "True False __main__ ['word']"
    assert second == f"{tmp_path} here False first"
    same, number, group = third.split()
    assert same == "True"
    assert int(number) != os.getpid()
    assert int(group) == os.getpgrp()


def test_processes_know_nothing_of_one_another(run):
    assert run("import sys, decimal\nprint(decimal.x)")[0] == 1
    assert run("import decimal\ndecimal.x = 1\nprint(decimal.x)") == (0, "1\n")
    assert "has no attribute 'x'" in run("import decimal\nprint(decimal.x)")[1]


@pytest.mark.parametrize(
    ("code", "status", "text"),
    [
        ("raise SystemExit(7)", 7, ""),
        ("import os; os._exit(3)", 3, ""),
        ("raise ValueError('bad')", 1, "ValueError: bad"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9, ""),
        ("import os; os.abort()", -6, ""),
        ("import atexit; atexit.register(print, 'last')", 0, "last"),
    ],
)
@pytest.mark.parametrize("quick", [False, True])
def test_how_it_ends(run, code, status, text, quick):
    found = run(code, quick=quick)
    assert found[0] == status
    assert text in found[1]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_output_that_cannot_be_flushed_is_seen_at_the_end(run):
    with open("/dev/full", "wb") as full:
        code = "import sys; sys.stdout = open(1, 'w', closefd=False); print(1)"
        assert run(code, stdout=full.fileno())[0] == 120


def test_a_closed_stream_is_none_and_its_number_is_free(run):
    code = "import os, sys; print(sys.stdout, os.dup(2), file=sys.stderr)"
    assert run(code, stdout=CLOSED) == (0, "None 1\n")


def test_a_module_and_its_arguments(server, tmp_path):
    (tmp_path / "mine.py").write_text("import sys; print(sys.argv[1:], __name__)")
    with open(tmp_path / "said", "wb") as said:
        child = server.start(
            ["mine", "a"], module=True, cwd=tmp_path, path=["."], stdout=said.fileno()
        )
        assert child.wait(60) == 0
    assert (tmp_path / "said").read_text() == "['a'] __main__\n"


def test_signals_reach_it(server, tmp_path):
    script, ready = tmp_path / "script.py", tmp_path / "ready"
    script.write_text(f"import time; open({str(ready)!r}, 'w'); time.sleep(600)")
    for number, status in ((signal.SIGKILL, -9), (signal.SIGTERM, -15)):
        child = server.start([str(script)], stderr=subprocess.DEVNULL)
        assert child.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.01)
        while not ready.exists():
            time.sleep(0.01)
        child.send_signal(number)
        assert child.wait(60) == child.poll() == status
        child.kill()  # of one that is gone: nothing
        ready.unlink()


def test_ctrl_c_is_taken_as_python_takes_it(run):
    code = "import signal; print(signal.getsignal(signal.SIGINT).__name__)"
    assert run(code) == (0, "default_int_handler\n")


def test_a_server_that_is_gone_is_said(tmp_path):
    server = Preloaded([])
    server._server.kill()
    server._server.wait()
    with pytest.raises((RuntimeError, BrokenPipeError)):
        server.start([str(tmp_path / "none.py")])
    server.close()
