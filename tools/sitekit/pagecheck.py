r"""pytest plugin: a page that is named is checked as the site's build would check it.

`pytest docs/recurrent/lstm.md` runs the blocks of the page, and one item more, `site`:
front matter, citations, numbers, figures, formulas, questions and links. In a run of
the whole suite there is no such item, since the build of the site does the same.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import markdown
import pytest
import yaml

from sitekit.concepts import read_concept
from sitekit.evidence import anchors
from sitekit.page import PageError, Site, split_front_matter
from sitekit.questions import questions_file, read_questions

QUESTIONS = (3, 8)
_FENCED = re.compile(r"^( *)(```+|~~~+).*?^\1\2", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
_IMAGE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")
_REFERENCE = re.compile(r"^::: +(\S+)", re.MULTILINE)


def faults_of(path: Path, site: Site) -> list[str]:
    """What is wrong with a page, each with file and line."""
    text = path.read_text(encoding="utf-8")
    problems: list[str] = []
    for check in (_front_matter, _converted, _questions, _links):
        try:
            problems += check(path, text, site)
        except PageError as error:
            problems += str(error).split("\n")
    return list(dict.fromkeys(problems))


def _front_matter(path: Path, text: str, site: Site) -> list[str]:
    if "concept" in split_front_matter(text, site.name(path))[0]:
        read_concept(path, site)
    return []


def _converted(path: Path, text: str, site: Site) -> list[str]:
    _converter(site).reset().convert(split_front_matter(text, site.name(path))[1])
    return []


def _questions(path: Path, text: str, site: Site) -> list[str]:
    if "{{questions}}" not in text:
        return []
    file = questions_file(read_concept(path, site).stem, site)
    count, (least, most) = len(read_questions(file, site)), QUESTIONS
    if least <= count <= most:
        return []
    name = site.name(file)
    return [f"{name}:1: {count} questions, where {least} to {most} are wanted"]


def _links(path: Path, text: str, site: Site) -> list[str]:
    body = _FENCED.sub(lambda match: "\n" * match.group().count("\n"), text)
    problems = []
    for pattern in (_LINK, _IMAGE):
        for match in pattern.finditer(body):
            problem = _problem(match.group(1), path)
            if problem:
                line = body[: match.start()].count("\n") + 1
                problems.append(f"{site.name(path)}:{line}: {problem}")
    return problems


def _problem(target: str, path: Path) -> str:
    """What is wrong with a link; nothing where it leads outside."""
    if re.match(r"[a-z]+:|/|\{\{", target):
        return ""
    name, _, anchor = target.partition("#")
    name = name.partition("?")[0]
    page = path.parent / name if name else path
    # A figure has two drawings, and one name.
    drawn = page.with_name(page.name.removesuffix(".svg") + ".light.svg")
    if not page.is_file() and not drawn.is_file():
        return f"`{target}` leads to no file"
    if anchor and page.suffix == ".md" and not _has_anchor(page, anchor):
        return f"`{target}`: the page has no `{anchor}`"
    return ""


def _has_anchor(page: Path, anchor: str) -> bool:
    text = page.read_text(encoding="utf-8")
    if anchor in anchors(page):
        return True
    # What extensions make: objects of the reference, entries of lists of data.
    made = any(anchor.startswith(name) for name in _REFERENCE.findall(text))
    lists = {
        "{{claims}}": r"C\d+",
        "{{claim-limits}}": r"limits-.+",
        "{{questions}}": rf"{page.stem.replace('_', '-')}-.+",
        "{{bibliography}}": ".+",
        "{{glossary}}": ".+",
    }
    return made or any(
        marker in text and re.fullmatch(pattern, anchor)
        for marker, pattern in lists.items()
    )


class _Reader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose `!ENV` and `!!python/...` mean nothing here."""


_Reader.add_multi_constructor("", lambda loader, suffix, node: None)


@cache
def _converter(site: Site) -> markdown.Markdown:
    """The converter that MkDocs would make, but for the reference of the package."""
    settings = yaml.load(
        (site.root / "mkdocs.yml").read_text(encoding="utf-8"), _Reader
    )
    names: list[str] = []
    configs: dict[str, Any] = {}
    for entry in settings["markdown_extensions"]:
        name, config = (
            (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))
        )
        names.append(name)
        configs[name] = dict(config or {})
        if name.startswith("sitekit."):
            configs[name]["root"] = str(site.root)
        if name == "pymdownx.snippets":
            configs[name]["base_path"] = [str(site.root)]
    return markdown.Markdown(extensions=names, extension_configs=configs)


class SiteItem(pytest.Item):
    """All that the build would say of one page."""

    def runtest(self) -> None:
        faults = faults_of(self.path, Site(self.config.rootpath))
        if faults:
            raise PageError("\n".join(faults))

    def repr_failure(self, excinfo: pytest.ExceptionInfo, style: Any = None) -> Any:
        if isinstance(excinfo.value, PageError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, f"{self.path.name} on the site"


class SiteFile(pytest.File):
    """The one item of a page."""

    def collect(self) -> Iterator[pytest.Item]:
        yield SiteItem.from_parent(self, name="site")


def pytest_collect_file(
    file_path: Path, parent: pytest.Collector
) -> pytest.Collector | None:
    docs = parent.config.rootpath / "docs"
    named = parent.session.isinitpath(file_path)
    if file_path.suffix == ".md" and named and file_path.is_relative_to(docs):
        return SiteFile.from_parent(parent, path=file_path)
    return None
