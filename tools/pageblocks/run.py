r"""Runs the blocks of one page, in order, in one module."""

import ast
import linecache
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from pageblocks import names, policy
from pageblocks.capture import Capture
from pageblocks.extract import Block
from pageblocks.isolate import without_pytest_logging
from pageblocks.main import MainModule
from pageblocks.output import difference
from pageblocks.torch_state import same_generators


@dataclass(frozen=True)
class Outcome:
    r"""What became of a block.

    Args:
        state: `passed`, `failed`, `gpu-skipped`, `gpu-alone`, `no-exec`, `shown`, or
            `not-reached` where an earlier block failed.
        seconds: How long it ran.
        work: Seconds of processor time in this thread, which other programs on the
            machine do not lengthen.
        printed: What it printed.
        line: For a failure, the page line that failed.
        message: For a failure or a skip, the reason.
        trace: For a failure, the traceback from the page's frame on.
    """

    state: str
    seconds: float = 0.0
    printed: str = ""
    line: int = 0
    message: str = ""
    trace: str = ""
    work: float = 0.0


class PageRun:
    r"""One run of a page: its module, and the outcome of each block so far.

    Args:
        blocks: The page's blocks.
        gpu_missing: Says why there is no GPU, or returns `None` where there is one.
        limit: Seconds of processor time that the page may use.
        update: Whether printed output that differs is accepted, to be written back.
    """

    def __init__(
        self,
        blocks: list[Block],
        gpu_missing: Callable[[], str | None],
        limit: float,
        update: bool = False,
    ) -> None:
        self.blocks = blocks
        self.outcomes: list[Outcome] = []
        self.updates: dict[Block, str] = {}
        self._gpu_missing = gpu_missing
        self._limit = limit
        self._update = update
        self._bound: set[str] = set()
        self._unbound: dict[str, Block] = {}
        self._tried: dict[int, Outcome] = {}
        self._of_trials: dict[str, Any] = {}
        self._main = MainModule(blocks[0].page)
        self._capture = Capture()
        _fill_linecache(blocks)

    def close(self) -> str:
        r"""Take the page's source out of the interpreter.

        Returns:
            What was printed after the page's last block had ended.
        """
        linecache.cache.pop(self.blocks[0].page, None)
        late = self._capture.taken()
        self._capture.close()
        self._main.close()
        return late

    def outcome(self, index: int) -> Outcome:
        r"""The outcome of a block; blocks before it that have not run yet run first."""
        while len(self.outcomes) <= index:
            self.outcomes.append(self._next(self.blocks[len(self.outcomes)]))
        return self.outcomes[index]

    def on_cpu(self, index: int) -> Outcome:
        r"""Try a `.gpu` block on the CPU, in a copy of the page's names.

        Neither the names that it binds nor the random numbers that it draws reach the
        other blocks; a later `.gpu` block that is tried sees its names.
        """
        block = self.blocks[index]
        if block.gpu_alone is not None:
            return Outcome("gpu-alone", message=block.gpu_alone)
        for earlier in self.blocks[:index]:
            if earlier.gpu and earlier.index not in self._tried:
                self.on_cpu(earlier.index)
        if index:
            self.outcome(index - 1)
        if index not in self._tried:
            self._tried[index] = self._try(block)
        return self._tried[index]

    def _try(self, block: Block) -> Outcome:
        failed = next((o for o in self.outcomes if o.state == "failed"), None)
        if failed is not None:
            message = f"{block.page}:{failed.line} failed before it"
            return Outcome("not-reached", message=message)
        page, names = self._main.names, dict(self._main.names)
        names |= self._of_trials
        start = time.perf_counter()
        with same_generators():
            error = self._error_of(block, block.on_cpu, names)
        seconds = time.perf_counter() - start
        changed = {k: v for k, v in names.items() if page.get(k, page) is not v}
        self._of_trials |= changed
        outcome = self._judge(
            block, self._capture.taken(), error, seconds, update=False
        )
        if outcome.state == "failed":
            return replace(outcome, message=f"tried on a CPU: {outcome.message}")
        return outcome

    def _next(self, block: Block) -> Outcome:
        if block.no_exec is not None:
            return Outcome("no-exec", message=block.no_exec)
        if block.shown is not None:
            return Outcome("shown", message=block.shown)
        failed = next((o for o in self.outcomes if o.state == "failed"), None)
        if failed is not None:
            message = f"{block.page}:{failed.line} failed before it"
            return Outcome("not-reached", message=message)
        reason = self._reason_to_skip(block)
        if reason is not None:
            return self._skipped(block, reason)
        return self._execute(block)

    def _reason_to_skip(self, block: Block) -> str | None:
        missing = self._gpu_missing() if block.gpu else None
        if missing is not None:
            return missing
        lacking = names.needed(block.text) & set(self._unbound)
        return self._lacks(min(lacking)) if lacking else None

    def _lacks(self, name: str) -> str:
        line = self._unbound[name].line
        return f"needs `{name}` from the block in line {line}, which was skipped"

    def _skipped(self, block: Block, reason: str) -> Outcome:
        for name in names.defined(block.text) - self._bound:
            self._unbound.setdefault(name, block)
        return Outcome("gpu-skipped", message=reason)

    def _execute(self, block: Block) -> Outcome:
        start, work = time.perf_counter(), time.thread_time()
        error = self._error_of(block, block.fence.text, self._main.names)
        seconds, work = time.perf_counter() - start, time.thread_time() - work
        outcome = self._judge(block, self._capture.taken(), error, seconds)
        outcome = self._within_limit(block, replace(outcome, work=work))
        if outcome.state == "passed":
            for name in names.defined(block.text):
                self._bound.add(name)
                self._unbound.pop(name, None)
        return outcome

    def _error_of(
        self, block: Block, text: str, namespace: dict[str, Any]
    ) -> BaseException | None:
        r"""Run a block as a reader's program would; what it raised, if anything."""
        try:
            code = compile_block(block, text)
            with (
                warnings.catch_warnings(),
                without_pytest_logging(),
                self._main.running(block),
                self._capture.running(),
            ):
                policy.make_errors()
                exec(code, namespace)
        except KeyboardInterrupt:
            raise
        except BaseException as caught:  # a page's SystemExit is a failure, too
            return caught
        return None

    def _within_limit(self, block: Block, outcome: Outcome) -> Outcome:
        used = outcome.work + sum(o.work for o in self.outcomes)
        if outcome.state != "passed" or used <= self._limit:
            return outcome
        message = f"the page may take {self._limit:g} s, and has taken {used:.1f} s"
        return replace(outcome, state="failed", line=block.line, message=message)

    def _judge(
        self,
        block: Block,
        printed: str,
        error: BaseException | None,
        seconds: float,
        update: bool = True,
    ) -> Outcome:
        if isinstance(error, NameError) and error.name in self._unbound:
            return self._skipped(block, self._lacks(error.name))
        if error is not None and type(error).__name__ == block.raises:
            printed += f"{type(error).__name__}: {error}\n"
        elif error is not None:
            return failure(block, error, seconds)
        elif block.raises is not None:
            message = f"{block.raises} was to be raised, and nothing was"
            return Outcome("failed", seconds, printed, block.line, message)
        wrong = difference(block, printed)
        if wrong is None:
            return Outcome("passed", seconds, printed)
        if update and self._update and printed.strip():
            self.updates[block] = printed
            return Outcome("passed", seconds, printed)
        return Outcome("failed", seconds, printed, *wrong)


