r"""The record of which blocks ran: build/pages/ran.json."""

from pathlib import Path
from typing import Any

from pageblocks.files import read_json, write_json

RECORD = Path("build/pages/ran.json")
_ELSEWHERE = {"page", "page_sha", "name", "stamp"}


def merge(root: Path, entries: list[dict[str, Any]]) -> None:
    r"""Put what was run into the record, beside what it holds of the same pages.

    What the record holds of a page is dropped when the page's text has changed.

    Args:
        root: The repository root.
        entries: One for each block and one for each run of a block alone.
    """
    path = root / RECORD
    record = read_json(path)
    for entry in entries:
        page, sha = entry["page"], entry["page_sha"]
        if record.get(page, {}).get("sha") != sha:
            record[page] = {"sha": sha, "blocks": {}}
        blocks = record[page]["blocks"]
        before = blocks.get(entry["name"], {})
        kept = {k: v for k, v in entry.items() if k not in _ELSEWHERE}
        if "state" in entry:
            before = {k: before[k] for k in ("alone", "tried") if k in before}
        blocks[entry["name"]] = before | kept
    write_json(path, record)
