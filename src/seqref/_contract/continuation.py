r"""A property of a model with a state: it goes on right after a padded prompt."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seqref._contract.carry import outputs_and_state
from seqref._contract.inputs import check_batch, other
from seqref._contract.places import Call, at, needs_steps
from seqref._contract.probe import Probe
from seqref.errors import check_lengths

PADDED_CAUSES = (
    "a state that went on through the padding, in place of each row's at its own "
    "length; positions counted from the padded length; a mask that hides the padding "
    "from outputs and not from the state, or is left out after the prompt"
)
ALONE_CAUSES = (
    "a state that is ignored, reset or not returned, positions that start again, a "
    "layer that reads ahead"
)


def check_cached_continuation(
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
    r"""Hold a model to this: after a prompt of any padding each row goes on as alone.

    The first `lengths[r]` steps of row r are its prompt, and those behind are what
    comes after it. All prompts are read in one call, padded on the right, and then the
    rows take their next steps, one at a time. Outputs must be those of the row read
    whole, by itself. The padding has other contents and three steps more; and each row
    is also gone on with alone, without padding and with some.

    Args:
        model: A module, a method of one, or another callable.
        x: Whole sequences, without padding.
        lengths: How many steps of each row are its prompt: two different values above
            0, and all below time.
        call: ``call(model, x, state, lengths)``, which returns outputs and state. For
            prompts the state is None and `lengths` says which steps are real; for a
            step the state is what the call before returned and `lengths` is None. The
            state can be of any kind: what a step needs to know besides, such as a mask,
            goes into it. None is ``model(x, state, lengths)`` and ``model(x, state)``,
            and for torch.nn's recurrent layers a packed batch.
        pad: The value that padding holds; None tries others.
        dtype: torch.float64 or torch.float32. None is float64, and for a callable that
            is no module's the dtype of `x`.
        atol: The largest difference that does not count. None is what rounding may
            leave, by the dtype of the result: see *Test your own model*.
        expected_failures: Why the property must fail, by its name: a mapping from
            ``"cached continuation"`` to the reason. Then it is an error that it holds.

    Shapes:
        - `x`: (batch, time, ...); `lengths`: (batch,)
        - returns of the call: outputs (batch, time, ...) and a state of any kind

    Raises:
        AssertionError: a step after the prompt is not that of the row alone, or the
            same call gives two results; or the property holds that was expected to
            fail.
        TypeError: an argument has the wrong kind, or the call returns no pair.
        ValueError: an argument or the outputs have the wrong shape or values.
    """
    name = "cached continuation"
    call = call or _call
    probe = Probe(name, model, call, dtype, atol, expected_failures)
    check_batch(probe.where, "x", x)
    check_lengths(probe.where, lengths, *x.shape[:2])
    counts: list[int] = lengths.tolist()
    if len(set(counts) - {0}) < 2 or max(counts) >= x.shape[1]:
        raise ValueError(
            f"{probe.where}: `lengths` must hold two different values above 0, all "
            f"below time={x.shape[1]}, got {counts}"
        )
    with probe.expecting(), probe.quiet(x):
        x = probe.cast(x)
        full = torch.full_like(lengths, x.shape[1])
        one, two = probe.run_twice((x, None, full), (other(x), None, full))
        probe.must_react(one, two)
        want = [
            _whole(probe, x[r : r + 1], full[r : r + 1]) for r in range(len(counts))
        ]
        for r, n in enumerate(counts):
            if n:
                _alone(probe, x[r : r + 1], lengths[r : r + 1], want[r], r)
        for when, prompts, rows in _padded(x, counts, pad):
            chosen = x[rows], lengths[rows], [want[r] for r in rows]
            _compare(probe, prompts, chosen, rows, when, PADDED_CAUSES)


def _call(model: Any, x: Tensor, state: Any, lengths: Tensor | None) -> Any:
    if lengths is None:
        return model(x, state)
    if not isinstance(model, nn.RNNBase):
        return model(x, state, lengths)
    packed = pack_padded_sequence(
        x, lengths.cpu(), batch_first=True, enforce_sorted=False
    )
    y, state = model(packed, state)
    return pad_packed_sequence(y, batch_first=True)[0], state


def _whole(probe: Probe, row: Tensor, full: Tensor) -> Tensor:
    y, _ = outputs_and_state(probe, row, None, full)
    needs_steps(probe, "`output`", y, row)
    return y


def _alone(
    probe: Probe, row: Tensor, length: Tensor, want: Tensor, number: int
) -> None:
    prompt = row[:, : int(length)]
    when = "when the row alone goes on step by step after its prompt"
    _compare(probe, prompt, (row, length, [want]), [number], when, ALONE_CAUSES)


def _padded(
    x: Tensor, counts: list[int], pad: int | float | None
) -> Iterator[tuple[str, Tensor, list[int]]]:
    r"""Prompts with padding, the rows that they are of, and words for it."""
    everyone = list(range(len(counts)))
    for more in (0, 3):
        prompts = _filled(x, counts, max(counts) + more, pad, seed=more)
        steps = "with three steps more of padding" if more else "in one batch"
        yield f"after a prompt that is padded on the right {steps}", prompts, everyone
    for r, n in enumerate(counts):
        if n:
            prompts = _filled(x[r : r + 1], [n], n + 3, pad, seed=1)
            yield "after a prompt alone with three steps of padding", prompts, [r]


def _filled(
    x: Tensor, counts: list[int], width: int, pad: int | float | None, seed: int
) -> Tensor:
    r"""The prompts, and behind each what is no part of it, up to a width."""
    fresh = other(x, seed) if pad is None else torch.full_like(x, pad)
    # As many steps as are needed, whatever `x` has.
    times = -(-width // x.shape[1])
    prompts = torch.cat([fresh] * times, dim=1)[:, :width]
    for r, n in enumerate(counts):
        prompts[r, :n] = x[r, :n]
    return prompts


def _compare(
    probe: Probe,
    prompts: Tensor,
    chosen: tuple[Tensor, Tensor, list[Tensor]],
    rows: list[int],
    when: str,
    causes: str,
) -> None:
    x, lengths, want = chosen
    counts: list[int] = lengths.tolist()
    _, state = outputs_and_state(probe, prompts, None, lengths)
    for s in range(x.shape[1] - max(counts)):
        x_t = torch.stack([x[i, n + s] for i, n in enumerate(counts)])[:, None]
        y_t, state = outputs_and_state(probe, x_t, state, None)
        needs_steps(probe, "`output`", y_t, x_t)
        for i, (r, n) in enumerate(zip(rows, counts, strict=True)):
            place = at("`output`", row=r, steps=True, first_step=n + s)
            expected = want[i][0, n + s : n + s + 1]
            probe.same(place, when, expected, y_t[i], causes)
