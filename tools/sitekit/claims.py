r"""`{{claims}}`: the claims ledger, from `docs/evidence/claims.yml`.

On a concept page the marker shows the rows of that concept, on the ledger's own page
all rows, in the order of their numbers and below the filters. `{{claim-counts}}` counts
the rows by verdict, and `{{claim-limits}}`, on the ledger's page, lists what each
experiment does not show. The words are in the YAML file, the numbers in the records of
the experiments.

A row that names an experiment is printed only if its record supports it: every check
of the row holds there, and every negative control fails. Otherwise the build stops.
"""

import xml.etree.ElementTree as etree
from collections import Counter
from dataclasses import dataclass

from markdown import Markdown

from sitekit.claim_filters import add_counts, add_filters
from sitekit.data import DataError, load
from sitekit.evidence import EvidenceError, check_evidence
from sitekit.marker import register_marker
from sitekit.page import (
    PageError,
    Site,
    SiteExtension,
    load_yaml,
    page_of,
    preprocess,
)
from sitekit.validate import line_of, validate

FILE = "evidence/claims.yml"
PAGE = "evidence/claims.md"


@dataclass(frozen=True)
class Row:
    """One row of the ledger."""

    id: str
    said: str
    verdict: str
    finding: str
    concepts: tuple[str, ...]
    page: str
    sources: tuple[str, ...] = ()
    experiment: str = ""
    test: str = ""


@dataclass(frozen=True)
class Ledger:
    """All rows, and the limits of each experiment."""

    rows: tuple[Row, ...]
    limits: dict[str, str]


def read_ledger(site: Site) -> Ledger:
    """Read and validate the ledger; errors name the file, the line and the row."""
    path = site.docs / FILE
    name = site.name(path)
    if not path.is_file():
        raise PageError(f"{name} does not exist")
    text = path.read_text(encoding="utf-8")
    data = load_yaml(text, name)
    validate(data, "claims", name, text)
    count = Counter(entry["id"] for entry in data["claims"])
    rows = []
    for index, entry in enumerate(data["claims"]):
        place = f"{name}:{1 + line_of(text, ['claims', index])}: `{entry['id']}`"
        if count[entry["id"]] > 1:
            raise PageError(f"{place} stands twice")
        lists = {k: tuple(entry.get(k, ())) for k in ("concepts", "sources")}
        row = Row(**{**entry, **lists})
        _check_row(row, data["experiments"], place, site)
        rows.append(row)
    unused = set(data["experiments"]) - {row.experiment for row in rows}
    if unused:
        raise PageError(f"{name}: no row uses the experiments {sorted(unused)}")
    rows.sort(key=lambda row: int(row.id[1:]))
    return Ledger(tuple(rows), data["experiments"])


def _check_row(row: Row, limits: dict[str, str], place: str, site: Site) -> None:
    try:
        if not (site.docs / row.page.partition("#")[0]).is_file():
            raise EvidenceError(f"page {row.page} does not exist")
        if "#" in row.page:
            check_evidence(row.page, site)
        for concept in row.concepts:
            if not (site.docs / f"{concept}.md").is_file():
                raise EvidenceError(f"concept {concept} has no page")
        if row.experiment:
            check_evidence(row.test, site)
            _check_record(row, site)
            if row.experiment not in limits:
                raise EvidenceError(
                    f"`experiments` says nothing on the limits of {row.experiment}"
                )
    except (EvidenceError, DataError) as error:
        raise PageError(f"{place}: {error}") from error


def checks_of(row: Row, site: Site) -> dict[str, dict]:
    """The checks of a row in the record of its experiment: `C14`, `C14.default`."""
    claims = load(site, row.experiment).get("claims", {})
    return {k: v for k, v in claims.items() if k.partition(".")[0] == row.id}


def _check_record(row: Row, site: Site) -> None:
    checks = checks_of(row, site)
    if not checks:
        raise EvidenceError(f"the record of {row.experiment} has no check of this row")
    for identifier, check in checks.items():
        if not check["holds"]:
            raise EvidenceError(f"the record says that {identifier} does not hold")
        if check["control_holds"]:
            raise EvidenceError(f"the negative control of {identifier} holds too")


