r"""Serves the site while its pages are written: a changed page is built, not all.

`python -m sitekit.preview` (with `tools` on the path) is what `nox -s serve` runs. The
first build is MkDocs' own. Where after it only texts of pages changed, MkDocs reads and
writes these pages again, with the files, the navigation, the templates and the
cross-references of the first build, and the whole site is as if it had been built anew.

What a page tells other pages is compared before that is believed: its front matter and
title, the objects that it documents, an anchor that is gone, and whether its text is
part of another page. If any of it changed, or any file that is no page, the whole site
is built again. The bibliography lists who cites what; it is built along with a page
whose citations changed.

The code of the site's own tools is read once, as Python does: after a change of it,
start again.
"""

import argparse
import functools
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mkdocs.commands import build as mkdocs_build
from mkdocs.config import load_config
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import Abort, BuildError
from mkdocs.livereload import LiveReloadServer
from mkdocs.plugins import BasePlugin
from mkdocs.structure.files import Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page

from sitekit.bibliography import PAGE as BIBLIOGRAPHY
from sitekit.bibliography import cited_keys
from sitekit.page import SNIPPET

WATCHED = ("src", "overrides")

_log = logging.getLogger("mkdocs.preview")


@dataclass(frozen=True)
class _Told:
    """What a page tells the rest of the site."""

    meta: dict[str, Any]
    title: str
    objects: frozenset[tuple[str, str]]
    anchors: frozenset[str]
    cited: frozenset[str]

    def concerns_others(self, before: "_Told") -> bool:
        """Whether another page, the bibliography excepted, may differ for it."""
        return (
            (self.meta, self.title) != (before.meta, before.title)
            # Those that are gone are still known; their anchors are not.
            or self.objects != before.objects
            # A question elsewhere may name one as its evidence.
            or not self.anchors >= before.anchors
        )


class _Parts(BasePlugin):
    """A plugin that keeps what a build of the whole site makes."""

    files: Files
    nav: Navigation
    env: Any

    def on_nav(self, nav: Navigation, *, config: MkDocsConfig, files: Files) -> None:
        """Keep the pages' files and their order, and the package that was read."""
        self.nav, self.files = nav, files
        strings = config.plugins.get("mkdocstrings")
        if strings is not None:
            strings.handlers.teardown = lambda: None

    def on_env(self, env: Any, **_: Any) -> None:
        """Keep the templates."""
        self.env = env


