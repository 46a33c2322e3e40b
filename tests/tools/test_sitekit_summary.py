r"""Front matter of concept pages: the schema, the box, the lineage map."""

import copy
import re
from pathlib import Path

import pytest
import yaml

from sitekit import lineage
from sitekit.concepts import Concept, concepts, read_concept
from sitekit.page import PageError, Site

FRONT = {
    "concept": "recurrent/lstm",
    "title": "LSTM",
    "answer": "A recurrent cell with a gated state.",
    "year": 1997,
    "parents": ["recurrent/rnn", "recurrent/not_yet"],
    "summary": {
        "what": "A cell with **two** states, see [@hochreiter1997].",
        "cost_step": "$O(D^2)$",
        "cost_sequence": "O(T D²)",
        "parameters": "{{data:run.count:,}}",
        "use_when": "State must be kept for long.",
        "usual_mistake": "To expect a forget bias.",
    },
}
RNN = FRONT | {
    "concept": "recurrent/rnn",
    "title": "RNN",
    "year": 1990,
    "parents": [],
}


@pytest.fixture
def site(small_site):
    small_site.data("run", {"count": 395264})
    write(small_site, RNN)
    return small_site


def write(site, front: dict):
    body = f"\n# {front.get('title')}\n\n**Bold.**\n\n{{{{summary}}}}\n"
    text = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    return site.write(f"docs/{front['concept']}.md", f"---\n{text}---\n{body}")


def test_the_box_shows_the_front_matter(site):
    write(site, FRONT)
    html = site.convert("recurrent/lstm.md")
    box = re.search(r'<dl class="sk-summary">.*?</dl>', html, re.DOTALL).group()
    assert box.count("<dt>") == box.count("<dd>") == 8
    assert "<strong>two</strong>" in box
    assert ">Hochreiter &amp; Schmidhuber (1997)</a>" in box
    assert "arithmatex" in box
    assert ">395,264</data>" in box
    assert "<dt>Published</dt>\n<dd>1997</dd>" in box
    assert '<a href="../recurrent/rnn.md">RNN</a>, <span>not yet</span>' in box


def test_a_page_without_parents_has_no_row_for_them(site):
    assert "Grew from" not in site.convert("recurrent/rnn.md")


def test_an_error_in_a_summary_value_names_its_line(site):
    front = copy.deepcopy(FRONT)
    front["summary"]["parameters"] = "{{data:run.kount}}"
    path = write(site, front)
    line = 1 + path.read_text().split("\n").index("  parameters: '{{data:run.kount}}'")
    with pytest.raises(PageError, match=rf"docs/recurrent/lstm\.md:{line}: "):
        site.convert("recurrent/lstm.md")


def test_summary_on_a_page_that_is_no_concept(site):
    site.write("docs/x.md", "# X\n\n{{summary}}\n")
    with pytest.raises(PageError, match=r"docs/x\.md:3: .*needs front matter"):
        site.convert("x.md")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": None}, "`answer`: None is not of type 'string'"),
        ({"year": "1997"}, "'1997' is not of type 'integer'"),
        ({"year": 19997}, "`year`: 19997 is greater"),
        ({"parents": ["LSTM!"]}, "`parents.0`: `LSTM!` does not fit"),
        ({"extra": 1}, "extra"),
        ({"concept": "recurrent/gru"}, "`concept` is recurrent/gru, expected"),
    ],
)
def test_bad_front_matter_is_refused(site, change, message):
    front = FRONT | change
    if change.get("answer", "") is None:
        front["answer"] = None
    path = write(site, FRONT)
    text = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    path.write_text(f"---\n{text}---\n")
    with pytest.raises(PageError, match=re.escape(message)) as error:
        read_concept(path, Site(site.root))
    assert re.match(r"docs/recurrent/lstm\.md:\d+: ", str(error.value))


