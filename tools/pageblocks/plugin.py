r"""pytest plugin: Markdown pages are collected as pages, not as loose blocks.

It stands on pytest-codeblocks, whose nodes it extends; `--codeblocks` is implied.
"""

import contextlib
import re
from pathlib import Path
from typing import Any

import pytest
from pytest_codeblocks.plugin import MarkdownFile

from pageblocks import collect, gpu, policy, record, stamps
from pageblocks.errors import PageError

ADDRESS = re.compile(r" at 0x[0-9a-f]{8,}>")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pages")
    group.addoption(
        "--update-output",
        action="store_true",
        help="rewrite the output fences of pages with what their blocks print",
    )
    group.addoption(
        "--require-gpu",
        action="store_true",
        help="a test or block that is skipped for want of a GPU fails",
    )
    group.addoption(
        "--stamp-gpu",
        action="store_true",
        help=f"note blocks that pass on a GPU in {stamps.STAMPS}",
    )
    parser.addini(
        "page_timeout",
        "seconds of processor time that one page may use; after twenty times as many "
        "seconds by the clock it is taken to hang",
        default="30",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # As --disable-socket --allow-unix-socket; read by pytest-socket, after this.
    config.option.disable_socket = config.option.allow_unix_socket = True
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(config), "pageblocks-recorder")
    config.option.codeblocks = False  # its own collector would collect pages twice
    config.addinivalue_line("markers", "gpu: needs a CUDA device")
    for line in policy.as_ini_lines():
        config.addinivalue_line("filterwarnings", line)
    distributed = getattr(config.option, "dist", "no")
    if config.getoption("update_output") and distributed not in ("no", "load"):
        raise pytest.UsageError(
            "--update-output works with -n, not with another --dist"
        )


def pytest_collect_file(
    file_path: Path, parent: pytest.Collector
) -> MarkdownFile | None:
    if file_path.suffix != ".md":
        return None
    root = parent.config.rootpath
    named = parent.session.isinitpath(file_path)
    inside = file_path.is_relative_to(root / "docs")
    if named or (inside and "_data" not in file_path.parts):
        return collect.PageFile.from_parent(parent, path=file_path)
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    r"""No test may use the network but those that serve the site to a browser.

    Nor may a test be named by an address: each worker of `-n` has another one, and
    pytest-xdist then runs nothing.
    """
    named = [item.nodeid for item in items if ADDRESS.search(item.nodeid)]
    if named:
        raise pytest.UsageError(f"named by an address in memory: {', '.join(named)}")
    for item in items:
        if item.get_closest_marker("browser") is not None:
            item.add_marker("enable_socket")


def scope_of(nodeid: str) -> str:
    r"""What a test shares: its page, an experiment's small run, or nothing."""
    path, _, test = nodeid.partition("::")
    if path.endswith(".md"):
        return path
    if path.startswith("tests/experiments/"):
        # Those of all experiments, for one; and those of the one alone.
        if path.endswith("/test_all.py") and test.endswith("]"):
            return f"experiment {test.partition('[')[2][:-1]}"
        if path.count("/") == 3 and not path.startswith("tests/experiments/lab/"):
            return f"experiment {path.rpartition('/test_')[2].removesuffix('.py')}"
    return nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    r"""Tests with the same `scope_of` go to one worker; other tests go one by one."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class PageScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope_of(nodeid)

        def remove_node(self, node: Any) -> str | None:
            # pytest-xdist 3.8.0 hands out again all that a crashed worker had, the test
            # that crashed and those that were done included, and then waits for ever
            # (its issues 1323, 1327).
            work = self.assigned_work.pop(node)
            left = [test for unit in work.values() for test in unit if not unit[test]]
            for scope, unit in work.items():
                unit = {test: False for test in unit if test in left[1:]}
                if unit:
                    self.workqueue[scope] = unit
            for other in self.assigned_work:
                self._reschedule(other)
            return left[0] if left else None

        def _assign_work_unit(self, node: Any) -> None:
            # A worker may be gone before its end was noticed: then it has the unit, as
            # `remove_node` sees it, and not been told.
            with contextlib.suppress(OSError):
                super()._assign_work_unit(node)

        def schedule(self) -> None:
            # A worker needs two units: it begins the last test that it has only when
            # it is given another one or told to end.
            super().schedule()
            for node in self.nodes:
                self._reschedule(node)

    return PageScheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    r"""Tests marked `gpu` are skipped without a GPU, or fail under --require-gpu."""
    if isinstance(item, collect.BlockItem) or item.get_closest_marker("gpu") is None:
        return
    missing = gpu.gpu_missing()
    if missing is not None and item.config.getoption("require_gpu"):
        pytest.fail(f"{missing}, and --require-gpu was given", pytrace=False)
    elif missing is not None:
        pytest.skip(missing)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Any:
    report = yield
    if isinstance(item, collect.BlockItem):
        if report.skipped:
            reason = str(call.excinfo.value) if call.excinfo is not None else ""
            report.longrepr = (item.obj.page, item.obj.line, f"Skipped: {reason}")
        error = call.excinfo.value if call.excinfo is not None else None
        if isinstance(error, PageError):  # as the page was closed
            report.longrepr = collect.failure_repr(
                error.page, error.line, error.message, str(error)
            )
        if report.when == "call" or report.failed:
            report.page_block = item.record(failed=report.failed)
    return report


class Recorder:
    r"""Gathers what ran, from all workers, and writes it down at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self.root = config.rootpath
        self.entries: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        entry = getattr(report, "page_block", None)
        if entry is not None:
            self.entries.append(entry)

    def pytest_sessionfinish(self) -> None:
        if not self.entries:
            return
        record.merge(self.root, self.entries)
        stamped = [e["stamp"] for e in self.entries if "stamp" in e]
        if stamped:
            stamps.save(self.root, stamped)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for entry in self.entries:
            where = f"{entry['page']}:{entry['line']}"
            if entry.get("updated"):
                terminalreporter.write_line(f"{where}: output written into the page")
            if "stamp" in entry:
                terminalreporter.write_line(f"{where}: stamped in {stamps.STAMPS}")
