r"""The property of a model that reads a sequence in parts."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from seqref._contract.calls import call_with_state
from seqref._contract.inputs import check_batch, other
from seqref._contract.outputs import Outputs, flatten
from seqref._contract.places import SQUEEZED, Call, at, needs_steps
from seqref._contract.probe import Probe

CARRY_CAUSES = (
    "a state that is ignored, reset or not returned, positions that start again in "
    "each part, a layer that reads ahead"
)
HISTORY_CAUSES = (
    "a state that is ignored or reset, inputs so large that they saturate the state, "
    "rows of `x` that begin anew in its second half"
)

BETWEEN_CAUSES = (
    "a state or cache that is kept on the module, so that the one that is passed in "
    "is ignored"
)
BUFFER_CAUSES = (
    "a state that is the module's own tensor, written in place by the next call "
    "(return a copy of it)"
)
TIME_FIRST = (
    "A part of {t} steps has a state with {t} on an axis where that of the whole has "
    "{time}. A module that takes its time axis first does that: check_row_order says "
    "so. Build it with batch_first=True, or transpose in `call`."
)


def check_state_carry(
    model: Call,
    x: Tensor,
    *,
    call: Call | None = None,
    dtype: torch.dtype | None = None,
    atol: float | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> None:
    r"""Hold a model to this: parts with the state carried across equal the whole.

    The sequence is cut after each step, the second part goes on from the state of the
    first, and outputs and final state must be those of the whole. They must be so too
    where another sequence is read between the two parts, which must leave the state as
    it was. Then the history of one row changes: that row's later outputs must react,
    and no others.

    Args:
        model: A module, a method of one, or another callable.
        x: Inputs of the whole sequence, all rows of full length.
        call: ``call(model, x, state)``, which returns outputs and state; the state is
            None at the start and else what the call before returned. None is
            ``model(x, state)``.
        dtype: torch.float64 or torch.float32. None is float64, and for a callable that
            is no module's the dtype of `x`.
        atol: The largest difference that does not count. None is what rounding may
            leave, by the dtype of the result: see *Test your own model*.
        expected_failures: Why the property must fail, by its name: a mapping from
            ``"state carry"`` to the reason. Then it is an error that it holds.

    Shapes:
        - `x`: (batch, time, ...)
        - returns of the call: outputs (batch, time, ...) and a state: tensors, nested
          in tuples, lists, dicts or dataclasses as you like, whose number and sizes do
          not depend on where the sequence is cut

    Raises:
        AssertionError: a part differs from the whole, a row's state reaches another row
            or nothing at all, or the same call gives two results; or the property holds
            that was expected to fail.
        TypeError: an argument has the wrong kind, or the call returns no pair.
        ValueError: an argument or the outputs have the wrong shape or values.
    """
    probe = Probe(
        "state carry", model, call or call_with_state, dtype, atol, expected_failures
    )
    check_batch(probe.where, "x", x)
    with probe.expecting(), probe.quiet(x):
        x = probe.cast(x)
        outputs_and_state(probe, x, None)
        probe.run_twice((x, None), (other(x), None))
        y, end = outputs_and_state(probe, x, None)
        # A state may be written in place by the calls to come.
        whole = y, flatten(end, "`state`")
        needs_steps(probe, "`output`", y, x)
        for t in range(1, x.shape[1]):
            _in_two_parts(probe, x, t, whole)
        _in_two_parts(probe, x, max(1, x.shape[1] // 2), whole, between=other(x))
        _row_by_row(probe, x)


def _in_two_parts(
    probe: Probe,
    x: Tensor,
    t: int,
    whole: tuple[Tensor, Outputs],
    between: Tensor | None = None,
) -> None:
    y, end = whole
    first, state = outputs_and_state(probe, x[:, :t], None)
    when = f"when the sequence is cut before step {t}"
    causes = CARRY_CAUSES
    if between is not None:
        kept = flatten(state, "`state`")
        outputs_and_state(probe, between, None)
        for key, value in flatten(state, "`state`").items():
            what = "when another sequence is read"
            probe.same(at(key), what, kept[key], value, BUFFER_CAUSES)
        when += " and another one is read between the parts"
        causes = BETWEEN_CAUSES
    sizes = {key: value.shape for key, value in flatten(state, "`state`").items()}
    try:
        second, last = outputs_and_state(probe, x[:, t:], state)
    except Exception as error:
        time = x.shape[1]
        if any(
            (t, time) in zip(size, end[key].shape, strict=False)
            for key, size in sizes.items()
            if key in end
        ):
            error.add_note(TIME_FIRST.format(t=t, time=time))
        raise
    _part_fits(probe, first, y[:, :t])
    _part_fits(probe, second, y[:, t:])
    parts = torch.cat([first, second], dim=1)
    probe.same(at("`output`", steps=True), when, y, parts, causes)
    _same_state(probe, when, end, flatten(last, "`state`"), causes)


def _part_fits(probe: Probe, part: Tensor, want: Tensor) -> None:
    if part.shape != want.shape:
        raise AssertionError(
            f"{probe.name}: `output` has shape {tuple(part.shape)} for a part of "
            f"{want.shape[1]} steps, and must have {tuple(want.shape)}.\n{SQUEEZED}"
        )


def _same_state(
    probe: Probe, when: str, want: Outputs, got: Outputs, causes: str
) -> None:
    if list(want) != list(got):
        raise AssertionError(
            f"{probe.name}: the state holds {', '.join(got) or 'no tensor'} "
            f"{when}, and {', '.join(want) or 'no tensor'} for the whole.\n"
            "Usual causes: a state that is made in two ways, a cache that gets "
            "one part more with each call (join the parts)"
        )
    for key, value in want.items():
        if got[key].shape != value.shape:
            raise AssertionError(
                f"{probe.name}: {key} has shape {tuple(got[key].shape)} "
                f"{when}, and {tuple(value.shape)} for the whole"
            )
        probe.same(at(key), when, value, got[key], causes)


def outputs_and_state(
    probe: Probe, x: Tensor, state: Any, *more: Any
) -> tuple[Tensor, Any]:
    r"""A copy of the outputs, and the state as it came."""
    result = probe.call(x, state, *more)
    if not (isinstance(result, tuple | list) and len(result) == 2):
        size = f" of {len(result)}" if isinstance(result, tuple | list) else ""
        raise TypeError(
            f"{probe.where}: the call must return outputs and state, got "
            f"{type(result).__name__}{size}; return a pair from `call`"
        )
    y, state = result
    if not isinstance(y, Tensor):
        raise TypeError(
            f"{probe.where}: the outputs must be a tensor, got {type(y).__name__}; "
            "return one and the state from `call`"
        )
    return y.detach().clone(), state


def _row_by_row(probe: Probe, x: Tensor) -> None:
    cut = max(1, x.shape[1] // 2)
    _, state = outputs_and_state(probe, x[:, :cut], None)
    after, _ = outputs_and_state(probe, x[:, cut:], state)
    for r in range(len(x)):
        history = x[:, :cut].clone()
        history[r] = other(x)[r, :cut]
        _, state = outputs_and_state(probe, history, None)
        got, _ = outputs_and_state(probe, x[:, cut:], state)
        if torch.equal(got[r], after[r]):
            raise AssertionError(
                f"{probe.name}: the outputs of row {r} after step {cut - 1} are the "
                f"same whatever its history.\nUsual causes: {HISTORY_CAUSES}"
            )
        others = [k for k in range(len(x)) if k != r]
        when = f"when the history of row {r} changes"
        causes = "a state put into or reset in the wrong row, or shared by all rows"
        for k in others:
            place = at("`output`", row=k, steps=True, first_step=cut)
            probe.same(place, when, after[k], got[k], causes)
