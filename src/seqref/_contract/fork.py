r"""A property of a model with a state: two sequences can go on from one."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from seqref._contract.calls import call_with_state
from seqref._contract.carry import outputs_and_state
from seqref._contract.inputs import check_batch, other
from seqref._contract.places import Call, at, needs_steps
from seqref._contract.probe import Probe

FORK_CAUSES = (
    "a cache that is written in place, or a list or dict that is appended to, and is "
    "shared by those that go on from it (copy it for each beam)"
)


def check_state_fork(
    model: Call,
    x: Tensor,
    *,
    call: Call | None = None,
    dtype: torch.dtype | None = None,
    atol: float | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> None:
    r"""Hold a model to this: two sequences go on from one state, each as if alone.

    So beams do that come from one parent, and answers to one prompt. At each cut, `x`
    takes one step from the state that was reached there, another sequence takes one
    from the same state, and then each reads its other steps. All outputs must be those
    of a run in which nothing else was read.

    A model that is made to write its cache in place breaks this by design: it is sound
    where each state is gone on from once, and a search must copy the state.

    Args:
        model: A module, a method of one, or another callable.
        x: Inputs of the whole sequence, all rows of full length. What is overwritten in
            a buffer shows from three steps on.
        call: ``call(model, x, state)``, which returns outputs and state; the state is
            None at the start and else what the call before returned. None is
            ``model(x, state)``.
        dtype: torch.float64 or torch.float32. None is float64, and for a callable that
            is no module's the dtype of `x`.
        atol: The largest difference that does not count. None is what rounding may
            leave, by the dtype of the result: see *Test your own model*.
        expected_failures: Why the property must fail, by its name: a mapping from
            ``"state fork"`` to the reason. Then it is an error that it holds.

    Shapes:
        - `x`: (batch, time, ...), time at least 2
        - returns of the call: outputs (batch, time, ...) and a state of any kind

    Raises:
        AssertionError: a sequence reads what another one left in their common state, or
            the same call gives two results; or the property holds that was expected to
            fail.
        TypeError: an argument has the wrong kind, or the call returns no pair.
        ValueError: an argument or the outputs have the wrong shape or values.
    """
    call = call or call_with_state

    def with_held(model: Any, x: Tensor, held: tuple[Any]) -> Any:
        # A bare tensor would be copied on its way: what is written to it must show.
        return call(model, x, held[0])

    probe = Probe("state fork", model, with_held, dtype, atol, expected_failures)
    check_batch(probe.where, "x", x)
    with probe.expecting(), probe.quiet(x):
        x = probe.cast(x)
        y, _ = outputs_and_state(probe, x, (None,))
        needs_steps(probe, "`output`", y, x)
        probe.must_react(*probe.run_twice((x, (None,)), (other(x), (None,))))
        for t in range(1, x.shape[1]):
            _from_one_state(probe, x[:, :t], x[:, t:], other(x)[:, t:])


def _from_one_state(probe: Probe, past: Tensor, one: Tensor, two: Tensor) -> None:
    _, state = outputs_and_state(probe, past, (None,))
    branches = [[part[:, :1], part[:, 1:]] for part in (one, two)]
    results: list[list[Tensor]] = [[], []]
    states = [state, state]
    # Both take a step before either takes its others.
    for part in range(2 if one.shape[1] > 1 else 1):
        for b, steps in enumerate(branches):
            y, states[b] = outputs_and_state(probe, steps[part], (states[b],))
            results[b].append(y)
    t = past.shape[1]
    when = f"when two sequences go on from one state, that after step {t - 1}"
    place = at("`output`", steps=True, first_step=t)
    for b, steps in enumerate(branches):
        want = _alone(probe, [past, *steps])
        probe.same(place, when, want, torch.cat(results[b], dim=1), FORK_CAUSES)


def _alone(probe: Probe, parts: list[Tensor]) -> Tensor:
    r"""Outputs of all parts but the first, with nothing read between them."""
    state, outputs = None, []
    for part in parts:
        if part.shape[1]:
            y, state = outputs_and_state(probe, part, (state,))
            outputs.append(y)
    return torch.cat(outputs[1:], dim=1)
