r"""A small site in a temporary folder, for the tests of `sitekit`."""

import json
import textwrap
from pathlib import Path

import markdown
import pytest

EXTENSIONS = ("data", "citations", "summary", "questions", "glossary", "lineage")

BIBTEX = r"""
@article{elman1990,
  author  = {Elman, Jeffrey L.},
  title   = {Finding Structure in Time},
  journal = {Cognitive Science},
  year    = {1990},
  doi     = {10.1207/s15516709cog1402_1},
}

@article{hochreiter1997,
  author  = {Hochreiter, Sepp and Schmidhuber, J{\"u}rgen},
  title   = {Long Short-Term Memory},
  journal = {Neural Computation},
  year    = {1997},
}

@article{three2000,
  author  = {van Merri{\"e}nboer, Bart and Other, A. and Third, B.},
  title   = {A Title},
  journal = {A Journal},
  year    = {2000},
}
"""


class SmallSite:
    """A repository with `docs/`, and a converter for its pages."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("docs/reference/bibliography.bib", BIBTEX)

    def write(self, name: str, text: str) -> Path:
        """Write a file; the text is dedented and its first newline dropped."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).removeprefix("\n"), encoding="utf-8")
        return path

    def data(self, name: str, value: object) -> None:
        """Write `docs/_data/<name>.json`."""
        self.write(f"docs/_data/{name}.json", json.dumps(value))

    def convert(self, name: str) -> str:
        """HTML of `docs/<name>`, without front matter, as MkDocs would ask for it."""
        from sitekit.page import split_front_matter

        text = (self.root / "docs" / name).read_text(encoding="utf-8")
        return self.markdown().convert(split_front_matter(text, name)[1])

    def markdown(self) -> markdown.Markdown:
        """A converter with the site's extensions and Material's usual ones."""
        ours = {f"sitekit.{name}": {"root": str(self.root)} for name in EXTENSIONS}
        usual = [
            "attr_list",
            "md_in_html",
            "tables",
            "toc",
            "pymdownx.arithmatex",
            "pymdownx.details",
            "pymdownx.superfences",
            "pymdownx.tabbed",
        ]
        settings = {
            "pymdownx.arithmatex": {"generic": True},
            "pymdownx.tabbed": {"alternate_style": True},
        }
        return markdown.Markdown(
            extensions=[*usual, *ours], extension_configs={**settings, **ours}
        )


@pytest.fixture
def small_site(tmp_path: Path) -> SmallSite:
    return SmallSite(tmp_path)
