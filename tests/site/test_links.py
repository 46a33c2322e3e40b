r"""Every link, anchor and file of the built site, read from its HTML."""

from collections import Counter
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ATTRIBUTES = {
    "a": "href",
    "img": "src",
    "link": "href",
    "script": "src",
    "source": "src",
    "iframe": "src",
}


class Tags(HTMLParser):
    """The opening tags of a page, each with its attributes; its text is passed over."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # Of an attribute that stands twice, a browser takes the first.
        pairs = [(name, value or "") for name, value in reversed(attrs)]
        self.tags.append((tag, dict(pairs)))


@lru_cache(maxsize=512)
def tags(path: Path) -> list[tuple[str, dict[str, str]]]:
    return Tags(path.read_text(encoding="utf-8")).tags


@lru_cache(maxsize=512)
def anchors(path: Path) -> frozenset[str]:
    names = {a["name"] for tag, a in tags(path) if tag == "a" and "name" in a}
    return frozenset({a["id"] for _, a in tags(path) if "id" in a} | names | {""})


def broken_links(path: Path) -> list[str]:
    """Links of one page that lead nowhere, and files it uses from elsewhere."""
    faults = []
    for tag, attributes in tags(path):
        if tag not in ATTRIBUTES:
            continue
        target = attributes.get(ATTRIBUTES[tag])
        if target is None:
            if tag == "img":
                faults.append(f"an image without src: {attributes}")
            continue
        url = urlsplit(target)
        if url.scheme in ("http", "https"):
            if tag != "a":
                faults.append(f"{tag} from another site: {target}")
            continue
        if url.scheme or url.netloc:
            if url.scheme not in ("data", "mailto"):
                faults.append(f"unexpected address: {target}")
            continue
        faults += _local_fault(path, target)
    return faults


def _local_fault(path: Path, target: str) -> list[str]:
    url = urlsplit(target)
    if not url.path:
        file = path
    elif url.path.startswith("/"):
        return [f"absolute link: {target}"]
    else:
        file = (path.parent / unquote(url.path)).resolve()
    if file.is_dir():
        file = file / "index.html"
    if not file.is_file():
        return [f"no such file: {target}"]
    if file.suffix == ".html" and unquote(url.fragment) not in anchors(file):
        return [f"no such anchor: {target}"]
    return []


def test_links_of_the_page(site, page_path):
    assert broken_links((site / page_path).resolve()) == []


def repeated_ids(path: Path) -> list[str]:
    found = Counter(a["id"] for _, a in tags(path) if "id" in a)
    return sorted(name for name, count in found.items() if count > 1)


def test_ids_are_unique(site, page_path):
    assert repeated_ids((site / page_path).resolve()) == []


def incomplete_images(path: Path) -> list[dict[str, str]]:
    """Images without a text that says what they show, or without a size."""
    wanted = ("alt", "width", "height")
    return [
        image
        for tag, image in tags(path)
        if tag == "img" and not all(image.get(name, "").strip() for name in wanted)
    ]


def test_every_image_has_a_text_and_a_size(site, page_path):
    assert incomplete_images((site / page_path).resolve()) == []


def test_pages_are_found(site):
    found = {p.relative_to(site).as_posix() for p in site.rglob("*.html")}
    assert {"index.html", "404.html", "recurrent/rnn.html"} <= found


BAD = """<!doctype html><title>t</title><h1 id="here">h</h1>
<a href="#here">fine</a> <a href="other.html#there">fine</a> <a href="#gone">x</a>
<a href="missing.html">x</a> <a href="other.html#gone">x</a> <a href="/other.html">x</a>
<img src="none.svg"> <script src="https://example.org/a.js"></script>
<a href="javascript:void(0)">x</a> <a href="https://example.org/">fine</a>
<p id="twice"></p><p ID=twice>&lt;a href="none.html"> <!-- <a href="none.html"> --></p>
<script>"<a href='none.html'>"</script><img alt=" " width="1" height="1" src="data:,">
<img alt="a" width="1" src="data:,"/><img alt="a" width="1" height="1" src="data:,">"""


def test_the_check_sees_what_is_planted(tmp_path):
    (tmp_path / "other.html").write_text('<h1 id="there">o</h1>')
    page = tmp_path / "index.html"
    page.write_text(BAD)
    assert broken_links(page) == [
        "no such anchor: #gone",
        "no such file: missing.html",
        "no such anchor: other.html#gone",
        "absolute link: /other.html",
        "no such file: none.svg",
        "script from another site: https://example.org/a.js",
        "unexpected address: javascript:void(0)",
    ]
    assert repeated_ids(page) == ["twice"]
    found = [sorted(image) for image in incomplete_images(page)]
    assert found == [
        ["src"],
        ["alt", "height", "src", "width"],
        ["alt", "src", "width"],
    ]
