r"""A layer's contract: its properties by name, and how they are gone through."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from seqref._contract import padding, time, values
from seqref._contract.expected import holds_after_all
from seqref._contract.subject import Subject, flatten, is_smooth, property_named


class Check(NamedTuple):
    r"""One look at a layer; it is left out where `part` is among what is skipped."""

    run: Callable[[Subject], None]
    part: str = ""


# In the order in which they are checked. *protocol* comes before them all: without it
# there is nothing to look at.
PROPERTIES: dict[str, tuple[Check, ...]] = {
    "arguments": (Check(values.arguments),),
    "determinism": (Check(values.determinism),),
    "steps": (Check(values.steps),),
    "module state": (Check(values.module_state),),
    "initial state": (Check(values.initial_state), Check(values.no_state)),
    "forward": (Check(time.forward),),
    "gradients": (
        Check(time.gradients, "gradients beside the loop"),
        Check(time.slopes, "central differences"),
    ),
    "chunks": (Check(time.chunks, "chunks"),),
    "causality": (Check(time.causality, "causality"),),
    "rows": (Check(values.rows), Check(values.row_gradients)),
    "padding": (Check(padding.padding_or_refusal),),
    "empty": (Check(values.empty),),
}


class Report(NamedTuple):
    r"""What a check looked at: names of properties, and reasons of those skipped.

    `failed` holds the properties that fail as was expected, with the reasons given.
    """

    checked: tuple[str, ...]
    skipped: dict[str, str]
    failed: dict[str, str]


def go_through(subject: Subject, expected: Mapping[str, str]) -> Report:
    r"""Check one property after the other, and raise at the first that surprises.

    Raises:
        AssertionError: a property fails that should hold, or holds that was expected
            to fail.
    """
    skipped = _skipped(subject)
    checked, failed = ["protocol"], {}
    for name, checks in PROPERTIES.items():
        runs = [check.run for check in checks if check.part not in skipped]
        if not runs:
            continue
        if name not in expected:
            for run in runs:
                with property_named(name):
                    run(subject)
            checked.append(name)
        elif _fails(name, runs, subject):
            failed[name] = expected[name]
        else:
            raise holds_after_all(name, expected[name])
    return Report(tuple(checked), skipped, failed)


def _fails(name: str, runs: list[Callable[[Subject], None]], subject: Subject) -> bool:
    try:
        for run in runs:
            with property_named(name):
                run(subject)
    except AssertionError:
        return True
    return False


def _skipped(subject: Subject) -> dict[str, str]:
    skipped = {}
    if not subject.chunk_invariant:
        reason = "the layer declares chunk_invariant = False"
        skipped["chunks"] = skipped["forward over more than one step"] = reason
    if not (subject.chunk_invariant and subject.differentiable_state):
        reason = "the layer declares differentiable_state = False"
        if not subject.chunk_invariant:
            reason = "the layer declares chunk_invariant = False"
        skipped["gradients beside the loop"] = reason
    if not subject.differentiable_state:
        reason = "the layer declares differentiable_state = False"
        skipped["gradients of the state"] = reason
    if not subject.supports_lengths:
        skipped["padding"] = "the layer declares supports_lengths = False"
    if subject.time == 1:
        skipped["causality"] = "`x` has one step"
        skipped.setdefault("chunks", "`x` has one step")
    if subject.dtype != torch.float64:
        skipped["central differences"] = f"`dtype` is {subject.dtype}"
    if not any(is_smooth(t) for t in flatten(subject.state).values()):
        skipped["initial state"] = "the state holds no real or complex tensor"
    return skipped
