r"""Interview questions: the schema, what refutes them, the folded blocks."""

import copy
import re

import pytest
import yaml

from sitekit.concepts import concepts
from sitekit.evidence import EvidenceError, anchors, check_evidence
from sitekit.page import PageError, Site
from sitekit.questions import FOLDER, questions_file, read_questions

QUESTION = {
    "id": "lstm-forget-bias",
    "difficulty": 2,
    "question": "What does a forget bias of $1$ give?",
    "short": "It gives $\\sigma(1)$, see [@hochreiter1997].\n",
    "full": "The product over steps decays.\n\n- one {{data:run.count}}\n- two\n\n"
    "```text\nf = 0.731\n```\n\nAnd after it.\n",
    "wrong": "Gates start near one.",
    "refuted_by": ["tests/test_x.py::test_bias", "experiment:lag#C31.bias"],
    "expects": "The number, and what it means over a hundred steps.",
    "follow_ups": ["What of a bias of *five*?", "What does torch set?"],
}


@pytest.fixture
def site(small_site):
    small_site.data("run", {"count": 42})
    small_site.write("tests/test_x.py", "def test_bias():\n    assert 1\n")
    small_site.write(
        "experiments/gradients/lag.py", 'claims = [Claim(id="C31.bias")]\n'
    )
    small_site.write(
        "docs/recurrent/lstm.md",
        "---\nconcept: recurrent/lstm\n---\n\n# LSTM\n\n## The *short* answer\n\n"
        "```text\n## Not a heading\n```\n\n## Named { #own-name }\n\n{{questions}}\n",
    )
    return small_site


def write(site, *questions: dict):
    text = yaml.safe_dump(list(questions), sort_keys=False, allow_unicode=True)
    return site.write(f"docs/{FOLDER}/lstm.yml", text)


def read(site, *questions: dict):
    return read_questions(write(site, *questions), Site(site.root))


def test_a_question_becomes_a_folded_block(site):
    write(site, QUESTION)
    html = site.convert("recurrent/lstm.md")
    block = re.search(r"<details.*</details>", html, re.DOTALL).group()
    assert block.startswith('<details class="question" id="lstm-forget-bias">')
    assert "arithmatex" in re.search(r"<summary>.*?</summary>", block).group()
    assert ">core</span></summary>" in block
    labels = re.findall(r"<dt>(.*?)</dt>", block)
    assert labels == [
        "In 30 seconds",
        "In full",
        "The usual wrong answer",
        "What refutes it",
        "What the interviewer expects",
        "Follow-ups",
    ]
    assert ">Hochreiter &amp; Schmidhuber (1997)</a>" in block
    assert ">42</data></li>" in block
    assert "f = 0.731" in block
    assert "```" not in block
    assert "<p>And after it.</p>" in block
    assert "<code>tests/test_x.py::test_bias</code>" in block
    assert "experiment lag, claim C31.bias" in block
    assert "<em>five</em>" in block


def test_what_a_question_cites_is_a_reference_of_the_page(site):
    write(site, QUESTION)
    page = site.root / "docs/recurrent/lstm.md"
    page.write_text(page.read_text() + "\n{{references}}\n")
    assert "Long short-term memory" in site.convert("recurrent/lstm.md")


def test_evidence_on_a_page_is_linked(site):
    site.write("docs/evidence/claims.md", "# Claims\n")
    question = QUESTION | {
        "refuted_by": ["recurrent/lstm.md#own-name", "experiment:lag#C31.bias"]
    }
    write(site, question)
    html = site.convert("recurrent/lstm.md")
    assert '<a href="#own-name">own name</a>' in html
    assert '<a href="../evidence/claims.md">experiment lag, claim C31.bias</a>' in html


