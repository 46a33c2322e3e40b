"""What a record rests on: what a module imports, and the files that it names."""

import pytest

from experiments.lab import sources

FILES = {
    "experiments/a/one.py": (
        'from experiments.a import _two\nFILES = ("docs/x.py", "docs/y.csv")\n'
    ),
    "experiments/a/_two.py": "import math\n",
    "experiments/a/three.py": "",
    "experiments/lab/tables.py": "",
    "docs/x.py": "from experiments.lab import tables\nfrom seqref import op\n",
    "docs/y.csv": "1,2\n",
    "docs/z.py": "",
    "src/seqref/__init__.py": "from seqref.ops import op\n",
    "src/seqref/ops.py": "def op(): ...\n",
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    packages = {"experiments": tmp_path, "seqref": tmp_path / "src"}
    monkeypatch.setattr(sources, "PACKAGES", packages)
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def test_a_module_depends_on_the_files_it_names_and_on_what_they_import(root):
    names = {
        p.relative_to(root).as_posix() for p in sources.files_of("experiments.a.one")
    }
    assert names == {
        "experiments/a/one.py",
        "experiments/a/_two.py",
        "docs/x.py",
        "docs/y.csv",
        "src/seqref/ops.py",
    }


@pytest.mark.parametrize("name", FILES)
def test_the_hash_changes_with_what_counts_and_with_nothing_else(root, name):
    before = sources.hash_of("experiments.a.one")
    counts = root / name in sources.files_of("experiments.a.one")
    with (root / name).open("a", encoding="utf-8") as file:
        file.write("\n")
    assert (sources.hash_of("experiments.a.one") != before) == counts


def test_a_named_file_that_is_not_there_is_an_error(root):
    (root / "docs/y.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"y\.csv"):
        sources.hash_of("experiments.a.one")


def test_the_museum_rests_on_the_files_beside_its_pages():
    files = sources.files_of("experiments.museum.bug_museum")
    pages = sorted((sources.ROOT / "docs/evidence/bugs").glob("*.py"))
    assert pages
    assert set(pages) <= set(files)
