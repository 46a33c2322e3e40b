r"""One property each, for any model: padding, causality, order of rows."""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from seqref._contract.calls import call_with_lengths, plain_call
from seqref._contract.probe import Outputs, Probe, check_batch, other
from seqref.errors import check_lengths

Call = Callable[..., Any]

PADDING_CAUSES = (
    "the last step or a mean, maximum or loss taken over the padded time, a backward "
    "direction that starts in the padding, attention without a padding mask"
)
CAUSAL_CAUSES = (
    "attention without a causal mask, a bidirectional layer, a convolution padded on "
    "both sides, a norm over time"
)
ROW_CAUSES = (
    "rows sorted by length and not put back, a time-first layer given a batch-first "
    "tensor, a view that mixes batch and time, a norm over the batch"
)
SQUEEZED = (
    "Usual causes: `squeeze()` without an axis, which takes away each axis of size 1"
)
SHIFT_CAUSES = (
    "labels that were not shifted against the inputs, no start token in front of the "
    "decoder's input, no causal mask"
)


def check_padding_invariance(
    model: Call,
    x: Tensor,
    lengths: Tensor,
    *,
    call: Call | None = None,
    pad: int | float | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    r"""Hold a model to this: padding after a row's length changes nothing.

    Three times the padding changes and the result must not: other contents, three more
    steps of it, and each row alone without any. Outputs in the padding do not count. A
    scalar, such as a loss, is compared for the first two.

    Args:
        model: A module, a method of one, or another callable.
        x: Inputs, padded on the right.
        lengths: How many steps of each row count; at least two different ones.
        call: ``call(model, x, lengths)``. None is ``model(x, lengths)``, by keyword
            where the model has an argument of that name, and for torch.nn's recurrent
            layers a packed batch.
        pad: The value of padding, for a model that finds the padding by it: then the
            contents stay. None tries others.
        dtype: torch.float64 or torch.float32. None is float64, and for a callable that
            is no module's the dtype of `x`.

    Shapes:
        - `x`: (batch, time, ...); `lengths`: (batch,)
        - outputs: (batch, time, ...), (batch, ...) or scalars, nested as you like

    Raises:
        AssertionError: padding changes a result, or the same call gives two results.
        TypeError: an argument has the wrong kind, or the model returns no tensor.
        ValueError: an argument or an output has the wrong shape or values.
    """
    probe = Probe("padding invariance", model, call or call_with_lengths, dtype)
    check_batch(probe.where, "x", x)
    check_lengths(probe.where, lengths, *x.shape[:2])
    counts: list[int] = lengths.tolist()
    if min(counts) < 1 or len(set(counts)) < 2:
        raise ValueError(
            f"{probe.where}: `lengths` must be at least 1 and hold two different "
            f"values, got {counts}"
        )
    with probe.quiet(x):
        _vary_padding(probe, probe.cast(x), lengths, counts, pad)


def _vary_padding(
    probe: Probe, x: Tensor, lengths: Tensor, counts: list[int], pad: int | float | None
) -> None:
    beyond = torch.arange(x.shape[1], device=x.device) >= lengths.to(x.device)[:, None]
    # A real step that became padding would make a row shorter, or empty.
    fresh = other(x, without=pad)
    more = fresh[:, :1].repeat_interleave(3, dim=1)
    if pad is not None:
        x[beyond] = pad
        more = torch.full_like(more, pad)
    whole = probe.run_twice(x, lengths)
    _needs_batch_first(probe, whole, len(x))
    probe.must_react(whole, probe.run(_with(x, ~beyond, fresh), lengths))
    # Scalars are not compared by row, and a loss may need more steps than a row has.
    alone = enumerate(counts) if any(v.dim() for v in whole.values()) else ()
    rows = [probe.run(x[r : r + 1, :n], lengths[r : r + 1]) for r, n in alone]
    for row in rows:
        _needs_a_batch_of_one(probe, whole, row)
    stepwise = _stepwise(probe, rows, counts)
    changed = [("with three more steps of padding", torch.cat([x, more], dim=1))]
    if pad is None:
        contents = _with(x, beyond, fresh)
        changed.insert(0, ("with other contents of the padding", contents))
    for when, inputs in changed:
        got = probe.run(inputs, lengths)
        _compare_rows(probe, whole, got, counts, stepwise, when)
    for r, row in enumerate(rows):
        kept = {k: v[r : r + 1] for k, v in whole.items() if v.dim()}
        when = "alone and without padding"
        _compare_rows(probe, kept, row, counts[r : r + 1], stepwise, when, r)


def _stepwise(probe: Probe, rows: list[Outputs], counts: list[int]) -> set[str]:
    r"""Names of outputs with a step for each input; rows are alone, without padding."""
    found = set()
    for key in rows[0] if rows else ():
        shapes = [row[key].shape for row in rows]
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
        found |= {key} if axes else set()
    return found


def _with(x: Tensor, where: Tensor, fresh: Tensor) -> Tensor:
    changed = x.clone()
    changed[where] = fresh[where]
    return changed


def _needs_batch_first(probe: Probe, outputs: Outputs, batch: int) -> None:
    for key, value in outputs.items():
        if value.dim() and value.shape[0] != batch:
            alone = " for a row alone" if batch == 1 else ""
            raise ValueError(
                f"{probe.where}: {key} must be a scalar or begin with batch={batch}"
                f"{alone}, got {tuple(value.shape)}; move the axis, or leave it out, in"
                " `call`"
            )


def _needs_a_batch_of_one(probe: Probe, whole: Outputs, alone: Outputs) -> None:
    for key, value in whole.items():
        if value.dim() != alone[key].dim():
            raise AssertionError(
                f"{probe.name}: {key} has shape {tuple(alone[key].shape)} for a row "
                f"alone and {tuple(value.shape)} for the batch.\n{SQUEEZED}"
            )
    _needs_batch_first(probe, alone, 1)


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
            stop = n if key in stepwise else None
            one = want[r, :stop] if stop else want[r]
            two = got[key][r, :stop] if stop else got[key][r]
            place = at(key, row=first + r, steps=key in stepwise)
            probe.same(place, when, one, two, PADDING_CAUSES)


def at(
    key: str, row: int | None = None, steps: bool = False, first_step: int = 0
) -> Callable[[tuple[int, ...]], str]:
    r"""Words for a place: which output, row, step and position within the rest."""

    def words(index: tuple[int, ...]) -> str:
        found, rest = [], list(index)
        if row is not None:
            found.append(f"row {row}")
        if steps and rest:
            if row is None:
                found.append(f"row {rest.pop(0)}")
            if rest:
                found.append(f"step {first_step + rest.pop(0)}")
        if rest:
            found.append(f"position {rest}")
        return f"{key} at {', '.join(found)}" if found else key

    return words


def check_causality(
    model: Call,
    x: Tensor,
    *,
    call: Call | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    r"""Hold a model to this: no output depends on a later input.

    From each step on, the inputs are replaced by others, and the outputs before it must
    stay; ids by three others, one after the other. The first tensor that the model
    returns is looked at.

    Args:
        model: A module, a method of one, or another callable.
        x: Inputs; of ids only such as stand in `x` are tried.
        call: ``call(model, x)``. None is ``model(x)``.
        dtype: torch.float64 or torch.float32. None is float64, and for a callable that
            is no module's the dtype of `x`.

    Shapes:
        - `x`: (batch, time, ...), also with batch 1
        - output: (batch, time, ...)

    Raises:
        AssertionError: an output depends on a later input, or the same call gives two
            results.
        TypeError: an argument has the wrong kind, or the model returns no tensor.
        ValueError: an argument or the output has the wrong shape or values.
    """
    probe = Probe("causality", model, call or plain_call, dtype)
    check_batch(probe.where, "x", x, batch=1)
    with probe.quiet(x):
        x = probe.cast(x)
        key, y = next(iter(probe.run_twice(x).items()))
        needs_steps(probe, key, y, x)
        # One id may show a leak that another does not.
        seeds = range(1 if x.is_floating_point() else min(3, len(x.unique()) - 1))
        others = [other(x, seed) for seed in seeds]
        probe.must_react({key: y}, {key: probe.sequence(others[0])})
        for t, fresh in itertools.product(range(1, x.shape[1]), others):
            got = probe.sequence(torch.cat([x[:, :t], fresh[:, t:]], dim=1))
            when = f"when the inputs from step {t} on change"
            place = at(key, steps=True)
            probe.same(place, when, y[:, :t], got[:, :t], CAUSAL_CAUSES)


def needs_steps(probe: Probe, key: str, y: Tensor, x: Tensor) -> None:
    if y.shape[:2] != x.shape[:2]:
        raise ValueError(
            f"{probe.where}: {key} must have shape (batch={x.shape[0]}, "
            f"time={x.shape[1]}, ...), got {tuple(y.shape)}; return from `call` what "
            "has a step for each input, a list of steps stacked"
        )


def check_row_order(
    model: Call,
    x: Tensor,
    lengths: Tensor | None = None,
    *,
    call: Call | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    r"""Hold a model to this: row r of a result belongs to row r of the batch alone.

    The rows are put in two other orders, and the results must follow; a scalar must
    stay. Then each row goes in alone, with its padding, and must come out as in the
    batch.

    Args:
        model: A module, a method of one, or another callable.
        x: Inputs; no two rows alike, and more than two for a model that returns scalars
            alone.
        lengths: How many steps of each row count, where the model takes lengths; make
            them differ, since a model may sort by them.
        call: ``call(model, x)``, with `lengths` third where they are given. None is
            ``model(x)``, and with lengths as in `check_padding_invariance`.
        dtype: torch.float64 or torch.float32. None is float64, and for a callable that
            is no module's the dtype of `x`.

    Shapes:
        - `x`: (batch, time, ...); `lengths`: (batch,)
        - outputs: (batch, ...) or scalars, nested as you like

    Raises:
        AssertionError: a row has the result of another or depends on it, or the same
            call gives two results.
        TypeError: an argument has the wrong kind, or the model returns no tensor.
        ValueError: an argument or an output has the wrong shape or values.
    """
    default = plain_call if lengths is None else call_with_lengths
    probe = Probe("row order", model, call or default, dtype)
    check_batch(probe.where, "x", x)
    if lengths is not None:
        check_lengths(probe.where, lengths, *x.shape[:2])
    with probe.quiet(x):
        x = probe.cast(x)
        extra = [] if lengths is None else [lengths]
        whole = probe.run_twice(x, *extra)
        _needs_batch_first(probe, whole, len(x))
        probe.must_react(whole, probe.run(other(x), *extra))
        alone = [
            probe.run(x[r : r + 1], *(n[r : r + 1] for n in extra))
            for r in range(len(x))
        ]
        _needs_a_batch_of_one(probe, whole, alone[0])
        _reorder(probe, whole, x, extra)
        for r in range(len(x)):
            for key, value in whole.items():
                if value.dim():
                    want, one = _shorter(value[r], alone[r][key][0], lengths)
                    when = "when it is alone in the batch"
                    probe.same(at(key, row=r), when, want, one, ROW_CAUSES)


def _reorder(probe: Probe, whole: Outputs, x: Tensor, extra: list[Tensor]) -> None:
    turned = [*range(1, len(x)), 0]
    # A scalar over rows that are themselves turned stays under the first order.
    swapped = [1, 0, *range(2, len(x))]
    for order in (turned, swapped):
        got = probe.run(x[order], *(n[order] for n in extra))
        for key, value in whole.items():
            want = value[order] if value.dim() else value
            causes = ROW_CAUSES + _misplaced(want, got[key])
            when = "when the batch is put in another order"
            probe.same(_place_of(key, order), when, want, got[key], causes)


def _place_of(key: str, order: list[int]) -> Callable[[tuple[int, ...]], str]:
    def words(index: tuple[int, ...]) -> str:
        if not index:
            return key
        return at(key, row=order[index[0]])(index[1:])

    return words


def _misplaced(want: Tensor, got: Tensor) -> str:
    r"""A sentence if the rows are all there, each in another row's place."""
    if not want.dim() or want.shape != got.shape:
        return ""
    found = [
        [k for k, row in enumerate(want) if torch.allclose(row, one)] for one in got
    ]
    if all(found):
        return ".\nHere all rows are right and stand in the wrong order"
    return ""


def _shorter(one: Tensor, two: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    # Unpacked outputs end at the longest row of their batch.
    if lengths is None or not one.dim() or not two.dim():
        return one, two
    n = min(len(one), len(two))
    return one[:n], two[:n]
