r"""A property of any model: padding after a row's length changes nothing."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from seqref._contract.calls import call_with_lengths
from seqref._contract.inputs import check_batch, other
from seqref._contract.order import smaller_batches
from seqref._contract.outputs import Outputs
from seqref._contract.places import Call, at, needs_a_batch_of_one, needs_batch_first
from seqref._contract.probe import Probe, rather_a_finding
from seqref.errors import check_lengths

PADDING_CAUSES = (
    "the last step or a mean, maximum or loss taken over the padded time, a backward "
    "direction that starts in the padding, attention without a padding mask"
)


def check_padding_invariance(
    model: Call,
    x: Tensor,
    lengths: Tensor,
    *,
    call: Call | None = None,
    pad: int | float | None = None,
    dtype: torch.dtype | None = None,
    atol: float | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> None:
    r"""Hold a model to this: padding after a row's length changes nothing.

    The padding changes and the result must not: other contents, three more steps of it,
    each row alone without any, and alone with its own. Outputs in the padding do not
    count. A scalar, such as a loss, is compared for the first two, and so is a row of
    length 0, which cannot be read without its padding: a source that is missing.

    Args:
        model: A module, a method of one, or another callable.
        x: Inputs, padded on the right.
        lengths: How many steps of each row count; at least two different ones. Give a
            row of length 0 to a model that must read such rows.
        call: ``call(model, x, lengths)``. None is ``model(x, lengths)``, by keyword
            where the model has an argument of that name, and for torch.nn's recurrent
            layers a packed batch.
        pad: The value of padding, for a model that finds the padding by it: then the
            contents stay. None tries others.
        dtype: torch.float64 or torch.float32. None is float64, and for a callable that
            is no module's the dtype of `x`.
        atol: The largest difference that does not count. None is what rounding may
            leave, by the dtype of the result: see *Test your own model*.
        expected_failures: Why the property must fail, by its name: a mapping from
            ``"padding invariance"`` to the reason. Then it is an error that it holds.

    Shapes:
        - `x`: (batch, time, ...); `lengths`: (batch,)
        - outputs: (batch, time, ...), (batch, ...) or scalars, nested as you like

    Raises:
        AssertionError: padding changes a result, or the same call gives two results; or
            the property holds that was expected to fail.
        TypeError: an argument has the wrong kind, or the model returns no tensor.
        ValueError: an argument or an output has the wrong shape or values.
    """
    probe = Probe(
        "padding invariance",
        model,
        call or call_with_lengths,
        dtype,
        atol,
        expected_failures,
    )
    check_batch(probe.where, "x", x)
    check_lengths(probe.where, lengths, *x.shape[:2])
    counts: list[int] = lengths.tolist()
    if len(set(counts) - {0}) < 2:
        raise ValueError(
            f"{probe.where}: `lengths` must hold two different values above 0, got "
            f"{counts}"
        )
    with probe.expecting(), probe.quiet(x):
        _vary_padding(probe, _Batch(probe.cast(x), lengths, counts), pad)


class _Batch(NamedTuple):
    r"""The inputs of one call."""

    x: Tensor
    lengths: Tensor
    counts: list[int]


def _vary_padding(probe: Probe, batch: _Batch, pad: int | float | None) -> None:
    x, lengths, counts = batch
    beyond = torch.arange(x.shape[1], device=x.device) >= lengths.to(x.device)[:, None]
    # A real step that became padding would make a row shorter, or empty.
    fresh = other(x, without=pad)
    more = fresh[:, :1].repeat_interleave(3, dim=1)
    if pad is not None:
        x[beyond] = pad
        more = torch.full_like(more, pad)
    others = _with(x, ~beyond, fresh), lengths
    whole, second = probe.run_twice((x, lengths), others)
    needs_batch_first(probe, whole, len(x))
    probe.must_react(whole, second)
    changed = [("with three more steps of padding", torch.cat([x, more], dim=1))]
    if pad is None:
        contents = _with(x, beyond, fresh)
        changed.insert(0, ("with other contents of the padding", contents))
    rows = _rows_alone(probe, whole, batch, changed)
    stepwise = _stepwise(probe, rows, counts)
    _compare_changed(probe, whole, batch, changed, stepwise)
    for r, row in rows.items():
        kept = {k: v[r : r + 1] for k, v in whole.items() if v.dim()}
        padded = probe.run(x[r : r + 1], lengths[r : r + 1])
        for when, got in (("and without", row), ("with its", padded)):
            when = f"alone {when} padding"
            _compare_rows(probe, kept, got, counts[r : r + 1], stepwise, when, r)


def _rows_alone(
    probe: Probe, whole: Outputs, batch: _Batch, changed: list[tuple[str, Tensor]]
) -> dict[int, Outputs]:
    # Scalars are not compared by row, and a loss may need more steps than a row has.
    if not any(value.dim() for value in whole.values()):
        return {}
    x, lengths, counts = batch
    try:
        rows = {
            r: probe.run(x[r : r + 1, :n], lengths[r : r + 1])
            for r, n in enumerate(counts)
            if n
        }
    except Exception as error:
        if probe.raised(error):
            # What the padding does says more than that a row alone is refused.
            sizes = (x.shape[1], max(counts))
            likely = {
                k for k, v in whole.items() if v.dim() > 1 and v.shape[1] in sizes
            }
            rather_a_finding(
                lambda: _compare_changed(probe, whole, batch, changed, likely)
            )
            rather_a_finding(lambda: smaller_batches(probe, whole, x, [lengths]))
        raise
    for row in rows.values():
        needs_a_batch_of_one(probe, whole, row)
    return rows


def _compare_changed(
    probe: Probe,
    whole: Outputs,
    batch: _Batch,
    changed: list[tuple[str, Tensor]],
    stepwise: set[str],
) -> None:
    for when, inputs in changed:
        got = probe.run(inputs, batch.lengths)
        _compare_rows(probe, whole, got, batch.counts, stepwise, when)


def _stepwise(probe: Probe, rows: dict[int, Outputs], counts: list[int]) -> set[str]:
    r"""Names of outputs with a step for each input; rows are alone, without padding."""
    names: set[str] = set()
    counts = [counts[r] for r in rows]
    for key in next(iter(rows.values()), ()):
        shapes = [row[key].shape for row in rows.values()]
        # A size that follows the length in every row is time; any other is not.
        axes = [
            axis
            for axis in range(1, min(map(len, shapes)))
            if [shape[axis] for shape in shapes] == counts
        ]
        if axes and axes != [1]:
            raise ValueError(
                f"{probe.where}: {key} has the steps on axis "
                f"{' and '.join(map(str, axes))}, and its shape must be "
                "(batch, time, ...) with time on axis 1 alone; move the axis, or leave "
                "it out, in `call`"
            )
        names |= {key} if axes else set()
    return names


def _with(x: Tensor, where: Tensor, fresh: Tensor) -> Tensor:
    changed = x.clone()
    changed[where] = fresh[where]
    return changed


def _compare_rows(
    probe: Probe,
    whole: Outputs,
    got: Outputs,
    counts: list[int],
    stepwise: set[str],
    when: str,
    first: int = 0,
) -> None:
    for key, want in whole.items():
        if not want.dim():
            probe.same(at(key), when, want, got[key], PADDING_CAUSES)
            continue
        for r, n in enumerate(counts):
            one, two = want[r], got[key][r]
            if key in stepwise:
                one, two = one[:n], two[:n]
            place = at(key, row=first + r, steps=key in stepwise)
            probe.same(place, when, one, two, PADDING_CAUSES)
