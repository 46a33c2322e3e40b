r"""Every link, anchor and file of the built site, read from its HTML."""

from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

bs4 = pytest.importorskip("bs4", reason="needs the package beautifulsoup4")

ATTRIBUTES = {
    "a": "href",
    "img": "src",
    "link": "href",
    "script": "src",
    "source": "src",
    "iframe": "src",
}


@lru_cache(maxsize=512)
def parsed(path: Path):
    return bs4.BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@lru_cache(maxsize=512)
def anchors(path: Path) -> frozenset[str]:
    soup = parsed(path)
    names = {e["name"] for e in soup.find_all("a", attrs={"name": True})}
    return frozenset({e["id"] for e in soup.find_all(id=True)} | names | {""})


def broken_links(path: Path) -> list[str]:
    """Links of one page that lead nowhere, and files it uses from elsewhere."""
    faults = []
    for element in parsed(path).find_all(list(ATTRIBUTES)):
        target = element.get(ATTRIBUTES[element.name])
        if target is None:
            if element.name == "img":
                faults.append(f"an image without src: {element}")
            continue
        url = urlsplit(target)
        if url.scheme in ("http", "https"):
            if element.name != "a":
                faults.append(f"{element.name} from another site: {target}")
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


def test_ids_are_unique(site, page_path):
    ids = [e["id"] for e in parsed(site / page_path).find_all(id=True)]
    assert sorted({i for i in ids if ids.count(i) > 1}) == []


def test_every_image_has_a_text_and_a_size(site, page_path):
    for image in parsed(site / page_path).find_all("img"):
        assert image.get("alt", "").strip(), image
        assert image.get("width"), image
        assert image.get("height"), image


def test_pages_are_found(site):
    found = {p.relative_to(site).as_posix() for p in site.rglob("*.html")}
    assert {"index.html", "404.html", "recurrent/rnn.html"} <= found


BAD = """<!doctype html><title>t</title><h1 id="here">h</h1>
<a href="#here">fine</a> <a href="other.html#there">fine</a> <a href="#gone">x</a>
<a href="missing.html">x</a> <a href="other.html#gone">x</a> <a href="/other.html">x</a>
<img src="none.svg"> <script src="https://example.org/a.js"></script>
<a href="javascript:void(0)">x</a> <a href="https://example.org/">fine</a>"""


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
