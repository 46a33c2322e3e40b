"""`{{claims}}`: the ledger is rendered from words and records, or not at all."""

import json
import re

import markdown
import pytest
import yaml
from bs4 import BeautifulSoup

from sitekit.claims import checks_of, read_ledger
from sitekit.page import PageError, Site

LEDGER = """
    experiments:
      toy: >-
        One width, and inputs without any structure in time, at initialisation.
    claims:
      - id: C01
        said: It is said that the value is large.
        verdict: imprecise
        finding: It is {{data:toy.numbers.value:.1f}}, and $x^2$ is not **it**.
        sources: ["@elman1990, eq. 2"]
        experiment: toy
        test: tests/test_toy.py::test_value
        concepts: [recurrent/toy]
        page: recurrent/toy.md#the-value
      - id: C02
        said: It is said that somebody was first.
        verdict: wrong
        finding: Somebody else was, and earlier.
        sources: ["@hochreiter1997"]
        concepts: []
        page: recurrent/toy.md
"""
RECORD = {
    "numbers": {"value": 2.25},
    "claims": {
        "C01.large": {"holds": True, "control_holds": False},
        "C010.other": {"holds": False, "control_holds": True},
    },
}
PAGE = """
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

    {{claims}}
"""


@pytest.fixture
def site(small_site):
    small_site.write("docs/evidence/claims.yml", LEDGER)
    small_site.write(
        "docs/evidence/claims.md",
        "# L\n\n{{claim-counts}}\n\n{{claims}}\n\n{{claim-limits}}\n",
    )
    small_site.write("docs/recurrent/toy.md", PAGE)
    small_site.write("tests/test_toy.py", "def test_value():\n    assert 2 > 1\n")
    small_site.data("toy", RECORD)
    return small_site


def convert(site, name):
    from sitekit.page import split_front_matter

    names = ("claims", "citations", "data")
    ours = {f"sitekit.{each}": {"root": str(site.root)} for each in names}
    settings = {"pymdownx.arithmatex": {"generic": True}}
    md = markdown.Markdown(
        extensions=["toc", "tables", "pymdownx.arithmatex", *ours],
        extension_configs={**settings, **ours},
    )
    text = (site.root / "docs" / name).read_text(encoding="utf-8")
    html = md.convert(split_front_matter(text, name)[1])
    return BeautifulSoup(html, "html.parser")


def change(site, old, new):
    path = site.root / "docs/evidence/claims.yml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def read(site):
    return read_ledger(Site(site.root))


def test_ledger_page_shows_every_row(site):
    soup = convert(site, "evidence/claims.md")
    rows = soup.select("dl.sk-claims > div")
    assert [row["id"] for row in rows] == ["C01", "C02"]
    first, second = rows
    assert first.dt.select_one(".sk-verdict-imprecise").text == "imprecise"
    assert "the value is large" in first.dt.text
    finding, evidence = first.find_all("dd")
    # 2.25 to one digit, halves to even as Python rounds.
    assert "It is 2.2" in finding.text
    assert finding.select_one(".arithmatex") is not None
    assert finding.select_one("strong").text == "it"
    citation = finding.select_one("a.citation")
    assert citation["href"] == "../reference/bibliography.md#elman1990"
    assert "eq. 2" in finding.text
    limits, page = evidence.find_all("a")
    assert limits["href"] == "#" + soup.select_one("dl.sk-limits dt")["id"]
    assert page["href"] == "../recurrent/toy.md#the-value"
    assert page.text == "recurrent/toy#the-value"
    assert [code.text for code in evidence.select("code")] == [
        "toy",
        "test_toy.py::test_value",
    ]
    assert second.find_all("dd")[1].text.startswith("Primary source · page ")


def test_rows_come_in_the_order_of_their_numbers(site):
    change(site, "id: C01", "id: C109")
    site.data("toy", {**RECORD, "claims": {"C109": RECORD["claims"]["C01.large"]}})
    assert [row.id for row in read(site).rows] == ["C02", "C109"]


def test_ledger_page_counts_its_rows(site):
    table = convert(site, "evidence/claims.md").find("table")
    assert [cell.text for cell in table.select("th")] == [
        *("correct", "imprecise", "depends", "wrong", "all")
    ]
    assert [cell.text for cell in table.select("td")] == ["0", "1", "0", "1", "2"]


def test_ledger_page_has_filters_that_a_script_shows(site):
    soup = convert(site, "evidence/claims.md")
    (form,) = soup.select("form.sk-claims-filter")
    assert form.has_attr("hidden")
    choices = {
        select["name"]: [(o["value"], o.text) for o in select.select("option")]
        for select in form.select("label > select")
    }
    assert choices == {
        "concept": [("", "all"), ("recurrent/toy", "Toy (1)")],
        "verdict": [
            ("", "all"),
            ("imprecise", "imprecise (1)"),
            ("wrong", "wrong (1)"),
        ],
    }
    assert form.output.text == "2 of 2 claims"
    rows = soup.select("dl.sk-claims > div")
    assert [row["data-verdict"] for row in rows] == ["imprecise", "wrong"]
    assert [row["data-concepts"] for row in rows] == ["recurrent/toy", ""]


def test_ledger_page_says_what_is_not_shown(site):
    limits = convert(site, "evidence/claims.md").select_one("dl.sk-limits")
    assert limits.dt.text == "toy"
    assert "One width" in limits.dd.text


