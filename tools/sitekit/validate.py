r"""JSON Schema validation of YAML, with the file and the line of what is wrong."""

import json
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from sitekit.page import PageError

SCHEMAS = Path(__file__).resolve().parent / "schemas"


@cache
def _validator(name: str) -> Draft202012Validator:
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def validate(data: Any, schema: str, name: str, text: str, first_line: int = 1) -> None:
    """Raise `PageError` for the first thing in `data` that breaks the schema.

    Args:
        data: What the YAML holds.
        schema: `concept`, `questions` or `glossary`.
        name: The file, for the message.
        text: The YAML that `data` was read from, for the line.
        first_line: Line of the file on which `text` begins.
    """
    errors = sorted(_validator(schema).iter_errors(data), key=lambda e: list(e.path))
    if not errors:
        return
    error = errors[0]
    line = first_line + line_of(text, list(error.absolute_path))
    raise PageError(f"{name}:{line}: {_subject(data, error)}{_reason(error)}")


def _subject(data: Any, error: Any) -> str:
    """The entry and the field that the error is about."""
    path = list(error.absolute_path)
    words = []
    if path and isinstance(path[0], int):
        entry = data[path.pop(0)]
        if isinstance(entry, dict):
            words = [f"`{entry.get('id') or entry.get('term') or 'entry without id'}`"]
    if path:
        words.append("`" + ".".join(str(part) for part in path) + "`")
    return ", ".join(words) + ": " if words else ""


def _reason(error: Any) -> str:
    got = str(error.instance)
    got = got if len(got) < 60 else got[:57] + "..."
    if error.validator == "pattern":
        hint = error.schema.get("description")
        return f"`{got}` does not fit: {hint or error.validator_value}"
    if error.validator == "minLength":
        return f"too short, `{got}`: at least {error.validator_value} characters"
    if error.validator == "oneOf":
        hint = error.schema.get("description", "no allowed form")
        return f"`{got}` does not fit: {hint}"
    return error.message


@lru_cache(maxsize=16)
def _composed(text: str) -> yaml.Node | None:
    """The nodes of a file with their places; read once for all of its rows."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.compose(text, Loader=loader)


def line_of(text: str, path: list[str | int]) -> int:
    """Index of the line on which the value at `path` begins."""
    node = _composed(text)
    line = node.start_mark.line if node else 0
    for part in path:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
        elif isinstance(node, yaml.MappingNode):
            node = next((v for k, v in node.value if k.value == str(part)), None)
        else:
            node = None
        if node is None:
            break
        line = node.start_mark.line
    return line
