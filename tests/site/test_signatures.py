"""Signatures of the API entries are broken into lines that fit beside a copy button."""

import re

import pytest

bs4 = pytest.importorskip("bs4", reason="needs the package beautifulsoup4")

LONGEST = 85


def signatures(html: str) -> list[str]:
    """The text of each signature of a page."""
    only = bs4.SoupStrainer("div", attrs={"class": re.compile("doc-signature")})
    soup = bs4.BeautifulSoup(html, "html.parser", parse_only=only)
    return [block.get_text() for block in soup.select(".doc-signature pre > code")]


def too_long(html: str) -> list[str]:
    """Lines of signatures that a reader must scroll sideways to read."""
    lines = [line for text in signatures(html) for line in text.splitlines()]
    return [line for line in lines if len(line) > LONGEST]


def test_no_line_of_a_signature_is_too_long(site, page_path):
    assert too_long((site / page_path).read_text(encoding="utf-8")) == []


def test_signatures_are_found(site):
    html = (site / "recurrent" / "lstm.html").read_text(encoding="utf-8")
    texts = signatures(html)
    assert len(texts) > 3
    assert any(text.startswith("LSTM(\n") for text in texts)


def test_the_check_sees_a_long_line():
    code = f"f({', '.join(f'argument_{i}: int' for i in range(9))})"
    block = '<div class="doc-signature highlight"><pre><span></span><code>'
    assert too_long(f"{block}{code}</code></pre></div>") == [code]
