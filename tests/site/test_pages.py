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


# In this order one thing changes from each to the next.
CASES = [
    (s, w) for s in SCHEMES for w in (WIDTHS if s == "light" else reversed(WIDTHS))
]


def show(seen, scheme: str, width: str) -> str:
    """Let the page have those colours and that width; returns their names."""
    seen.page.emulate_media(color_scheme=scheme)
    seen.page.set_viewport_size({"width": WIDTHS[width], "height": 900})
    seen.settle()
    body = seen.page.get_attribute("body", "data-md-color-scheme")
    assert body == SCHEMES[scheme], "colours do not follow the system"
    return f"{scheme}, {WIDTHS[width]} px wide"


def formulas_and_fonts(seen) -> list[str]:
    """Formulas that are not MathML in our font; fonts that are missing or too large."""
    faults = [f"TeX is left: {text}" for text in seen.page.evaluate(TEX_LEFT)]
    formulas = seen.page.evaluate(FORMULAS)
    for formula in formulas:
        shown = formula["size"] > 0
        if not shown or not formula["font"].startswith('"STIX Two Math"'):
            faults.append(f"formula: {formula}")
    wanted = {"inter.woff2"} | ({"stix-two-math.woff2"} if formulas else set())
    faults += [f"font not loaded: {name}" for name in wanted - set(seen.fonts)]
    if sum(seen.fonts.values()) > 180_000:
        faults.append(f"a first visit loads too many fonts: {seen.fonts}")
    family = seen.page.evaluate(
        "document.fonts.check('16px Inter') && "
        "getComputedStyle(document.querySelector('article')).fontFamily"
    )
    if not str(family).startswith("Inter"):
        faults.append(f"the text is not in Inter: {family}")
    return faults


def faults_of(seen) -> dict[str, list[str]]:
    """All that is wrong with an open page, in light and dark, wide and narrow.

    No foreign request, error, cookie, picture that is missing, sideways scroll or
    finding of axe; formulas are MathML in our font, and a first visit loads at most
    180 kB of fonts.
    """
    found: dict[str, list[str]] = {}
    for number, case in enumerate(CASES):
        name = show(seen, *case)
        if number == 0:
            seen.show_everything()
            found["formulas and fonts"] = formulas_and_fonts(seen)
        else:
            seen.load_pictures()
        broken = seen.page.evaluate(BROKEN_IMAGES)
        found[name] = [f"picture is broken: {source}" for source in broken]
        found[name] += seen.overflow() + seen.unreachable()
    found["on the way"] = seen.faults()
    seen.thin_out()
    for number, case in enumerate(reversed(CASES)):
        name = show(seen, *case)
        found[name] += seen.accessibility(again=number > 0)
    return {where: faults for where, faults in found.items() if faults}


def test_page(visit, address, page_path):
    """One visit for all checks."""
    assert faults_of(visit(address, page_path, color_scheme="light")) == {}


def test_page_without_scripts(visit_without_scripts, address, page_path):
    """The text, formulas and figures are there; one drawing of each figure shows."""
    # evaluate() works although the page's own scripts are off.
    seen = visit_without_scripts(address, page_path)
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


PLANTED = """<!doctype html><html lang="en"><meta name="viewport"
content="width=device-width"><title>t</title><link rel="icon" href="data:,">
<style>@font-face { font-family: Inter; src: url(inter.woff2) }
body { background: #fff; color: #000; font-family: Inter, serif }
@media (prefers-color-scheme: dark) { body { background: #111; color: #eee } }
a { color: inherit }</style><body><script>
const colours = matchMedia('(prefers-color-scheme: dark)');
const tell = () => document.body.setAttribute(
  'data-md-color-scheme', colours.matches ? 'slate' : 'default');
colours.onchange = tell; tell();
</script><main><article><h1>A heading</h1>
<p>A sentence with a <a href="#x">link</a> in it.</p>
<p>More.</p><p>And more.</p><p>And more.</p>
<div>A part <em>of</em> it</div>FAULT</article></main></body></html>"""

DARK = "@media (prefers-color-scheme: dark)"
NARROW = "@media (max-width: 400px)"


