r"""A report that is kept beside its model, so that it need not be measured again."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch

from seqref import __version__
from seqref.training._file import write_whole
from seqref.training._output import tell

Report = TypeVar("Report")


def key_of(form: str, model: Path, text: str, limit: int) -> dict[str, Any]:
    r"""What a report depends on; `text` is the digest of what was learned from."""
    return {
        "format": form,
        "seqref": __version__,
        "torch": torch.__version__,
        "model": hashlib.sha256(model.read_bytes()).hexdigest(),
        "text": text,
        "limit": limit,
    }


def read_report(
    path: Path, key: dict[str, Any], made: Callable[..., Report]
) -> Report | None:
    r"""The report that `keep_report` wrote for this key, or None."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return made(**stored["report"]) if stored["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        # It can be made again.
        return None


def keep_report(path: Path, key: dict[str, Any], result: Any) -> None:
    r"""Write a report, a dataclass."""
    entry = json.dumps({"key": key, "report": asdict(result)}, indent=1)
    try:
        write_whole(path, f"{entry}\n".encode())
    except OSError as error:
        tell(f"seqref: the report was not kept: {error}")
