r"""The docstring of a layer: what it says itself, and the rest from its cell's.

It needs text alone, so that the site can make the same without torch.
"""

import re
from inspect import cleandoc
from textwrap import dedent, fill, indent

_ORDER = ("Args", "Shapes", "Cost", "Initialisation", "Forms", "Raises", "Source")
_FORMS = """\
`step` (one step), `scan` (a loop over it), and `forward`, the same loop with
the checks made once."""

# In a cell's sections: what a sequence changes.
_OVER_TIME = {
    "Shapes": (
        (r"`x_t`: \(batch, input\)", "`x`: (batch, time, input)"),
        (
            r"\n- returns: `h_t` \(batch, (\w+)\), new (`\w+`)",
            "; `lengths`: (batch,) integers, the rest of each row is padding"
            r"\n- returns: `y` (batch, time, \1), zero in the padding, and the \2 "
            "after each row's last real step",
        ),
    ),
    "Cost": (
        (
            r"O\((.+)\) time and (.+) state per step.*",
            r"O(T \1) time, T steps one after the other; \2 state.",
        ),
    ),
    "Raises": (
        (
            r"`x_t` or `state` has the wrong shape, dtype or device;",
            "`x`, `state` or `lengths` has the wrong shape, dtype or device; a length "
            "is below 0 or above time;",
        ),
        (
            r"(TypeError: `state` is no `\w+`;)",
            r"\1 `lengths` is not of an integer dtype;",
        ),
    ),
}


def layer_docstring(own: str, cell: str) -> str:
    r"""A layer's docstring, made from its `own` part and the docstring of its `cell`.

    A section that the layer writes stands as it is; each other one is the cell's, in
    the words of a sequence.
    """
    opening, written = _sections(own)
    _, made = _sections(cell)
    for name, changes in _OVER_TIME.items():
        # An entry of several lines becomes one, then is wrapped anew.
        text = re.sub(r"\n +", " ", made.get(name, ""))
        for pattern, words in changes:
            text = re.sub(pattern, words, text)
        made[name] = "\n".join(map(_wrapped, text.splitlines()))
    made["Source"] = _source(made.get("Source", ""))
    sections = {"Forms": _FORMS, **made, **written}
    parts = [
        f"{name}:\n{indent(sections[name], '    ')}"
        for name in sorted(sections, key=_ORDER.index)
    ]
    return "\n\n".join([opening, *parts])


def _sections(docstring: str) -> tuple[str, dict[str, str]]:
    r"""What stands before the first section, and each section's text by its name."""
    opening, *rest = re.split(r"^([A-Z]\w*):\n", cleandoc(docstring), flags=re.M)
    texts = (dedent(text).strip() for text in rest[1::2])
    return opening.strip(), dict(zip(rest[::2], texts, strict=True))


def _source(text: str) -> str:
    r"""A cell's source; what its step returns is no difference of the layer."""
    source, _, differences = " ".join(text.split()).partition("Differs: ")
    kept = [d for d in differences.rstrip(".").split("; ") if d[:7] != "returns"]
    kept = [*filter(None, kept), "batch first", "one layer, one direction"]
    return f"{_wrapped(source)}\n" + _wrapped(f"Differs: {'; '.join(kept)}.")


def _wrapped(entry: str) -> str:
    hanging = "    " if re.match(r"\w+Error: ", entry) else "  " * entry.startswith("-")
    return fill(
        entry,
        width=80,
        subsequent_indent=hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
