"""The file tree is the syllabus: one concept, one module, one page, one test."""

import ast
import itertools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

import pytest

from pageblocks.extract import blocks_of

ROOT = pathlib.Path(__file__).parents[1]
SOURCE, DOCS, TESTS = ROOT / "src/seqref", ROOT / "docs", ROOT / "tests"
FAMILIES = (
    "recurrent",
    "attention",
    "convolution",
    "linear",
    "ssm",
    "ops",
    "models",
    "decoding",
    "training",
    "tasks",
)
MODULES = sorted(SOURCE.rglob("*.py"))
# The code that pages show and run.
SHOWN = sorted(DOCS.rglob("*.py"))


def concepts():
    """Family and stem of each concept: a module, or an op's folder."""
    names = []
    for family in FAMILIES:
        for path in sorted((SOURCE / family).glob("*")):
            is_concept = path.suffix == ".py" or (path / "__init__.py").exists()
            if is_concept and not path.name.startswith("_"):
                names.append((family, path.stem))
    return names


CONCEPTS = concepts()


def test_the_tree_is_not_empty():
    assert ("recurrent", "lstm") in CONCEPTS
    assert ("ops", "fused_recurrence") in CONCEPTS


@pytest.mark.parametrize(("family", "stem"), CONCEPTS)
def test_a_concept_has_a_page_and_a_test(family, stem):
    assert (DOCS / family / f"{stem}.md").is_file()
    assert (TESTS / family / f"test_{stem}.py").is_file()


# Tasks have one door.
LINKED = sorted(
    f"{family}/{stem}.md" for family, stem in CONCEPTS if family not in ("tasks",)
)


@pytest.mark.parametrize("page", LINKED)
def test_the_home_page_leads_to_every_concept(page):
    assert f"]({page})" in (DOCS / "index.md").read_text(encoding="utf-8")


TABLED = sorted([*DOCS.rglob("*.md"), *SOURCE.rglob("*.py")])
RULE = re.compile(r"\s*\|(\s*:?-+:?\s*\|)+\s*")


@pytest.mark.parametrize("path", TABLED, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_column_of_a_table_is_without_a_name(path):
    # A screen reader would announce an empty header for every cell below it.
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, (header, rule) in enumerate(itertools.pairwise(lines), 1):
        if RULE.fullmatch(rule):
            assert not re.match(r"\s*\|\s*\|", header), f"{path}:{number}"


def test_a_recipe_has_a_page_and_a_test():
    recipes = {path.stem for path in (DOCS / "recipes").glob("*.py")}
    assert recipes
    assert {path.stem for path in (DOCS / "recipes").glob("*.md")} == recipes
    tests = {path.stem for path in (TESTS / "recipes").glob("test_*.py")}
    assert tests == {f"test_{stem}" for stem in recipes}


def stems(folder, pattern, prefix=""):
    return sorted(path.stem.removeprefix(prefix) for path in folder.glob(pattern))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_page_or_test_of_a_family_has_its_module(family):
    known = {stem for name, stem in CONCEPTS if name == family}
    pages = set(stems(DOCS / family, "*.md")) - {"index"}
    assert pages - known == set()
    tests = set(stems(TESTS / family, "test_*.py", "test_"))
    # A test of a private module, `test_base.py`, has that module beside it.
    private = {path.stem[1:] for path in (SOURCE / family).glob("_*.py")}
    assert tests - known - private == set()


LAB = ROOT / "experiments"
EXPERIMENTS = {
    path.stem: path.parent.name
    for path in sorted(LAB.glob("*/[!_]*.py"))
    if path.parent.name != "lab"
}


@pytest.mark.parametrize("stem", EXPERIMENTS)
def test_an_experiment_has_its_record(stem):
    assert (DOCS / "_data" / f"{stem}.json").is_file()


def test_every_subject_is_in_the_contracts_on_imports():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    subjects = {f"experiments.{folder}" for folder in EXPERIMENTS.values()}
    contracts = settings["tool"]["importlinter"]["contracts"][1:]
    for contract in contracts:
        listed = contract.get("modules") or contract["forbidden_modules"]
        assert set(listed) == subjects, contract["name"]


def test_an_experiment_imports_no_experiment():
    names = {f"experiments.{folder}.{stem}" for stem, folder in EXPERIMENTS.items()}
    for path in LAB.glob("*/*.py"):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ImportFrom):
                imported = {f"{node.module}.{alias.name}" for alias in node.names}
                assert not names & {*imported, node.module}, f"{path}:{node.lineno}"
            elif isinstance(node, ast.Import):
                imported = {alias.name for alias in node.names}
                assert not names & imported, f"{path}:{node.lineno}"