def test_concept_page_shows_its_rows_and_links_the_ledger(site):
    soup = convert(site, "recurrent/toy.md")
    rows = soup.select("dl.sk-claims > div")
    assert len(rows) == 1
    assert rows[0].dt.a["href"] == "../evidence/claims.md#C01"
    assert not rows[0].has_attr("id")
    assert not soup.select("form")
    # The page does not link itself.
    (limits,) = rows[0].find_all("dd")[1].find_all("a")
    assert limits["href"] == "../evidence/claims.md#limits-toy"


def test_checks_of_a_row_are_those_of_its_id_alone(site):
    row = read(site).rows[0]
    assert list(checks_of(row, Site(site.root))) == ["C01.large"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("holds", False, "the record says that C01.large does not hold"),
        ("control_holds", True, "the negative control of C01.large holds too"),
    ],
)
def test_a_row_that_its_record_does_not_support_stops_the_build(
    site, key, value, message
):
    record = json.loads(json.dumps(RECORD))
    record["claims"]["C01.large"][key] = value
    site.data("toy", record)
    with pytest.raises(PageError, match=rf"claims.yml:5: `C01`: {message}"):
        convert(site, "evidence/claims.md")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("experiment: toy", "experiment: joy", r"no file docs/_data/joy.json"),
        ("::test_value", "::test_nothing", r"has no test `test_nothing`"),
        ("tests/test_toy.py", "tests/test_joy.py", r"tests/test_joy.py does not exist"),
        ("toy.md#the-value", "joy.md", r"page recurrent/joy.md does not exist"),
        ("#the-value", "#a-value", r"has no anchor `a-value`"),
        ("[recurrent/toy]", "[recurrent/joy]", r"recurrent/joy has no page"),
        ("id: C02", "id: C01", r"`C01` stands twice"),
        ("imprecise", "maybe", r"'maybe' is not one of"),
        ("id: C02", "id: X02", r"`X02` does not fit"),
        ('sources: ["@hochreiter1997"]\n', "", r"claims.yml:\d+: "),
        ("test: tests/test_toy.py::test_value\n", "", r"claims.yml:\d+: "),
    ],
)
def test_a_wrong_row_is_refused_with_file_and_line(site, old, new, message):
    change(site, old, new)
    with pytest.raises(PageError, match=message) as caught:
        read(site)
    assert re.match(r"docs/evidence/claims.yml:\d+: ", str(caught.value))


def test_limits_are_told_for_each_experiment_and_no_other(site):
    change(site, "  toy: >-", "  joy: >-")
    with pytest.raises(PageError, match="says nothing on the limits of toy"):
        read(site)


def test_unused_limits_are_refused(site):
    addition = (
        "  joy: Limits of an experiment that no row of the ledger names.\nclaims:"
    )
    change(site, "claims:\n  - id: C01", addition + "\n  - id: C01")
    with pytest.raises(PageError, match=r"no row uses the experiments .'joy'."):
        read(site)


def test_a_concept_without_rows_says_so(site):
    change(site, "[recurrent/toy]", "[]")
    with pytest.raises(PageError, match=r"toy.md:20: no row of .* names the concept"):
        convert(site, "recurrent/toy.md")


def test_the_marker_belongs_to_the_ledger_or_to_a_concept(site):
    site.write("docs/other.md", "# Other\n\n{{claims}}\n")
    with pytest.raises(PageError, match=r"docs/other.md:3: .* belongs on"):
        convert(site, "other.md")


def test_the_committed_ledger_stands():
    rows = read_ledger(Site()).rows
    assert {"C01", "C14", "C28", "C29", "C31", "C38"} <= {row.id for row in rows}


def test_rows_name_a_passage_and_a_test_of_their_experiment():
    site = Site()
    for row in read_ledger(site).rows:
        assert "#" in row.page, f"{row.id}: which passage of {row.page}?"
        if row.experiment:
            file = row.test.partition("::")[0]
            text = (site.root / file).read_text(encoding="utf-8")
            of_the_package = file.startswith("tests/recurrent/")
            # These judge every record that there is, and every small run.
            record = site.docs / "_data" / f"{row.experiment}.json"
            everything = ("tests/test_numbers.py", "tests/experiments/test_all.py")
            of_all = file in everything and record.is_file()
            assert of_the_package or of_all or row.experiment in text, row.id


def test_every_measured_claim_has_a_row():
    site = Site()
    rows = {row.id: row for row in read_ledger(site).rows}
    for path in sorted((site.docs / "_data").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        for identifier in record.get("claims", {}):
            row = identifier.partition(".")[0]
            if re.fullmatch(r"C\d+", row):
                assert row in rows, f"{identifier} of {path.name} has no row"
                assert rows[row].experiment == path.stem


def test_every_source_is_in_the_bibliography():
    text = (Site().docs / "reference/bibliography.bib").read_text(encoding="utf-8")
    keys = set(re.findall(r"^@\w+\{([\w-]+),", text, re.MULTILINE))
    for row in read_ledger(Site()).rows:
        for source in row.sources:
            assert source[1:].partition(",")[0] in keys, source


def test_the_ledger_has_no_number_typed_by_hand():
    # A finding with an experiment quotes at least one number of its record, or is
    # about equality alone.
    path = Site().docs / "evidence/claims.yml"
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    for entry in data["claims"]:
        if entry.get("experiment") and entry["verdict"] in ("wrong", "imprecise"):
            marker = "{{data:" + entry["experiment"] + "."
            assert marker in entry["finding"], entry["id"]