@pytest.mark.parametrize(
    ("fault", "where", "what"),
    [
        ("", None, None),
        (
            f"<style>{DARK} {{ .c {{ color: #333 }} }}</style><p class=c>Gone.</p>",
            ["dark, 1400 px wide", "dark, 360 px wide"],
            "color-contrast",
        ),
        # Of the kind of a hundred others but for what it stands in.
        (
            f"<style>{DARK} {{ .c {{ background: #ccc }} }}</style>"
            + 100 * "<p>Like it.</p>"
            + "<div class=c><section><p>Gone.</p></section></div>",
            ["dark, 1400 px wide", "dark, 360 px wide"],
            "color-contrast",
        ),
        (
            f"<style>{NARROW} {{ .c {{ opacity: 0.3 }} }}</style>"
            "<section class=c><p>Gone.</p></section>",
            ["dark, 360 px wide", "light, 360 px wide"],
            "color-contrast",
        ),
        (
            f"<style>{DARK} {{ a {{ color: #ccc; text-decoration: none }} }}</style>",
            ["dark, 1400 px wide", "dark, 360 px wide"],
            "link-in-text-block",
        ),
        (
            "<style>.c { display: none }"
            f"{DARK} {{ .c {{ display: inline }} }}</style><img class=c src='data:"
            "image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA='>",
            ["dark, 1400 px wide"],
            "image-alt",
        ),
        (
            "<style>.c { display: none }"
            "@media (prefers-color-scheme: light) { .c { display: inline } }"
            "</style><img class=c src='data:"
            "image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA='>",
            ["light, 360 px wide"],
            "image-alt",
        ),
        # A link that has no name where its text does not show.
        (
            f"<style>{NARROW} {{ .c {{ display: none }} }}</style>"
            "<a href='#y'><span class=c>A link</span></a>",
            ["dark, 360 px wide"],
            "link-name",
        ),
        (
            "<style>@media (prefers-color-scheme: light) { .c { display: none } }"
            "</style><a href='#y'><span class=c>A link</span></a>",
            ["light, 360 px wide"],
            "link-name",
        ),
        (
            f"<style>{NARROW} {{ .c {{ width: 100px; height: 50px; overflow: scroll }} "
            "}</style><div class=c><p style='width: 300px'>A long line of text.</p>"
            + 9 * "<p>And more.</p>"
            + "</div>",
            ["light, 360 px wide", "dark, 360 px wide"],
            "scrollable-region-focusable",
        ),
        (
            "<p style='width: 380px'>Wide.</p>",
            ["light, 360 px wide", "dark, 360 px wide"],
            "page is",
        ),
        (
            f"<style>.c {{ display: none }} {DARK} {{ .c {{ display: block }} }}"
            "</style><div style='height: 20000px'></div>"
            "<img class=c loading=lazy alt=a src='http://ADDRESS/gone.png'>",
            ["dark, 1400 px wide", "dark, 360 px wide", "on the way"],
            "gone.png",
        ),
        ("<script>nothing()</script>", ["on the way"], "script: nothing is not def"),
        (
            "<script>onscroll = () => console.error('rolled')</script>"
            "<div style='height: 5000px'></div>",
            ["on the way"],
            "console error: rolled",
        ),
        (
            "<script src='https://example.org/a.js'></script>",
            ["on the way"],
            "request to another site: https://example.org/a.js",
        ),
        ("<script>document.cookie = 'a=1'</script>", ["on the way"], "cookie a"),
        ("<p>$$ x $$</p>", ["formulas and fonts"], "TeX is left: $$ x $$"),
        ("<math><mi>x</mi></math>", ["formulas and fonts"], "formula: "),
    ],
)
def test_the_checks_see_what_is_planted(
    visit, serve, site, tmp_path, fault, where, what
):
    font = next(site.rglob("inter.woff2"))
    (tmp_path / "inter.woff2").write_bytes(font.read_bytes())
    address = serve(tmp_path)
    page = PLANTED.replace("FAULT", fault.replace("http://ADDRESS", address))
    (tmp_path / "index.html").write_text(page, encoding="utf-8")
    found = faults_of(visit(address, "index.html", color_scheme="light"))
    if where is None:
        assert found == {}
    else:
        assert set(where) <= set(found)
        assert all(what in "\n".join(found[place]) for place in where)
        # Nor elsewhere, but for what one fault brings about in other ways.
        schemes = {name.partition(",")[0] for name in found if "wide" in name}
        assert schemes <= {name.partition(",")[0] for name in where}
