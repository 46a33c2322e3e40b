r"""Loads the plugin that runs the Markdown pages (tools/pageblocks)."""

import importlib.util
import os
import tempfile
from pathlib import Path

import pytest

# With `-n`, before torch is imported: workers with a thread for each core wait for one
# another, and a run of minutes takes an hour.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# torch.compile keeps what it compiled in a folder that all processes share, and takes
# it from there under another instruction set too: the numbers are wrong, or the process
# dies. Here each run, and each worker of a run, has a folder of its own.
if "TORCHINDUCTOR_CACHE_DIR" not in os.environ or "PYTEST_XDIST_WORKER" in os.environ:
    _COMPILED = tempfile.TemporaryDirectory(prefix="torchinductor-")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = _COMPILED.name

_DOCS = Path(__file__).parent / "docs"
_NEEDED = (
    *("jsonschema", "markdown", "pybtex", "pymdownx", "pytest_codeblocks"),
    *("pytest_socket", "yaml"),
)
_MISSING = [name for name in _NEEDED if importlib.util.find_spec(name) is None]

pytest_plugins = [] if _MISSING else ["pageblocks.plugin", "sitekit.pagecheck"]


def pytest_ignore_collect(collection_path):
    r"""Say so, rather than pass over the pages, where they cannot be run."""
    page = collection_path.suffix == ".md" and _DOCS in collection_path.parents
    if _MISSING and page:
        raise pytest.UsageError(
            f"pages need {', '.join(_MISSING)}: pip install -e '.[test]'"
        )
