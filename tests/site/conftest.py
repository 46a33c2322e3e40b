r"""A browser on the built site, served from this machine and cut off from all others.

The site is `site/`, or what the environment variable SEQREF_SITE names; the browser is
Debian's Chromium, or what SEQREF_CHROMIUM names.
"""

import functools
import http.server
import os
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(os.environ.get("SEQREF_SITE", ROOT / "site"))
BUILT = SITE / "index.html"

WIDTHS = {"wide": 1400, "narrow": 360}

# Chromium's sandbox does not start for root in a container.
ARGUMENTS = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []

# False if twenty seconds pass without them.
TWO_FRAMES = """() => Promise.race([
  new Promise(done => setTimeout(done, 20000, false)),
  new Promise(done => requestAnimationFrame(() =>
    requestAnimationFrame(() => done(true))))
])"""

UNREACHABLE = """() => [...document.querySelectorAll(
    'article .math-display, article pre > code, .md-typeset__scrollwrap')]
  .filter(e => e.getClientRects().length && e.scrollWidth > e.clientWidth + 1)
  .filter(e => e.tabIndex < 0)
  .map(e => e.outerHTML.slice(0, 120))"""


# Marks text for the check of contrast: three elements of each tag and class among those
# that agree in colour, size, weight and decoration, in all that is painted on them and
# on what they stand in, and in the box that takes them out of the flow, if one does.
# A kind that was looked at in another width is not looked at again.
# Marks as fresh each element that shows with other parts of it than it has before: a
# link may lose its name where a page is narrow. Not above a hundred parts: what names
# an element is small.
MARK = """() => {
  const parts = new Map([[null, '']]);
  const {seen, boxes, known} = window.seqrefMarks
    ??= {seen: new Map(), boxes: new Map(), known: new Map()};
  const part = e => {
    if (parts.has(e)) return parts.get(e);
    const s = getComputedStyle(e);
    const paint = [s.backgroundColor, s.backgroundImage, s.backgroundClip, s.opacity,
      s.filter, s.backdropFilter, s.mixBlendMode, s.clip, s.clipPath, s.maskImage
      ].join(' ');
    const moved = s.float !== 'none' || s.transform !== 'none' || s.zIndex !== 'auto'
      || !['static', 'relative'].includes(s.position)
      || (s.position === 'relative' && [s.top, s.left].some(x => parseFloat(x)));
    const above = part(e.parentElement);
    const own = (above.endsWith(`|${paint}`) ? '' : `|${paint}`)
      + (moved ? `#${boxes.get(e) ?? boxes.set(e, boxes.size).get(e)}` : '');
    parts.set(e, above + own);
    return above + own;
  };
  const all = [...document.body.querySelectorAll('*')];
  const shown = all.map(e => e.checkVisibility({visibilityProperty: true}));
  const shows = new Map();
  for (let i = all.length - 1; i >= 0; i--) {
    const below = shows.get(all[i]) || [];
    if (shown[i]) below.push(i);
    const above = shows.get(all[i].parentElement) || [];
    if (above.length <= 100) above.push(...below.slice(0, 101));
    shows.set(all[i].parentElement, above);
    shows.set(all[i], below);
  }
  for (const [i, e] of all.entries()) {
    delete e.dataset.sample;
    delete e.dataset.fresh;
    if (!shown[i]) continue;
    const parts = shows.get(e).length > 100 ? 'many' : shows.get(e).join();
    if (!known.has(e)) known.set(e, new Set());
    if (!known.get(e).has(parts)) e.dataset.fresh = '';
    known.get(e).add(parts);
    const text = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!text && !e.matches('input, select, textarea')) continue;
    const s = getComputedStyle(e);
    const off = e.closest('[aria-disabled=true], :disabled, [inert]') !== null;
    const kind = [part(e), e.tagName, e.getAttribute('class'), off, s.color,
      getComputedStyle(e.parentElement).color, s.webkitTextFillColor,
      s.webkitTextStroke, s.textShadow, s.textDecoration, s.borderBottom, s.fontSize,
      s.fontWeight, s.fontStyle].join();
    seen.set(kind, (seen.get(kind) || 0) + 1);
    if (seen.get(kind) <= 3) e.dataset.sample = '';
  }
}"""

