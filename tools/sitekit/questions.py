r"""`{{questions}}`: the interview questions of a concept, from their YAML file.

`docs/interview/questions/<concept>.yml` holds a list of questions, validated by
`schemas/questions.schema.json`. On the concept's page each becomes a folded block
with its `id` as anchor. The texts are Markdown; mathematics, citations and data work in
them. What a question says refutes the usual wrong answer must exist.
"""

import xml.etree.ElementTree as etree
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markdown import Markdown

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

FOLDER = "interview/questions"
CLAIMS_PAGE = "evidence/claims.md"
DIFFICULTIES = {1: "warm-up", 2: "core", 3: "hard"}


@dataclass(frozen=True)
class Question:
    """One interview question and its answers."""

    id: str
    difficulty: int
    question: str
    short: str
    full: str
    wrong: str
    refuted_by: tuple[str, ...]
    expects: str
    follow_ups: tuple[str, ...]


def questions_file(stem: str, site: Site) -> Path:
    """Where the questions of a concept stand."""
    return site.docs / FOLDER / f"{stem}.yml"


def read_questions(path: Path, site: Site) -> list[Question]:
    """Read and validate a question file; errors name file, line and id."""
    name = site.name(path)
    if not path.is_file():
        raise PageError(f"{name} does not exist")
    text = path.read_text(encoding="utf-8")
    data = load_yaml(text, name)
    validate(data, "questions", name, text)
    _check_ids(data, path.stem, name, text)
    for index, entry in enumerate(data):
        _check_texts(entry, index, name, text)
        for evidence in _evidence(entry):
            try:
                check_evidence(evidence, site)
            except EvidenceError as error:
                line = 1 + line_of(text, [index, "refuted_by"])
                raise PageError(f"{name}:{line}: `{entry['id']}`: {error}") from error
    return [
        Question(
            **{**entry, "refuted_by": _evidence(entry)}
            | {"follow_ups": tuple(entry.get("follow_ups", ()))}
        )
        for entry in data
    ]


def _evidence(entry: dict) -> tuple[str, ...]:
    value = entry["refuted_by"]
    return (value,) if isinstance(value, str) else tuple(value)


def _check_ids(data: list[dict], stem: str, name: str, text: str) -> None:
    count = Counter(entry["id"] for entry in data)
    prefix = stem.replace("_", "-") + "-"
    for index, entry in enumerate(data):
        problem = ""
        if count[entry["id"]] > 1:
            problem = "stands twice"
        elif not entry["id"].startswith(prefix):
            problem = f"must begin with `{prefix}`"
        if problem:
            line = 1 + line_of(text, [index, "id"])
            raise PageError(f"{name}:{line}: id `{entry['id']}` {problem}")


def _check_texts(entry: dict, index: int, name: str, text: str) -> None:
    for field, value in entry.items():
        if not isinstance(value, str) or "```" not in value:
            continue
        lines = [line.strip() for line in value.split("\n")]
        if any(line.startswith("```") and "py" in line for line in lines):
            line = 1 + line_of(text, [index, field])
            raise PageError(
                f"{name}:{line}: `{entry['id']}`: a Python block in `{field}` "
                "would never run; put it on the page and refer to it"
            )


class QuestionExtension(SiteExtension):
    """Renders the question file of the page's concept."""

    def register(self, md: Markdown, site: Site) -> None:
        """Register `{{questions}}`."""
        self.md, self.site = md, site
        register_marker(md, "questions", self.build)

    def build(self, parent: etree.Element) -> None:
        """Append one folded block per question to `parent`."""
        page = page_of(self.md)
        concept = page.front_matter.get("concept")
        if not isinstance(concept, str):
            where = page.find("{{questions}}")
            raise PageError(
                f"{where}: {{{{questions}}}} needs front matter with `concept`"
            )
        path = questions_file(concept.rsplit("/", 1)[-1], self.site)
        page.sources.append(path)
        for question in read_questions(path, self.site):
            self._block(parent, question)

    def _block(self, parent: etree.Element, question: Question) -> None:
        block = etree.SubElement(parent, "details")
        block.set("class", "question")
        block.set("id", question.id)
        summary = etree.SubElement(block, "summary")
        summary.text = question.question.strip() + " "
        level = etree.SubElement(summary, "span")
        level.set("class", f"sk-difficulty sk-difficulty-{question.difficulty}")
        level.text = DIFFICULTIES[question.difficulty]
        parts = etree.SubElement(block, "dl")
        parts.set("class", "sk-question")
        self._part(parts, "In 30 seconds", question.short)
        self._part(parts, "In full", question.full)
        self._part(parts, "The usual wrong answer", question.wrong)
        self._evidence(parts, question.refuted_by)
        self._part(parts, "What the interviewer expects", question.expects)
        if question.follow_ups:
            lines = [f"- {text.strip()}" for text in question.follow_ups]
            self._part(parts, "Follow-ups", "\n".join(lines))

    def _part(self, parts: etree.Element, label: str, text: str) -> None:
        etree.SubElement(parts, "dt").text = label
        value = etree.SubElement(parts, "dd")
        prepared = preprocess(self.md, text.strip())
        self.md.parser.parseChunk(value, prepared)

    def _evidence(self, parts: etree.Element, names: tuple[str, ...]) -> None:
        etree.SubElement(parts, "dt").text = "What refutes it"
        value = etree.SubElement(parts, "dd")
        for index, name in enumerate(names):
            element = self._reference(value, name)
            element.tail = ", " if index + 1 < len(names) else None

    def _reference(self, value: etree.Element, name: str) -> etree.Element:
        page = page_of(self.md)
        if name.startswith("experiment:"):
            experiment, _, claim = name.removeprefix("experiment:").partition("#")
            text = f"experiment {experiment}, claim {claim}"
            target = page.link(CLAIMS_PAGE)
            linked = (self.site.docs / CLAIMS_PAGE).is_file()
        elif "::" in name:
            code = etree.SubElement(value, "code")
            code.text = name
            return code
        else:
            uri, _, anchor = name.partition("#")
            own = uri == page.uri
            text = anchor.replace("-", " ") + ("" if own else f" ({uri})")
            target = f"#{anchor}" if own else page.link(name)
            linked = True
        element = etree.SubElement(value, "a" if linked else "span")
        element.text = text
        if linked:
            element.set("href", target)
        return element


def makeExtension(**kwargs: Any) -> QuestionExtension:
    """Entry point of Python-Markdown."""
    return QuestionExtension(**kwargs)
