r"""Which files of the checkout a module runs on, and one hash of them all.

The hash stands in a record beside the commit. It survives a rebase, and it tells
whether anything that the record rests on has changed since.

A module depends on what it imports. What it reads or runs besides it names in a tuple
`FILES`, paths from the root of the checkout, written out: nothing is run to find them.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Where each package of the checkout lies.
PACKAGES = {"experiments": ROOT, "seqref": ROOT / "src"}
# No file of these changes a number: they write, draw, show or compare what was run.
ASIDE = tuple(
    f"experiments.lab.{name}"
    for name in (
        *("commands", "drawing", "figures", "files", "margin_tables", "margins"),
        *("progress", "ratio_cells", "rendering", "sources", "tables"),
    )
)


def path_of(module: str) -> Path | None:
    """The file of a module of the checkout; None for any other module."""
    base = PACKAGES.get(module.partition(".")[0])
    if base is None:
        return None
    stem = base.joinpath(*module.split("."))
    files = [p for p in (stem.with_suffix(".py"), stem / "__init__.py") if p.is_file()]
    return files[0] if files else None


def imports_of(path: Path) -> list[tuple[str, str | None]]:
    """Module and name of every import in a file, wherever it stands."""
    return _parts_of(path.read_text(encoding="utf-8"))[0]


def declared_in(path: Path) -> list[Path]:
    """The files that a module names in its `FILES`."""
    names = _parts_of(path.read_text(encoding="utf-8"))[1]
    return [ROOT / name for name in names]


# By the text: most files are asked for once for each experiment.
@cache
def _parts_of(source: str) -> tuple[list[tuple[str, str | None]], list[str]]:
    """The imports in a source, and the names in its `FILES`."""
    tree = ast.parse(source)
    imports: list[tuple[str, str | None]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            imports += [(node.module, alias.name) for alias in node.names]
    files: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FILES":
            files += ast.literal_eval(node.value)
    return imports, files


@cache
def _handed_on(path: Path) -> dict[str, tuple[str, str]]:
    """What an `__init__` takes from other modules, by the name it has here."""
    origins = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                origins[alias.asname or alias.name] = (node.module, alias.name)
    return origins


def _home(module: str, name: str | None) -> str | None:
    """The module that a name comes from, through packages that hand it on."""
    if name is not None and path_of(f"{module}.{name}") is not None:
        return f"{module}.{name}"
    path = path_of(module)
    if path is None:
        return None
    if name is not None and path.name == "__init__.py":
        source = _handed_on(path).get(name)
        if source is not None:
            return _home(*source)
    return module


def files_of(module: str) -> list[Path]:
    """Files that a module depends on, its own among them, sorted."""
    seen: set[Path] = set()
    left = [path_of(module)]
    while left:
        path = left.pop()
        if path is None or path in seen:
            continue
        seen.add(path)
        if path.suffix == ".py":
            # Packages that only hand names on are not among the homes.
            homes = {_home(*pair) for pair in imports_of(path)} - {None, *ASIDE}
            left += [path_of(home) for home in homes if home] + declared_in(path)
    return sorted(seen)


def hash_of(module: str) -> str:
    """One hash of the names and contents of the files that a module depends on."""
    total = hashlib.sha256()
    for path in files_of(module):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(ROOT).as_posix()} {content}\n".encode())
    return total.hexdigest()
