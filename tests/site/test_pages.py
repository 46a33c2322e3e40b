r"""Every page in a real browser: nothing from elsewhere, nothing broken, readable."""

import pytest

pytestmark = pytest.mark.browser

# It brings its own style, and no font: see test_behaviour.py.
LEFT_OUT = ("404.html",)

WIDTHS = {"wide": 1400, "narrow": 360}
SCHEMES = {"light": "default", "dark": "slate"}

BROKEN_IMAGES = """[...document.images]
  .filter(i => i.getClientRects().length && !i.naturalWidth).map(i => i.src)"""

TEX_LEFT = r"""() => {
  const walker = document.createTreeWalker(
    document.querySelector('article'), NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node.parentElement.closest('code, pre, script, math')) continue;
    if (/\$\$|\\\(|\\\[|\\[a-z]{3,}|\{\{/.test(node.data)) found.push(node.data);
  }
  return found;
}"""

# Those in a tab that is not chosen have no size.
FORMULAS = """[...document.querySelectorAll('article math')]
  .filter(m => m.parentElement.checkVisibility()).map(m => ({
  size: m.getBoundingClientRect().width, text: m.textContent,
  font: getComputedStyle(m).fontFamily}))"""

WORDS = "document.querySelector('article').textContent.trim().split(/\\s+/).length"


def test_page(visit, address, page_path):
    """No foreign request, error, cookie, sideways scroll or finding of axe."""
    seen = visit(address, page_path, color_scheme="light")

    def cases():
        for scheme, name in SCHEMES.items():
            seen.page.emulate_media(color_scheme=scheme)
            for width in WIDTHS.values():
                seen.page.set_viewport_size({"width": width, "height": 900})
                seen.settle()
                body = seen.page.get_attribute("body", "data-md-color-scheme")
                assert body == name, "colours do not follow the system"
                yield f"{scheme}, {width} px wide"

    for case in cases():
        seen.show_everything()
        assert seen.page.evaluate(BROKEN_IMAGES) == [], case
        assert seen.overflow() == [], case
        assert seen.unreachable() == [], case
    assert seen.faults() == []
    seen.thin_out()
    for case in cases():
        assert seen.accessibility() == [], case


def test_formulas_and_fonts(visit, address, page_path):
    """Formulas are MathML in our font; a first visit loads at most 180 kB of fonts."""
    seen = visit(address, page_path)
    seen.show_everything()
    assert seen.page.evaluate(TEX_LEFT) == []
    formulas = seen.page.evaluate(FORMULAS)
    for formula in formulas:
        assert formula["size"] > 0, formula
        assert formula["font"].startswith('"STIX Two Math"'), formula
    wanted = {"inter.woff2"} | ({"stix-two-math.woff2"} if formulas else set())
    assert wanted <= set(seen.fonts)
    assert sum(seen.fonts.values()) <= 180_000, seen.fonts
    assert seen.page.evaluate(
        "document.fonts.check('16px Inter') && "
        "getComputedStyle(document.querySelector('article')).fontFamily"
    ).startswith("Inter")


def test_page_without_scripts(visit, address, page_path):
    """The text, formulas and figures are there; one drawing of each figure shows."""
    # evaluate() works although the page's own scripts are off.
    seen = visit(address, page_path, java_script_enabled=False)
    words = seen.page.evaluate(WORDS)
    assert words > 5
    assert seen.page.locator("article h1").is_visible()
    for formula in seen.page.evaluate(
        "[...document.querySelectorAll('article > p math')]"
        ".map(m => m.getBoundingClientRect().width)"
    ):
        assert formula > 0
    for figure in seen.page.locator("article .twin").all():
        shown = [i for i in figure.locator("img").all() if i.is_visible()]
        assert len(shown) == 1
    assert seen.overflow() == []
    shown_text = seen.page.evaluate("document.querySelector('article').innerText")
    folded = seen.page.evaluate(
        "[...document.querySelectorAll('article details:not([open])')]"
        ".reduce((n, d) => n + d.textContent.trim().split(/\\s+/).length, 0)"
    )
    assert len(shown_text.split()) >= 0.8 * (words - folded)
