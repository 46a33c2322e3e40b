"""The package is on no registry: no page or message tells anyone to get it there."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PLACES = ("src", "docs", "tools", "findings", "experiments", ".ci")
KINDS = {".md", ".py", ".yml", ".yaml", ".toml", ".json", ".sh", ".html", ".js", ""}

# `pip install x`, `pip3 install -U "x[extra]"`, `uv add x`; `x @ git+ADDRESS` is a
# direct reference, which no registry is asked for.
INSTALL = re.compile(
    r"""\b(?:pip3?|pipx|uv\ pip|uv|poetry|conda|mamba)\ +(?:install|add)\b
        [^\n`|&;]*? (?<![\w./=-]) seqref (?![\w/.-]) (?!\[[^\]]*\]\ *@) (?!\ *@)""",
    re.VERBOSE,
)


def texts():
    """Every text file that a reader or a user may see."""
    paths = [p for p in ROOT.iterdir() if p.is_file()]
    for place in PLACES:
        paths += [p for p in (ROOT / place).rglob("*") if p.is_file()]
    for path in paths:
        if path.suffix in KINDS and "__pycache__" not in path.parts:
            yield path, path.read_text(encoding="utf-8", errors="replace")


def test_nothing_says_to_install_seqref_from_a_registry():
    lines, read = [], 0
    for path, text in texts():
        read += 1
        lines += [f"{path.relative_to(ROOT)}: {m[0]}" for m in INSTALL.finditer(text)]
    assert read > 300
    assert lines == []


@pytest.mark.parametrize(
    "line",
    [
        "pip install seqref",
        'pip install "seqref[train]"',
        "pip install -U torch seqref==0.1",
        "python -m pip install 'seqref'",
        "uv add seqref",
        "uv pip install seqref[train]",
    ],
)
def test_a_line_that_asks_a_registry_is_seen(line):
    assert INSTALL.search(f"text\n    {line}\n")


@pytest.mark.parametrize(
    "line",
    [
        'pip install ".[train]"',
        'pip install "seqref @ git+ADDRESS"',
        'pip install "seqref[train] @ git+ADDRESS"',
        "pip install -e /home/me/seqref",
        "pip install torch, then `import seqref`",
        "python -m pip show seqref",
    ],
)
def test_a_line_that_asks_none_is_left_alone(line):
    assert not INSTALL.search(line)
