r"""Expands `--8<--` line by line, so that every line keeps its number on the page.

The work itself is done by `pymdownx.snippets`; this module only feeds it one
directive at a time and notes which page line each resulting line came from.
"""

from dataclasses import dataclass
from pathlib import Path

import markdown
from pymdownx.snippets import SnippetMissingError, SnippetPreprocessor

from pageblocks.errors import PageError

_DEFAULTS = {
    "base_path": ["."],
    "restrict_base_path": True,
    "encoding": "utf-8",
    "check_paths": True,
    "auto_append": [],
    "url_download": False,
    "url_max_size": 0,
    "url_timeout": 10.0,
    "url_request_headers": {},
    "dedent_subsections": False,
    "max_retries": 0,
    "backoff_factor": 0,
}


@dataclass(frozen=True)
class Line:
    r"""One line of an expanded page.

    Args:
        text: The line.
        number: The page line that it stands on, or whose directive brought it.
        origin: The included file, or `None` for a line of the page itself.
    """

    text: str
    number: int
    origin: str | None = None


def expand(lines: list[str], page: str, root: Path, config: dict) -> list[Line]:
    r"""Expand every snippet directive of a page.

    Raises:
        PageError: An included file or section does not exist.
    """
    preprocessor = _preprocessor(root, config)
    result: list[Line] = []
    position = 0
    while position < len(lines):
        chunk, origin = _directive(lines, position)
        number = position + 1
        position += len(chunk)
        if not any("8<" in line for line in chunk):
            result.append(Line(chunk[0], number))
            continue
        try:
            expanded = preprocessor.run(chunk)
        except SnippetMissingError as error:
            raise PageError(page, number, str(error)) from error
        result.extend(Line(text, number, origin) for text in expanded)
    return result


def _preprocessor(root: Path, config: dict) -> SnippetPreprocessor:
    settings = _DEFAULTS | config | {"auto_append": [], "check_paths": True}
    base = settings["base_path"]
    base = [base] if isinstance(base, str) else base
    settings["base_path"] = [str(root / path) for path in base]
    return SnippetPreprocessor(settings, markdown.Markdown())


def _directive(lines: list[str], start: int) -> tuple[list[str], str | None]:
    r"""The lines of the directive that starts here, and the file it names."""
    match = SnippetPreprocessor.RE_ALL_SNIPPETS.match(lines[start])
    if match is None or match["escape"]:
        return [lines[start]], None
    if match["inline_marker"]:
        return [lines[start]], match["snippet"][1:-1].strip()
    end = start + 1
    while end < len(lines):
        closing = SnippetPreprocessor.RE_ALL_SNIPPETS.match(lines[end])
        if closing is not None and closing["block_marker"] and not closing["escape"]:
            break
        end += 1
    chunk = lines[start : end + 1]
    return chunk, ", ".join(line.strip() for line in chunk[1:-1] if line.strip())
