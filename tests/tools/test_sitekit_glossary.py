r"""The glossary page, and the link on a term's first use."""

import re

import pytest

from sitekit.glossary import PAGE, glossary
from sitekit.page import PageError, Site

GLOSSARY = """
- term: state
  aliases: [states]
  definition: What is carried from step to step by a layer.
- term: cell state
  definition: The second vector of an LSTM cell, kept inside.
  link: recurrent/lstm.md
  more: Written $c_t$, see [@hochreiter1997].
- term: BPTT
  aliases: [backpropagation through time]
  definition: Backpropagation through time, over the unrolled graph.
- term: model
  tooltip: false
  definition: Too common a word to be marked on pages.
"""


@pytest.fixture
def site(small_site):
    small_site.write("docs/reference/glossary.yml", GLOSSARY)
    small_site.write("docs/recurrent/lstm.md", "The cell state and a state.\n")
    return small_site


def converted(site, text: str, name: str = "a/b.md") -> str:
    site.write(f"docs/{name}", text)
    return site.convert(name)


def terms(html: str) -> list[str]:
    return re.findall(r'<a class="term"[^>]*>([^<]+)</a>', html)


def test_the_first_use_is_a_link_with_the_definition_as_title(site):
    html = converted(site, "A State, and a state again. BPTT.\n")
    assert (
        '<a class="term" href="../reference/glossary.md#state" title="What is carried '
        'from step to step by a layer.">State</a>, and a state again.'
    ) in html
    assert terms(html) == ["State", "BPTT"]


def test_the_longer_term_wins_and_the_shorter_is_still_linked_later(site):
    html = converted(site, "The cell\nstate. Two states. A cell state.\n")
    assert terms(html) == ["cell\nstate", "states"]


def test_only_running_text_is_linked(site):
    html = converted(
        site,
        """
        # A state

        `state` $state$ [a state](https://example.org) ![state](x.png) state_dict
        stateful sub-state state-space

        | state |
        | --- |
        | state |

        ```text
        state
        ```

        - an item: **a *state* in it**
        """,
    )
    assert terms(html) == ["state"]
    assert '<strong>a <em><a class="term"' in html


def test_text_after_inline_markup_is_linked_too(site):
    assert terms(converted(site, "One `code` then a state and *x* BPTT.\n")) == [
        "state",
        "BPTT",
    ]


def test_a_term_is_not_linked_on_the_page_that_explains_it(site):
    assert terms(site.convert("recurrent/lstm.md")) == ["state"]


def test_common_words_and_pages_that_opt_out(site):
    assert terms(converted(site, "A model.\n")) == []
    assert terms(converted(site, "---\nglossary: false\n---\n\nA state.\n")) == []


def test_references_are_not_linked(site):
    small = site.root / "docs/reference/bibliography.bib"
    small.write_text(small.read_text().replace("A Title", "A state of {BPTT}"))
    html = converted(site, "[@three2000]\n\n{{references}}\n")
    assert terms(html) == []


def test_the_page_lists_all_terms_in_order(site):
    html = converted(site, "# Glossary\n\n{{glossary}}\n", PAGE)
    assert re.findall(r'<dt id="([^"]+)"', html) == [
        "bptt",
        "cell-state",
        "model",
        "state",
    ]
    assert '<a href="../recurrent/lstm.md">Read more</a>' in html
    assert "arithmatex" in html
    assert ">Hochreiter &amp; Schmidhuber (1997)</a>" in html
    assert terms(html) == []


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("- term: x1\n", "'definition' is a required property"),
        ("- {term: x1, definition: Too short.}\n", "too short"),
        (
            "- {term: x1, definition: 'Has $x$, which a tooltip cannot show.'}\n",
            "does not fit",
        ),
        ("- {term: x1, definition: 'Has no full stop at the end'}\n", "does not fit"),
        (
            "- {term: x1, definition: 'A good definition is here.', link: no.md}\n",
            "no page no.md",
        ),
        (
            "- {term: x1, aliases: [STATE], definition: 'A definition, a good one.'}\n",
            "`STATE` is already a name of `state`",
        ),
        ("- {term: x1, definition: 'A good definition here.', y: 1}\n", "y"),
    ],
)
def test_errors_name_file_and_line(site, entry, message):
    path = site.write("docs/reference/glossary.yml", GLOSSARY + entry)
    line = len(path.read_text().rstrip("\n").split("\n"))
    with pytest.raises(PageError) as error:
        glossary(Site(site.root))
    place, _, said = str(error.value).partition(": ")
    assert place == f"docs/reference/glossary.yml:{line}"
    assert message in said


class TestCommittedGlossary:
    def test_it_is_valid_and_holds_the_terms_of_the_first_pages(self):
        names = {name for term in glossary(Site()) for name in term.names}
        assert len(glossary(Site())) >= 35
        assert {
            "cell",
            "layer",
            "op",
            "hidden state",
            "forget gate",
            "BPTT",
            "Jacobian",
            "spectral norm",
            "bits per character",
            "packed sequence",
        } <= names

    def test_definitions_are_short(self):
        for term in glossary(Site()):
            assert len(term.definition.split()) <= 32, term.term

    def test_anchors_are_unique(self):
        found = [term.anchor for term in glossary(Site())]
        assert len(found) == len(set(found))
