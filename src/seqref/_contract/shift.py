r"""A property of a training step: each prediction sees the targets before its own."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from seqref._contract.calls import plain_call
from seqref._contract.compare import TOLERANCE, UNITS, changed, steps_that_change
from seqref._contract.inputs import check_batch, other, without_padding
from seqref._contract.outputs import flatten
from seqref._contract.places import Call
from seqref._contract.probe import Probe

SHIFT_CAUSES = (
    "labels that were not shifted against the inputs, no start token in front of the "
    "decoder's input, no causal mask"
)
TWICE_CAUSES = "labels shifted twice, a decoder's input that is not the target"
INSIDE = (
    "; a model that makes its labels itself and returns a loss is checked by it: pass "
    "`loss`, a function of the model, inputs and labels"
)


def check_target_shift(
    model: Call,
    target: Tensor,
    *,
    call: Call | None = None,
    loss: Call | None = None,
    dtype: torch.dtype | None = None,
    atol: float | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> None:
    r"""Hold a training step to this: each prediction sees the targets before its own.

    `call` returns the two things that go into the loss. The steps of `target` are
    changed one after the other. Where a label changes with one, the prediction for it
    and all before must stay, and the next prediction must change.

    With `loss`, a model that shifts its labels itself is checked by what it returns.
    Inputs and labels are then changed apart from each other: where the label of a step
    changes the loss, it must do so by as much whatever the inputs from that step on,
    and by something else where the input before it is another.

    Args:
        model: A module, a method of one, or another callable.
        target: Whole target sequences, without padding; of ids only such as stand in
            `target` are tried.
        call: ``call(model, target)``, which returns predictions and labels. None is
            ``model(target[:, :-1]), target[:, 1:]``, of the predictions the first
            tensor that the model returns.
        loss: ``loss(model, inputs, labels)``, instead of `call`: a sum or mean of one
            term for each label. Both are `target` where nothing is changed.
        dtype: torch.float64 or torch.float32. None is float64, and for a callable that
            is no module's the dtype of `target`.
        atol: The largest difference that does not count. None is what rounding may
            leave, by the dtype of the result: see *Test your own model*.
        expected_failures: Why the property must fail, by its name: a mapping from
            ``"target shift"`` to the reason. Then it is an error that it holds.

    Shapes:
        - `target`: (batch, time, ...), also with batch 1
        - returns of `call`: (batch, steps, ...) and (batch, steps) or
          (batch, steps, ...), each label made from one step of `target`
        - returns of `loss`: a scalar, or the terms of one

    Raises:
        AssertionError: a prediction sees its own or a later label, or not the one
            before its own; or the same call gives two results; or the property holds
            that was expected to fail.
        TypeError: an argument has the wrong kind, or the call returns no pair of
            tensors.
        ValueError: an argument or what the call returns has the wrong shape or values,
            or both `call` and `loss` are given.
    """
    if call is not None and loss is not None:
        raise ValueError(
            "check_target_shift: `loss` must be None where `call` is given, got both"
        )
    probe = Probe(
        "target shift",
        model,
        loss or call or _next_step,
        dtype,
        atol,
        expected_failures,
    )
    check_batch(probe.where, "target", target, batch=1)
    with probe.expecting(), probe.quiet(target), without_padding(target=target):
        target = probe.cast(target)
        if loss is None:
            _by_predictions(probe, target)
        else:
            _by_loss(probe, target)


def _by_predictions(probe: Probe, target: Tensor) -> None:
    fresh = other(target)
    predictions, labels = _pair(probe, target)
    probe.run_twice((target,), (fresh,))
    changes = []
    for s in range(target.shape[1]):
        now, other_labels = _pair(probe, _with_step(target, s, fresh))
        moved = steps_that_change(labels, other_labels).any(dim=0).nonzero().flatten()
        if len(moved):
            changes.append((int(moved[0]), int(moved[-1]) + 1, now))
    if not changes:
        raise ValueError(
            f"{probe.where}: the labels that `call` returns must come from "
            "`target`, and none changed with it"
        )
    # All leaks before anything that is missing: a shift by too little has both.
    for step, _, now in changes:
        probe.same(
            _prediction,
            f"when the label of step {step} changes",
            predictions[:, : step + 1],
            now[:, : step + 1],
            SHIFT_CAUSES,
        )
    for _, after, now in changes:
        _sees_the_last(probe, predictions, now, after)


def _with_step(target: Tensor, s: int, fresh: Tensor) -> Tensor:
    one = target.clone()
    one[:, s] = fresh[:, s]
    return one


def _sees_the_last(probe: Probe, before: Tensor, now: Tensor, step: int) -> None:
    if step == before.shape[1]:
        return
    reacts = steps_that_change(before, now)[:, step]
    if not reacts.all():
        row = int((~reacts).nonzero()[0])
        raise AssertionError(
            f"{probe.name}: the prediction at row {row}, step {step} does not depend "
            f"on the label of step {step - 1}, the one before its own.\n"
            f"Usual causes: {TWICE_CAUSES}"
        )


def _next_step(model: Call, target: Tensor) -> tuple[Tensor, Tensor]:
    outputs = flatten(plain_call(model, target[:, :-1]))
    if not outputs:
        raise TypeError("the model returned no tensor of predictions")
    return next(iter(outputs.values())), target[:, 1:]


def _pair(probe: Probe, target: Tensor) -> tuple[Tensor, Tensor]:
    result = probe.call(target)
    pair = isinstance(result, tuple | list) and len(result) == 2
    if not pair or not all(isinstance(part, Tensor) for part in result):
        raise TypeError(
            f"{probe.where}: `call` must return predictions and labels, two tensors, "
            f"got {type(result).__name__}{INSIDE}"
        )
    predictions, labels = (part.detach().clone() for part in result)
    if labels.dim() < 2 or predictions.shape[:2] != labels.shape[:2]:
        inside = INSIDE if 0 in (predictions.dim(), labels.dim()) else ""
        raise ValueError(
            f"{probe.where}: predictions and labels must both begin with "
            f"(batch, steps), got {tuple(predictions.shape)} and {tuple(labels.shape)}"
            f"{inside}"
        )
    return predictions, labels


def _prediction(index: tuple[int, ...]) -> str:
    if not index:
        return "the prediction"
    return f"the prediction at row {index[0]}, step {index[1]}"


class _Term(NamedTuple):
    r"""By how much the term of one label moves with inputs that it must (not) see."""

    step: int
    with_later: float
    with_last: float


def _by_loss(probe: Probe, target: Tensor) -> None:
    fresh = other(target)
    first, _ = probe.run_twice((target, target), (fresh, fresh))
    loss = next(iter(first.values()))
    if not loss.is_floating_point() or not loss.isfinite().all():
        raise ValueError(
            f"{probe.where}: `loss` must return a finite floating tensor, got "
            f"{loss.dtype}{'' if loss.is_floating_point() else ', not finite'}"
        )
    size = max(1.0, abs(float(loss.sum())))
    allowed = probe.atol
    if allowed is None:
        allowed = TOLERANCE[loss.dtype] * size
    least = UNITS.get(loss.dtype, 64) * torch.finfo(loss.dtype).eps * size
    if not changed(loss, probe.sequence(fresh, target)).any():
        raise ValueError(
            f"{probe.where}: `loss` must depend on `inputs`, and did not change with "
            "them; a model that makes its inputs of the labels cannot be checked by "
            "its loss"
        )
    terms = _terms(probe, target, fresh, least)
    if not terms:
        raise ValueError(
            f"{probe.where}: `loss` must depend on `labels`, and did not change with "
            "any step of them"
        )
    for term in terms:
        if not term.with_later <= allowed:
            raise AssertionError(
                f"{probe.name}: the loss of the label of step {term.step} changes by "
                f"{term.with_later:.3g} when the inputs from step {term.step} on "
                f"change.\nUsual causes: {SHIFT_CAUSES}"
            )
    for term in terms:
        if term.step and not term.with_last > least:
            raise AssertionError(
                f"{probe.name}: the loss of the label of step {term.step} does not "
                f"depend on the input of step {term.step - 1}, the one before its "
                f"own.\nUsual causes: {TWICE_CAUSES}"
            )


def _terms(probe: Probe, target: Tensor, fresh: Tensor, least: float) -> list[_Term]:
    r"""What two changes do together and not apart, for each label that counts."""

    def loss(inputs: Tensor, labels: Tensor) -> float:
        return float(probe.sequence(inputs, labels).double().sum())

    base, terms = loss(target, target), []
    for s in range(target.shape[1]):
        labels = _with_step(target, s, fresh)
        alone = loss(target, labels)
        if abs(alone - base) <= least:
            continue

        def beside(inputs: Tensor, labels: Tensor = labels, alone: float = alone):
            return abs(loss(inputs, labels) - loss(inputs, target) - alone + base)

        later = torch.cat([target[:, :s], fresh[:, s:]], dim=1)
        last = _with_step(target, s - 1, fresh) if s else target
        terms.append(_Term(s, beside(later), beside(last)))
    return terms