def compile_block(block: Block, text: str):
    r"""Compile a block's text under its page's path, each line under the page's."""
    mixed = len({line.number for line in block.fence.lines}) < len(block.fence.lines)
    if not mixed:
        padded = "\n" * (block.fence.lines[0].number - 1) + text
        return compile(padded, block.page, "exec", dont_inherit=True)
    tree = ast.parse(text, block.page)
    numbers = [line.number for line in block.fence.lines]
    for node in ast.walk(tree):
        if hasattr(node, "lineno") and hasattr(node, "end_lineno"):
            node.lineno = numbers[node.lineno - 1]
            node.end_lineno = numbers[node.end_lineno - 1]
            # Several lines of an included file stand on one line of the page, so
            # columns no longer order the nodes.
            node.col_offset = node.end_col_offset = 0
    return compile(tree, block.page, "exec", dont_inherit=True)


def failure(block: Block, error: BaseException, seconds: float) -> Outcome:
    r"""The outcome of a block that raised."""
    trace = _from_page(error.__traceback__, block.page)
    line = block.line
    frame = trace
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == block.page:
            line = frame.tb_lineno
        frame = frame.tb_next
    if isinstance(error, SyntaxError) and error.filename == block.page:
        line = error.lineno or line
    text = "".join(traceback.format_exception(type(error), error, trace))
    message = f"{type(error).__name__}: {error}"
    if type(error).__name__ == "Failed":  # pytest.fail, which is how time runs out
        message = str(error)
    return Outcome("failed", seconds, "", line, message, text)


def _from_page(trace: TracebackType | None, page: str) -> TracebackType | None:
    r"""The traceback without the frames of the runner."""
    while trace is not None and trace.tb_frame.f_code.co_filename != page:
        trace = trace.tb_next
    return trace


def _fill_linecache(blocks: list[Block]) -> None:
    r"""Give `inspect` the page as Python: code in its lines, the rest empty."""
    last = max(block.fence.end for block in blocks)
    lines = ["\n"] * last
    for block in blocks:
        if block.no_exec is not None or block.shown is not None:
            continue
        for line in block.fence.lines:
            if line.origin is None:
                lines[line.number - 1] = line.text + "\n"
    page = blocks[0].page
    # Without a time of change, linecache does not look for the file.
    linecache.cache[page] = (sum(map(len, lines)), None, lines, page)
