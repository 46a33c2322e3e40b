r"""Numbers in sentences come from files, or the build stops."""

import pytest

from sitekit.data import fill_tex, fill_text, format_tex, format_text
from sitekit.page import PageError, Site

NB = "\u00a0"
RUN = {
    "tiny": 2.5e-14,
    "count": 1234567,
    "share": 0.12345,
    "loss": -0.5,
    "device": "x86-64 CPU",
    "rows": [{"lag": 10}, {"lag": 20}],
    "by.dots": {"1.0": 7},
    "flag": True,
    "nothing": None,
}


@pytest.fixture
def site(small_site):
    small_site.data("run", RUN)
    small_site.data("other", {"a": 1})
    return small_site


def converted(site, text: str) -> str:
    site.write("docs/a.md", text)
    return site.convert("a.md")


@pytest.mark.parametrize(
    ("value", "spec", "text", "tex"),
    [
        (2.5e-14, "", f"2.5{NB}×{NB}10⁻¹⁴", r"2.5 \times 10^{-14}"),
        (2.54e-14, ".1e", f"2.5{NB}×{NB}10⁻¹⁴", r"2.5 \times 10^{-14}"),
        (6e10, ".1e", f"6.0{NB}×{NB}10¹⁰", r"6.0 \times 10^{10}"),
        (-3e-7, "", f"−3{NB}×{NB}10⁻⁷", r"-3 \times 10^{-7}"),
        (-0.5, "", "−0.5", "-0.5"),
        (1234567, "", "1234567", "1234567"),
        (1234567, ",", "1,234,567", "1{,}234{,}567"),
        (1234.56, ",.1f", "1,234.6", "1{,}234.6"),
        (0.12345, ".1%", "12.3%", r"12.3\%"),
        (0.1 + 0.2, ".3g", "0.3", "0.3"),
        (3, ".2f", "3.00", "3.00"),
        (0.5, "+.1f", "+0.5", "+0.5"),
        ("x86-64", "", "x86-64", r"\text{x86-64}"),
    ],
)
def test_formats(value, spec, text, tex):
    assert format_text(value, spec) == text
    assert format_tex(value, spec) == tex


def test_markers_work_wherever_inline_markdown_does(site):
    html = converted(
        site,
        """
        Sentence {{data:run.tiny:.1e}}, **bold {{data:run.loss}}**.

        - list {{data:run.rows.1.lag}}

        | a | b |
        | --- | --- |
        | {{data:run.count:,}} | {{data:run.by.dots.1.0}} |

        > quote {{data:run.device}}

        ??? note "Title"
            inside {{data:run.share:.1%}}

        ![alt {{data:run.tiny}}](x.png)
        """,
    )
    assert f">2.5{NB}×{NB}10<sup>−14</sup></data>" in html
    assert (
        '<strong>bold <data class="sk-data" value="-0.5">−0.5</data></strong>' in html
    )
    assert ">20</data></li>" in html
    assert "1,234,567</data></td>" in html
    assert ">7</data></td>" in html
    assert ">x86-64 CPU</data>" in html
    assert ">12.3%</data>" in html
    assert f'alt="alt 2.5{NB}×{NB}10⁻¹⁴"' in html
    assert "{{" not in html
    assert "title-marker" not in html


def test_code_is_left_alone(site):
    html = converted(
        site,
        """
        A span `{{data:run.tiny}}` and an escape \\{{data:run.tiny}}.

        ```text
        {{data:no.such}} {{anything}}
        ```

            {{data:no.such}} indented

        - item

            ```text
            {{data:no.such}}
            ```
        """,
    )
    assert "<code>{{data:run.tiny}}</code>" in html
    assert html.count("{{data:no.such}}") == 3
    assert "{{data:run.tiny}}." in html
    assert "<data" not in html


def test_formulas_and_plain_texts(site):
    md = site.markdown()
    at = Site(site.root)
    assert fill_tex(md, "x = {{data:run.tiny}}", at) == r"x = 2.5 \times 10^{-14}"
    assert fill_text(md, "x {{data:run.loss}}", at) == "x −0.5"


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("{{data:rum.tiny}}", "no file docs/_data/rum.json; nearest: `run`"),
        ("{{data:run.tin}}", "`run` has no `tin`; nearest: `tiny`"),
        ("{{data:run}}", "names a file and no key"),
        ("{{data:run.rows.2.lag}}", "list of 2; `2` is no index"),
        ("{{data:run.rows}}", "the value is a list"),
        ("{{data:run.by.dots}}", "the value is a table"),
        ("{{data:run.flag}}", "the value is true or false"),
        ("{{data:run.nothing}}", "the value is null"),
        ("{{data:run.tiny.x}}", "is a value and has no `x`"),
        ("{{data:run.tiny:.3q}}", "unknown format `.3q`"),
        ("{{data:run.share:d}}", "format `d` is for integers"),
        ("{{data:run.device:.2f}}", "is for numbers"),
        ("{{datta:run.tiny}}", "is not understood here"),
        ("{{ data:run.tiny }}", "is not understood here"),
        ("{{references}} in a sentence", "is not understood here"),
    ],
)
def test_errors_name_page_line_and_cause(site, marker, message):
    text = f"---\ntitle: T\n---\n\n# T\n\n```text\n{marker}\n```\n\nSee {marker}.\n"
    with pytest.raises(PageError) as error:
        converted(site, text)
    assert str(error.value).startswith("docs/a.md:11: {{")
    assert message in str(error.value)


def test_not_in_headings(site):
    with pytest.raises(PageError, match=r"docs/a\.md:3: .*stands in a heading"):
        converted(site, "# T\n\n## Value {{data:run.tiny}}\n")


@pytest.mark.parametrize("value", ["NaN", "Infinity"])
def test_what_is_no_number_is_not_printed(site, value):
    site.write("docs/_data/bad.json", f'{{"x": {value}}}')
    with pytest.raises(PageError, match="no number to print"):
        converted(site, "{{data:bad.x}}\n")


def test_broken_json_is_named(site):
    site.write("docs/_data/bad.json", "{")
    with pytest.raises(PageError, match=r"docs/_data/bad\.json is not valid JSON"):
        converted(site, "{{data:bad.x}}\n")


def test_a_changed_file_is_read_again(site):
    assert ">1</data>" in converted(site, "{{data:other.a}}\n")
    site.data("other", {"a": 22})
    assert ">22</data>" in converted(site, "{{data:other.a}}\n")
