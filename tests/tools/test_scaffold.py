"""What `nox -s new` writes: whole, in its place, and red until it is filled in."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scaffold.write import Concept, ScaffoldError, files, write

ROOT = Path(__file__).resolve().parents[2]
FILL = "FILL" + " IN"
CONCEPT = Concept("recurrent/novel_thing", "NovelThing", "models/novel_claim")
LISTS = (
    "src/seqref/__init__.py",
    "src/seqref/recurrent/__init__.py",
    "mkdocs.yml",
    "CHANGELOG.md",
)


@pytest.fixture
def root(tmp_path):
    for name in LISTS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_every_file_lies_where_the_layout_wants_it(root):
    written = write(CONCEPT, root)
    assert set(written) == {
        "src/seqref/recurrent/novel_thing.py",
        "tests/recurrent/test_novel_thing.py",
        "docs/recurrent/novel_thing.md",
        "docs/interview/questions/novel_thing.yml",
        "experiments/models/novel_claim.py",
        *LISTS,
    }
    for name in written:
        text = (root / name).read_text(encoding="utf-8")
        if name.endswith(".py"):
            ast.parse(text)
        if name not in LISTS:
            assert FILL in text, name
            assert "$" + "{" not in text, name


def test_lists_keep_their_lines_and_their_order(root):
    before = {name: (ROOT / name).read_text(encoding="utf-8") for name in LISTS}
    write(CONCEPT, root)
    for name in LISTS:
        after = (root / name).read_text(encoding="utf-8").split("\n")
        added = [line for line in after if line not in before[name].split("\n")]
        assert [line for line in after if line not in added] == before[name].split("\n")
        assert 1 <= len(added) <= 7, name
    nav = (root / "mkdocs.yml").read_text(encoding="utf-8")
    assert "      - Novel thing: recurrent/novel_thing.md\n" in nav


def test_the_package_imports_and_the_layer_waits_for_its_equation(root):
    shutil.copytree(ROOT / "src", root / "src", dirs_exist_ok=True)
    for name in LISTS:
        shutil.copy(ROOT / name, root / name)
    write(CONCEPT, root)
    code = (
        "import torch, seqref\n"
        "layer = seqref.NovelThing(3, 5)\n"
        "assert 'Args:' in seqref.NovelThing.__doc__\n"
        "try:\n    layer(torch.randn(2, 4, 3))\n"
        "except NotImplementedError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(root / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"{FILL}: the equation")


def test_what_is_there_is_not_written_over(root):
    (root / "docs/recurrent").mkdir(parents=True)
    (root / "docs/recurrent/novel_thing.md").write_text("mine", encoding="utf-8")
    with pytest.raises(ScaffoldError, match="there already: docs/recurrent/novel"):
        write(CONCEPT, root)
    assert not (root / "src/seqref/recurrent/novel_thing.py").exists()
    for name in LISTS:
        assert (root / name).read_bytes() == (ROOT / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("novel", "Novel"), "NAME must be family/stem"),
        (("cooking/novel", "Novel"), "of a family of recurrent"),
        (("recurrent/novel", "novel"), "--layer must be a class name"),
        (("recurrent/novel", "Novel", "claim"), "--experiment must be subject/name"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused(arguments, message):
    with pytest.raises(ScaffoldError, match=message):
        Concept(*arguments)


def test_no_experiment_where_none_is_named():
    assert not any("experiments" in path for path in files(Concept("recurrent/a", "A")))


def test_questions_and_front_matter_are_refused_by_their_schemas():
    from sitekit.page import PageError, front_matter_block
    from sitekit.validate import validate

    made = files(CONCEPT)
    front = front_matter_block(made["docs/recurrent/novel_thing.md"])
    with pytest.raises(PageError):
        validate(yaml.safe_load(front), "concept", "page", front)
    text = made["docs/interview/questions/novel_thing.yml"]
    with pytest.raises(PageError):
        validate(yaml.safe_load(text), "questions", "file", text)
