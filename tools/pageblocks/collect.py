r"""The pytest nodes: a page, a block of it, and a block run alone."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest._code.code import (
    ExceptionChainRepr,
    ReprEntryNative,
    ReprFileLocation,
    ReprTraceback,
)
from pytest_codeblocks.plugin import MarkdownFile, TestBlock

from pageblocks import gpu, policy, scratch, stamps
from pageblocks.errors import PageError
from pageblocks.extract import Block, blocks_of, sha_of
from pageblocks.isolate import isolated, warm_up
from pageblocks.output import difference, rewrite
from pageblocks.run import Outcome, PageRun

_SKIPS = {
    "gpu-skipped": "{}",
    "not-reached": "{}",
    "gpu-alone": "cannot be tried on a CPU: {}",
    "no-exec": "not run: {}",
    "shown": "shown source of {}: run by its own tests, compared by the audit",
}


class BlockFailed(Exception):
    r"""A block failed; carries the outcome for the report."""

    def __init__(self, block: Block, outcome: Outcome) -> None:
        super().__init__(outcome.message)
        self.block = block
        self.outcome = outcome


class PageFile(MarkdownFile):
    r"""A page. Its setup opens the page's module, its teardown closes it."""

    page_run: PageRun | None = None

    def collect(self) -> Iterator[pytest.Item]:
        root = self.config.rootpath
        self.source = self.path.read_text(encoding="utf-8")
        self.blocks = blocks_of(self.path, root)
        for block in self.blocks:
            if block.gpu:  # first, so that it starts from what the block starts from
                yield TrialItem.from_parent(self, name=f"{block.name}-cpu", obj=block)
            yield BlockItem.from_parent(self, name=block.name, obj=block)
            if block.from_scratch:
                yield AloneItem.from_parent(self, name=f"{block.name}-alone", obj=block)

    def setup(self) -> None:
        warm_up(block.text for block in self.blocks)
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(isolated())
        self.asked: set[Block] = set()
        self.page_run = PageRun(
            self.blocks,
            gpu.gpu_missing,
            self.limit,
            self.config.getoption("update_output"),
        )

    def teardown(self) -> None:
        run, self.page_run = self.page_run, None
        if run is None:
            return
        late = run.close()
        self._stack.close()
        updates = {b: text for b, text in run.updates.items() if b in self.asked}
        if updates:
            rewrite(self.path, self.source, updates)
        if late.strip():
            last = self.blocks[len(run.outcomes) - 1]
            message = f"printed after this block had ended: {late.strip()}"
            raise PageError(last.page, last.line, message)

    @property
    def limit(self) -> float:
        r"""Seconds of processor time that the page may use as a whole."""
        return float(self.config.getini("page_timeout"))

    @property
    def patience(self) -> float:
        r"""Seconds after which a page hangs: a busy machine may slow it down a lot."""
        return 20 * self.limit

    @property
    def left(self) -> float:
        r"""Seconds of patience that the page's blocks have not used up."""
        outcomes = self.page_run.outcomes if self.page_run is not None else []
        return max(self.patience - sum(o.seconds for o in outcomes), 0.1)

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        error = excinfo.value
        if isinstance(error, PageError):
            return failure_repr(error.page, error.line, error.message, str(error))
        return super().repr_failure(excinfo)


