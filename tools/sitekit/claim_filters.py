r"""What stands above the rows of the ledger: their number by verdict, and the filters.

The form holds its choices and counts as plain HTML, and stays hidden where no script
runs: `docs/assets/js/claims.js` shows it and hides the rows that were not asked for.
"""

import xml.etree.ElementTree as etree
from collections import Counter
from collections.abc import Iterable, Sequence

from sitekit.concepts import title_of
from sitekit.page import Site

VERDICTS = ("correct", "imprecise", "depends", "wrong")


def add_counts(parent: etree.Element, verdicts: Iterable[str]) -> None:
    """Append a table: rows of the ledger by verdict."""
    count = Counter(verdicts)
    table = etree.SubElement(parent, "table")
    head = etree.SubElement(etree.SubElement(table, "thead"), "tr")
    body = etree.SubElement(etree.SubElement(table, "tbody"), "tr")
    for name in VERDICTS:
        etree.SubElement(head, "th").text = name
        etree.SubElement(body, "td").text = str(count[name])
    etree.SubElement(head, "th").text = "all"
    etree.SubElement(body, "td").text = str(sum(count.values()))


def add_filters(
    parent: etree.Element,
    verdicts: Sequence[str],
    concepts: Sequence[Sequence[str]],
    site: Site,
) -> None:
    """Append the form that filters by concept and verdict; one entry a row each."""
    form = etree.SubElement(parent, "form")
    form.set("class", "sk-claims-filter")
    form.set("hidden", "hidden")
    by_concept = Counter(name for names in concepts for name in names)
    titles = {name: _capital(title_of(name, site)[0]) for name in by_concept}
    ordered = sorted(by_concept, key=lambda name: titles[name].casefold())
    _select(form, "concept", [(n, titles[n], by_concept[n]) for n in ordered])
    by_verdict = Counter(verdicts)
    _select(form, "verdict", [(n, n, by_verdict[n]) for n in VERDICTS if by_verdict[n]])
    shown = etree.SubElement(form, "output")
    shown.text = f"{len(verdicts)} of {len(verdicts)} claims"


def _select(form: etree.Element, name: str, choices: list[tuple]) -> None:
    label = etree.SubElement(form, "label")
    label.text = name.capitalize() + " "
    select = etree.SubElement(label, "select")
    select.set("name", name)
    every = etree.SubElement(select, "option")
    every.set("value", "")
    every.text = "all"
    for value, text, number in choices:
        option = etree.SubElement(select, "option")
        option.set("value", value)
        option.text = f"{text} ({number})"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
