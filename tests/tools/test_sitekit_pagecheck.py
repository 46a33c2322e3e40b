"""A page that is named is checked as the site's build would check it."""

import shutil
from pathlib import Path

import pytest

from sitekit import pagecheck
from sitekit.page import Site
from sitekit.pagecheck import faults_of

pytest_plugins = ["pytester"]
ROOT = Path(__file__).resolve().parents[2]
FRONT = """
    ---
    concept: recurrent/toy
    title: Toy
    answer: A layer that does next to nothing.
    year: 1990
    parents: []
    summary:
      what: A layer for tests.
      cost_step: One sum.
      cost_sequence: One sum a step.
      parameters: None.
      use_when: Never outside tests.
      usual_mistake: Taking it for a layer.
    ---

    # Toy

    ## The value

"""


@pytest.fixture
def site(small_site):
    shutil.copy(ROOT / "mkdocs.yml", small_site.root / "mkdocs.yml")
    small_site.data("run", {"count": 42})
    return small_site


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Good [@elman1990], {{data:run.count}}, $x^2$.", None),
        ("A link to [itself](toy.md#the-value) and [there](#the-value).", None),
        ("A link to [the books](../reference/bibliography.bib).", None),
        ("```text\n[no link](nowhere.md)\n```", None),
        ("Cited [@elmann1990].", "no entry `elmann1990`"),
        ("Counted {{data:run.cuont}}.", "has no `cuont`"),
        ("A [link](nowhere.md).", "`nowhere.md` leads to no file"),
        ("A [link](#no-value).", "the page has no `no-value`"),
        ("![A figure](lost.svg){ .twin }", "`lost.svg` leads to no file"),
        ("A formula $\\frac{1}$.", "formula"),
        ("{{questions}}", "docs/interview/questions/toy.yml does not exist"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(site, text, fault):
    path = site.write("docs/recurrent/toy.md", FRONT)
    path.write_text(path.read_text(encoding="utf-8") + text + "\n", encoding="utf-8")
    found = faults_of(path, Site(site.root))
    if fault is None:
        assert found == []
        return
    assert any(fault in each for each in found), found
    if "yml" not in fault:
        assert all(each.startswith("docs/recurrent/toy.md:20") for each in found), found


def test_what_a_list_makes_may_be_linked_and_nothing_else(site):
    path = site.write("docs/recurrent/toy.md", FRONT)
    links = "[a](#toy-why) [b](#C07) [c](#the-values)\n"
    text = path.read_text(encoding="utf-8") + "{{questions}} {{claims}}\n" + links
    path.write_text(text, encoding="utf-8")
    found = [each for each in faults_of(path, Site(site.root)) if "no `" in each]
    assert found == [
        "docs/recurrent/toy.md:21: `#the-values`: the page has no `the-values`"
    ]


def test_front_matter_is_checked(site):
    path = site.write(
        "docs/recurrent/toy.md", FRONT.replace("recurrent/toy", "ssm/toy")
    )
    assert "expected recurrent/toy" in faults_of(path, Site(site.root))[0]


def test_too_few_questions_are_told(site, monkeypatch):
    path = site.write("docs/recurrent/toy.md", FRONT)
    path.write_text(path.read_text(encoding="utf-8") + "{{questions}}\n", "utf-8")
    monkeypatch.setattr(pagecheck, "_converted", lambda *a: [])
    for count, fault in ((2, "2 questions"), (3, None), (9, "9 questions")):
        made = [None] * count
        monkeypatch.setattr(pagecheck, "read_questions", lambda *a, made=made: made)
        found = faults_of(path, Site(site.root))
        assert bool(found) is (fault is not None)
        assert not found or fault in found[0]


def test_the_item_is_there_for_a_page_that_is_named_and_for_no_other(pytester):
    pytester.makeini("[pytest]\npythonpath = .\n")
    pytester.makeconftest('pytest_plugins = ["sitekit.pagecheck"]')
    shutil.copy(ROOT / "mkdocs.yml", pytester.path / "mkdocs.yml")
    docs = pytester.mkdir("docs")
    (docs / "a.md").write_text("# A\n\n[lost](nowhere.md)\n", encoding="utf-8")
    result = pytester.runpytest("docs/a.md", "-p", "no:pageblocks.plugin")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["docs/a.md:3: `nowhere.md` leads to no file"])
    pytester.runpytest("-p", "no:pageblocks.plugin").assert_outcomes()
