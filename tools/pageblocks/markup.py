r"""The Markdown of the site: the extensions that decide what is a code block."""

import functools
from pathlib import Path
from typing import Any

import markdown
import yaml
from pygments.lexers import get_lexer_by_name
from pygments.lexers.python import Python2Lexer, PythonConsoleLexer, PythonLexer
from pygments.util import ClassNotFound

_RUN = {"python", "py", "python3", "py3"}

# Extensions that can move, wrap, make or hide a fence. The others (mathematics,
# citations, emoji, ...) do not touch fences, so the extractor does without them.
_STRUCTURAL = {
    "abbr",
    "admonition",
    "attr_list",
    "def_list",
    "footnotes",
    "md_in_html",
    "sane_lists",
    "tables",
    "pymdownx.blocks.admonition",
    "pymdownx.blocks.caption",
    "pymdownx.blocks.definition",
    "pymdownx.blocks.details",
    "pymdownx.blocks.html",
    "pymdownx.blocks.tab",
    "pymdownx.details",
    "pymdownx.fancylists",
    "pymdownx.quotes",
    "pymdownx.saneheaders",
    "pymdownx.superfences",
    "pymdownx.tabbed",
    "pymdownx.tasklist",
}
_DEFAULT: dict[str, dict] = {
    "admonition": {},
    "attr_list": {},
    "md_in_html": {},
    "pymdownx.details": {},
    "pymdownx.superfences": {},
    "pymdownx.tabbed": {"alternate_style": True},
}


def dialect(language: str) -> str | None:
    r"""What becomes of a fence in this language.

    Returns:
        `"run"` for Python, `"refused"` for anything else that Pygments colours as
        Python (a console session, Python 2, ...), `None` for other languages.
    """
    if language.lower() in _RUN:
        return "run"
    try:
        lexer = get_lexer_by_name(language)
    except ClassNotFound:
        return None
    python = isinstance(lexer, PythonLexer | Python2Lexer | PythonConsoleLexer)
    return "refused" if python else None


@functools.cache
def extensions(root: Path) -> dict[str, dict]:
    r"""`markdown_extensions` of the site's mkdocs.yml, or a default without one."""
    path = root / "mkdocs.yml"
    if not path.exists():
        return _DEFAULT
    listed = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    handlers: dict[str, dict] = {}
    for entry in listed.get("markdown_extensions") or []:
        pairs = entry.items() if isinstance(entry, dict) else [(entry, {})]
        handlers |= {name: _without_none(options or {}) for name, options in pairs}
    return handlers


def structural_markdown(root: Path) -> markdown.Markdown:
    r"""A Markdown instance that finds the same fences as the site does."""
    configured = extensions(root)
    kept = {n: o for n, o in configured.items() if n in _STRUCTURAL}
    for needed in ("attr_list", "pymdownx.superfences"):
        kept.setdefault(needed, {})
    return markdown.Markdown(extensions=list(kept), extension_configs=kept)


def snippet_config(root: Path) -> dict:
    r"""The options of `pymdownx.snippets`."""
    return extensions(root).get("pymdownx.snippets", {})


class _Loader(yaml.SafeLoader):
    r"""Reads mkdocs.yml without importing what its `!!python/name` tags name."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: None)
_Loader.add_multi_constructor(
    "tag:yaml.org,2002:python/", lambda loader, suffix, node: None
)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value
