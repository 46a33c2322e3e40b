r"""Padding: what stands after a row's length changes nothing."""

from typing import Any

import torch
from torch import Tensor

from seqref._contract.subject import Subject, Values, named, rows_of
from seqref.recurrence import grows, map_state, match_states

FILLS = (torch.nan, torch.inf, -torch.inf, 1.0)


def padding_or_refusal(subject: Subject) -> None:
    r"""Padding where the layer takes lengths; else it must refuse them."""
    (_padding if subject.supports_lengths else _refusal)(subject)


def _padding(subject: Subject) -> None:
    for lengths in length_vectors(subject.batch, subject.time):
        expected = _each_row_alone(subject, lengths)
        for fill in FILLS:
            x = subject.x
            for row, length in enumerate(lengths):
                x[row, length:] = fill
            given = torch.tensor(lengths, device=x.device)
            values, gradients = subject.gradients(subject.call, x, subject.state, given)
            what = f"lengths {lengths} with {fill} as padding, beside each row alone,"
            got = values | gradients
            subject.same("padding", what, expected, got)
            _nothing_beyond("padding", what, lengths, got)


def length_vectors(batch: int, time: int) -> list[list[int]]:
    r"""Short, long, sorted and unsorted lengths; some without a row of full length."""
    short = sorted({0, 1, time // 2, time - 1} - {time})
    every = [*short, time]
    vectors = [
        [every[(start + row) % len(every)] for row in range(batch)]
        for start in range(len(every))
    ]
    vectors.append([short[row % len(short)] for row in range(batch)])
    vectors.append([0] * batch)
    vectors.append([time] * batch)
    return [list(v) for v in dict.fromkeys(tuple(vector) for vector in vectors)]


def _each_row_alone(subject: Subject, lengths: list[int]) -> Values:
    r"""What the padded call must give: the rows one by one, without padding."""

    def alone(x: Tensor, state: Any, _: Tensor | None) -> tuple[Tensor, Any]:
        outputs, finals = [], []
        for row, length in enumerate(lengths):
            y, final = subject.layer(
                x[row : row + 1, :length], rows_of(state, row, row + 1)
            )
            blank = y.new_zeros(1, subject.time - length, *y.shape[2:])
            outputs.append(torch.cat([y, blank], dim=1))
            finals.append(final)
        final = _stack(finals)
        if grows(state):
            # In a batch a cache grows by the padding too.
            final, _ = match_states(final, subject.layer(subject.x, state)[1])
        return torch.cat(outputs), final

    values, gradients = subject.gradients(alone, subject.x, subject.state)
    return values | gradients


def _stack(finals: list[Any]) -> Any:
    # A cache has grown by the steps of its row alone.
    return map_state(lambda *tensors: torch.cat(tensors), *match_states(*finals))


def _nothing_beyond(name: str, what: str, lengths: list[int], got: Values) -> None:
    for key in ("y", "gradient of `x`"):
        for row, length in enumerate(lengths):
            if got[key][row, length:].count_nonzero():
                raise AssertionError(
                    f"{name}: {key} of {what} is not zero in the padding of row {row}"
                )


def _refusal(subject: Subject) -> None:
    lengths = torch.full((subject.batch,), subject.time, device=subject.x.device)
    try:
        named(*subject.layer(subject.x, subject.state, lengths))
    except (TypeError, ValueError, NotImplementedError):
        return
    raise AssertionError(
        "padding: the layer declares supports_lengths = False and accepts lengths"
    )
