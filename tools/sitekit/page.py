r"""Which page a Markdown extension is working on, and where in it a text stands.

Python-Markdown hands an extension the text of a page and neither its file nor its
front matter. MkDocs and Zensical both leave the file's name on the `Markdown`
object, on a processor of their own; a bare `Markdown` does not, so there the text is
looked up among the pages under `docs/`. Line numbers always count from the top of the
file, front matter included.
"""

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import yaml
from markdown import Markdown
from markdown.extensions import Extension
from markdown.postprocessors import Postprocessor
from markdown.preprocessors import Preprocessor
from markdown.util import AtomicString

REPOSITORY = Path(__file__).resolve().parents[2]

_FRONT_MATTER = re.compile(r"^---[ \t]*\n(.*?\n)(?:\.{3}|-{3})[ \t]*\n", re.DOTALL)
_FENCE = re.compile(r"^[ \t>]*(`{3,}|~{3,})")
SNIPPET = re.compile(r"""-{1,}8<-{1,}[ \t]+["']([^"':]+)""")
_ATTRIBUTE = "sitekit_page"


try:
    # What MkDocs shows without forty lines of traceback.
    from mkdocs.exceptions import BuildError as _BuildError
except ImportError:
    _BuildError = Exception


class PageError(_BuildError, ValueError):  # type: ignore[misc, valid-type]
    """Something on a page is wrong; the message begins with file and line."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


# The loader in C is ten times as fast, where PyYAML was built with it.
_Loader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class UniqueKeyLoader(_Loader):
    """YAML that refuses the same key twice, which YAML itself lets pass."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Build the mapping, after a look at its keys."""
        seen = []
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    "while reading a mapping",
                    node.start_mark,
                    f"the key {key!r} stands twice",
                    key_node.start_mark,
                )
            seen.append(key)
        return super().construct_mapping(node, deep)


@lru_cache(maxsize=256)
def _parsed(text: str) -> Any:
    return yaml.load(text, UniqueKeyLoader)


