r"""Compares every Python block of the built site with what ran.

    python -m pageblocks.audit --site site

Exit status 0 if each rendered block passed, was skipped for want of a GPU, is an
opt-out with a reason, or shows source that equals its file, and if each block that
ran is on the site; 1 otherwise.
"""

import argparse
import difflib
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup, Tag

from pageblocks.errors import PageError
from pageblocks.extract import TESTED, Block, blocks_of, sha_of
from pageblocks.files import read_json
from pageblocks.markup import dialect
from pageblocks.record import RECORD
from pageblocks.shown import is_in_files, read_files, signature_problem
from pageblocks.stamps import STAMPS, is_held_back

_LINE_NUMBERS = "span.linenos, span.lineno, .linenodiv"


@dataclass
class Audit:
    r"""What was counted, what was opted out, and what is wrong."""

    root: Path
    counts: Counter[str] = field(default_factory=Counter)
    opted_out: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def audit(site: Path, root: Path) -> Audit:
    r"""Audit a built site against the record of the last run of the pages."""
    result = Audit(root)
    record = read_json(root / RECORD)
    files = {
        path: lines
        for folder in TESTED
        for path, lines in read_files(root / folder).items()
    }
    seen: set[str] = set()
    for path in sorted(site.rglob("*.html")):
        soup = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        page = page_of(path.relative_to(site), root)
        where = page or f"{site.name}/{path.relative_to(site).as_posix()}"
        texts = _of_page(soup, where, result, files)
        if page is not None:
            seen.add(page)
            outputs = len(soup.select("div.output.highlight"))
            _compare(page, texts, outputs, record.get(page, {}), result)
            result.problems += [f"{page}: {fault}" for fault in _under_never(soup)]
        else:
            result.problems += [_unknown(where, text) for text in texts]
    for page in sorted(set(record) - seen):
        if page.startswith("docs/") and (root / page).exists():
            result.problems.append(f"{page}: its blocks ran, and it is not on the site")
    return result


def page_of(path: Path, root: Path) -> str | None:
    r"""The page that a file of the site was built from, or `None`."""
    stem = path.with_suffix("")
    tries = [stem.with_suffix(".md")]
    if stem.name == "index":
        folder = stem.parent
        tries = [folder / "index.md", folder / "README.md"]
        if folder != Path():
            tries.insert(0, folder.with_name(folder.name + ".md"))
    for candidate in tries:
        if (root / "docs" / candidate).is_file():
            return (Path("docs") / candidate).as_posix()
    return None


def text_of(block: Tag) -> str:
    r"""The code of a rendered block, without line numbers and markup."""
    code = block.select_one("td.code code") or block.select_one("pre > code")
    code = code or block.select_one("code")
    if code is None:
        return ""
    for number in code.select(_LINE_NUMBERS):
        number.decompose()
    return code.get_text().strip("\n")


def _of_page(soup: BeautifulSoup, where: str, result: Audit, files: dict) -> list[str]:
    r"""The Python blocks of a page; those of mkdocstrings are compared on the way."""
    texts: list[str] = []
    for block in soup.select("div.highlight"):
        language = _language(block)
        api = block.find_parent(class_="doc-object")
        signature = "doc-signature" in block.get_attribute_list("class")
        if language is None and not signature:
            result.problems.append(
                f"{where}: a code block without a language class; the site needs "
                "pymdownx.highlight with pygments_lang_class: true"
            )
        elif api is not None:
            _of_api(block, api, signature, where, result, files)
        elif dialect(language or "") == "refused":
            result.problems.append(f"{where}: a {language} block is not run")
        elif dialect(language or "") == "run":
            texts.append(text_of(block))
    return texts


def _language(block: Tag) -> str | None:
    for name in block.get_attribute_list("class"):
        if name and name.startswith("language-"):
            return name.removeprefix("language-")
    return None


def _of_api(
    block: Tag, api: Tag, signature: bool, where: str, result: Audit, files: dict
) -> None:
    r"""Count a block that mkdocstrings made, and compare it with the source."""
    text = text_of(block)
    heading = api.select_one(".doc-heading[id]") or api.select_one("[id]")
    name = str(heading["id"]) if heading is not None else "?"
    if signature:
        result.counts["signatures"] += 1
        problem = signature_problem(text, name, result.root / "src")
        if problem is not None:
            result.problems.append(f"{where}: signature of {name}: {problem}")
    elif dialect(_language(block) or "") is None:
        return
    elif is_in_files(text, files):
        source = block.find_parent("details") is not None
        result.counts["source blocks" if source else "docstring examples"] += 1
    else:
        first = text.split("\n", 1)[0]
        result.problems.append(f"{where}: code of {name} is in no file of src: {first}")


