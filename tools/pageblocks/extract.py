r"""Finds the Python blocks of a page and what belongs to them; refuses unclear ones."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from pageblocks.errors import PageError
from pageblocks.fences import Fence, fences_in
from pageblocks.markup import dialect

_CLASSES = {"gpu", "no-exec", "from-scratch"}
_COSMETIC = {"annotate", "copy", "no-copy", "select", "no-select"}
_KEYS = {"reason", "raises"}
# Files that are shown whole, and that tests of their own run.
TESTED = ("src/", "docs/recipes/")
_DEVICE = re.compile(r'^([ \t]*device = )"cuda"$', re.M)
# What names a GPU in another way than by `device = "cuda"` or `... == "cuda"`.
_NAMES_A_GPU = re.compile(r"""\.cuda\(|(?<!== )["']cuda\b""")


@dataclass(frozen=True, eq=False)
class Block:
    r"""A Python fence and the fence that shows what it prints.

    Args:
        page: Path of the page, relative to the repository root.
        fence: The Python fence.
        index: Place among the page's Python blocks, from 0.
        output: The `.output` fence that belongs to it, if any.
        name: `L` and the line of the opening fence.
    """

    page: str
    fence: Fence
    index: int
    output: Fence | None
    name: str

    @property
    def line(self) -> int:
        return self.fence.line

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def text(self) -> str:
        return self.fence.text.strip("\n")

    @property
    def sha(self) -> str:
        return sha_of(self.text)

    @property
    def gpu(self) -> bool:
        return "gpu" in self.fence.classes

    @property
    def on_cpu(self) -> str:
        r"""The text of a `.gpu` block, to be tried on a CPU."""
        return _DEVICE.sub(r'\1"cpu"', self.fence.text)

    @property
    def gpu_alone(self) -> str | None:
        r"""The reason why a `.gpu` block cannot be tried on a CPU, or `None`."""
        return self.fence.options.get("reason") if self.gpu else None

    @property
    def from_scratch(self) -> bool:
        return "from-scratch" in self.fence.classes

    @property
    def no_exec(self) -> str | None:
        r"""The reason why the block is not run, or `None`."""
        if "no-exec" not in self.fence.classes:
            return None
        return self.fence.options["reason"]

    @property
    def raises(self) -> str | None:
        return self.fence.options.get("raises")

    @property
    def shown(self) -> str | None:
        r"""The file with tests of its own that is the whole of the block, or `None`."""
        origins = {line.origin for line in self.fence.lines if line.text.strip()}
        if len(origins) == 1 and (origin := origins.pop()) is not None:
            return origin if origin.startswith(TESTED) else None
        return None


def sha_of(text: str) -> str:
    r"""Hash of a text, as records and stamps keep it."""
    return hashlib.sha256(text.encode()).hexdigest()


def blocks_of(path: Path, root: Path) -> list[Block]:
    r"""All Python blocks of a page, in order."""
    page = path.resolve().relative_to(root.resolve()).as_posix()
    return blocks_in(path.read_text(encoding="utf-8"), page, root)


def blocks_in(source: str, page: str, root: Path) -> list[Block]:
    r"""All Python blocks of a page's text, in order.

    Raises:
        PageError: A fence that a reader would take for code that runs cannot be run,
            an output fence follows no block, or a fence is not closed.
    """
    fences = [fence for fence in fences_in(source, page, root) if _matters(fence)]
    blocks: list[Block] = []
    names: dict[str, int] = {}
    for fence in fences:
        if "output" in fence.classes:
            _attach(blocks, fence, page)
            continue
        _check(fence, page)
        name = f"L{fence.line}"
        names[name] = names.get(name, 0) + 1
        if names[name] > 1:
            name = f"{name}.{names[name]}"
        blocks.append(Block(page, fence, len(blocks), None, name))
    return blocks


def _matters(fence: Fence) -> bool:
    return dialect(fence.language) is not None or "output" in fence.classes


def _attach(blocks: list[Block], fence: Fence, page: str) -> None:
    if dialect(fence.language) is not None:
        raise PageError(
            page, fence.line, "an output fence is text: write `{ .text .output }`"
        )
    block = blocks[-1] if blocks else None
    if block is None or block.output is not None:
        raise PageError(page, fence.line, "this output fence follows no Python block")
    if block.no_exec is not None or block.shown is not None:
        raise PageError(
            page,
            fence.line,
            f"this output belongs to the block in line {block.line}, which is not run",
        )
    if fence.text.strip() == "...":
        raise PageError(
            page, fence.line, "an output fence that matches anything compares nothing"
        )
    blocks[-1] = Block(block.page, block.fence, block.index, fence, block.name)


def _check(fence: Fence, page: str) -> None:
    r"""Refuse a Python fence whose fate would be unclear."""
    problem = None
    unknown = [c for c in fence.classes if c not in _CLASSES | _COSMETIC]
    keys = [key for key in fence.options if key not in _KEYS]
    no_exec = "no-exec" in fence.classes
    if dialect(fence.language) == "refused":
        problem = (
            f"a `{fence.language}` fence looks like Python and cannot be run: "
            "write `python`, with what it prints in a `{ .text .output }` fence"
        )
    elif unknown:
        problem = f"unknown class `.{unknown[0]}` on a Python fence"
    elif keys:
        problem = f'unknown option `{keys[0]}="..."` on a Python fence'
    elif no_exec and not fence.options.get("reason", "").strip():
        problem = '`.no-exec` needs a reason: `{ .python .no-exec reason="..." }`'
    elif "reason" in fence.options and not (no_exec or "gpu" in fence.classes):
        problem = '`reason="..."` belongs to `.no-exec` and `.gpu`'
    elif "gpu" in fence.classes and "reason" not in fence.options:
        problem = _not_for_a_cpu(fence.text)
    elif no_exec and ({"gpu", "from-scratch"} & set(fence.classes)):
        problem = "`.no-exec` excludes `.gpu` and `.from-scratch`"
    if not fence.text.strip():
        problem = "this Python fence is empty"
    if problem is not None:
        raise PageError(page, fence.line, problem)


def _not_for_a_cpu(text: str) -> str | None:
    r"""Why a `.gpu` block could not be tried on a CPU."""
    if _NAMES_A_GPU.search(_DEVICE.sub("", text)) is None:
        return None
    return (
        'a `.gpu` block says `device = "cuda"` once and then `.to(device)`, so that it '
        'can be tried on a CPU; where none can do it, `reason="..."` says why'
    )
