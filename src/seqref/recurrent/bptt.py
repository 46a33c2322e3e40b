r"""Backpropagation through time (BPTT): the adjoints, and chunks to truncate by.

The adjoints are derived by hand and live in the op, beside the forward passes that save
what they need: `seqref.ops.fused_recurrence.parallel`. They are re-exported here.
"""

from typing import Any, NamedTuple

from jaxtyping import Integer, Shaped
from torch import Tensor

from seqref.errors import check_lengths, check_size, check_tensor
from seqref.ops.fused_recurrence.parallel import (
    cho_gru_backward,
    gru_backward,
    lstm_backward,
    rnn_backward,
)

__all__ = [
    "Chunk",
    "cho_gru_backward",
    "gru_backward",
    "lstm_backward",
    "rnn_backward",
    "truncated_chunks",
]


class Chunk(NamedTuple):
    r"""Some steps of a sequence: `x` (batch, steps, ...) and each row's real steps."""

    x: Shaped[Tensor, "batch steps ..."]
    lengths: Integer[Tensor, " batch"] | None


def truncated_chunks(
    x: Shaped[Tensor, "batch time ..."],
    size: int,
    lengths: Integer[Tensor, " batch"] | None = None,
) -> list[Chunk]:
    r"""Cut a sequence into chunks of `size` steps, for truncated BPTT.

    The chunks follow one another along time and do not overlap; the last is shorter
    where `size` does not divide the time. Run a layer over them with the state carried
    from chunk to chunk: with its graph that is the whole sequence, values, gradients
    and final state; with `seqref.recurrence.detach_state` between two chunks it is
    truncated BPTT, whose gradients end at each chunk's first step.

    Args:
        x: The sequence, inputs or targets.
        size: Steps of a chunk.
        lengths: Number of real steps of each row; the rest is padding on the right.

    Shapes:
        - `x`: (batch, time, ...), of any dtype; `lengths`: (batch,)
        - returns: ceil(time / size) chunks (none where time is 0). The `x` of each,
          (batch, steps, ...), is a view of the given one; its `lengths`, (batch,) of
          int64, say how many of its steps are real in each row, 0 where the row has
          ended before, and are None where none were given.

    Cost:
        O(T / size) views; no element of `x` is copied.

    Raises:
        ValueError: `x` has fewer than two axes, `size` is below 1, `lengths` has the
            wrong shape, or a length is below 0 or above time.
        TypeError: `x` is no tensor, `size` is no int, or `lengths` is not of an integer
            dtype.

    Source:
        Williams & Peng (1990) discuss truncated backpropagation through time.
        Differs: the chunks do not overlap, so the horizon of a loss is its place in
        its chunk.
    """
    where = "truncated_chunks"
    check_tensor(where, "x", x)
    if x.dim() < 2:
        raise ValueError(
            f"{where}: `x` must have shape (batch, time, ...), got {tuple(x.shape)}"
        )
    check_size(where, "size", size)
    batch, time = x.shape[:2]
    real: Any = [None] * len(range(0, time, size))
    if lengths is not None:
        check_lengths(where, lengths, batch, time)
        # An unsigned dtype would turn below zero.
        left = lengths.long()
        real = [(left - start).clamp(0, size) for start in range(0, time, size)]
    parts = x.split(size, dim=1) if time else ()
    return [Chunk(*pair) for pair in zip(parts, real, strict=True)]
