"""A page that is built alone is as in a build of the whole site, to the byte."""

import functools
import logging

import pytest
from mkdocs.commands import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort, BuildError

from sitekit.preview import Preview, build_until_current

CONFIG = """
site_name: Small
use_directory_urls: false
exclude_docs: _data/*.md
theme: {name: null, custom_dir: theme}
plugins:
  - material/search: {lang: en, separator: " ", pipeline: [stemmer]}
  - material/offline
  - mkdocstrings: {handlers: {python: {paths: [src]}}}
markdown_extensions:
  - attr_list
  - toc
  - pymdownx.snippets: {base_path: [ROOT]}
  - sitekit.data: {root: ROOT}
  - sitekit.citations: {root: ROOT}
extra: {polyfills: [iframe-worker.js]}
validation: {links: {anchors: warn}}
nav:
  - a.md
  - b.md
  - api.md
  - reference/bibliography.md
"""

# A theme of one file: Material's takes a second for each build.
THEME = """
<title>{{ page.title }}</title>
{% for other in pages %}{{ other.page.title }}{% endfor %}
{{ page.previous_page.title }} {{ page.content }}
"""

A = "# Page A\n\nA sentence.\n\n## One\n\nText.\n\n## Two\n\nText.\n"
API = "# API\n\n::: box.Box\n"
B = "# Page B\n\nSee [one](a.md#one), [box][box.Box] and [lid][box.Lid].\n"


BOX = '''
class Box:
    """A box."""
class Lid:
    """Its lid."""
'''


class Previewed:
    """A small site whose files a test changes, and what was built of it."""

    def __init__(self, small_site, caplog):
        self.small, self.log = small_site, caplog
        self.root = small_site.root
        self.write("mkdocs.yml", CONFIG.replace("ROOT", str(self.root)))
        self.write("theme/main.html", THEME)
        self.write("docs/a.md", A)
        self.write("docs/b.md", B)
        self.write("docs/api.md", API)
        self.write("docs/reference/bibliography.md", "# Sources\n\n{{bibliography}}\n")
        self.write("src/box.py", BOX)
        self.preview = self.fresh("site")
        assert self.update() is None

    def write(self, name, text):
        return self.small.write(name, text)

    def fresh(self, name):
        config = str(self.root / "mkdocs.yml")
        load = functools.partial(load_config, config, site_dir=str(self.root / name))
        return Preview(load, [self.root / "src", self.root / "theme"])

    def update(self):
        """The pages that were built alone, None for all; warnings are in the log."""
        self.log.clear()
        with self.log.at_level(logging.WARNING):
            return self.preview.update()

    def html(self, name):
        return (self.root / "site" / name).read_text(encoding="utf-8")

    def is_as_new(self):
        """Whether the folder is as a build of the whole site into an empty one."""
        self.fresh("again").update()
        return contents(self.root / "site") == contents(self.root / "again")


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): path.read_bytes() for path in files}


@pytest.fixture
def site(small_site, caplog, monkeypatch):
    monkeypatch.chdir(small_site.root)
    return Previewed(small_site, caplog)


def test_a_changed_page_is_built_alone(site):
    assert site.update() == []
    site.write("docs/a.md", A.replace("A sentence", "Another sentence [@elman1990]"))
    # The bibliography says who cites it.
    assert site.update() == ["a.md", "reference/bibliography.md"]
    assert "Another sentence" in site.html("a.html")
    assert "Another sentence" in site.html("search/search_index.js")
    assert "Page A" in site.html("reference/bibliography.html")
    site.write("docs/api.md", "# API\n\nIts text.\n\n::: box.Box\n")
    assert site.update() == ["api.md"]
    assert "A box." in site.html("api.html")
    site.write("docs/b.md", B + "\n[Three](a.md#three)\n")
    assert site.update() == ["b.md"]
    assert "does not contain an anchor '#three'" in site.log.text
    assert 'href="api.html#box.Box"' in site.html("b.html")
    # A new heading can be linked to.
    site.write("docs/a.md", A + "\n## Three\n")
    assert site.update() == ["a.md", "reference/bibliography.md"]
    assert site.log.text == ""
    assert site.is_as_new()