class BlockItem(TestBlock):
    r"""A block, run in its page's module after all blocks before it."""

    obj: Block
    outcome: Outcome | None = None

    def __init__(self, name: str, parent: Any, obj: Block) -> None:
        super().__init__(name, parent, obj)
        if obj.gpu and type(self) is BlockItem:
            self.add_marker("gpu")

    def setup(self) -> None:
        timer = pytest.mark.timeout(round(self.parent.left, 1), func_only=True)
        self.add_marker(timer, append=False)

    def runtest(self) -> None:
        page: PageFile = self.parent
        page.asked.add(self.obj)
        self.outcome = page.page_run.outcome(self.obj.index)
        self.finish(self.outcome)

    def finish(self, outcome: Outcome) -> None:
        r"""Turn an outcome into what pytest understands."""
        missing = outcome.state == "gpu-skipped"
        if missing and self.config.getoption("require_gpu"):
            message = f"{outcome.message}, and --require-gpu was given"
            outcome = Outcome("failed", line=self.obj.line, message=message)
        if outcome.state == "failed":
            raise BlockFailed(self.obj, outcome)
        if outcome.state in _SKIPS:
            pytest.skip(_SKIPS[outcome.state].format(outcome.message))

    def record(self, failed: bool) -> dict[str, Any]:
        r"""What the record of the run keeps about this block."""
        outcome = self.outcome or Outcome("failed")
        entry = self._identity() | {
            "state": "failed" if failed else outcome.state,
            "seconds": round(outcome.seconds, 3),
        }
        if outcome.state in _SKIPS:
            entry["reason"] = outcome.message
        if self.obj.from_scratch:
            entry["from_scratch"] = True
        page_run = self.parent.page_run
        if page_run is not None and self.obj in page_run.updates:
            entry["updated"] = True
        stamp = self.config.getoption("stamp_gpu") and outcome.state == "passed"
        if stamp and self.obj.gpu:
            blocks, root = self.parent.blocks, self.config.rootpath
            entry["stamp"] = stamps.new_stamp(blocks, self.obj, root)
        return entry

    def _identity(self) -> dict[str, Any]:
        return {
            "page": self.obj.page,
            "page_sha": sha_of(self.parent.source),
            "name": self.obj.name,
            "line": self.obj.line,
            "sha": self.obj.sha,
        }

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        error = excinfo.value
        if isinstance(error, BlockFailed):
            outcome = error.outcome
            where = f"{error.block.page}:{outcome.line}"
            text = outcome.trace or f"{where}: {outcome.message}"
            return failure_repr(error.block.page, outcome.line, outcome.message, text)
        return pytest.Item.repr_failure(self, excinfo)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, self.obj.line - 1, f"{self.obj.where} {self.name}"


class TrialItem(BlockItem):
    r"""A block that needs a GPU, tried with `device = "cpu"`: its code is run."""

    def runtest(self) -> None:
        self.outcome = self.parent.page_run.on_cpu(self.obj.index)
        self.finish(self.outcome)

    def record(self, failed: bool) -> dict[str, Any]:
        outcome = self.outcome or Outcome("failed")
        trial = {"state": "failed" if failed else outcome.state}
        if outcome.state in _SKIPS:
            trial["reason"] = outcome.message
        return self._identity() | {"tried": trial}


class AloneItem(BlockItem):
    r"""A from-scratch block, run alone, in a process that has torch."""

    def setup(self) -> None:
        self.add_marker(
            pytest.mark.timeout(2 * self.parent.patience + 90), append=False
        )

    def runtest(self) -> None:
        self.outcome = self._alone()
        self.finish(self.outcome)

    def _alone(self) -> Outcome:
        block = self.obj
        missing = gpu.gpu_missing() if block.gpu else None
        if missing is not None:
            return Outcome("gpu-skipped", message=missing)
        first = block.fence.lines[0].number
        forbidden = self._forbidden()
        if forbidden is not None:
            return forbidden
        report = scratch.run_alone(
            block.fence.text, block.page, first, list(policy.ignored()),
            self.parent.patience,
        )  # fmt: skip
        printed, seconds = report["printed"], report["seconds"]
        if "type" in report and report["type"] == block.raises:
            printed += f"{report['type']}: {report['message']}\n"
        elif "type" in report:
            message = f"run alone: {report['type']}: {report['message']}"
            return Outcome(
                "failed", seconds, printed, report["line"], message, report["trace"]
            )
        wrong = difference(block, printed)
        if wrong is None or self.config.getoption("update_output"):
            return Outcome("passed", seconds, printed)
        return Outcome("failed", seconds, printed, wrong[0], f"run alone: {wrong[1]}")

    def _forbidden(self) -> Outcome | None:
        block = self.obj
        try:
            forbidden = scratch.forbidden_import(block.fence.text)
        except SyntaxError:
            return None
        if forbidden is None:
            return None
        line, root = forbidden
        message = (
            "a from-scratch block may import torch and the standard library, "
            f"not {root}"
        )
        return Outcome(
            "failed", line=block.fence.lines[line - 1].number, message=message
        )

    def record(self, failed: bool) -> dict[str, Any]:
        outcome = self.outcome or Outcome("failed")
        state = "failed" if failed else outcome.state
        alone = {"state": state, "seconds": round(outcome.seconds, 3)}
        return self._identity() | {"alone": alone}


def failure_repr(page: str, line: int, message: str, text: str) -> ExceptionChainRepr:
    r"""A failure whose line in the short summary begins with `docs/page.md:LINE`."""
    lines = [part + "\n" for part in text.rstrip("\n").split("\n")]
    trace = ReprTraceback([ReprEntryNative(lines)], None, style="native")
    summary = f"{page}:{line}: {message}"
    crash = ReprFileLocation(page, line, summary)
    return ExceptionChainRepr([(trace, crash, None)])
