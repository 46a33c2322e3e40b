r"""An extension must know its page and the line of what is wrong."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import markdown
import pytest

from sitekit.page import (
    REPOSITORY,
    PageError,
    Site,
    load_yaml,
    page_of,
    split_front_matter,
)

FRONT_MATTER = "---\ntitle: A page\n---\n\n\n"


def lines_of(text: str) -> list[str]:
    return split_front_matter(text, "x")[1].split("\n")


def test_a_page_is_found_by_its_text(small_site):
    path = small_site.write("docs/a/b.md", FRONT_MATTER + "first\n\nthird\n")
    lines = lines_of(path.read_text())
    page = page_of(markdown.Markdown(), lines, Site(small_site.root))
    assert page.path == path.resolve()
    assert page.uri == "a/b.md"
    assert page.front_matter == {"title": "A page"}
    assert page.first_line == 6
    assert page.where(0) == "docs/a/b.md:6"
    assert page.where(2) == "docs/a/b.md:8"
    assert page.link("reference/x.md") == "../reference/x.md"


def test_two_pages_with_one_text_are_not_guessed(small_site):
    small_site.write("docs/a.md", "same\n")
    small_site.write("docs/b.md", "same\n")
    page = page_of(markdown.Markdown(), ["same"], Site(small_site.root))
    assert page.path is None
    assert page.where(0) == "text that is no page:1"


@pytest.mark.parametrize("generator", ["mkdocs", "zensical"])
def test_the_generator_tells_which_of_two_equal_pages(small_site, generator):
    small_site.write("docs/a.md", "same\n")
    small_site.write("docs/b.md", FRONT_MATTER + "same\n")
    md = markdown.Markdown()
    hint = SimpleNamespace(
        file=SimpleNamespace(src_uri="b.md") if generator == "mkdocs" else None,
        page=SimpleNamespace(path="b.md") if generator == "zensical" else None,
        run=lambda value: value,
    )
    registry = md.treeprocessors if generator == "mkdocs" else md.preprocessors
    registry.register(hint, "hint", 0)
    page = page_of(md, ["same"], Site(small_site.root))
    assert page.uri == "b.md"
    assert page.where(0) == "docs/b.md:6"


def test_leading_blank_lines_are_counted_whoever_strips_them(small_site):
    small_site.write("docs/a.md", FRONT_MATTER + "first\n")
    stripped = page_of(markdown.Markdown(), ["first"], Site(small_site.root))
    kept = page_of(markdown.Markdown(), ["", "", "first"], Site(small_site.root))
    assert stripped.where(0) == kept.where(2) == "docs/a.md:6"


def test_find_passes_over_fences_and_looks_into_front_matter(small_site):
    small_site.write(
        "docs/a.md",
        """
        ---
        title: has wanted_in_title
        ---

        ````markdown
        ```
        wanted
        ```
        wanted
        ````

        > ```text
        > wanted
        > ```

        here it is wanted
        """,
    )
    site = Site(small_site.root)
    body = split_front_matter((small_site.root / "docs/a.md").read_text(), "a")[1]
    page = page_of(markdown.Markdown(), body.split("\n"), site)
    assert page.find("is wanted") == "docs/a.md:16"
    assert page.find("wanted_in_title") == "docs/a.md:2"
    assert page.find("nowhere") == "docs/a.md"


def test_find_looks_into_included_files(small_site):
    small_site.write("docs/_data/t.table.md", "one\ntwo odd\n")
    small_site.write("docs/a.md", 'text\n\n--8<-- "docs/_data/t.table.md"\n')
    lines = (small_site.root / "docs/a.md").read_text().split("\n")
    page = page_of(markdown.Markdown(), lines, Site(small_site.root))
    assert page.find("odd") == "docs/_data/t.table.md:2"


def test_a_docstring_on_a_page_has_no_line_of_its_own(small_site):
    small_site.write("docs/a.md", "the page\n")
    md = markdown.Markdown()
    hint = SimpleNamespace(file=SimpleNamespace(src_uri="a.md"), run=lambda root: root)
    md.treeprocessors.register(hint, "hint", 0)
    page = page_of(md, ["a docstring"], Site(small_site.root))
    assert not page.exact
    assert page.where(0) == "docs/a.md"


def test_bad_front_matter_names_the_line(small_site):
    with pytest.raises(PageError, match=r"a\.md:3: not valid YAML"):
        split_front_matter("---\na: 1\nb: }\n---\ntext", "a.md")
    with pytest.raises(PageError, match=r"a\.md:3: .*'a' stands twice"):
        split_front_matter("---\na: 1\na: 2\n---\ntext", "a.md")
    with pytest.raises(PageError, match=r"a\.md:1: front matter must be a mapping"):
        split_front_matter("---\n- a\n---\ntext", "a.md")


def test_front_matter_with_windows_line_ends():
    data, body, first = split_front_matter("---\r\na: 1\r\n---\r\n\r\nx\r\n", "a")
    assert (data, body, first) == ({"a": 1}, "x\n", 5)


def test_yaml_errors_count_from_the_given_line():
    with pytest.raises(PageError, match=r"^f\.yml:12: not valid YAML"):
        load_yaml("a: 1\nb: }\n", "f.yml", first_line=11)


def build(root: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=900,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(root),
            "PYTHONPATH": str(REPOSITORY / "tools"),
            "NO_MKDOCS_2_WARNING": "1",
        },
        check=False,
    )


@pytest.mark.parametrize("generator", ["mkdocs", "zensical"])
def test_real_builds_name_page_and_line(small_site, generator):
    pytest.importorskip(generator)
    small_site.write(
        "mkdocs.yml",
        f"""
        site_name: x
        theme: {{name: {"mkdocs" if generator == "mkdocs" else "material"}}}
        markdown_extensions:
          - sitekit.data: {{root: {small_site.root}}}
          - sitekit.citations: {{root: {small_site.root}}}
        """,
    )
    small_site.data("run", {"value": 2.5e-14})
    small_site.write("docs/index.md", "# Home\n\nValue {{data:run.value}}.\n")
    small_site.write("docs/reference/bibliography.md", "# B\n\n{{bibliography}}\n")
    page = small_site.write(
        "docs/a/b.md", "---\ntitle: B\n---\n\n# B\n\n[@elman1990]\n"
    )
    good = build(small_site.root, [generator, "build"])
    assert good.returncode == 0, good.stderr
    html = (small_site.root / "site/index.html").read_text()
    assert "2.5\u00a0×\u00a010<sup>−14</sup>" in html
    html = (small_site.root / "site/a/b/index.html").read_text()
    assert 'href="../../reference/bibliography/#elman1990"' in html
    page.write_text(page.read_text() + "\n{{data:run.valu}}\n")
    bad = build(small_site.root, [generator, "build"])
    said = bad.stdout + bad.stderr
    assert "docs/a/b.md:9: {{data:run.valu}}" in said
    if generator == "mkdocs":
        assert bad.returncode != 0


def test_all_faults_of_a_page_are_told_in_one_build(small_site):
    small_site.data("run", {"count": 42})
    small_site.write(
        "docs/page.md",
        "# Page\n\nOne [@nobody2000], two {{data:run.cout}},\nthree {{dota}}.\n\n"
        "- four [@nobody2001]\n\n{{data:run.count}} is right, [@elman1990] too.\n",
    )
    with pytest.raises(PageError) as caught:
        small_site.convert("page.md")
    lines = str(caught.value).split("\n")
    assert [line.split(": ")[0] for line in lines] == [
        "docs/page.md:3",
        "docs/page.md:3",
        "docs/page.md:4",
        "docs/page.md:6",
    ]
    assert "nobody2001" in lines[3]
    # The next page begins with none.
    small_site.write("docs/good.md", "# Good\n\nOne [@elman1990].\n")
    assert "elman1990" in small_site.convert("good.md")


def test_a_fault_is_told_without_a_traceback():
    exceptions = pytest.importorskip("mkdocs.exceptions")
    assert issubclass(PageError, exceptions.BuildError)
    assert str(PageError("docs/a.md:1: wrong")) == "docs/a.md:1: wrong"
