r"""Which seqref modules a piece of code uses, found without importing anything.

`from seqref import LSTM` names the module that defines `LSTM`, not the whole
package: a name is followed through the `__init__.py` files that re-export it.
"""

import ast
from pathlib import Path

PACKAGE = "seqref"


def modules_used(trees: list[ast.Module], src: Path) -> dict[str, Path]:
    r"""Modules of the package that the code imports, and what those import in turn.

    Args:
        trees: Parsed code outside the package.
        src: The folder that holds the package.

    Returns:
        The file of each module, by the module's name.
    """
    modules: dict[str, Path] = {}
    waiting = [name for tree in trees for name in _imports(tree, "", src)]
    while waiting:
        name = waiting.pop()
        path = _file(name, src)
        if path is None or name in modules:
            continue
        modules[name] = path
        waiting.extend(_imports(_parse(path), _package(name, path), src))
    return modules


def _imports(tree: ast.Module, package: str, src: Path) -> list[str]:
    r"""Names of the modules that a module's import statements reach."""
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = _absolute(node, package)
            if _ours(module):
                names += [_home(module, alias.name, src) for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if _ours(alias.name):
                    names += _attributes(tree, alias, src)
    return names


def _attributes(tree: ast.Module, alias: ast.alias, src: Path) -> list[str]:
    r"""Modules behind `import seqref`: the homes of the attributes that are used."""
    bound = alias.asname or PACKAGE
    module = alias.name if alias.asname else PACKAGE
    names = [alias.name] if alias.name != PACKAGE else []
    chains = _Chains()
    chains.visit(tree)
    for first, *attributes in chains.names:
        if first == bound:
            names.append(_follow(module, attributes, src))
    return names or [module]


def _follow(module: str, attributes: list[str], src: Path) -> str:
    for attribute in attributes:
        home = _home(module, attribute, src)
        if home == module:
            break
        module = home
    return module


class _Chains(ast.NodeVisitor):
    r"""Collects dotted names, each at its full length."""

    def __init__(self) -> None:
        self.names: list[list[str]] = []

    def visit_Attribute(self, node: ast.Attribute) -> None:
        chain = _chain(node)
        if chain:
            self.names.append(chain)
        else:
            self.generic_visit(node)


def _chain(node: ast.expr) -> list[str]:
    r"""`["seqref", "ops", "f"]` for `seqref.ops.f`, `[]` for anything else."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        before = _chain(node.value)
        return [*before, node.attr] if before else []
    return []


def _home(module: str, name: str, src: Path) -> str:
    r"""The module that defines `name` as imported from `module`."""
    if _file(f"{module}.{name}", src) is not None:
        return f"{module}.{name}"
    path = _file(module, src)
    if path is None:
        return module
    for node in ast.walk(_parse(path)):
        if isinstance(node, ast.ImportFrom):
            source = _absolute(node, _package(module, path))
            for alias in node.names:
                if (alias.asname or alias.name) == name and _ours(source):
                    return _home(source, alias.name, src)
    return module


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    parts = parts[: len(parts) - (node.level - 1)]
    return ".".join([*parts, node.module] if node.module else parts)


def _package(name: str, path: Path) -> str:
    return name if path.name == "__init__.py" else name.rpartition(".")[0]


def _ours(module: str) -> bool:
    return module == PACKAGE or module.startswith(f"{PACKAGE}.")


def _file(name: str, src: Path) -> Path | None:
    base = src.joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def home_of(path: str, src: Path) -> tuple[Path, list[str]] | None:
    r"""The file of a dotted path such as `seqref.LSTM.step`, and the names in it."""
    module, *names = path.split(".")
    while names:
        home = _home(module, names[0], src)
        if home == module:
            break
        # A re-export keeps its name in the file that defines it.
        names = names[1:] if _file(f"{module}.{names[0]}", src) else names
        module = home
    file = _file(module, src)
    return None if file is None else (file, names)
