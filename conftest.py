r"""Loads the plugin that runs the Markdown pages (tools/pageblocks)."""

import importlib.util
from pathlib import Path

import pytest

_DOCS = Path(__file__).parent / "docs"
_NEEDED = ("markdown", "pymdownx", "pytest_codeblocks", "pytest_socket", "yaml")
_MISSING = [name for name in _NEEDED if importlib.util.find_spec(name) is None]

pytest_plugins = [] if _MISSING else ["pageblocks.plugin"]


def pytest_ignore_collect(collection_path):
    r"""Say so, rather than pass over the pages, where they cannot be run."""
    page = collection_path.suffix == ".md" and _DOCS in collection_path.parents
    if _MISSING and page:
        raise pytest.UsageError(
            f"pages need {', '.join(_MISSING)}: pip install -e '.[test]'"
        )
