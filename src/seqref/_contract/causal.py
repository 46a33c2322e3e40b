r"""A property of a model with steps: no output depends on a later input."""

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor

from seqref._contract.calls import plain_call
from seqref._contract.inputs import check_batch, holds, other_steps, padding_of
from seqref._contract.places import Call, at, needs_steps
from seqref._contract.probe import Probe

CAUSAL_CAUSES = (
    "attention without a causal mask, a bidirectional layer, a convolution padded on "
    "both sides, a norm over time"
)


def check_causality(
    model: Call,
    x: Tensor,
    *,
    call: Call | None = None,
    pad: int | float | None = None,
    dtype: torch.dtype | None = None,
    atol: float | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> None:
    r"""Hold a model to this: no output depends on a later input.

    From each step on, the inputs are replaced by others, and the outputs before it must
    stay; ids by three others, one after the other. The first tensor that the model
    returns is looked at.

    Args:
        model: A module, a method of one, or another callable.
        x: Inputs, without padding unless `pad` is given; of ids only such as stand in
            `x` are tried.
        call: ``call(model, x)``. None is ``model(x)``.
        pad: The value of padding, for a model that finds the padding by it: then the
            padding stays, no step becomes it, and outputs in it do not count.
        dtype: torch.float64 or torch.float32. None is float64, and for a callable that
            is no module's the dtype of `x`.
        atol: The largest difference that does not count. None is what rounding may
            leave, by the dtype of the result: see *Test your own model*.
        expected_failures: Why the property must fail, by its name: a mapping from
            ``"causality"`` to the reason. Then it is an error that it holds.

    Shapes:
        - `x`: (batch, time, ...), also with batch 1
        - output: (batch, time, ...)

    Raises:
        AssertionError: an output depends on a later input, or the same call gives two
            results; or the property holds that was expected to fail.
        TypeError: an argument has the wrong kind, or the model returns no tensor.
        ValueError: an argument or the output has the wrong shape or values.
    """
    probe = Probe(
        "causality", model, call or plain_call, dtype, atol, expected_failures
    )
    check_batch(probe.where, "x", x, batch=1)
    with probe.expecting(), probe.quiet(x):
        x = probe.cast(x)
        # One id may show a leak that another does not.
        seeds = range(1 if x.is_floating_point() else min(3, len(x.unique()) - 1))
        first, second = probe.run_twice((x,), (other_steps(x, pad),))
        key, y = next(iter(first.items()))
        needs_steps(probe, key, y, x)
        probe.must_react({key: y}, {key: second[key]})
        try:
            _change_later_steps(probe, key, y, x, seeds, pad)
        except AssertionError:
            padding = padding_of(x) if pad is None else None
            if padding is None or not _holds(probe, key, y, x, seeds, padding):
                raise
            raise ValueError(
                f"{probe.where}: rows of `x` end with {padding}, which stands nowhere "
                "else, and outputs before a step change only where such a step is "
                f"replaced or put in: pass pad={padding} if it is padding, which the "
                "model finds by its value, or rows without padding"
            ) from None


def _change_later_steps(
    probe: Probe, key: str, y: Tensor, x: Tensor, seeds: range, pad: int | float | None
) -> None:
    others = [other_steps(x, pad, seed) for seed in seeds]
    real = None
    if pad is not None:
        real = ~holds(x, pad).view(*x.shape[:2], *[1] * (y.dim() - 2))
    for t, fresh in itertools.product(range(1, x.shape[1]), others):
        got = probe.sequence(torch.cat([x[:, :t], fresh[:, t:]], dim=1))[:, :t]
        if real is not None:
            got = torch.where(real[:, :t], got, y[:, :t])
        when = f"when the inputs from step {t} on change"
        probe.same(at(key, steps=True), when, y[:, :t], got, CAUSAL_CAUSES)


def _holds(
    probe: Probe, key: str, y: Tensor, x: Tensor, seeds: range, pad: int | float
) -> bool:
    try:
        _change_later_steps(probe, key, y, x, seeds, pad)
    except AssertionError:
        return False
    return True