@pytest.mark.parametrize(
    ("token", "field"),
    [("{{data:run.kount}}", "full"), ("[@nobody]", "wrong"), ("{{what}}", "expects")],
)
def test_errors_in_texts_name_the_yaml_line(site, token, field):
    path = write(
        site, QUESTION | {field: f"A long enough text with {token} in it." * 2}
    )
    lines = path.read_text().split("\n")
    line = 1 + next(i for i, text in enumerate(lines) if token in text)
    with pytest.raises(PageError) as error:
        site.convert("recurrent/lstm.md")
    assert str(error.value).startswith(f"docs/interview/questions/lstm.yml:{line}: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "Forget Bias"}, "`Forget Bias` does not fit"),
        ({"id": "gru-forget-bias"}, "must begin with `lstm-`"),
        ({"difficulty": 4}, "`difficulty`: 4 is not one of [1, 2, 3]"),
        ({"short": "No."}, "`short`: too short"),
        ({"wrong": 7}, "`wrong`: 7 is not of type 'string'"),
        ({"refuted_by": "common sense"}, "`common sense` does not fit: tests/x.py::"),
        ({"refuted_by": []}, "`refuted_by`"),
        ({"follow_ups": []}, "`follow_ups`"),
        ({"extra": 1}, "extra"),
        ({"refuted_by": "tests/test_y.py::test_a"}, "tests/test_y.py does not exist"),
        ({"refuted_by": "tests/test_x.py::test_a"}, "has no test `test_a`"),
        ({"refuted_by": "experiment:lag#C99"}, "has no claim `C99`"),
        ({"refuted_by": "experiment:no#C1"}, "experiment no does not exist"),
        ({"refuted_by": "recurrent/no.md#a"}, "page recurrent/no.md does not exist"),
        ({"refuted_by": "recurrent/lstm.md#a"}, "has no anchor `a`"),
        ({"full": "Long enough a text here.\n\n```python\nx\n```\n"}, "Python block"),
    ],
)
def test_errors_name_file_line_and_id(site, change, message):
    second = copy.deepcopy(QUESTION) | {"id": "lstm-second"} | change
    with pytest.raises(PageError) as error:
        read(site, QUESTION, second)
    place, _, said = str(error.value).partition(": ")
    assert message in said
    assert f"`{second['id']}`" in said
    line = int(place.removeprefix("docs/interview/questions/lstm.yml:"))
    lines = (site.root / f"docs/{FOLDER}/lstm.yml").read_text().split("\n")
    second_begins = 1 + lines.index(f"- id: {second['id']}")
    assert line >= second_begins


@pytest.mark.parametrize("field", [k for k in QUESTION if k != "follow_ups"])
def test_every_field_but_one_is_required(site, field):
    with pytest.raises(PageError, match=f"'{field}' is a required property"):
        read(site, {k: v for k, v in QUESTION.items() if k != field})


def test_follow_ups_may_be_left_out(site):
    (question,) = read(site, {k: v for k, v in QUESTION.items() if k != "follow_ups"})
    assert question.follow_ups == ()


def test_an_id_stands_once(site):
    with pytest.raises(PageError, match=r"lstm\.yml:1: id `lstm-forget-bias` stands"):
        read(site, QUESTION, copy.deepcopy(QUESTION))


def test_a_missing_file_and_a_page_without_concept(site):
    with pytest.raises(PageError, match=r"questions/lstm\.yml does not exist"):
        site.convert("recurrent/lstm.md")
    site.write("docs/x.md", "# X\n\n{{questions}}\n")
    with pytest.raises(PageError, match=r"docs/x\.md:3: .*needs front matter"):
        site.convert("x.md")


def test_anchors_of_a_page(site):
    found = anchors(site.root / "docs/recurrent/lstm.md")
    assert {"the-short-answer", "own-name"} <= found
    assert "not-a-heading" not in found


def test_a_helper_is_no_test(site):
    site.write("tests/test_x.py", "def helper():\n    pass\n")
    with pytest.raises(EvidenceError, match="no test `helper`"):
        check_evidence("tests/test_x.py::helper", Site(site.root))


class TestCommittedQuestions:
    def test_every_file_is_valid_and_has_a_page(self):
        site = Site()
        stems = {concept.stem for concept in concepts(site)}
        for path in sorted((site.docs / FOLDER).glob("*")):
            assert path.suffix == ".yml", path
            assert path.stem in stems, f"{path.name} belongs to no concept page"
            assert read_questions(path, site)

    def test_every_concept_page_has_three_to_eight_questions(self):
        site = Site()
        for concept in concepts(site):
            questions = read_questions(questions_file(concept.stem, site), site)
            assert 3 <= len(questions) <= 8, concept.name
            text = concept.path.read_text(encoding="utf-8")
            assert "\n{{questions}}\n" in text, concept.name

    def test_ids_are_unique_over_all_files(self):
        site = Site()
        ids = [
            question.id
            for path in sorted((site.docs / FOLDER).glob("*.yml"))
            for question in read_questions(path, site)
        ]
        assert len(ids) == len(set(ids))