def load_yaml(text: str, name: str, first_line: int = 1) -> Any:
    """Parse YAML; an error names `name` and the line."""
    try:
        return copy.deepcopy(_parsed(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = first_line + (mark.line if mark else 0)
        problem = getattr(error, "problem", None) or str(error)
        raise PageError(f"{name}:{line}: not valid YAML: {problem}") from error


def front_matter_block(text: str) -> str:
    """The YAML between the two rules at the top of a page."""
    match = _FRONT_MATTER.match(text.removeprefix("\ufeff").replace("\r\n", "\n"))
    return match.group(1) if match else ""


def split_front_matter(text: str, name: str) -> tuple[dict, str, int]:
    """Return front matter, body, and the line number of the body's first line."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    match = _FRONT_MATTER.match(text)
    data: dict = {}
    body = text
    if match:
        loaded = load_yaml(match.group(1), name, first_line=2)
        if loaded is not None and not isinstance(loaded, dict):
            raise PageError(f"{name}:1: front matter must be a mapping")
        data, body = loaded or {}, text[match.end() :]
    stripped = body.lstrip("\n")
    first = text[: len(text) - len(stripped)].count("\n") + 1
    return data, stripped, first


@dataclass(frozen=True)
class Site:
    """The folder that pages, data and question files are read from."""

    root: Path = REPOSITORY

    @property
    def docs(self) -> Path:
        """Where the pages are."""
        return self.root / "docs"

    def name(self, path: Path) -> str:
        """The path as a reader of the repository writes it."""
        try:
            return path.resolve().relative_to(self.root.resolve()).as_posix()
        except ValueError:
            return path.as_posix()


@dataclass
class Page:
    """A page's file, front matter and lines."""

    site: Site
    path: Path | None = None
    first_line: int = 1
    front_matter: dict = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    exact: bool = True
    sources: list[Path] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def uri(self) -> str:
        """The path below `docs/`, or the empty string where there is no file."""
        if self.path is None:
            return ""
        return self.path.relative_to(self.site.docs.resolve()).as_posix()

    @property
    def name(self) -> str:
        """The path as it stands in messages."""
        return self.site.name(self.path) if self.path else "text that is no page"

    def where(self, index: int) -> str:
        """Place of the line that the page's preprocessors see as `lines[index]`."""
        if self.exact:
            return f"{self.name}:{self.first_line + index}"
        return self.find(self.lines[index])

    def find(self, *tokens: str) -> str:
        """Place of the first line, outside code fences, that holds a token.

        The second is looked for where no text of the page has the first, and so on.
        """
        for token in tokens:
            for name, lines, first in self._texts():
                offset = _line_of(lines, token)
                if offset is not None:
                    return f"{name}:{first + offset}"
        return self.name

    def link(self, target: str) -> str:
        """A relative link from this page to `target`, a path below `docs/`."""
        depth = self.uri.count("/")
        return "../" * depth + target

    def _texts(self):
        if self.path is None:
            yield self.name, self.lines, 1
        else:
            lines = tuple(self.path.read_text(encoding="utf-8").split("\n"))
            yield self.name, lines, 1
        included = [self.site.root / p for p in SNIPPET.findall("\n".join(self.lines))]
        for path in [*self.sources, *included]:
            if path.is_file():
                lines = tuple(path.read_text(encoding="utf-8").split("\n"))
                yield self.site.name(path), lines, 1


def _line_of(lines: tuple[str, ...], token: str) -> int | None:
    """Index of the line where `token` begins; fenced code is passed over."""
    head = token.strip("\n").split("\n")[0]
    fence = ""
    for index, line in enumerate(lines):
        match = _FENCE.match(line)
        if match and not fence:
            fence = match.group(1)
        elif (
            match
            and line.strip(" \t>") == match.group(1)
            and (match.group(1).startswith(fence))
        ):
            fence = ""
        elif not fence and head in line:
            return index
    return None


def page_of(md: Markdown, lines: list[str] | None = None, site: Site | None = None):
    """The page that `md` is converting.

    Args:
        md: The converter that an extension was given.
        lines: The page's lines as the first preprocessor sees them; may be left out
            once any extension of this package, or an earlier call, has seen them.
        site: Where the pages are; this repository if left out.

    Returns:
        `Page`; its `path` is `None` if the text belongs to no file under `docs/`.
    """
    page = getattr(md, _ATTRIBUTE, None)
    if page is None or (lines is not None and "sitekit_page" not in md.preprocessors):
        page = _make_page(md, list(lines or []), site or Site())
        setattr(md, _ATTRIBUTE, page)
    return page


def _make_page(md: Markdown, lines: list[str], site: Site) -> Page:
    body = "\n".join(lines).strip("\n")
    path = _named_page(md, site) or _matching_page(body, site)
    if path is None:
        return Page(site, lines=tuple(lines))
    mtime = path.stat().st_mtime_ns
    front_matter, own, first = _parts(path, mtime, site.name(path))
    # MkDocs strips blank lines above the text, Zensical may not.
    first -= next((i for i, line in enumerate(lines) if line.strip()), 0)
    exact = own.strip("\n") == body.replace("\r\n", "\n")
    return Page(site, path.resolve(), first, front_matter, tuple(lines), exact)


def _named_page(md: Markdown, site: Site) -> Path | None:
    """The page that MkDocs or Zensical says it is converting."""
    uris = [
        getattr(getattr(processor, "file", None), "src_uri", None)
        for processor in md.treeprocessors
    ] + [
        getattr(getattr(processor, "page", None), "path", None)
        for processor in md.preprocessors
    ]
    for uri in filter(None, uris):
        path = site.docs / str(uri)
        if path.is_file():
            return path
    return None


def _matching_page(body: str, site: Site) -> Path | None:
    """The one page under `docs/` whose text, without front matter, is `body`."""
    if not body or not site.docs.is_dir():
        return None
    matches = [
        path
        for path in sorted(site.docs.rglob("*.md"))
        if _body(path, path.stat().st_mtime_ns) == body.replace("\r\n", "\n")
    ]
    return matches[0] if len(matches) == 1 else None


@lru_cache(maxsize=4096)
def _body(path: Path, _mtime: int) -> str | None:
    try:
        text = path.read_text(encoding="utf-8")
        return split_front_matter(text, str(path))[1].strip("\n")
    except PageError:
        return None


@lru_cache(maxsize=4096)
def _parts(path: Path, _mtime: int, name: str) -> tuple[dict, str, int]:
    # Once a page, not once for each docstring that is rendered into it.
    return split_front_matter(path.read_text(encoding="utf-8"), name)


class _Remember(Preprocessor):
    """Keeps the page's lines before any other preprocessor changes them."""

    def __init__(self, md: Markdown, site: Site) -> None:
        super().__init__(md)
        self.site = site
        self.nested = False

    def run(self, lines: list[str]) -> list[str]:
        if not self.nested:
            setattr(self.md, _ATTRIBUTE, _make_page(self.md, lines, self.site))
        return lines


@contextmanager
def keeping_faults(md: Markdown) -> Iterator[None]:
    """Note what is wrong and go on, so that one build tells all faults of a page."""
    try:
        yield
    except PageError as error:
        page_of(md).faults.append(str(error))


class _TellFaults(Postprocessor):
    """Raises once what was wrong on a page, when all of it has been seen."""

    def run(self, text: str) -> str:
        faults = sorted(dict.fromkeys(page_of(self.md).faults), key=_place)
        if faults:
            page_of(self.md).faults.clear()
            raise PageError("\n".join(faults))
        return text


def _place(fault: str) -> tuple[str, int]:
    file, line, *_ = (*fault.split(":", 2), "")
    return file, int(line) if line.isdigit() else 0


def _processors(md: Markdown) -> Iterator[Any]:
    yield from md.preprocessors
    yield from md.parser.blockprocessors
    yield from md.inlinePatterns
    yield from md.treeprocessors


def _guard(md: Markdown, processor: Any) -> None:
    """Let a processor go on after a fault; what it was at is left as it stood."""
    inline = hasattr(processor, "handleMatch")
    name = "handleMatch" if inline else "run"
    method = getattr(processor, name)

    def guarded(*arguments: Any) -> Any:
        with keeping_faults(md):
            return method(*arguments)
        if inline:
            match = arguments[0]
            element = Element("span")
            element.text = AtomicString(match.group(0))
            return element, match.start(0), match.end(0)
        # The lines of a preprocessor; of the others nothing is asked.
        return arguments[0] if isinstance(processor, Preprocessor) else None

    setattr(processor, name, guarded)


class SiteExtension(Extension):
    """An extension that knows the site's root and the page it is on."""

    def __init__(self, **kwargs: Any) -> None:
        self.config = {"root": ["", "The repository; the default is this one."]}
        super().__init__(**kwargs)

    def extendMarkdown(self, md: Markdown) -> None:
        """Register the memory of the page, then the extension's own processors."""
        root = self.getConfig("root")
        site = Site(Path(root)) if root else Site()
        if "sitekit_page" not in md.preprocessors:
            md.preprocessors.register(_Remember(md, site), "sitekit_page", 1000)
            md.postprocessors.register(_TellFaults(md), "sitekit_faults", -1000)
        before = {id(processor) for processor in _processors(md)}
        self.register(md, site)
        for processor in _processors(md):
            if id(processor) not in before:
                _guard(md, processor)

    def register(self, md: Markdown, site: Site) -> None:
        """Register what this extension does."""
        raise NotImplementedError


def preprocess(md: Markdown, text: str) -> str:
    """Run the converter's preprocessors over a text that is no page of its own.

    A block processor uses it for Markdown that comes from a data file, so that fences
    and mathematics in it are treated as on a page.
    """
    remember = next(p for p in md.preprocessors if isinstance(p, _Remember))
    remember.nested = True
    try:
        lines = text.split("\n")
        for processor in md.preprocessors:
            lines = processor.run(lines)
    finally:
        remember.nested = False
    return "\n".join(lines)
