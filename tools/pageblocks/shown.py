r"""Compares what mkdocstrings shows of the package with the files themselves."""

import ast
import re
from pathlib import Path

from pageblocks.sources import home_of


def is_in_files(text: str, files: dict[Path, list[str]]) -> bool:
    r"""Whether a shown text stands in one of the files, at any one indentation.

    Args:
        text: What the site shows.
        files: The lines of each file.
    """
    shown = [line.rstrip() for line in text.strip("\n").split("\n")]
    return any(_contains(lines, shown) for lines in files.values())


def read_files(src: Path) -> dict[Path, list[str]]:
    r"""The lines of every Python file below a folder, without blanks at their ends."""
    return {
        path: [x.rstrip() for x in path.read_text(encoding="utf-8").split("\n")]
        for path in sorted(src.rglob("*.py"))
    }


def _contains(lines: list[str], shown: list[str]) -> bool:
    first = shown[0]
    for start, line in enumerate(lines[: len(lines) - len(shown) + 1]):
        if not line.endswith(first):
            continue
        indent = line[: len(line) - len(first)]
        if indent.strip():
            continue
        wanted = [(indent + text).rstrip() for text in shown]
        if lines[start : start + len(shown)] == wanted:
            return True
    return False


def signature_problem(text: str, path: str, src: Path) -> str | None:
    r"""How a shown signature differs from the file, or `None`.

    Names, kinds, order and default values of the parameters are compared; for an
    attribute, that the class or module has it.

    Args:
        text: The signature as shown, such as `LSTM(input_size, *, bias=True)`.
        path: Dotted path of the object, such as `seqref.recurrent.lstm.LSTM`.
        src: The folder that holds the package.
    """
    definition = _find(path, src)
    if definition is None:
        return f"{path} is not in the source"
    if isinstance(definition, ast.Assign | ast.AnnAssign) or _is_property(definition):
        name = path.rpartition(".")[2]
        return None if re.match(rf"\s*{name}\b", text) else f"does not name {name}"
    shown = _parameters(text)
    if shown is None:
        return "cannot be read as a signature"
    true = _true_parameters(definition, path, src)
    if true is None or _same(shown, true):
        return None
    return f"shows ({ast.unparse(shown)}), the file has ({ast.unparse(true)})"


def _is_property(definition: ast.stmt) -> bool:
    names = {ast.unparse(d) for d in getattr(definition, "decorator_list", [])}
    return bool(names & {"property", "functools.cached_property", "cached_property"})


def _find(path: str, src: Path) -> ast.stmt | None:
    home = home_of(path, src)
    if home is None:
        return None
    file, names = home
    body = ast.parse(file.read_text(encoding="utf-8")).body
    definition: ast.stmt | None = None
    for name in names:
        definition = next((n for n in _flat(body) if name in _bound(n)), None)
        if definition is None:
            return None
        body = getattr(definition, "body", [])
    return definition


def _flat(body: list[ast.stmt]) -> list[ast.stmt]:
    r"""Statements of a body; and what an `__init__` sets on `self`."""
    flat = list(body)
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            flat += [n for n in ast.walk(node) if isinstance(n, ast.Assign)]
    return flat


def _bound(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign):
        targets = [node.target]
    names = [t.id for t in targets if isinstance(t, ast.Name)]
    return names + [t.attr for t in targets if isinstance(t, ast.Attribute)]


def _parameters(text: str) -> ast.arguments | None:
    source = "def shown" + text[text.find("(") :].strip() + ": ..."
    try:
        function = ast.parse(source).body[0]
    except SyntaxError:
        return None
    return function.args if isinstance(function, ast.FunctionDef) else None


def _true_parameters(
    definition: ast.stmt, path: str, src: Path
) -> ast.arguments | None:
    r"""The parameters of a function or class; `None` where its base is not of here."""
    if isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef):
        return definition.args
    if not isinstance(definition, ast.ClassDef):
        return None
    # What the constructor is from: this class, the cell of a layer, or a base.
    init = next((n for n in definition.body if "__init__" in _bound(n)), None)
    if init is None:
        names = [_first_name(base) for base in definition.bases]
    else:
        names = _built_from(init)
        if not names:
            return _true_parameters(init, path, src)
    for name in names:
        other = f"{path.rpartition('.')[0]}.{name}"
        node = _find(other, src)
        if node is not None:
            return _true_parameters(node, other, src)
    return None


def _first_name(base: ast.expr) -> str:
    r"""`RecurrentCell` of `RecurrentCell[State]`."""
    return ast.unparse(base.value if isinstance(base, ast.Subscript) else base)


def _built_from(init: ast.stmt) -> list[str]:
    r"""The cell whose constructor a layer takes over."""
    return [
        ast.unparse(d.args[0])
        for d in getattr(init, "decorator_list", [])
        if isinstance(d, ast.Call) and ast.unparse(d.func) == "built_from"
    ]


def _same(shown: ast.arguments, true: ast.arguments) -> bool:
    return _bare(shown) == _bare(true)


def _bare(arguments: ast.arguments) -> tuple:
    r"""Names, kinds and defaults, without annotations and without `self`."""
    plain = [a.arg for a in [*arguments.posonlyargs, *arguments.args]]
    if plain[:1] in (["self"], ["cls"]):
        plain = plain[1:]
    keyword = [
        (a.arg, ast.unparse(d) if d is not None else None)
        for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    star = arguments.vararg.arg if arguments.vararg else None
    stars = arguments.kwarg.arg if arguments.kwarg else None
    defaults = [ast.unparse(d) for d in arguments.defaults]
    return plain, defaults, keyword, star, stars
