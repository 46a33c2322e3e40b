r"""When and on what each `.gpu` block was last run, and whether it changed since.

A stamp is written only by a run that passed on a GPU. Its hash covers the block,
the Python blocks before it, and the source of the seqref modules that they import.
"""

import ast
import datetime
import hashlib
from pathlib import Path
from typing import Any

from pageblocks import gpu
from pageblocks.extract import Block
from pageblocks.files import read_json, write_json
from pageblocks.sources import modules_used

STAMPS = Path("docs/_data/gpu_stamps.json")
_KEPT = ("date", "device", "torch", "hash")


def hash_of(blocks: list[Block], block: Block, root: Path) -> str:
    r"""Hash of a block, the blocks before it and the seqref source they import."""
    texts = [b.text for b in blocks[: block.index + 1]]
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\0")
    trees = [ast.parse(text) for text in texts if _parses(text)]
    for name, path in sorted(modules_used(trees, root / "src").items()):
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def key_of(blocks: list[Block], block: Block) -> str:
    r"""`gpu-1` for the first `.gpu` block of a page, `gpu-2` for the next."""
    return f"gpu-{1 + sum(b.gpu for b in blocks[: block.index])}"


def new_stamp(blocks: list[Block], block: Block, root: Path) -> dict[str, Any]:
    r"""The stamp of a block that has just passed on this machine's GPU."""
    return {
        "page": block.page,
        "block": key_of(blocks, block),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": gpu.gpu_name(),
        "torch": gpu.torch_version(),
        "hash": hash_of(blocks, block, root),
    }


def save(root: Path, new: list[dict[str, Any]]) -> None:
    r"""Add stamps to the committed file."""
    stamps = read_json(root / STAMPS)
    for stamp in new:
        of_page = stamps.setdefault(stamp["page"], {})
        of_page[stamp["block"]] = {k: stamp[k] for k in _KEPT}
    write_json(root / STAMPS, stamps)


def is_held_back(blocks: list[Block], block: Block, stamps: dict[str, Any]) -> bool:
    r"""Whether the site does not show what a block prints, since it never ran."""
    return block.gpu and key_of(blocks, block) not in stamps.get(block.page, {})


def badge(
    blocks: list[Block], block: Block, root: Path, stamps: dict[str, Any]
) -> tuple[str, str]:
    r"""The state of a block's stamp (`current`, `changed`, `never`) and its words."""
    stamp = stamps.get(block.page, {}).get(key_of(blocks, block))
    if stamp is None:
        held = "; what it prints is shown once it has been" if block.output else ""
        return "never", f"not yet run on a GPU{held}"
    release = ".".join(stamp["torch"].split(".")[:2])
    run = f"{stamp['device']}, torch {release}, {stamp['date']}"
    if stamp["hash"] != hash_of(blocks, block, root):
        return "changed", f"changed since it was last run on {run}"
    return "current", f"last run on {run}"


def _parses(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True