AXE = """async whole => {
  // Of the rules that are on, this and the two on colours ask where things stand.
  const layout = ['scrollable-region-focusable'];
  const run = async (selector, options) => {
    if (!document.querySelector(selector)) return [];
    const context = selector === 'html' ? document : {include: [[selector]]};
    const found = await axe.run(context, {resultTypes: ['violations'], ...options});
    return found.violations;
  };
  const colours = ['color-contrast', 'link-in-text-block'];
  const off = {'color-contrast': {enabled: false}};
  const rest = whole ? await run('html', {rules: off}) : [
    ...await run('html', {runOnly: layout}),
    ...await run('[data-fresh]', {rules: off})];
  return [...await run('[data-sample]', {runOnly: colours}), ...rest];
}"""


def pages() -> list[str]:
    """Every page of the built site, as paths below it."""
    if not BUILT.is_file():
        return []
    return sorted(p.relative_to(SITE).as_posix() for p in SITE.rglob("*.html"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test that asks for `page_path` every page but those it leaves out."""
    if "page_path" in metafunc.fixturenames:
        left_out = getattr(metafunc.module, "LEFT_OUT", ())
        found = [page for page in pages() if page not in left_out] or [
            pytest.param("", marks=pytest.mark.skip("site/ is missing: nox -s site"))
        ]
        metafunc.parametrize("page_path", found)


@pytest.fixture(scope="session")
def site() -> Path:
    if not BUILT.is_file():
        pytest.skip(f"{SITE} is missing: build it with nox -s site")
    return SITE


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder in silence, with the site's own page for what is missing."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def send_error(self, code: int, *_: Any, **__: Any) -> None:
        """Answer with 404.html, as a server of static files is told to."""
        path = Path(self.directory) / "404.html"
        body = path.read_bytes() if path.is_file() else b""
        self.send_response(code)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture(scope="session")
def serve():
    """Serve a folder on the loopback interface; returns its address."""
    servers = []

    def start(folder: Path) -> str:
        handler = functools.partial(Handler, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def address(site, serve) -> str:
    return serve(site)


@pytest.fixture(scope="session")
def chromium():
    """A running Chromium."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="needs the package playwright: nox -s browser"
    )
    wanted = os.environ.get("SEQREF_CHROMIUM", "chromium")
    program = shutil.which(wanted)
    if program is None:
        missing = f"no browser: {wanted} is not on the PATH (apt install chromium)"
        if os.environ.get("SEQREF_REQUIRE_BROWSER"):
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page open in the browser, and what it asked for while it loaded."""

    page: Any
    context: Any
    origin: str
    requests: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    fonts: dict[str, int] = field(default_factory=dict)

    def faults(self) -> list[str]:
        """What must not happen on any page."""
        cookies = [f"cookie {c['name']}" for c in self.context.cookies()]
        return [
            *(f"request to another site: {url}" for url in self.refused),
            *self.failed,
            *self.console,
            *cookies,
        ]

    def show_everything(self) -> None:
        """Open what is folded, scroll through, and load every picture."""
        evaluate = self.page.evaluate
        evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        height = evaluate("document.documentElement.scrollHeight")
        for y in range(0, height, 900 + height // 8):
            evaluate(f"scrollTo(0, {y})")
        evaluate("scrollTo(0, 0)")
        self.load_pictures()

    def load_pictures(self) -> None:
        """Load every picture that has a place, in view or not, and wait for it."""
        # decode() of a lazy picture that has not begun to load would wait for ever.
        self.page.evaluate(
            """() => Promise.race([
              new Promise(done => setTimeout(done, 20000)),
              Promise.all([...document.images]
                .filter(i => i.getClientRects().length)
                .map(i => { i.loading = 'eager'; return i.decode().catch(() => 0); }))
            ])"""
        )
        self.settle()

    def settle(self) -> None:
        """Wait for fonts and for two frames, in which the page's scripts run."""
        # Not for ever: a font whose connection broke off would never be ready.
        self.page.evaluate(
            """() => Promise.race([
              new Promise(done => setTimeout(done, 20000)),
              document.fonts.ready
            ])"""
        )
        # Now and then Chromium stops to draw a page for good; another visit is drawn.
        if not self.page.evaluate(TWO_FRAMES):
            pytest.fail("the browser drew no frame of the page for 20 seconds")

    def unreachable(self) -> list[str]:
        """Parts that scroll sideways and that no keyboard reaches.

        Scripts mark them when the browser tells them of a new width; a busy machine
        has ten seconds for it.
        """
        end = time.monotonic() + 10
        while (found := self.page.evaluate(UNREACHABLE)) and time.monotonic() < end:
            self.settle()
        return found

    def overflow(self) -> list[str]:
        """Elements that reach beyond the window and make the page scroll sideways."""
        return self.page.evaluate(
            """() => {
              const root = document.documentElement;
              if (root.scrollWidth <= root.clientWidth) return [];
              const wide = [...document.querySelectorAll('main *')].filter(
                e => e.getBoundingClientRect().right > root.clientWidth + 1);
              return [`page is ${root.scrollWidth} wide, window ${root.clientWidth}`,
                ...wide.slice(0, 5).map(e => e.outerHTML.slice(0, 120))];
            }"""
        )

    def thin_out(self) -> None:
        """Turn repeated tokens of code, and most formulas, into plain text.

        axe takes minutes over ten thousand elements. A token has the colours of every
        other token of its class, so three of each tell as much as all of them; a
        formula has the colour of the text it stands in.
        """
        self.page.evaluate(
            """() => {
              const seen = new Map();
              const plain = e => e.replaceWith(document.createTextNode(e.textContent));
              for (const token of document.querySelectorAll('pre code span')) {
                if (token.children.length) continue;
                const key = token.className + !!token.closest('.output');
                seen.set(key, (seen.get(key) || 0) + 1);
                if (seen.get(key) > 3) plain(token);
              }
              [...document.querySelectorAll('math')].slice(10).forEach(plain);
            }"""
        )

    def accessibility(self, *, again: bool = False) -> list[str]:
        """What axe finds.

        Contrast takes axe five times as long as all else, and depends on nothing but
        what `MARK` sorts by: it is checked in three elements of each kind, once.

        Args:
            again: Whether the page was looked at in other colours or at another width.
                Then only what shows in another way than before is looked at again.
        """
        from axe_playwright_python.sync_playwright import Axe

        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(Axe().axe_script)
        self.page.evaluate(MARK)
        return [
            f"{v['id']}: {v['help']}: {node['html'][:160]}"
            for v in self.page.evaluate(AXE, not again)
            for node in v["nodes"]
        ]


# Every page has its search read all other pages. That is done where search is tested;
# elsewhere it reads this.
INDEX = {
    "config": {"lang": ["en"], "separator": "[\\s\\-]+", "pipeline": [], "fields": {}},
    "docs": [],
}


def open_in(context: Any, origin: str, path: str, *, search: bool = True) -> Visit:
    """Open a page in that browser profile, which reaches one origin only."""
    seen = Visit(context.new_page(), context, origin)

    def route(route: Any) -> None:
        url = route.request.url
        seen.requests.append(url)
        if not search and url == f"{origin}/search/search_index.json":
            route.fulfill(json=INDEX)
        elif url.startswith((origin, "data:", "blob:")):
            route.continue_()
        else:
            seen.refused.append(url)
            route.abort()

    def response(answer: Any) -> None:
        if answer.status >= 400 and not answer.url.endswith(f"/{path}"):
            seen.failed.append(f"{answer.status} for {answer.url}")
        if answer.url.endswith(".woff2"):
            length = answer.headers.get("content-length", "0")
            seen.fonts[answer.url.rsplit("/", 1)[-1]] = int(length)

    def message(entry: Any) -> None:
        if entry.type in ("error", "warning"):
            seen.console.append(f"console {entry.type}: {entry.text}")

    # A worker's requests are seen by the context alone.
    context.unroute_all()
    context.route("**/*", route)
    seen.page.on("response", response)
    seen.page.on("console", message)
    seen.page.on("pageerror", lambda error: seen.console.append(f"script: {error}"))
    seen.page.goto(f"{origin}/{path}")
    return seen


@pytest.fixture
def visit(chromium):
    """Open a page in a fresh browser profile that reaches one origin only."""
    contexts = []

    def open_page(
        origin: str, path: str, *, search: bool = False, **options: Any
    ) -> Visit:
        options.setdefault("viewport", {"width": WIDTHS["wide"], "height": 900})
        options.setdefault("reduced_motion", "reduce")
        context = chromium.new_context(**options)
        contexts.append(context)
        seen = open_in(context, origin, path, search=search)
        if options.get("java_script_enabled", True):
            seen.settle()
        return seen

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def scriptless(chromium):
    """A browser profile whose pages run no scripts of theirs."""
    context = chromium.new_context(
        viewport={"width": WIDTHS["wide"], "height": 900},
        reduced_motion="reduce",
        java_script_enabled=False,
    )
    yield context
    context.close()


@pytest.fixture
def visit_without_scripts(scriptless):
    """Open a page without scripts, in a profile that has seen other pages."""
    opened = []

    def open_page(origin: str, path: str) -> Visit:
        opened.append(open_in(scriptless, origin, path))
        return opened[-1]

    yield open_page
    for seen in opened:
        seen.page.close()