def test_a_test_of_experiments_lies_where_they_do():
    """`test_<name>.py` in its folder, or of what is shared there, or of the lab."""
    shared = {(path.parent.name, path.stem.lstrip("_")) for path in LAB.glob("*/*.py")}
    for path in (TESTS / "experiments").glob("*/test_*.py"):
        stem = path.stem.removeprefix("test_")
        assert (path.parent.name, stem) in shared, path


def test_a_record_has_its_experiment():
    # `margins` is of all experiments together.
    others = set(stems(DOCS / "_data", "*.json")) - EXPERIMENTS.keys()
    assert others == {"margins"}


FILL = "FILL" + " IN"


def test_no_concept_is_left_to_fill_in():
    """What `nox -s new` lays out passes here when no place says so any more."""
    folders = (SOURCE, DOCS, TESTS, LAB)
    files = [p for f in folders for p in f.rglob("*") if p.suffix in TEXTS]
    files += [ROOT / "mkdocs.yml", ROOT / "CHANGELOG.md"]
    assert [p for p in files if FILL in p.read_text(encoding="utf-8")] == []


TEXTS = {".py", ".md", ".yml", ".bib"}


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def lines_of_docstrings(node):
    """The line numbers that docstrings fill, inside a node."""
    filled = set()
    for inner in ast.walk(node):
        if not isinstance(inner, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            continue
        if ast.get_docstring(inner, clean=False) is not None:
            text = inner.body[0]
            filled |= set(range(text.lineno, text.end_lineno + 1))
    return filled


def length(node, first, last):
    return len(set(range(first, last + 1)) - lines_of_docstrings(node))


def too_long(path, lines=300):
    """What in a module is longer than the limits, docstrings not counted."""
    tree = tree_of(path)
    n_lines = len(path.read_text(encoding="utf-8").splitlines())
    problems = []
    if length(tree, 1, n_lines) > lines:
        problems.append(f"module: {length(tree, 1, n_lines)} lines, at most {lines}")
    for node in ast.walk(tree):
        limit = {ast.ClassDef: 120, ast.FunctionDef: 40}.get(type(node))
        if limit and length(node, node.lineno, node.end_lineno) > limit:
            size = length(node, node.lineno, node.end_lineno)
            problems.append(f"{node.name}: {size} lines, at most {limit}")
    return problems


@pytest.mark.parametrize(
    "path", [*MODULES, *SHOWN], ids=lambda p: str(p.relative_to(ROOT))
)
def test_modules_classes_and_functions_are_short(path):
    # A recipe is one file on purpose.
    lines = 400 if path.parent == DOCS / "recipes" else 300
    assert too_long(path, lines) == []


@pytest.mark.parametrize(
    "path", sorted(LAB.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_experiments_are_short_too(path):
    """With more room for a module: its claims and tables are lines of data."""
    assert too_long(path, 400) == []


def test_length_is_counted_without_docstrings(tmp_path):
    path = tmp_path / "long.py"
    body = "\n".join(f"    x{i} = {i}" for i in range(38))
    words = "\n".join("    word" for _ in range(50))
    path.write_text(f'def f():\n    r"""Do.\n{words}\n    """\n{body}\n    return 0\n')
    assert too_long(path) == []
    path.write_text(f"def f():\n{body}\n    y = 1\n    return 0\n")
    assert too_long(path) == ["f: 41 lines, at most 40"]
    path.write_text("x = 1\n" * 301)
    assert too_long(path) == ["module: 301 lines, at most 300"]


@pytest.mark.parametrize(
    "path",
    [p for p in MODULES if p.name == "__init__.py"],
    ids=lambda p: str(p.relative_to(SOURCE)),
)
def test_init_only_exports(path):
    """An op's dispatches; every other one imports and lists names."""
    if path.parent.parent == SOURCE / "ops":
        assert "__all__" in path.read_text(encoding="utf-8")
        return
    for node in tree_of(path).body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(
            node.value, ast.Constant
        )
        names = {"__all__", "__version__"}
        is_name = (
            isinstance(node, ast.Assign)
            and {target.id for target in node.targets} <= names
        )
        assert is_docstring or is_name or isinstance(node, ast.ImportFrom), node.lineno


@pytest.mark.parametrize(
    "path",
    [*MODULES, *SHOWN, *LAB.rglob("*.py")],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_no_assert_and_no_names_as_text(path):
    tree = tree_of(path)
    asserts = [n.lineno for n in ast.walk(tree) if isinstance(n, ast.Assert)]
    # python -O removes them.
    assert asserts == []
    modules = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    # jaxtyping's names would become text that no checker reads.
    assert "__future__" not in modules


IMPORTS_EXPERIMENTS = re.compile(r"^\s*(?:from|import)\s+experiments\b", re.MULTILINE)
PAGES = [path for path in DOCS.rglob("*.md") if "_data" not in path.parts]


def test_a_page_needs_the_package_alone():
    """A reader who has seqref installed, and no checkout, can run every block."""
    blocks = [b for path in [*PAGES, ROOT / "README.md"] for b in blocks_of(path, ROOT)]
    assert len(blocks) > 500
    assert [b.where for b in blocks if IMPORTS_EXPERIMENTS.search(b.text)] == []
    assert IMPORTS_EXPERIMENTS.search("x = 1\n    from experiments.lab import claim")


def is_assertion(node):
    if isinstance(node, ast.Assert):
        return True
    if not isinstance(node, ast.Call):
        return False
    called = node.func
    name = (
        called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
    )
    judges = ("assert", "equal", "fails", "raises", "fail", "check_", "expect")
    return name.startswith(judges) or name in ("gradcheck", "run_page", "fnmatch_lines")


def without_assertion(path):
    tree = tree_of(path)
    helpers = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and any(map(is_assertion, ast.walk(node)))
    }
    return [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test")
        and node.name not in helpers
        and not any(
            isinstance(n, ast.Call) and getattr(n.func, "id", None) in helpers
            for n in ast.walk(node)
        )
    ]


@pytest.mark.parametrize(
    "path", sorted(TESTS.rglob("test_*.py")), ids=lambda p: str(p.relative_to(TESTS))
)
def test_every_test_asserts_something(path):
    assert without_assertion(path) == []


def test_a_test_without_assertion_is_caught(tmp_path):
    path = tmp_path / "test_x.py"
    path.write_text("def test_a():\n    print(1)\n\ndef test_b():\n    assert 1\n")
    assert without_assertion(path) == ["test_a"]


# Imports.


def run_python(code, *options):
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=900,
    )
    return done.stdout + done.stderr


def test_import_brings_no_extras():
    unwanted = ["triton", "matplotlib", "sklearn", "onnx", "mkdocs", "torch._dynamo"]
    code = (
        "import sys, torch; before = set(sys.modules); import seqref\n"
        f"print([m for m in {unwanted!r} if m in set(sys.modules) - before])\n"
        "print(seqref.LSTM(3, 5).hidden_size)"
    )
    assert run_python(code) == "[]\n5\n"


def test_import_loads_nothing_but_seqref_after_torch():
    """What takes time in an import is what it loads."""
    code = (
        "import sys, torch, jaxtyping; before = set(sys.modules); import seqref\n"
        "new = {m.partition('.')[0] for m in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    assert run_python(code) == "['seqref']\n"


def lint_imports(folder):
    """Run import-linter with this repository's settings on the package in a folder."""
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--config",
            str(ROOT / "pyproject.toml"),
            "--no-cache",
        ],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.mark.parametrize(
    ("module", "planted"),
    [
        ("errors", ""),
        ("ops/_padding", "import seqref.recurrence"),
        ("errors", "from seqref.ops import _padding"),
        ("attention/__init__", "import seqref.recurrent.lstm"),
        ("loose", "x = 1"),
        ("errors", "import experiments.counts"),
        ("experiments/lab/claim", "import experiments.models.first_model"),
        ("experiments/bptt/bptt_sums", "from experiments.memory import _sweep"),
    ],
)
def test_imports_go_one_way(tmp_path, module, planted):
    pytest.importorskip("importlinter", reason="import-linter is installed for lint")
    hidden = shutil.ignore_patterns("__pycache__")
    shutil.copytree(SOURCE, tmp_path / "seqref", ignore=hidden)
    shutil.copytree(LAB, tmp_path / "experiments", ignore=hidden)
    folder = tmp_path if module.startswith("experiments/") else tmp_path / "seqref"
    path = folder / f"{module}.py"
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n{planted}\n")
    done = lint_imports(tmp_path)
    assert (done.returncode == 0) == (planted == ""), done.stdout + done.stderr
    assert ("BROKEN" in done.stdout) == (planted != ""), done.stdout
