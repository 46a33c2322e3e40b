r"""Properties of models with a source, a target or a recurrence that must bend."""

import torch
from torch import Tensor

from seqref._contract.calls import plain_call
from seqref._contract.compare import TOLERANCE, changed
from seqref._contract.models import SHIFT_CAUSES, Call
from seqref._contract.probe import DTYPES, Probe, check_batch, other
from seqref.errors import check_tensor

# How much larger than most a value must be to be taken for that of a mask.
LARGE = 1e5


def check_source_dependence(
    model: Call,
    source: Tensor,
    target: Tensor,
    *,
    call: Call | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    r"""Hold a model to this: each output reads its row's source, all of it.

    With another source every step of the output must change; with another step of the
    source some output must; with the source of another row none may. The first tensor
    that the model returns is looked at: return the attention weights from `call` to ask
    the same of them.

    Args:
        model: A module, a method of one, or another callable.
        source: What the encoder reads, without padding and short: the influence of a
            step that is far back may round to nothing.
        target: What the decoder reads, without padding.
        call: ``call(model, source, target)``. None is ``model(source, target)``.
        dtype: torch.float64 or torch.float32. None is float64, and for a callable that
            is no module's the dtype that comes.

    Shapes:
        - `source`: (batch, source, ...); `target`: (batch, time, ...)
        - output: (batch, time, ...)

    Raises:
        AssertionError: an output ignores the source, a step of it is read by none, an
            output reads another row's, or the same call gives two results.
        TypeError: an argument has the wrong kind, or the model returns no tensor.
        ValueError: an argument or the output has the wrong shape or values.
    """
    probe = Probe("source dependence", model, call or plain_call, dtype)
    check_batch(probe.where, "source", source)
    check_tensor(probe.where, "target", target)
    with probe.quiet(source, target):
        source, target = probe.cast(source), probe.cast(target)
        key, y = next(iter(probe.run_twice(source, target).items()))
        if y.dim() < 2 or len(y) != len(source):
            raise ValueError(
                f"{probe.where}: {key} must have shape (batch={len(source)}, time, "
                f"...), got {tuple(y.shape)}"
            )
        fresh = other(source)
        reacts = _changed(y, probe.sequence(fresh, target))
        if not reacts.all():
            row, step = (~reacts).nonzero()[0].tolist()
            raise AssertionError(
                f"{probe.name}: {key} at row {row}, step {step} is the same "
                f"whatever the source ({int((~reacts).sum())} of {reacts.numel()} "
                "steps are).\n"
                "Usual causes: attention whose queries, keys or values all come from "
                "the decoder, an encoder state that is not handed over"
            )
        _own_source(probe, key, y, source, fresh, target)
        _every_step(probe, y, source, fresh, target)


def _changed(one: Tensor, two: Tensor) -> Tensor:
    r"""For each row and step whether any value differs."""
    return changed(one, two).reshape(*one.shape[:2], -1).any(dim=-1)


def _every_step(
    probe: Probe, y: Tensor, source: Tensor, fresh: Tensor, target: Tensor
) -> None:
    for s in range(source.shape[1]):
        one = source.clone()
        one[:, s] = fresh[:, s]
        # Any difference at all: a step that is far back may leave little more.
        differs = y != probe.sequence(one, target)
        reached = differs.flatten(start_dim=1).any(dim=1)
        if not reached.all():
            row = int((~reached).nonzero()[0])
            raise AssertionError(
                f"{probe.name}: no output of row {row} depends on step {s} of the "
                "source.\nUsual causes: a mask that is inverted or a step short, "
                "a loop that ends early, a fixed maximum length, a source so long that "
                "the influence of a far step rounds to nothing"
            )


def _own_source(
    probe: Probe, key: str, y: Tensor, source: Tensor, fresh: Tensor, target: Tensor
) -> None:
    for r in range(len(source)):
        one = source.clone()
        one[r] = fresh[r]
        got = probe.sequence(one, target)
        kept = [k for k in range(len(source)) if k != r]
        probe.same(
            lambda index, kept=kept: f"{key} at row {kept[index[0]]}" if index else key,
            f"when the source of row {r} changes",
            y[kept],
            got[kept],
            "keys or values reshaped across the batch, an encoder that is time-first "
            "beside a decoder that is batch-first",
        )


def check_target_shift(
    model: Call,
    target: Tensor,
    *,
    call: Call | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    r"""Hold a training step to this: each prediction sees the targets before its own.

    `call` returns the two things that go into the loss. The steps of `target` are
    changed one after the other. Where a label changes with one, the prediction for it
    and all before must stay, and the next prediction must change.

    Args:
        model: A module, a method of one, or another callable.
        target: Whole target sequences, without padding; of ids only such as stand in
            `target` are tried.
        call: ``call(model, target)``, which returns predictions and labels. None is
            ``model(target[:, :-1]), target[:, 1:]``.
        dtype: torch.float64 or torch.float32. None is float64, and for a callable that
            is no module's the dtype of `target`.

    Shapes:
        - `target`: (batch, time, ...), also with batch 1
        - returns of the call: (batch, steps, ...) and (batch, steps) or
          (batch, steps, ...), each label made from one step of `target`

    Raises:
        AssertionError: a prediction sees its own or a later label, or not the one
            before its own; or the same call gives two results.
        TypeError: `target` has the wrong kind, or the call returns no pair of tensors.
        ValueError: `target` or what the call returns has the wrong shape or values.
    """
    probe = Probe("target shift", model, call or _next_step, dtype)
    check_batch(probe.where, "target", target, batch=1)
    with probe.quiet(target):
        target = probe.cast(target)
        probe.run_twice(target)
        predictions, labels = _pair(probe, target)
        fresh, labelled = other(target), False
        for s in range(target.shape[1]):
            one = target.clone()
            one[:, s] = fresh[:, s]
            now, other_labels = _pair(probe, one)
            moved = _changed(labels, other_labels).any(dim=0).nonzero().flatten()
            if not len(moved):
                continue
            labelled = True
            step = int(moved[0])
            probe.same(
                _prediction,
                f"when the label of step {step} changes",
                predictions[:, : step + 1],
                now[:, : step + 1],
                SHIFT_CAUSES,
            )
            _sees_the_last(probe, predictions, now, int(moved[-1]) + 1)
        if not labelled:
            raise ValueError(
                f"{probe.where}: the labels that `call` returns must come from "
                "`target`, and none changed with it"
            )


def _sees_the_last(probe: Probe, before: Tensor, now: Tensor, step: int) -> None:
    if step == before.shape[1]:
        return
    reacts = _changed(before, now)[:, step]
    if not reacts.all():
        row = int((~reacts).nonzero()[0])
        raise AssertionError(
            f"{probe.name}: the prediction at row {row}, step {step} does not depend "
            f"on the label of step {step - 1}, the one before its own.\n"
            "Usual causes: labels shifted twice, a decoder's input that is not the "
            "target"
        )


def _next_step(model: Call, target: Tensor) -> tuple[object, Tensor]:
    result = plain_call(model, target[:, :-1])
    return result[0] if isinstance(result, tuple) else result, target[:, 1:]


def _pair(probe: Probe, target: Tensor) -> tuple[Tensor, Tensor]:
    result = probe.call(target)
    pair = isinstance(result, tuple | list) and len(result) == 2
    if not pair or not all(isinstance(part, Tensor) for part in result):
        raise TypeError(
            f"{probe.where}: `call` must return predictions and labels, two tensors"
        )
    predictions, labels = (part.detach().clone() for part in result)
    if labels.dim() < 2 or predictions.shape[:2] != labels.shape[:2]:
        raise ValueError(
            f"{probe.where}: predictions and labels must both begin with "
            f"(batch, steps), got {tuple(predictions.shape)} and {tuple(labels.shape)}"
        )
    return predictions, labels


def _prediction(index: tuple[int, ...]) -> str:
    if not index:
        return "the prediction"
    return f"the prediction at row {index[0]}, step {index[1]}"


def check_nonlinearity(
    model: Call,
    x: Tensor,
    *,
    call: Call | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    r"""Hold a model to this: it is more than a sum of one function for each step.

    A recurrence without its nonlinearity is such a sum. The first and the second half
    of the inputs are replaced, each alone and both: in such a sum the two changes add
    up, and so they do up to a shift common to the last axis if a softmax in logarithms
    follows. Where they add up, the steps are parted in other ways too, until any two
    have stood in different parts; one way in which they do not is enough to pass. The
    first tensor that the model returns is looked at: return the hidden states from
    `call` where a nonlinear head follows them.

    Args:
        model: A module, a method of one, or another callable.
        x: Inputs; of ids only such as stand in `x` are tried.
        call: ``call(model, x)``. None is ``model(x)``.
        dtype: torch.float64 or torch.float32. None is float64, and for a callable that
            is no module's the dtype of `x`.

    Shapes:
        - `x`: (batch, time, ...), also with batch 1
        - output: any

    Raises:
        AssertionError: the output is such a sum, or the same call gives two results.
        TypeError: an argument has the wrong kind, or the model returns no tensor.
        ValueError: `x` has the wrong shape or values.
    """
    probe = Probe("nonlinearity", model, call or plain_call, dtype)
    check_batch(probe.where, "x", x, batch=1)
    with probe.quiet(x):
        x = probe.cast(x)
        key, base = next(iter(probe.run_twice(x).items()))
        if base.dtype not in DTYPES or not base.isfinite().any():
            raise ValueError(
                f"{probe.where}: {key} must hold float64 or float32, some of it "
                f"finite, got {base.dtype}; return scores or hidden states from `call`"
            )
        probe.must_react({key: base}, {key: probe.sequence(other(x))})
        steps = torch.arange(x.shape[1], device=x.device)
        half = steps < x.shape[1] // 2
        found = [_interaction(probe, x, base, half, seed) for seed in range(3)]
        # Steps of one half may act together. Any two numbers differ in some bit.
        bits = [(steps >> k) % 2 == 1 for k in range((len(steps) - 1).bit_length())]
        add_up = all(how for how, _ in found) and all(
            _interaction(probe, x, base, bit, seed)[0]
            for bit in bits
            for seed in range(3)
        )
    if add_up:
        how, change = max(found, key=lambda one: one[1])
        raise AssertionError(
            f"{probe.name}: {key} is a sum of one function for each step{how}: changes "
            "of the first and the second half of the inputs add up, to within rounding "
            f"of changes up to {change:.3g}.\nUsual causes: a recurrence without its "
            "tanh, an activation that is made and not called, no path between steps"
        )


def _interaction(
    probe: Probe, x: Tensor, base: Tensor, part: Tensor, seed: int
) -> tuple[str, float]:
    r"""Words if the changes of two parts add up, else none; the largest change."""
    fresh = other(x, seed)
    one, two = x.clone(), fresh.clone()
    one[:, part], two[:, part] = fresh[:, part], x[:, part]
    left, right, both = (probe.sequence(inputs) for inputs in (one, two, fresh))
    rest = both - left - right + base
    change = torch.stack([left - base, right - base, both - base])
    # Values that stay, such as scores that are masked, say nothing about a sum.
    counts = (change != 0).any(dim=0) & rest.isfinite()
    if not counts.any():
        return "" if change.any() else " of the input", 0.0
    size = torch.stack([base, *change]).abs().amax(dim=0)
    sizes = size[counts]
    typical = sizes.kthvalue(1 + len(sizes) // 10).values
    # Each value by its own size, since a mask may have been added to some.
    allowed = TOLERANCE.get(base.dtype, 0.0) * size.clamp(min=typical)
    allowed = allowed.masked_fill(~counts, torch.inf)
    if (rest.abs() <= allowed).logical_or(~counts).all():
        return " of the input", _largest(change, counts)
    if base.dim() and base.shape[-1] > 1:
        unmasked = counts & (size <= LARGE * typical)
        rest, change = _centred(rest, unmasked), _centred(change, unmasked)
        # A shift and nothing else says nothing about what is below it.
        if (rest.abs() <= allowed).all() and (change.abs() > allowed).any():
            how = " of the input, with the mean over the last axis taken off"
            return how, _largest(change, unmasked)
    return "", 0.0


def _centred(values: Tensor, unmasked: Tensor) -> Tensor:
    r"""Values less their mean over the last axis, which leaves out those masked."""
    kept = values.masked_fill(~unmasked, torch.nan)
    return (values - kept.nanmean(dim=-1, keepdim=True)).nan_to_num(nan=0.0)


def _largest(values: Tensor, counts: Tensor) -> float:
    return float(values.masked_fill(~counts, 0.0).abs().max())