def _compare(
    page: str, texts: list[str], outputs: int, record: dict[str, Any], result: Audit
) -> None:
    r"""Compare a page's rendered blocks with its own blocks and their fates."""
    path = result.root / page
    try:
        blocks = blocks_of(path, result.root)
    except PageError as error:
        result.problems.append(str(error))
        return
    result.counts["rendered"] += len(texts)
    _compare_outputs(page, blocks, outputs, result)
    left = list(blocks)
    for text in texts:
        block = next((b for b in left if b.text == text), None)
        if block is None:
            result.problems.append(_differs(page, text, left))
            continue
        left.remove(block)
        _judge(block, record, result)
    for block in left:
        result.problems.append(f"{block.where}: this block is not on the site")
    fresh = record.get("sha") == sha_of(path.read_text(encoding="utf-8"))
    if record and not fresh:
        result.problems.append(f"{page}: changed since its blocks ran")


def _compare_outputs(page: str, blocks: list[Block], shown: int, result: Audit) -> None:
    r"""Count the outputs of a page, and those held back until a block has run."""
    stamps = read_json(result.root / STAMPS)
    printing = [block for block in blocks if block.output is not None]
    held = [block for block in printing if is_held_back(blocks, block, stamps)]
    result.counts["outputs"] += shown
    result.counts["held back"] += len(held)
    if shown != len(printing) - len(held):
        result.problems.append(
            f"{page}: the site shows {shown} outputs; of {len(printing)} on the page "
            f"{len(held)} are held back"
        )


def _under_never(soup: BeautifulSoup) -> list[str]:
    r"""Outputs that stand under a block of which the page says that it never ran."""
    return [
        "an output stands under a block that never ran on a GPU"
        for stamp in soup.select("p.gpu-stamp--never")
        if (below := stamp.find_next_sibling()) is not None
        and "output" in below.get_attribute_list("class")
    ]


def _judge(block: Block, record: dict[str, Any], result: Audit) -> None:
    r"""Count a rendered block by what became of it."""
    entry = record.get("blocks", {}).get(block.name, {})
    state = entry.get("state")
    if entry.get("sha") != block.sha:
        result.problems.append(f"{block.where}: rendered, and not run")
        return
    if state not in ("passed", "gpu-skipped", "no-exec", "shown"):
        result.problems.append(f"{block.where}: rendered, and its run {state}")
        return
    result.counts[state] += 1
    reason = f"{block.where}: {entry.get('reason', '')}"
    if state == "no-exec":
        result.opted_out.append(reason)
    elif state == "gpu-skipped":
        result.skipped.append(reason)
    if block.gpu:
        tried = entry.get("tried", {}).get("state")
        if tried == "gpu-alone":
            result.opted_out.append(f"{block.where}, on a CPU: {block.gpu_alone}")
        elif tried != "passed":
            result.problems.append(f"{block.where}: not tried on a CPU ({tried})")
        result.counts["tried"] += tried == "passed"
    if block.from_scratch:
        alone = entry.get("alone", {}).get("state")
        if alone not in ("passed", "gpu-skipped"):
            result.problems.append(f"{block.where}: not run alone ({alone})")
        result.counts["alone"] += alone == "passed"


def _differs(page: str, text: str, blocks: list[Block]) -> str:
    r"""Say which block a rendered text was to be, if one is near."""
    near = difflib.get_close_matches(text, [b.text for b in blocks], n=1)
    block = next((b for b in blocks if near and b.text == near[0]), None)
    if block is None:
        return _unknown(page, text)
    pairs = zip(block.fence.lines, text.split("\n"), strict=False)
    line = next((a for a, b in pairs if a.text != b), block.fence.lines[-1])
    return f"{page}:{line.number}: the site shows other code than ran"


def _unknown(where: str, text: str) -> str:
    first = text.split("\n", 1)[0]
    return f"{where}: rendered as Python, and never run: {first}"


def summary(result: Audit) -> str:
    r"""The counts, the opt-outs with their reasons, and the problems."""
    counts = result.counts
    rows = [
        ("Python blocks on the pages", "rendered"),
        ("run, and passed", "passed"),
        ("  of these also run alone", "alone"),
        ("skipped for want of a GPU", "gpu-skipped"),
        ("  of these tried on a CPU", "tried"),
        ("not run, with a reason", "no-exec"),
        ("shown source, equal to its file", "shown"),
        ("outputs of these blocks", "outputs"),
        ("outputs held back until a GPU ran", "held back"),
        ("mkdocstrings: signatures compared", "signatures"),
        ("mkdocstrings: source, equal to its file", "source blocks"),
        ("mkdocstrings: docstring examples", "docstring examples"),
    ]
    lines = [f"{label:<42}{counts[key]:>5}" for label, key in rows]
    lines += [f"not run: {reason}" for reason in result.opted_out]
    lines += [f"skipped: {reason}" for reason in result.skipped]
    lines += [f"PROBLEM {problem}" for problem in result.problems]
    count = len(result.problems)
    lines.append("audit passed" if not count else f"audit FAILED: {count} problems")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    r"""The command line."""
    parser = argparse.ArgumentParser(prog="pageblocks.audit", description=__doc__)
    parser.add_argument("--site", type=Path, default=Path("site"))
    parser.add_argument("--root", type=Path, default=Path())
    given = parser.parse_args(arguments)
    if not any(given.site.rglob("*.html")):
        print(f"{given.site}: no built site here; build it first", file=sys.stderr)
        return 1
    result = audit(given.site, given.root.resolve())
    print(summary(result))
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
