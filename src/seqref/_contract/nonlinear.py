r"""A property of a recurrence: it is more than a sum of one function a step."""

from collections.abc import Mapping

import torch
from torch import Tensor

from seqref._contract.calls import plain_call
from seqref._contract.compare import LARGE, TOLERANCE
from seqref._contract.copies import DTYPES
from seqref._contract.inputs import check_batch, other
from seqref._contract.places import Call
from seqref._contract.probe import Probe


def check_nonlinearity(
    model: Call,
    x: Tensor,
    *,
    call: Call | None = None,
    dtype: torch.dtype | None = None,
    atol: float | None = None,
    expected_failures: Mapping[str, str] | None = None,
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
        atol: By how much changes may miss a sum and still count as adding up. None is
            what rounding may leave, by the dtype of the result: see *Test your own
            model*.
        expected_failures: Why the property must fail, by its name: a mapping from
            ``"nonlinearity"`` to the reason. Then it is an error that it holds.

    Shapes:
        - `x`: (batch, time, ...), also with batch 1
        - output: any

    Raises:
        AssertionError: the output is such a sum, or the same call gives two results; or
            the property holds that was expected to fail.
        TypeError: an argument has the wrong kind, or the model returns no tensor.
        ValueError: `x` has the wrong shape or values.
    """
    probe = Probe(
        "nonlinearity", model, call or plain_call, dtype, atol, expected_failures
    )
    check_batch(probe.where, "x", x, batch=1)
    with probe.expecting(), probe.quiet(x):
        x = probe.cast(x)
        first, second = probe.run_twice((x,), (other(x),))
        key, base = next(iter(first.items()))
        if base.dtype not in DTYPES or not base.isfinite().any():
            raise ValueError(
                f"{probe.where}: {key} must hold float64 or float32, some of it "
                f"finite, got {base.dtype}; return scores or hidden states from `call`"
            )
        probe.must_react({key: base}, {key: second[key]})
        _must_not_add_up(probe, key, x, base)


def _must_not_add_up(probe: Probe, key: str, x: Tensor, base: Tensor) -> None:
    r"""Raise if the changes of any two parts of the steps add up."""
    steps = torch.arange(x.shape[1], device=x.device)
    half = steps < x.shape[1] // 2
    interactions = [_interaction(probe, x, base, half, seed) for seed in range(3)]
    # Steps of one half may act together. Any two numbers differ in some bit.
    bits = [(steps >> k) % 2 == 1 for k in range((len(steps) - 1).bit_length())]
    add_up = all(how for how, _ in interactions) and all(
        _interaction(probe, x, base, bit, seed)[0] for bit in bits for seed in range(3)
    )
    if add_up:
        how, change = max(interactions, key=lambda one: one[1])
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
    if probe.atol is not None:
        allowed = torch.full_like(size, probe.atol)
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
