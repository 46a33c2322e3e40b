r"""A property of any model: row r of a result belongs to row r of the batch alone."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from seqref._contract.calls import call_with_lengths, plain_call
from seqref._contract.inputs import check_batch, other_steps, padding_of
from seqref._contract.outputs import Outputs
from seqref._contract.places import Call, at, needs_a_batch_of_one, needs_batch_first
from seqref._contract.probe import Probe, rather_a_finding
from seqref._contract.runs import wants_sorted_rows
from seqref.errors import check_lengths

ROW_CAUSES = (
    "rows sorted by length and not put back, a time-first layer given a batch-first "
    "tensor, a view that mixes batch and time, a norm over the batch"
)
PAIR_CAUSES = (
    "batch norm in training mode or without running statistics, another norm or mean "
    "over the batch"
)


def check_row_order(
    model: Call,
    x: Tensor,
    lengths: Tensor | None = None,
    *,
    call: Call | None = None,
    dtype: torch.dtype | None = None,
    atol: float | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> None:
    r"""Hold a model to this: row r of a result belongs to row r of the batch alone.

    The rows are put in two other orders, and the results must follow; a scalar must
    stay. Where the model refuses rows that are not sorted by length, the contents of
    one row after the other change instead, and the results of the others must stay.
    Then each row goes in alone, with its padding, and must come out as in the batch.

    Args:
        model: A module, a method of one, or another callable.
        x: Inputs; no two rows alike, and more than two for a model that returns scalars
            alone.
        lengths: How many steps of each row count, where the model takes lengths; make
            them differ, since a model may sort by them, and let them fall where it
            wants its rows sorted.
        call: ``call(model, x)``, with `lengths` third where they are given. None is
            ``model(x)``, and with lengths as in `check_padding_invariance`.
        dtype: torch.float64 or torch.float32. None is float64, and for a callable that
            is no module's the dtype of `x`.
        atol: The largest difference that does not count. None is what rounding may
            leave, by the dtype of the result: see *Test your own model*.
        expected_failures: Why the property must fail, by its name: a mapping from
            ``"row order"`` to the reason. Then it is an error that it holds.

    Shapes:
        - `x`: (batch, time, ...); `lengths`: (batch,)
        - outputs: (batch, ...) or scalars, nested as you like

    Raises:
        AssertionError: a row has the result of another or depends on it, or the same
            call gives two results; or the property holds that was expected to fail.
        TypeError: an argument has the wrong kind, or the model returns no tensor.
        ValueError: an argument or an output has the wrong shape or values.
    """
    default = plain_call if lengths is None else call_with_lengths
    probe = Probe("row order", model, call or default, dtype, atol, expected_failures)
    check_batch(probe.where, "x", x)
    if lengths is not None:
        check_lengths(probe.where, lengths, *x.shape[:2])
    with probe.expecting(), probe.quiet(x):
        x = probe.cast(x)
        extra = [] if lengths is None else [lengths]
        whole, second = probe.run_twice((x, *extra), (_others(x), *extra))
        needs_batch_first(probe, whole, len(x))
        probe.must_react(whole, second)
        try:
            alone = _rows_alone(probe, x, extra)
        except Exception as error:
            if probe.raised(error):
                # Other batches may show what is wrong with a row alone.
                rather_a_finding(lambda: _other_rows(probe, whole, x, extra))
                rather_a_finding(lambda: smaller_batches(probe, whole, x, extra))
            raise
        needs_a_batch_of_one(probe, whole, alone[0])
        _other_rows(probe, whole, x, extra)
        for r, row in enumerate(alone):
            when = "when it is alone in the batch"
            _compare_row(probe, whole, r, row, 0, lengths, when, ROW_CAUSES)


def _rows_alone(probe: Probe, x: Tensor, extra: list[Tensor]) -> list[Outputs]:
    return [
        probe.run(x[r : r + 1], *(n[r : r + 1] for n in extra)) for r in range(len(x))
    ]


def _other_rows(probe: Probe, whole: Outputs, x: Tensor, extra: list[Tensor]) -> None:
    try:
        _reorder(probe, whole, x, extra)
    except Exception as error:
        if not wants_sorted_rows(error) or not any(v.dim() for v in whole.values()):
            raise
        _replace(probe, whole, x, extra)


def _others(x: Tensor) -> Tensor:
    # A model that finds the padding by its value must find it in the same places.
    return other_steps(x, padding_of(x))


def _compare_row(
    probe: Probe,
    whole: Outputs,
    r: int,
    got: Outputs,
    place: int,
    lengths: Tensor | None,
    when: str,
    causes: str,
) -> None:
    for key, value in whole.items():
        if value.dim():
            want, one = _shorter(value[r], got[key][place], lengths)
            probe.same(at(key, row=r), when, want, one, causes)


def smaller_batches(
    probe: Probe, whole: Outputs, x: Tensor, extra: list[Tensor]
) -> None:
    r"""Raise if a row has another result beside one other than in the whole batch.

    For a model that cannot read a row alone, and may have a reason that is a fault.
    """
    for r in range(len(x) - 1) if len(x) > 2 else ():
        got = probe.run(x[r : r + 2], *(n[r : r + 2] for n in extra))
        lengths = extra[0] if extra else None
        for place in (0, 1):
            when = f"when rows {r} and {r + 1} are alone in the batch"
            where = r + place
            _compare_row(probe, whole, where, got, place, lengths, when, PAIR_CAUSES)


def _replace(probe: Probe, whole: Outputs, x: Tensor, extra: list[Tensor]) -> None:
    r"""Other contents of one row after the other, for a model that wants rows sorted.

    A row that is put in another's place follows the contents of that row.
    """
    fresh = _others(x)
    lengths = extra[0] if extra else None
    for r in range(len(x)):
        one = x.clone()
        one[r] = fresh[r]
        got = probe.run(one, *extra)
        when = f"when the contents of row {r} change"
        for k in range(len(x)):
            if k != r:
                _compare_row(probe, whole, k, got, k, lengths, when, ROW_CAUSES)


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
    matches = [
        [k for k, row in enumerate(want) if torch.allclose(row, one)] for one in got
    ]
    if all(matches):
        return ".\nHere all rows are right and stand in the wrong order"
    return ""


def _shorter(one: Tensor, two: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    # Unpacked outputs end at the longest row of their batch.
    if lengths is None or not one.dim() or not two.dim():
        return one, two
    n = min(len(one), len(two))
    return one[:n], two[:n]
