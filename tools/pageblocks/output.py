r"""Compares what a block printed with what the page shows, and rewrites pages.

`...` matches anything, over lines too, with the blanks around it. A number
matches if it rounds to the digits that the page shows. Three or more numbers joined by
dots are no number but a version, an address or a date. They and everything else, blanks
inside a line included, must be equal. A carriage return ends a line.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

from pageblocks.errors import PageError
from pageblocks.extract import Block
from pageblocks.fences import Fence
from pageblocks.files import write_whole

_NUMBER = r"(?<![\w.])[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_VERSION = r"(?<![\w.])[+-]?\d+(?:\.\d+){2,}"
_TOKEN = re.compile(
    rf"(?P<gap>[ ]*\.\.\.[ ]*)|(?P<version>{_VERSION})|(?P<number>{_NUMBER})"
    r"|(?P<other>[\s\S])"
)
_SNIPPET = re.compile(r"^[ \t]*-+8<-+")
_GAP = "..."


def matches(shown: str, printed: str) -> bool:
    r"""Whether a printed text is the one that the page shows."""
    return _match(_tokens(shown, gaps=True), _tokens(printed, gaps=False))


def tidy(text: str) -> str:
    r"""A text without blanks at line ends and without empty lines around it."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").expandtabs(4)
    return "\n".join(line.rstrip() for line in text.split("\n")).strip("\n")


def _tokens(text: str, *, gaps: bool) -> list[str | Decimal | None]:
    r"""Numbers as written (`str`), other characters; a gap is `None`."""
    places: list = []
    for match in _TOKEN.finditer(tidy(text)):
        kind = match.lastgroup
        if kind == "gap":
            places.extend([None] if gaps else list(match[0]))
        else:
            places.append(match[0])
    return places


def _match(shown: list, printed: list) -> bool:
    r"""Wildcard matching, greedy, going back to the last gap on a mismatch."""
    i = j = 0
    gap, resume = -1, 0
    while j < len(printed):
        if i < len(shown) and shown[i] is None:
            gap, resume = i, j
            i += 1
        elif i < len(shown) and _same(shown[i], printed[j]):
            i, j = i + 1, j + 1
        elif gap >= 0:
            resume += 1
            i, j = gap + 1, resume
        else:
            return False
    return all(token is None for token in shown[i:])


def _same(shown: str, printed: str) -> bool:
    if shown == printed:
        return True
    if not (re.fullmatch(_NUMBER, shown) and re.fullmatch(_NUMBER, printed)):
        return False
    expected, got = Decimal(shown), Decimal(printed)
    exponent = expected.as_tuple().exponent
    fraction = "." in shown.rstrip(".") or "e" in shown.lower()
    if not fraction or not isinstance(exponent, int):
        return expected == got
    return abs(expected - got) <= Decimal(5).scaleb(exponent - 1)


def difference(block: Block, printed: str) -> tuple[int, str] | None:
    r"""Where and how the output of a block differs from its page, or `None`.

    Returns:
        The page line to look at, and a message.
    """
    got = tidy(printed)
    if block.output is None:
        if not got:
            return None
        return block.line, (
            "this block prints, and no output fence follows it; it printed:\n"
            f"{_indent(got)}"
        )
    if not got:
        return block.output.line, (
            f"an output fence is shown, and the block in line {block.line} prints "
            "nothing"
        )
    if matches(block.output.text, got):
        return None
    line = _first_difference(block.output, got)
    return line, (
        f"the page does not show what the block in line {block.line} prints\n"
        f"shown:\n{_indent(tidy(block.output.text))}\nprinted:\n{_indent(got)}"
    )


def _first_difference(shown: Fence, got: str) -> int:
    r"""The first shown line that no longer matches, read from the top."""
    for count in range(1, len(shown.lines) + 1):
        head = "\n".join(line.text for line in shown.lines[:count])
        if not head.strip():
            continue
        if not (matches(head, got) or matches(f"{head}\n{_GAP}", got)):
            return shown.lines[count - 1].number
    return shown.line


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))


def rewrite(path: Path, source: str, outputs: Mapping[Block, str]) -> None:
    r"""Put printed outputs into a page, which is written whole or not at all.

    Args:
        path: The page.
        source: Its text when the blocks were found.
        outputs: What each block printed, for the blocks to be rewritten.

    Raises:
        PageError: The page changed meanwhile, or an output comes from a snippet.
    """
    page = next(iter(outputs)).page
    if path.read_text(encoding="utf-8") != source:
        raise PageError(page, 1, "the page changed while its blocks ran; run it again")
    lines = source.split("\n")
    for block in sorted(outputs, key=lambda b: b.fence.end, reverse=True):
        text = tidy(outputs[block])
        fence = block.output or block.fence
        if block.output is not None and any(line.origin for line in fence.lines):
            raise PageError(page, fence.line, "this output comes from an included file")
        head = re.match(r"[\s>]*", lines[fence.line - 1])
        prefix = head[0] if head is not None else ""
        if any(_SNIPPET.match(line) for line in text.split("\n")):
            message = "a line of the output would include a file; print it otherwise"
            raise PageError(page, fence.line, message)
        body = [(prefix + line).rstrip() for line in text.split("\n")]
        if block.output is not None:
            mark = lines[fence.end - 1][len(prefix) :].strip()
            if any(line.strip() == mark for line in text.split("\n")):
                raise PageError(page, fence.line, "the output would close this fence")
            lines[fence.line : fence.end - 1] = body
            continue
        ticks = _ticks(text)
        lines[fence.end : fence.end] = [
            prefix.rstrip(),
            f"{prefix}{ticks} {{ .text .output }}",
            *body,
            f"{prefix}{ticks}",
        ]
    ending = "\r\n" if b"\r\n" in path.read_bytes() else "\n"
    write_whole(path, ending.join(lines))


def _ticks(text: str) -> str:
    r"""A fence that no line of the text can close."""
    runs = [len(run) for run in re.findall(r"`{3,}", text)]
    return "`" * (max(runs, default=2) + 1)
