r"""Citations resolve, and the lists show what is cited."""

import re
import unicodedata

import pytest

from sitekit.bibliography import (
    FURTHER_READING,
    bibliography,
    cited_keys,
    citing_pages,
    split_citation,
)
from sitekit.page import PageError, Site


def converted(site, text: str, name: str = "a/b.md") -> str:
    site.write(f"docs/{name}", text)
    return site.convert(name)


def test_a_citation_reads_author_and_year_and_links_the_entry(small_site):
    html = converted(
        small_site, "See [@hochreiter1997, eq. 7] and [@elman1990; @three2000, p. 3].\n"
    )
    page = "../reference/bibliography.md"
    assert (
        f'<a class="citation" href="{page}#hochreiter1997">Hochreiter &amp; '
        "Schmidhuber (1997)</a>, eq. 7</span>"
    ) in html
    assert ">Elman (1990)</a>; <a" in html
    assert ">van Merriënboer et al. (2000)</a>, p. 3" in html


def test_citations_work_in_lists_tables_and_emphasis(small_site):
    html = converted(
        small_site,
        "- [@elman1990]\n\n| a |\n| --- |\n| *[@elman1990]* |\n\n> [@elman1990]\n",
    )
    assert html.count(">Elman (1990)</a>") == 3


def test_code_and_links_are_no_citations(small_site):
    html = converted(
        small_site,
        "`[@nobody]` [@mail](https://example.org) \\[@nobody]\n\n"
        "```text\n[@nobody]\n```\n",
    )
    assert "citation" not in html
    assert html.count("[@nobody]") == 3


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (
            "[@hochreiter1996]",
            "no entry `hochreiter1996` in docs/reference/",
        ),
        ("[@elman1990; hochreiter1997]", "is no citation; write [@key]"),
        ("[@]", "is no citation"),
    ],
)
def test_errors_name_page_and_line(small_site, token, message):
    with pytest.raises(PageError) as error:
        converted(small_site, f"---\ntitle: T\n---\n\nText.\n\nSee {token}.\n")
    assert str(error.value).startswith("docs/a/b.md:7: [@")
    assert message in str(error.value)


def test_a_near_key_is_suggested(small_site):
    with pytest.raises(PageError, match="nearest: elman1990"):
        converted(small_site, "[@elman1991]\n")


def test_references_list_what_the_page_cites_and_no_more(small_site):
    html = converted(
        small_site, "[@three2000] [@elman1990]\n\n## References\n\n{{references}}\n"
    )
    listed = re.search(r'<ul class="sk-references">.*</ul>', html, re.DOTALL).group(0)
    assert listed.count("<li>") == 2
    assert "Finding structure in time" in listed
    assert "Long short-term memory" not in listed
    assert 'href="https://doi.org/10.1207/s15516709cog1402_1"' in listed
    assert '<div class="language-text highlight">' in listed
    assert "@article{elman1990," in listed
    assert listed.index("Elman") < listed.index("nboer")


def test_citations_of_one_page_do_not_leak_into_the_next(small_site):
    small_site.write("docs/a.md", "[@three2000]\n")
    small_site.write("docs/b.md", "[@elman1990]\n\n{{references}}\n")
    md = small_site.markdown()
    md.convert("[@three2000]\n")
    html = md.reset().convert("[@elman1990]\n\n{{references}}\n")
    assert html.count("<li>") == 1


def test_references_without_citations_are_an_error(small_site):
    with pytest.raises(PageError, match=r"docs/a/b\.md:3: .*nothing is cited"):
        converted(small_site, "# T\n\n{{references}}\n")


def test_the_bibliography_has_anchors_and_says_who_cites(small_site):
    small_site.write(
        "docs/recurrent/lstm.md", "---\ntitle: LSTM\n---\n\n[@hochreiter1997, eq. 2]\n"
    )
    html = converted(small_site, "{{bibliography}}\n", "reference/bibliography.md")
    assert html.count("<li id=") == 3
    entry = re.search(r'<li id="hochreiter1997">.*?</details>', html, re.DOTALL).group()
    assert 'Cited on: <a href="../recurrent/lstm.md">LSTM</a>.' in entry
    assert (
        "Cited on"
        not in re.search(r'<li id="elman1990">.*?</details>', html, re.DOTALL).group()
    )


def test_an_entry_that_nobody_cites_says_what_it_is_for(small_site):
    path = small_site.root / "docs/reference/bibliography.bib"
    path.write_text(
        path.read_text().replace(
            "  year    = {2000},",
            "  year = {2000},\n  keywords = {further reading},",
        )
    )
    html = converted(small_site, "{{bibliography}}\n", "reference/bibliography.md")
    assert html.count("</span> Further reading.<details") == 1


def test_same_author_and_year_get_letters(small_site):
    small_site.write(
        "docs/reference/bibliography.bib",
        "".join(
            f"@misc{{{key},\n  author = {{Elman, J.}},\n  title = {{T}},\n"
            "  year = {1990},\n}\n"
            for key in ("first", "second")
        ),
    )
    labels = {k: v.label for k, v in bibliography(Site(small_site.root)).items()}
    assert labels == {"first": "Elman (1990a)", "second": "Elman (1990b)"}


@pytest.mark.parametrize(
    ("bibtex", "message"),
    [
        ("@misc{a,\n title = {T},\n year = {1990},\n}\n", "needs an author"),
        ("@misc{a,\n author = {A, B},\n title = {T},\n}\n", "needs an author .* year"),
        ("@misc{a, author = {A, B}, title = {T}, year = 1990 }\n", "must end with"),
        ("@misc{a,\n author = \n}\n", "bibliography.bib"),
    ],
)
def test_broken_entries_are_named(small_site, bibtex, message):
    small_site.write("docs/reference/bibliography.bib", bibtex)
    with pytest.raises(PageError, match=message):
        bibliography(Site(small_site.root))


def test_reading_citations():
    assert split_citation("@a; @b, eqs. 3, 4") == [("a", ""), ("b", "eqs. 3, 4")]
    assert cited_keys("x [@a, p. 1] [@b; @c] a@b.de") == {"a", "b", "c"}


class TestCommittedBibliography:
    """The site's own file."""

    def test_it_can_be_read(self):
        entries = bibliography(Site())
        assert len(entries) >= 30
        assert len({entry.label for entry in entries.values()}) == len(entries)

    def test_keys_begin_with_the_first_author_and_the_year(self):
        for key, entry in bibliography(Site()).items():
            year = re.search(r"\((\d{4})", entry.label).group(1)
            # A key has no accents.
            plain = unicodedata.normalize("NFKD", entry.label).encode("ascii", "ignore")
            surname = re.match(r"(?:van |El )?([A-Za-z]+)", plain.decode()).group(1)
            assert key.startswith(surname.lower() + year), key

    def test_every_entry_is_cited_or_marked_as_further_reading(self):
        cited = citing_pages(Site())
        loose = [
            key
            for key, entry in bibliography(Site()).items()
            if key not in cited and not entry.further
        ]
        assert not loose, f"cite these or give them keywords = {{{FURTHER_READING}}}"

    def test_dois_and_addresses_are_well_formed(self):
        for key, entry in bibliography(Site()).items():
            for address in re.findall(r'href="([^"]+)"', entry.html):
                assert re.fullmatch(r"https://[\w./?=()~-]+", address), key