# A page without `concept` is no concept page.
@pytest.mark.parametrize("key", [key for key in FRONT if key != "concept"])
def test_every_key_is_required(site, key):
    path = write(site, {k: v for k, v in FRONT.items() if k != key})
    with pytest.raises(PageError, match=f"'{key}' is a required property"):
        read_concept(path, Site(site.root))


def test_the_line_is_that_of_the_bad_value(site):
    front = copy.deepcopy(FRONT)
    front["summary"]["use_when"] = "short"
    path = write(site, front)
    line = 1 + path.read_text().split("\n").index("  use_when: short")
    with pytest.raises(PageError, match=rf":{line}: `summary\.use_when`: too short"):
        read_concept(path, Site(site.root))


class TestLineage:
    def test_files_are_written_whole_and_are_then_current(self, site, monkeypatch):
        write(site, FRONT)
        at = Site(site.root)
        monkeypatch.setattr(lineage, "Site", lambda: at)
        assert lineage.main(["--check"]) == 1
        assert lineage.main([]) == 0
        assert lineage.main(["--check"]) == 0
        assert lineage.stale(at) == []
        folder = at.docs / lineage.FOLDER
        assert sorted(p.name for p in folder.iterdir()) == [
            "lineage.dark.svg",
            "lineage.light.svg",
        ]

    def test_a_changed_year_makes_them_stale(self, site, monkeypatch):
        write(site, FRONT)
        at = Site(site.root)
        monkeypatch.setattr(lineage, "Site", lambda: at)
        lineage.main([])
        write(site, FRONT | {"year": 2000})
        assert len(lineage.stale(at)) == 2

    def test_the_drawing_shows_each_concept_and_each_edge(self, site):
        write(site, FRONT)
        svg = lineage.draw(concepts(Site(site.root)), "light")
        for text in ("RNN", "LSTM", "1990", "1997", "recurrent"):
            assert f">{text}</text>" in svg
        assert svg.count('class="edge"') == 1
        assert svg == lineage.draw(concepts(Site(site.root)), "light")
        assert svg != lineage.draw(concepts(Site(site.root)), "dark")

    def test_boxes_hold_their_titles_and_keep_apart(self):
        def concept(name, year, *parents, title="T"):
            return Concept(name, title, "", year, parents, {}, Path())

        found = [
            # Of the same year as its parent, and before it in the alphabet.
            concept("recurrent/a", 1990, "recurrent/b", title="A title of many words"),
            concept("recurrent/b", 1990),
            concept("recurrent/c", 1995, "recurrent/a", "recurrent/b"),
            concept("ssm/d", 2000, "recurrent/c"),
            concept("recurrent/e", 2001, "ssm/d"),
        ]
        rows, boxes, columns = lineage._layout(found)
        assert [one.stem for one in rows] == ["b", "a", "c", "d", "e"]
        x = {name: box.x for name, box in boxes.items()}
        assert x["recurrent/b"] < x["recurrent/a"] < x["recurrent/c"]
        assert x["recurrent/e"] == x["recurrent/b"]
        edges = {name: box.x + box.width for name, box in boxes.items()}
        assert max(v for n, v in edges.items() if n[0] == "r") < columns[1]
        assert x["ssm/d"] == columns[1]
        assert edges["ssm/d"] < columns[2]
        assert boxes["recurrent/a"].width > 8 * len("A title of many words")
        assert len({box.y for box in boxes.values()}) == len(found)
        # Down, then to the right; from another family down, then to the left.
        assert " H" + str(x["ssm/d"] - 4) in lineage.draw(found, "light")
        assert f" H{edges['recurrent/e'] + 4}" in lineage.draw(found, "light")

    def test_each_arrow_ends_alone_and_passes_behind_no_box(self):
        def concept(name, year, *parents):
            return Concept(name, "A title", "", year, parents, {}, Path())

        # b leads to c in its own column's way, and to e past d; a to e past all.
        found = [
            concept("recurrent/a", 1990),
            concept("recurrent/b", 1991, "recurrent/a"),
            concept("recurrent/c", 1992, "recurrent/a"),
            concept("recurrent/d", 1993, "recurrent/b", "recurrent/c", "recurrent/a"),
            concept("recurrent/e", 1994, "recurrent/b", "recurrent/c"),
            concept("ssm/f", 1995, "recurrent/b", "recurrent/c", "recurrent/e"),
        ]
        for these in (found, concepts(Site())):
            _, boxes, _ = lineage._layout(these)
            edges = lineage._edges(these, boxes)
            assert len(edges) == sum(len(one.parents) for one in these)
            assert len({(edge.stop, edge.bottom) for edge in edges}) == len(edges)
            for edge in edges:
                for box in boxes.values():
                    in_the_way = box.x <= edge.x <= box.x + box.width
                    above, below = box.y + 36 <= edge.top, edge.bottom <= box.y
                    assert not in_the_way or above or below, (edge, box)
                    # A line that leaves a side does not lie on one that ends there.
                    if edge.origin == box.x + box.width and edge.x > edge.origin:
                        assert edge.top not in {one.bottom for one in edges}

    def test_a_line_hops_over_another_that_goes_down(self):
        edge = lineage._Edge(origin=0, x=0, top=0, bottom=50, stop=100)
        down = lineage._Edge(origin=40, x=40, top=0, bottom=90, stop=60)
        short = lineage._Edge(origin=60, x=60, top=0, bottom=40, stop=90)
        path = edge.path([down, short])
        assert path == "M0 0 V44 q0 6 6 6 H35 a5 5 0 0 1 10 0 H100"
        back = lineage._Edge(origin=100, x=100, top=0, bottom=50, stop=0)
        path = back.path([down])
        assert path == "M100 0 V44 q0 6 -6 6 H45 a5 5 0 0 0 -10 0 H0"
        side = lineage._Edge(origin=0, x=80, top=30, bottom=60, stop=60)
        assert "M0 30 H35 a5 5 0 0 1 10 0 H55 a5 5" in side.path([down, short])

    def test_the_words_say_the_same(self, site):
        write(site, FRONT)
        words = lineage.alt_text(concepts(Site(site.root)))
        assert words.endswith("RNN (1990); LSTM (1997) grew from RNN.")

    def test_titles_are_escaped(self, site):
        write(site, FRONT | {"title": 'A<B & "C"'})
        svg = lineage.draw(concepts(Site(site.root)), "light")
        assert "A&lt;B &amp; &quot;C&quot; (1997)" in svg
        assert '>A&lt;B &amp; "C"</text>' in svg

    def test_a_child_older_than_its_parent_is_refused(self, site):
        write(site, FRONT | {"year": 1980})
        with pytest.raises(PageError, match=r"lstm\.md:1: .*cannot have grown from"):
            lineage.files(Site(site.root))

    def test_the_marker_shows_the_map(self, site):
        site.write("docs/index.md", "# T\n\n{{lineage}}\n")
        html = site.convert("index.md")
        assert 'src="assets/diagrams/lineage.svg"' in html
        assert 'alt="Lineage of the concepts: RNN (1990)."' in html
        assert 'class="twin"' in html


class TestCommittedPages:
    def test_every_concept_page_has_valid_front_matter(self):
        for concept in concepts(Site()):
            assert concept.year >= 1940

    def test_family_pages_are_concepts_or_indexes(self):
        site = Site()
        found = {concept.name for concept in concepts(site)}
        for family in ("recurrent", "attention", "convolution", "linear", "ssm"):
            for path in sorted((site.docs / family).glob("*.md")):
                if path.stem != "index":
                    assert f"{family}/{path.stem}" in found, path

    def test_the_committed_map_is_current(self):
        assert [path.name for path in lineage.stale(Site())] == []
