r"""Runs one `.from-scratch` block alone, in an interpreter that has torch and no more.

The parent half starts this very file as a script, in a fork of an interpreter that has
imported torch and done nothing else; the child half, below, imports nothing of ours,
so that the block sees torch and the standard library and no more.
"""

import ast
import builtins
import json
import linecache
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from typing import Any

if __name__ != "__main__":
    from preloaded import preloaded

ALLOWED = sys.stdlib_module_names | {"torch"}


def forbidden_import(code: str) -> tuple[int, str] | None:
    r"""The first import of something other than torch and the standard library.

    Returns:
        Line within the block, from 1, and the module's name; or `None`.
    """
    for node in ast.walk(ast.parse(code)):
        roots = []
        if isinstance(node, ast.Import):
            roots = [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            roots = ["." if node.level else (node.module or "").partition(".")[0]]
        for root in roots:
            if root not in ALLOWED:
                return node.lineno, root
    return None


def run_alone(
    text: str,
    page: str,
    line: int,
    ignored: list[dict[str, str]],
    limit: float,
) -> dict[str, Any]:
    r"""Run a block in a process of its own and report what it did.

    Args:
        text: The block.
        page: Its page, which tracebacks name.
        line: Page line of its first line.
        ignored: Warnings that are not errors, as in warnings.toml.
        limit: Seconds it may take.

    Returns:
        `printed`, `seconds`, and, if it raised, `type`, `message`, `line`, `trace`.
    """
    job = {"text": text, "page": page, "line": line, "ignored": ignored, "limit": limit}
    torch_alone = preloaded("torch", options=("-I", "-u"))
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory() as empty,
    ):
        result = os.path.join(folder, "result.json")
        printed = os.path.join(folder, "printed.txt")
        given = os.path.join(folder, "job.json")
        said = os.path.join(folder, "said.txt")
        with open(given, "w", encoding="utf-8") as file:
            json.dump(job, file)
        # For appending, since child processes of the block write there as well.
        with (
            open(given, "rb") as stdin,
            open(printed, "ab") as stdout,
            open(said, "ab") as stderr,
        ):
            child = torch_alone.start(
                [__file__, result],
                quick=True,
                cwd=empty,
                stdin=stdin.fileno(),
                stdout=stdout.fileno(),
                stderr=stderr.fileno(),
            )
            try:
                child.wait(2 * limit + 60)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if os.path.exists(result):
            with open(result, encoding="utf-8") as file:
                report = json.load(file)
            with open(printed, encoding="utf-8", errors="replace", newline="") as file:
                return report | {"printed": file.read()}
        with open(said, encoding="utf-8", errors="replace") as file:
            return _without_result(file.read(), page, line, limit)


def _without_result(said: str, page: str, line: int, limit: float) -> dict[str, Any]:
    r"""What to report of a run that ended without a word: it hung, or it crashed."""
    places = re.findall(rf'File "{re.escape(page)}", line (\d+)', said)
    hung = "Timeout (" in said
    message = f"still running after {limit:g} s" if hung else "the interpreter died"
    return {
        "printed": "",
        "seconds": limit if hung else 0.0,
        "type": "TimeoutError" if hung else "RuntimeError",
        "message": message,
        "line": int(places[0]) if places else line,
        "trace": said,
    }


def _child(result: str) -> None:
    r"""The interpreter that has torch: read the job, run it, write the result."""
    import faulthandler

    job = json.load(sys.stdin)
    sys.stdout.reconfigure(  # type: ignore[union-attr]
        encoding="utf-8", newline="\n", write_through=True
    )
    module = type(sys)("__main__")
    sys.modules["__main__"] = module
    module.__file__ = job["page"]
    _guard(module.__dict__)
    source = "\n" * (job["line"] - 1) + job["text"]
    lines = source.splitlines(keepends=True)
    linecache.cache[job["page"]] = (len(source), None, lines, job["page"])
    warnings.simplefilter("error")
    for entry in job["ignored"]:
        category = getattr(builtins, entry.get("category", "Warning"))
        warnings.filterwarnings("ignore", entry["message"], category)
    faulthandler.dump_traceback_later(job["limit"], exit=True)
    report = _execute(source, job, module.__dict__)
    faulthandler.cancel_dump_traceback_later()
    with open(result, "w", encoding="utf-8") as file:
        json.dump(report, file)


def _execute(source: str, job: dict[str, Any], namespace: dict) -> dict[str, Any]:
    start = time.perf_counter()
    report: dict[str, Any] = {}
    try:
        code = compile(source, job["page"], "exec", dont_inherit=True)
        exec(code, namespace)
    except BaseException as error:
        report = _of_error(error, job)
    seconds = time.perf_counter() - start
    sys.stdout.flush()
    return report | {"seconds": seconds}


def _of_error(error: BaseException, job: dict[str, Any]) -> dict[str, Any]:
    line = getattr(error, "lineno", None) or job["line"]
    first = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == job["page"]:
            first = first or trace
            line = trace.tb_lineno
        trace = trace.tb_next
    text = "".join(traceback.format_exception(type(error), error, first))
    kind, message = type(error).__name__, str(error)
    return {"type": kind, "message": message, "line": line, "trace": text}


def _guard(namespace: dict) -> None:
    r"""Refuse imports by the block itself, any import of seqref, and the network."""
    imported = builtins.__import__

    def guarded(name, globals=None, locals=None, fromlist=(), level=0):
        root = name.partition(".")[0]
        own = sys._getframe(1).f_globals is namespace
        if root == "seqref" or (own and root not in ALLOWED):
            raise ImportError(
                f"a from-scratch block may import torch and the standard library, "
                f"not {name}"
            )
        return imported(name, globals, locals, fromlist, level)

    def refuse_network(event: str, args: tuple) -> None:
        if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
            raise RuntimeError("a page may not use the network")

    builtins.__import__ = guarded
    sys.modules["seqref"] = None  # type: ignore[assignment]
    sys.addaudithook(refuse_network)


if __name__ == "__main__":
    _child(sys.argv[1])
