r"""What a question's `refuted_by` names, and whether it exists."""

import ast
import re
from functools import lru_cache
from pathlib import Path

from markdown.extensions.toc import slugify

from sitekit.page import Site, split_front_matter


class EvidenceError(ValueError):
    """The named test, claim or place on a page does not exist."""


@lru_cache(maxsize=1024)
def _names(path: Path, _mtime: int) -> tuple[frozenset[str], frozenset[str]]:
    """Names of the functions of a module, and its texts."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))))
    functions = (node.name for node in nodes if isinstance(node, ast.FunctionDef))
    constants = (node.value for node in nodes if isinstance(node, ast.Constant))
    texts = (value for value in constants if isinstance(value, str))
    return frozenset(functions), frozenset(texts)


def check_evidence(evidence: str, site: Site) -> None:
    """Raise `EvidenceError` unless what is named exists.

    Args:
        evidence: `tests/x.py::test_y`, `experiment:name#claim` or `page.md#anchor`.
        site: Where to look.
    """
    if evidence.startswith("experiment:"):
        name, _, claim = evidence.removeprefix("experiment:").partition("#")
        _check_claim(site.root / "experiments", name, claim)
    elif "::" in evidence:
        file, _, test = evidence.partition("::")
        _check_test(site.root / file, file, test)
    else:
        page, _, anchor = evidence.partition("#")
        _check_anchor(site.docs / page, page, anchor)


def _names_of(path: Path, name: str) -> tuple[frozenset[str], frozenset[str]]:
    if not path.is_file():
        raise EvidenceError(f"{name} does not exist")
    return _names(path, path.stat().st_mtime_ns)


def _check_test(path: Path, file: str, test: str) -> None:
    functions, _ = _names_of(path, file)
    if test not in functions or not test.startswith("test"):
        raise EvidenceError(f"{file} has no test `{test}`")


def _check_claim(folder: Path, name: str, claim: str) -> None:
    # Names are told apart over all folders; what is shared or of the lab begins so.
    paths = [path for path in folder.glob(f"*/{name}.py") if path.parent.name != "lab"]
    path = paths[0] if paths else folder / f"{name}.py"
    _, texts = _names_of(path, f"experiment {name}")
    if claim not in texts:
        raise EvidenceError(f"experiment {name} has no claim `{claim}`")


def _check_anchor(path: Path, page: str, anchor: str) -> None:
    if not path.is_file():
        raise EvidenceError(f"page {page} does not exist")
    if anchor not in _anchors(path, path.stat().st_mtime_ns):
        raise EvidenceError(f"page {page} has no anchor `{anchor}`")


@lru_cache(maxsize=1024)
def _anchors(path: Path, _mtime: int) -> frozenset[str]:
    return frozenset(anchors(path))


def anchors(path: Path) -> set[str]:
    """Anchors that a page's headings and attribute lists give it."""
    text = path.read_text(encoding="utf-8")
    _, body, _ = split_front_matter(text, path.name)
    body = re.sub(r"^( *)(```+|~~~+).*?^\1\2", "", body, flags=re.MULTILINE | re.DOTALL)
    anchors = set(re.findall(r"\{[^{}\n]*#([\w.-]+)[^{}\n]*\}", body))
    anchors |= set(re.findall(r"""\bid=["']([\w.-]+)["']""", body))
    for match in re.finditer(r"^#{1,6} +(.+?)(?: *\{[^{}]*\})?$", body, re.MULTILINE):
        anchors.add(slugify(re.sub(r"[`*]", "", match.group(1)), "-"))
    return anchors
