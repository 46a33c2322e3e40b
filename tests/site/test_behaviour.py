r"""What the site does: colours, search, a missing page, use without a server."""

import json
import re

import pytest

pytestmark = pytest.mark.browser


def first_with(site, pattern: str) -> str:
    """The first page whose HTML matches."""
    for path in sorted(site.rglob("*.html")):
        if re.search(pattern, path.read_text(encoding="utf-8")):
            return path.relative_to(site).as_posix()
    pytest.fail(f"no page matches {pattern}")
    return ""


def scheme(seen) -> str:
    return seen.page.get_attribute("body", "data-md-color-scheme")


def press_palette(seen) -> None:
    seen.page.locator("label[for^=__palette]:visible").click()


def test_the_colour_switch_changes_colours_and_is_remembered(visit, address):
    seen = visit(address, "index.html", color_scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = seen.page.evaluate(background)
    schemes = []
    for _ in range(3):  # system -> light -> dark -> system
        press_palette(seen)
        schemes.append(scheme(seen))
    assert schemes == ["default", "slate", "default"]
    press_palette(seen)
    press_palette(seen)
    assert scheme(seen) == "slate"
    assert seen.page.evaluate(background) != light
    seen.page.reload()
    assert scheme(seen) == "slate"
    assert seen.faults() == []


def test_each_colour_scheme_shows_its_own_drawing(visit, address, site):
    path = first_with(site, 'class="twin"')
    for colours, expected in (("light", "#only-light"), ("dark", "#only-dark")):
        seen = visit(address, path, color_scheme=colours)
        seen.show_everything()
        figures = seen.page.locator(".twin").all()
        assert figures
        for figure in figures:
            shown = [i for i in figure.locator("img").all() if i.is_visible()]
            assert [i.get_attribute("src")[-len(expected) :] for i in shown] == [
                expected
            ]
        other = {"light": "dark", "dark": "light"}[colours]
        assert not [u for u in seen.requests if u.endswith(f".{other}.svg")]


@pytest.mark.parametrize("how", ["served", "from disk"])
def test_search_finds_a_page(visit, address, site, how):
    origin = address if how == "served" else f"file://{site.resolve()}"
    seen = visit(origin, "index.html", search=True)
    seen.page.keyboard.press("/")
    seen.page.keyboard.type("forget gate")
    result = seen.page.locator(".md-search-result__link").first
    result.wait_for(timeout=10_000)
    assert "recurrent/lstm.html" in seen.page.locator(
        ".md-search-result__link"
    ).evaluate_all("links => links.map(a => a.href).join(' ')")
    assert seen.faults() == []
    result.click()
    seen.page.wait_for_load_state("networkidle")
    assert seen.page.url.startswith(origin)
    assert seen.page.locator("article h1").is_visible()


def test_the_search_index_holds_no_formulas(site):
    index = json.loads((site / "search" / "search_index.json").read_text("utf-8"))
    text = " ".join(entry["text"] for entry in index["docs"])
    assert len(text) > 1000
    # Without the exclusion, formulas would leave invisible function application
    # and letters of mathematical alphabets.
    assert not re.search("[\u2061\u2062\U0001d400-\U0001d7ff]", text)
    assert "odot" not in re.sub(r"<code>.*?</code>", "", text, flags=re.DOTALL)


def test_from_disk_a_page_is_whole(visit, site):
    path = first_with(site, "<math")
    seen = visit(f"file://{site.resolve()}", path)
    seen.show_everything()
    assert seen.refused == []
    assert seen.page.evaluate("document.fonts.check('16px Inter')")
    assert (
        seen.page.evaluate(
            "[...document.fonts].filter(f => f.status == 'error').length"
        )
        == 0
    )
    assert seen.console == []


@pytest.fixture(scope="module")
def below(site, serve, tmp_path_factory):
    """The address of a server on which the site stands in a folder, or at the root."""
    root = tmp_path_factory.mktemp("server")
    (root / "project").mkdir()
    (root / "project" / "docs").symlink_to(site.resolve())
    # What a host of such sites shows for every missing address.
    (root / "404.html").symlink_to(site.resolve() / "404.html")
    origin = serve(root)
    return {"/project/docs": f"{origin}/project/docs", "/": serve(site)}


MISSING = ("nothing.html", "recurrent/nothing.html", "no/such/page.html", "no/such/")


@pytest.mark.parametrize("missing", MISSING)
@pytest.mark.parametrize("where", ["/", "/project/docs"])
def test_a_missing_address_gets_a_page_that_leads_home(visit, below, where, missing):
    address = below[where]
    seen = visit(address, missing)
    assert seen.page.locator("article h1").inner_text() == "Page not found"
    link = seen.page.locator("article a", has_text="home page")
    seen.page.locator("a[data-found]").wait_for()
    # It asks for nothing but the icon by which it knows the site's folder.
    known = ("/assets/favicon.svg", missing)
    assert [url for url in seen.requests if not url.endswith(known)] == []
    assert seen.refused == []
    link.click()
    seen.page.wait_for_url(f"{address}/index.html")
    seen.page.locator("article h1").wait_for()
    assert seen.page.locator("article h1").inner_text() != "Page not found"


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_the_page_for_missing_addresses_brings_its_style(visit, site, colours):
    seen = visit(f"file://{site.resolve()}", "404.html", color_scheme=colours)
    assert [url for url in seen.requests if not url.startswith("data:")] == [
        f"file://{site.resolve()}/404.html"
    ]
    paper, ink = seen.page.evaluate(COLOURS)
    assert (brightness(paper) > brightness(ink)) == (colours == "light")
    assert abs(brightness(paper) - brightness(ink)) > 150
    for width in (1400, 320):
        seen.page.set_viewport_size({"width": width, "height": 900})
        seen.settle()
        assert seen.overflow() == []
        assert seen.accessibility() == []
    assert seen.faults() == []
    seen.page.locator("article a", has_text="home page").click()
    assert seen.page.url == f"file://{site.resolve()}/index.html"


COLOURS = """() => {
  const article = getComputedStyle(document.querySelector('article'));
  return [getComputedStyle(document.body).backgroundColor, article.color];
}"""


def brightness(colour: str) -> float:
    """Of a colour as the browser computes it, from 0 to 255."""
    red, green, blue = map(float, re.findall(r"[\d.]+", colour)[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


INKS = """() => [...document.querySelectorAll('article *')]
  .filter(e => e.checkVisibility() && !e.closest('svg, math')
    && [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()))
  .map(e => getComputedStyle(e).color)"""


@pytest.mark.parametrize("how", ["system", "chosen"])
def test_a_dark_page_is_printed_light(visit, address, site, how):
    path = first_with(site, 'class="twin"')
    seen = visit(address, path, color_scheme="dark" if how == "system" else "light")
    if how == "chosen":
        press_palette(seen)
        press_palette(seen)
    seen.show_everything()
    assert scheme(seen) == "slate"
    paper, ink = seen.page.evaluate(COLOURS)
    assert brightness(paper) < 60 < brightness(ink), "dark on the screen"
    seen.page.emulate_media(media="print")
    seen.settle()
    paper, ink = seen.page.evaluate(COLOURS)
    assert brightness(paper) > 250
    assert brightness(ink) < 60
    assert max(brightness(c) for c in seen.page.evaluate(INKS)) < 160
    figures = seen.page.locator(".twin").all()
    assert figures
    for figure in figures:
        shown = [i for i in figure.locator("img").all() if i.is_visible()]
        assert [i.get_attribute("src").partition("#")[2] for i in shown] == [
            "only-light"
        ]


def test_what_is_folded_is_printed_without_scripts_too(visit, address, site):
    path = first_with(site, "<details")
    seen = visit(address, path, java_script_enabled=False)
    folded = "article details:not([open]) > :not(summary)"
    hidden = f"""[...document.querySelectorAll('{folded}')]
      .filter(e => !e.checkVisibility({{contentVisibilityAuto: true}})
        || !e.getClientRects().length).length"""
    assert seen.page.evaluate(hidden) > 0
    seen.page.emulate_media(media="print")
    # A frame later, as on paper; without scripts there is none to wait for.
    for _ in range(50):
        if seen.page.evaluate(hidden) == 0:
            return
        seen.page.wait_for_timeout(100)
    assert seen.page.evaluate(hidden) == 0


def test_printed_output_hangs_below_its_block(visit, address):
    seen = visit(address, "index.html")
    gap = seen.page.evaluate(
        """() => {
          const output = document.querySelector('.output');
          const block = output.previousElementSibling.getBoundingClientRect();
          return output.getBoundingClientRect().top - block.bottom;
        }"""
    )
    assert abs(gap) < 1


LEDGER = "evidence/claims.html"


def shown_rows(seen) -> list[str]:
    return seen.page.locator(".sk-claims > div:visible").evaluate_all(
        "rows => rows.map(row => row.id)"
    )


@pytest.mark.parametrize("how", ["served", "from disk"])
def test_the_ledger_can_be_filtered(visit, address, site, how):
    seen = visit(address if how == "served" else f"file://{site.resolve()}", LEDGER)
    everything = shown_rows(seen)
    marks = seen.page.locator(".sk-claims > div").evaluate_all(
        "rows => rows.map(r => [r.id, r.dataset.verdict, r.dataset.concepts])"
    )
    wrong = [name for name, verdict, _ in marks if verdict == "wrong"]
    both = [
        name
        for name, verdict, concepts in marks
        if verdict == "wrong" and "recurrent/gru" in concepts.split()
    ]
    assert 0 < len(both) < len(wrong) < len(everything) == len(marks)
    seen.page.get_by_label("Verdict").select_option("wrong")
    assert shown_rows(seen) == wrong
    seen.page.get_by_label("Concept").select_option("recurrent/gru")
    assert shown_rows(seen) == both
    count = f"{len(both)} of {len(everything)} claims"
    assert seen.page.locator(".sk-claims-filter output").inner_text() == count
    # The address holds the choice.
    again = visit(seen.page.url.partition("/evidence/")[0], LEDGER)
    assert shown_rows(again) == everything
    seen.page.reload()
    assert shown_rows(seen) == both
    # A link to a row that the choice hides clears the choice.
    hidden = next(name for name in everything if name not in both)
    seen.page.evaluate(f"location.hash = '#{hidden}'")
    seen.page.locator(f"#{hidden}").wait_for(state="visible")
    assert shown_rows(seen) == everything
    assert seen.page.url.endswith(f"{LEDGER}#{hidden}"), "the address holds a choice"
    assert seen.faults() == []


def test_the_filters_fit_the_narrowest_window(visit, address):
    """320 pixels are what a page enlarged four times has left of 1,280."""
    seen = visit(address, LEDGER)
    seen.page.set_viewport_size({"width": 320, "height": 900})
    seen.settle()
    assert seen.overflow() == []


def test_without_a_script_the_ledger_shows_all_rows_and_no_filter(visit, address):
    seen = visit(address, LEDGER, java_script_enabled=False)
    assert seen.page.locator(".sk-claims > div:visible").count() > 40
    assert seen.page.locator(".sk-claims-filter").is_hidden()


BAD = """<!doctype html><html lang="en"><title>t</title><main><h1>h</h1>
<p style="color:#bbb;background:#fff">Pale text.</p><img src="gone.png">
<p style="width:2000px">Wide.</p></main>
<script src="https://example.org/a.js"></script>
<script>document.cookie = "a=1"; console.error("planted");</script></html>"""


def test_the_checks_see_what_is_planted(visit, serve, tmp_path):
    (tmp_path / "index.html").write_text(BAD)
    seen = visit(serve(tmp_path), "index.html")
    faults = "\n".join(seen.faults())
    assert "request to another site: https://example.org/a.js" in faults
    assert "404 for" in faults
    assert "gone.png" in faults
    assert "console error: planted" in faults
    assert "cookie a" in faults
    found = "\n".join(seen.accessibility())
    assert "color-contrast" in found
    assert "image-alt" in found
    assert any("Wide." in line for line in seen.overflow())