class ClaimsExtension(SiteExtension):
    """Renders the ledger or a concept's part of it."""

    def register(self, md: Markdown, site: Site) -> None:
        """Register the markers."""
        self.md, self.site = md, site
        register_marker(md, "claims", self.build)
        register_marker(md, "claim-counts", self.build_counts)
        register_marker(md, "claim-limits", self.build_limits)

    def _ledger(self, marker: str) -> Ledger:
        page = page_of(self.md)
        ledger = read_ledger(self.site)
        page.sources.append(self.site.docs / FILE)
        if page.uri != PAGE and "concept" not in page.front_matter:
            raise PageError(
                f"{page.find(marker)}: {marker} belongs on {PAGE} or on a page whose "
                "front matter has `concept`"
            )
        return ledger

    def build(self, parent: etree.Element) -> None:
        """Append the rows that this page shows, as a list of descriptions."""
        page = page_of(self.md)
        ledger = self._ledger("{{claims}}")
        whole = page.uri == PAGE
        concept = page.front_matter.get("concept")
        rows = [row for row in ledger.rows if whole or concept in row.concepts]
        if not rows:
            where = page.find("{{claims}}")
            raise PageError(f"{where}: no row of {FILE} names the concept {concept}")
        if whole:
            verdicts = [row.verdict for row in rows]
            add_filters(parent, verdicts, [row.concepts for row in rows], self.site)
        box = etree.SubElement(parent, "dl")
        box.set("class", "sk-claims")
        for row in rows:
            self._row(etree.SubElement(box, "div"), row, whole)

    def _row(self, box: etree.Element, row: Row, whole: bool) -> None:
        term = etree.SubElement(box, "dt")
        name = etree.SubElement(term, "a")
        name.set("class", "sk-claim-id")
        name.set("href", self._on_ledger(row.id))
        name.text = row.id
        name.tail = " "
        if whole:
            box.set("id", row.id)
            box.set("data-verdict", row.verdict)
            box.set("data-concepts", " ".join(row.concepts))
        self._text(etree.SubElement(term, "span"), row.said)
        term[-1].tail = " "
        verdict = etree.SubElement(term, "strong")
        verdict.set("class", f"sk-verdict sk-verdict-{row.verdict}")
        verdict.text = row.verdict
        sources = "; ".join(row.sources)
        finding = row.finding.strip() + (f" [{sources}]" if sources else "")
        self._text(etree.SubElement(box, "dd"), finding)
        self._evidence(etree.SubElement(box, "dd"), row)

    def _on_ledger(self, anchor: str) -> str:
        page = page_of(self.md)
        return f"#{anchor}" if page.uri == PAGE else page.link(f"{PAGE}#{anchor}")

    def _text(self, parent: etree.Element, text: str) -> None:
        parent.text = preprocess(self.md, " ".join(text.split()))

    def _evidence(self, line: etree.Element, row: Row) -> None:
        page = page_of(self.md)
        line.set("class", "sk-evidence")
        if row.experiment:
            _labelled(line, "Experiment ", "code", row.experiment)
            limits = _labelled(line, "", "a", "limits")
            limits.set("href", self._on_ledger(_limits_id(row.experiment)))
        else:
            etree.SubElement(line, "span").text = "Primary source"
        if row.page.partition("#")[0] != page.uri:
            link = _labelled(line, "page ", "a", row.page.replace(".md", ""))
            link.set("href", page.link(row.page))
        if row.test:
            _labelled(line, "test ", "code", row.test.removeprefix("tests/"))
        for part in list(line)[:-1]:
            part.tail = " · "

    def build_counts(self, parent: etree.Element) -> None:
        """Append the number of rows by verdict."""
        ledger = self._ledger("{{claim-counts}}")
        add_counts(parent, (row.verdict for row in ledger.rows))

    def build_limits(self, parent: etree.Element) -> None:
        """Append what each experiment does not show."""
        ledger = self._ledger("{{claim-limits}}")
        box = etree.SubElement(parent, "dl")
        box.set("class", "sk-limits")
        for name, text in ledger.limits.items():
            term = etree.SubElement(box, "dt")
            term.set("id", _limits_id(name))
            etree.SubElement(term, "code").text = name
            self._text(etree.SubElement(box, "dd"), text)


def _limits_id(experiment: str) -> str:
    return f"limits-{experiment}"


def _labelled(line: etree.Element, label: str, tag: str, text: str) -> etree.Element:
    part = etree.SubElement(line, "span")
    part.text = label
    element = etree.SubElement(part, tag)
    element.text = text
    return element


def makeExtension(**kwargs: object) -> ClaimsExtension:
    """Entry point of Python-Markdown."""
    return ClaimsExtension(**kwargs)
