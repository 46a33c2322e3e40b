r"""The command; see the package."""

import argparse
import sys
from pathlib import Path

from scaffold.write import FAMILIES, Concept, ScaffoldError, write

LEFT = """Left to do, and `pytest tests/test_layout.py` says what is missing:
  docs/evidence/claims.yml            a row for each claim, a sentence on limits
  docs/reference/bibliography.bib     each source that the page cites
  docs/reference/glossary.yml         each new term
  python -m experiments run {run} --full
  PYTHONPATH=tools python -m sitekit.lineage    the map of concepts
  ruff check --fix . && ruff format .
"""


def main() -> int:
    """Write the files and say what is left."""
    parser = argparse.ArgumentParser(prog="nox -s new --", description=__doc__)
    families = ", ".join(FAMILIES)
    parser.add_argument("name", help=f"family/stem; families: {families}")
    parser.add_argument("--layer", required=True, help="class of the layer: IndRNN")
    parser.add_argument(
        "--experiment", default="", help="subject/name of what is measured"
    )
    given = parser.parse_args()
    try:
        concept = Concept(given.name, given.layer, given.experiment)
        written = write(concept, Path.cwd())
    except (ScaffoldError, OSError) as error:
        print(f"nox -s new: {error}", file=sys.stderr)
        return 2
    print("\n".join(written))
    print(LEFT.format(run=given.experiment.rpartition("/")[2] or "NAME"), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