class Preview:
    """A site in a folder, kept current with its sources.

    Args:
        load: Reads the configuration; what it returns is used for one whole build.
        watched: Files and folders that the site is made from, beside its `docs_dir` and
            its configuration file.
        url: Where the site is served.
    """

    def __init__(
        self,
        load: Callable[[], MkDocsConfig],
        watched: Iterable[Path] = (),
        url: str | None = None,
    ) -> None:
        self._load, self._watched, self._url = load, tuple(watched), url
        # None before the first build, and where a build of the whole site failed.
        self._config: MkDocsConfig | None = None
        self.roots: list[Path] = []

    def update(self) -> list[str] | None:
        """Build what has changed.

        Returns:
            The pages that were built alone; None if the whole site was built.

        Raises:
            Abort: A page or the site cannot be built; why is in the log.
        """
        if self._config is not None:
            times = self._now()
            changed = {path for path, _ in times.items() ^ self._times.items()}
            pages = self._pages(changed)
            if pages is not None and self._build(pages):
                # Only now: what failed to build is tried again.
                self._times = times
                return [page.file.src_uri for page in pages]
        self._build_all()
        return None

    def is_current(self) -> bool:
        """Whether no file was changed since the newest build began."""
        return self._config is not None and self._now() == self._times

    def _now(self) -> dict[Path, tuple[int, int]]:
        """When each file was changed, and its size."""
        times = {}
        for root in self.roots:
            for path in [root] if root.is_file() else root.rglob("*"):
                if path.is_file() and "__pycache__" not in path.parts:
                    status = path.stat()
                    times[path] = (status.st_mtime_ns, status.st_size)
        return times

    def _build_all(self) -> None:
        self._config, config = None, self._load()
        self._parts = config.plugins["preview"] = _Parts()
        config.site_url = self._url or config.site_url
        roots = (config.docs_dir, config.config_file_path, *self._watched)
        self.roots = [Path(root).resolve() for root in roots]
        times = self._now()
        mkdocs_build.build(config, serve_url=self._url)
        self._config, self._times = config, times
        self._told = {page.url: self._telling(page) for page in self._all()}

    def _all(self) -> list[Page]:
        files = self._parts.files.documentation_pages()
        return [file.page for file in files if file.page is not None]

    def _pages(self, changed: set[Path]) -> list[Page] | None:
        """The pages of these files; None if one is gone or more than a page."""
        pages = {Path(page.file.abs_src_path).resolve(): page for page in self._all()}
        included = {
            Path(name).resolve()
            for page in pages.values()
            for name in SNIPPET.findall(page.markdown or "")
        }
        alone = {path for path in pages.keys() - included if path.is_file()}
        if not changed <= alone:
            return None
        return [page for path, page in pages.items() if path in changed]

    def _build(self, pages: list[Page]) -> bool:
        """Build these pages, and the bibliography where they cite other things.

        Returns:
            False if other pages are concerned; then nothing is written.
        """
        try:
            for page in pages:
                mkdocs_build._populate_page(page, self._config, self._parts.files)
                before, told = self._told[page.url], self._telling(page)
                if told.concerns_others(before):
                    return False
                if told.cited != before.cited:
                    listing = self._parts.files.get_file_from_path(BIBLIOGRAPHY)
                    if listing is not None and listing.page not in pages:
                        # The loop comes to it.
                        pages.append(listing.page)
            self._write(pages)
        except BuildError as error:
            _log.error(str(error))
            raise Abort("The page was not built.") from error
        return True

    def _write(self, pages: list[Page]) -> None:
        parts, config = self._parts, self._config
        files = Files([page.file for page in pages])
        config.plugins.on_env(parts.env, config=config, files=files)
        documents = parts.files.documentation_pages()
        for page in pages:
            with self._indexed_in_place(page):
                mkdocs_build._build_page(page, config, documents, parts.nav, parts.env)
            self._told[page.url] = self._telling(page)
        level = config.validation.links.anchors
        for page in self._all():
            page.validate_anchor_links(files=parts.files, log_level=level)
        config.plugins.on_post_build(config=config)

    def _telling(self, page: Page) -> _Told:
        return _Told(
            meta=page.meta,
            title=page.title,
            objects=frozenset(
                (name, url)
                for addresses in self._addresses()
                for name, urls in addresses.items()
                for url in urls
                if _is_on(page, url)
            ),
            anchors=frozenset(page.present_anchor_ids or ()),
            cited=frozenset(cited_keys(page.markdown or "")),
        )

    def _addresses(self) -> list[dict[str, list[str]]]:
        """Where each documented object stands, by its name and by its other names."""
        references = self._config.plugins.get("autorefs")
        if references is None:
            return []
        return [references._primary_url_map, references._secondary_url_map]

    @contextmanager
    def _indexed_in_place(self, page: Page) -> Iterator[None]:
        """The page's entries in the index of the search take the place of the old."""
        plugins = self._config.plugins.values()
        index = next(p.search_index for p in plugins if hasattr(p, "search_index"))
        before, index.entries = index.entries, []
        try:
            yield
        except BaseException:
            index.entries = before
            raise
        old = [_is_on(page, entry["location"]) for entry in before]
        first = old.index(True) if True in old else len(before)
        others = [
            entry for entry, is_old in zip(before, old, strict=True) if not is_old
        ]
        index.entries = [*others[:first], *index.entries, *others[first:]]


def _is_on(page: Page, url: str) -> bool:
    return url.partition("#")[0] == page.url


def _timed(preview: Preview) -> None:
    began = time.monotonic()
    pages = preview.update()
    what = "all pages" if pages is None else ", ".join(pages) or "nothing"
    _log.info("Built %s in %.1f s", what, time.monotonic() - began)


def build_until_current(preview: Preview) -> None:
    """Build, and again while files change in it: no server hears of a change yet.

    Raises:
        Abort: The first build failed.
    """
    _timed(preview)
    while not preview.is_current():
        try:
            _timed(preview)
        except Abort:
            # What is wrong is in the log, and the next change is tried.
            return


def main(arguments: list[str] | None = None) -> None:
    """Serve the site until interrupted."""
    parser = argparse.ArgumentParser(prog="sitekit.preview", description=__doc__)
    parser.add_argument("-a", "--dev-addr", help="address and port to serve on")
    parser.add_argument("-o", "--open", action="store_true", help="open a browser")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    site = tempfile.mkdtemp(prefix="seqref-site-")
    load = functools.partial(load_config, site_dir=site, dev_addr=options.dev_addr)
    config = load()
    config.plugins.on_startup(command="serve", dirty=False)
    host, port = config.dev_addr
    preview = Preview(load, map(Path, WATCHED), f"http://{host}:{port}/")
    server = LiveReloadServer(lambda: _timed(preview), host, port, root=site)
    try:
        build_until_current(preview)
        for root in preview.roots:
            server.watch(str(root))
        server.serve(open_in_browser=options.open)
    except KeyboardInterrupt:
        _log.info("Shutting down")
    finally:
        server.shutdown()
        config.plugins.on_shutdown()
        shutil.rmtree(site)


if __name__ == "__main__":
    main()