@pytest.mark.parametrize(
    ("file", "text", "page", "shown"),
    [
        ("docs/a.md", A.replace("Page A", "Page a!"), "b.html", "Page a!"),
        ("docs/a.md", "---\ntitle: Other\n---\n" + A, "b.html", "Other"),
        ("docs/api.md", "# API\n", "b.html", "[box][box.Box]"),
        ("docs/api.md", API + "\n::: box.Lid\n", "b.html", "api.html#box.Lid"),
        ("src/box.py", BOX.replace("A box", "A chest"), "api.html", "A chest."),
        ("theme/main.html", "{{ page.content }} Drawn anew.", "b.html", "Drawn anew."),
        ("mkdocs.yml", CONFIG.replace("- b.md", "- Named: b.md"), "a.html", "Named"),
        ("docs/d.md", "# Page D\n", "d.html", "Page D"),
    ],
    ids=[
        *("title", "front matter", "object gone", "object more", "package", "theme"),
        *("navigation", "page"),
    ],
)
def test_what_concerns_other_pages_builds_them(site, file, text, page, shown):
    site.write(file, text.replace("ROOT", str(site.root)))
    assert site.update() is None
    assert shown in site.html(page)


def test_what_pages_include_is_built_into_them(site):
    site.small.data("run", {"value": 42})
    site.write("docs/_data/run.md", "Of a file.\n")
    site.write("docs/a.md", A + '\n{{data:run.value}}\n\n--8<-- "docs/_data/run.md"\n')
    assert site.update() is None
    assert "42" in site.html("a.html")
    site.small.data("run", {"value": 43})
    assert site.update() is None
    assert "43" in site.html("a.html")
    site.write("docs/_data/run.md", "Of a changed file.\n")
    assert site.update() is None
    assert "Of a changed file." in site.html("a.html")
    # A page may be part of another.
    site.write("docs/b.md", '--8<-- "docs/a.md"\n')
    assert site.update() is None
    site.write("docs/a.md", A.replace("Text", "Other words"))
    assert site.update() is None
    assert "Other words" in site.html("b.html")
    (site.root / "docs/b.md").unlink()
    assert site.update() is None


def test_an_anchor_that_is_gone_is_told(site):
    site.write("docs/a.md", A.replace("One", "First"))
    assert site.update() is None
    assert "does not contain an anchor '#one'" in site.log.text


def test_a_page_that_fails_is_built_when_it_is_mended(site, monkeypatch):
    site.write("docs/a.md", A + "\n{{data:no.value}}\n")
    for _ in range(2):
        with pytest.raises(Abort):
            site.update()
        assert "docs/a.md:13: {{data:no.value}}" in site.log.text
    site.write("docs/a.md", A + "\nMended.\n")
    with monkeypatch.context() as patch:
        patch.setattr(build, "_build_page", fails)
        with pytest.raises(Abort):
            site.update()
    assert site.update() == ["a.md"]
    assert site.is_as_new()


def fails(*_, **__):
    raise BuildError("no")


def test_after_a_failure_the_whole_site_is_built(site):
    page = site.write("docs/c.md", "# Page C\n\n{{data:no.value}}\n")
    for _ in range(2):
        with pytest.raises(Abort):
            site.update()
    # All files are as in the last build that went well.
    page.unlink()
    assert site.update() is None
    assert site.is_as_new()


def edited_in_the_build(site, monkeypatch, *texts):
    """Each whole build ends with an edit of page A, while there is one."""
    texts, whole = list(texts), build.build

    def edited(*arguments, **options):
        whole(*arguments, **options)
        if texts:
            site.write("docs/a.md", texts.pop(0))

    monkeypatch.setattr(build, "build", edited)


def test_an_edit_during_the_first_build_is_built(site, monkeypatch):
    edited_in_the_build(site, monkeypatch, A.replace("A sentence", "An edited one"))
    site.preview = site.fresh("site")
    build_until_current(site.preview)
    assert "An edited one" in site.html("a.html")
    assert site.preview.is_current()
    assert site.is_as_new()


def test_an_edit_during_the_first_build_that_fails_waits_for_the_next(
    site, monkeypatch
):
    broken = A + "\nUnknown [@nobody1900].\n"
    edited_in_the_build(site, monkeypatch, broken)
    site.preview = site.fresh("site")
    build_until_current(site.preview)
    assert not site.preview.is_current()
    site.write("docs/a.md", A.replace("A sentence", "A mended one"))
    site.update()
    assert "A mended one" in site.html("a.html")
