r"""The specimens of the museum, from the files beside the pages that show them."""

from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
# `lab.sources` counts these among what the record depends on.
FILES = (
    "docs/evidence/bugs/attention.py",
    "docs/evidence/bugs/decoding.py",
    "docs/evidence/bugs/formulas.py",
    "docs/evidence/bugs/future.py",
    "docs/evidence/bugs/numbers.py",
    "docs/evidence/bugs/padding.py",
    "docs/evidence/bugs/rows.py",
    "docs/evidence/bugs/state.py",
)


def load(file: str) -> ModuleType:
    r"""A file of the checkout as a module that belongs to no package.

    Its folder is not on the path: there `numbers.py` would hide the standard library's.
    """
    module = ModuleType(file.removesuffix(".py").replace("/", "."))
    path = ROOT / file
    exec(compile(path.read_text(encoding="utf-8"), path, "exec"), vars(module))
    return module


attention, decoding, formulas, future, numbers, padding, rows, state = map(load, FILES)
