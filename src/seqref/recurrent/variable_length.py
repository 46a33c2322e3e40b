r"""Rows of different length: masks, last states, packing, batches with less padding.

Padding is on the right. Packing is torch's own, with the row order kept and checked.
"""

from collections.abc import Iterable
from operator import index

import torch
from jaxtyping import Bool, Float, Integer, Shaped
from torch import Tensor
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pad_packed_sequence,
)

from seqref.errors import (
    check_generator,
    check_lengths,
    check_readable,
    check_shape,
    check_size,
)
from seqref.ops._padding import real_steps

__all__ = [
    "bucket_batches",
    "last_state",
    "lengths_to_mask",
    "pack",
    "padding_fraction",
    "token_batches",
    "unpack",
]

# Lengths that stand alone have no time axis to be compared with.
_NO_LIMIT = 2**63 - 1


def lengths_to_mask(
    lengths: Integer[Tensor, " batch"], time: int
) -> Bool[Tensor, "batch time"]:
    r"""True where a step belongs to its row, False where it is padding.

    Args:
        lengths: Number of real steps of each row.
        time: Steps of the padded batch.

    Shapes:
        - `lengths`: (batch,), any integer dtype
        - returns: (batch, time) of bool, on the device of `lengths`

    Raises:
        ValueError: `lengths` has the wrong shape, a length is below 0 or above `time`,
            or `time` is below 0.
        TypeError: `lengths` is no tensor or not of an integer dtype, or `time` is no
            int.
    """
    where = "lengths_to_mask"
    check_size(where, "time", time, minimum=0)
    check_shape(where, "lengths", lengths, (("batch", None),))
    check_lengths(where, lengths, lengths.shape[0], time)
    return real_steps(lengths, time)


def last_state(
    y: Shaped[Tensor, "batch time width"],
    lengths: Integer[Tensor, " batch"],
    backward_width: int = 0,
) -> Shaped[Tensor, "batch last"]:
    r"""Each row's state when the layer had read all of it, taken from its outputs.

    The output at the row's last real step, `y[row, lengths[row] - 1]`. The last
    `backward_width` features were read from the right, so that they are taken at
    the first step, `y[row, 0]`.

    Right for a layer whose output is its hidden state: RNN, GRU, LSTM (its `h`, without
    `c`), the uppermost layer of a stack. A backward direction must have been told the
    lengths; else its output has read the padding.

    Args:
        y: Outputs of a layer.
        lengths: Number of real steps of each row, at least 1.
        backward_width: Features at the end of `y` that were read from right to left: 0
            for one direction, `hidden_size` for a bidirectional layer of `torch.nn`.

    Shapes:
        - `y`: (batch, time, width); `lengths`: (batch,)
        - returns: (batch, width); what stands in the padding has no part in it, nor in
            its gradients

    Raises:
        ValueError: `y` or `lengths` has the wrong shape, a length is below 1 or above
            time, or `backward_width` is below 0 or above width.
        TypeError: `y` is no tensor, `lengths` is not of an integer dtype, or
            `backward_width` is no int.
    """
    where = "last_state"
    check_shape(where, "y", y, (("batch", None), ("time", None), ("width", None)))
    check_lengths(where, lengths, *y.shape[:2], minimum=1)
    check_size(where, "backward_width", backward_width, minimum=0)
    width = y.shape[2]
    if backward_width > width:
        raise ValueError(
            f"{where}: `backward_width` must be at most width={width}, got "
            f"{backward_width}"
        )
    last = (lengths.to(y.device, torch.int64) - 1)[:, None].expand(-1, width)
    from_the_right = torch.arange(width, device=y.device) >= width - backward_width
    step = last.masked_fill(from_the_right, 0)
    return y.gather(1, step[:, None]).squeeze(1)


def pack(
    x: Float[Tensor, "batch time width"], lengths: Integer[Tensor, " batch"]
) -> PackedSequence:
    r"""A padded batch as torch's `PackedSequence`, in any order of the rows.

    Rows need not be sorted. A layer of `torch.nn` that is given the result returns its
    final state in the order of `x`.

    Args:
        x: Padded batch.
        lengths: Number of real steps of each row, at least 1; on any device.

    Shapes:
        - `x`: (batch, time, width) with at least one row and one feature; `lengths`:
            (batch,)
        - returns: a packed sequence whose data is (steps, width), with
            steps = sum(lengths)

    Raises:
        ValueError: `x` or `lengths` has the wrong shape, there is no row or no feature,
            a length is below 1 or above time, or `lengths` cannot be read, as under
            `torch.func.vmap` over it.
        TypeError: `x` is no tensor, or `lengths` is not of an integer dtype.
    """
    where = "pack"
    check_shape(where, "x", x, (("batch", None), ("time", None), ("width", None)))
    if 0 in (x.shape[0], x.shape[2]):
        raise ValueError(
            f"{where}: `x` must have at least one row and one feature, got "
            f"{tuple(x.shape)}"
        )
    check_lengths(where, lengths, *x.shape[:2], minimum=1)
    check_readable(where, "lengths", lengths)
    return pack_padded_sequence(
        x, lengths.to("cpu", torch.int64), batch_first=True, enforce_sorted=False
    )


def unpack(
    packed: PackedSequence, time: int | None = None
) -> tuple[Float[Tensor, "batch time width"], Integer[Tensor, " batch"]]:
    r"""The padded batch of a packed sequence, rows in the order given to `pack`.

    Args:
        packed: What `pack`, or a layer that was given it, returned.
        time: Steps of the result; the longest row's where it is None.

    Shapes:
        - returns: (batch, time, width) with zeros in the padding, and the lengths,
            (batch,) of int64 on the CPU

    Raises:
        ValueError: `time` is below the longest row.
        TypeError: `packed` is no packed sequence, or `time` is no int.
    """
    where = "unpack"
    if not isinstance(packed, PackedSequence):
        raise TypeError(
            f"{where}: `packed` must be a PackedSequence, got {type(packed).__name__}"
        )
    if time is not None:
        # One entry of batch_sizes for each step of the longest row.
        check_size(where, "time", time, minimum=len(packed.batch_sizes))
    return pad_packed_sequence(packed, batch_first=True, total_length=time)


def padding_fraction(
    lengths: Integer[Tensor, " rows"], batches: Iterable[Iterable[int]]
) -> float:
    r"""Share of the steps of padded batches that are padding.

    Each batch is as long as its longest row. 0.0 where there is no step at all.

    Args:
        lengths: Number of real steps of each row.
        batches: Indices of the rows of each batch; a batch sampler of torch will do.

    Shapes:
        - `lengths`: (rows,)

    Raises:
        ValueError: `lengths` has the wrong shape or a length is below 0; an index is
            below 0 or not below the number of rows.
        TypeError: `lengths` is no tensor, or not of an integer dtype; `batches` holds
            something else than indices in batches.
    """
    where = "padding_fraction"
    known = _as_list(where, lengths)
    real = padded = 0
    # One pass: a generator can be read once.
    for batch in batches:
        rows = _indices(where, batch, len(known))
        real += sum(known[row] for row in rows)
        padded += len(rows) * max([0, *(known[row] for row in rows)])
    return 1 - real / padded if padded else 0.0


def bucket_batches(
    lengths: Integer[Tensor, " rows"],
    batch_size: int,
    *,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    r"""Batches of rows of similar length: sorted, cut, and the batches shuffled.

    Rows of equal length are in random order before the cut, and the batches are in
    random order after it. Which *lengths* meet in a batch is the same at every call.

    Args:
        lengths: Number of real steps of each row.
        batch_size: Rows of a batch.
        generator: Source of the two random orders; torch's own where it is None.

    Shapes:
        - `lengths`: (rows,)
        - returns: ceil(rows / batch_size) lists of indices, each row in one of them;
            one batch may be smaller, the one that has the longest rows

    Raises:
        ValueError: `lengths` has the wrong shape, a length is below 0, or `batch_size`
            is below 1.
        TypeError: `lengths` is not of an integer dtype, `batch_size` is no int, or
            `generator` no generator.
    """
    where = "bucket_batches"
    check_size(where, "batch_size", batch_size)
    check_generator(where, generator)
    rows = _sorted_rows(_as_list(where, lengths), generator)
    cut = [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)]
    return _shuffled(cut, generator)


def token_batches(
    lengths: Integer[Tensor, " rows"],
    max_tokens: int,
    *,
    generator: torch.Generator | None = None,
) -> list[list[int]]:
    r"""Batches of rows of similar length with a bounded number of padded steps.

    Rows are sorted as in `bucket_batches`; a batch ends where one more row would make
    rows times longest row greater than `max_tokens`. Short rows make batches of many
    rows, long ones of few, so a mean over rows weighs a row by its batch.

    Args:
        lengths: Number of real steps of each row.
        max_tokens: Largest number of steps of a batch, padding included.
        generator: Source of the two random orders; torch's own where it is None.

    Shapes:
        - `lengths`: (rows,)
        - returns: lists of indices, each row in one of them

    Raises:
        ValueError: `lengths` has the wrong shape, a length is below 0, or `max_tokens`
            is below 1 or below the longest row.
        TypeError: `lengths` is not of an integer dtype, `max_tokens` is no int, or
            `generator` no generator.
    """
    where = "token_batches"
    known = _as_list(where, lengths)
    check_size(where, "max_tokens", max_tokens, minimum=max([1, *known]))
    check_generator(where, generator)
    batches: list[list[int]] = []
    for row in _sorted_rows(known, generator):
        # In ascending order the new row is the longest.
        if not batches or (len(batches[-1]) + 1) * known[row] > max_tokens:
            batches.append([])
        batches[-1].append(row)
    return _shuffled(batches, generator)


def _as_list(where: str, lengths: Tensor) -> list[int]:
    check_shape(where, "lengths", lengths, (("rows", None),))
    check_lengths(where, lengths, lengths.shape[0], _NO_LIMIT)
    check_readable(where, "lengths", lengths)
    return lengths.tolist()


def _indices(where: str, batch: Iterable[int], n_rows: int) -> list[int]:
    try:
        rows = [index(row) for row in batch]
    except TypeError as error:
        raise TypeError(
            f"{where}: `batches` must hold indices, one iterable a batch ({error})"
        ) from error
    for row in rows:
        if not 0 <= row < n_rows:
            raise ValueError(
                f"{where}: `batches` must hold rows from 0 to {n_rows - 1}, got {row}"
            )
    return rows


def _order(size: int, generator: torch.Generator | None) -> list[int]:
    # The device of the generator: torch's default device may be another.
    device = torch.device("cpu") if generator is None else generator.device
    return torch.randperm(size, generator=generator, device=device).tolist()


def _shuffled(
    items: list[list[int]], generator: torch.Generator | None
) -> list[list[int]]:
    return [items[place] for place in _order(len(items), generator)]


def _sorted_rows(known: list[int], generator: torch.Generator | None) -> list[int]:
    # A stable sort of a random order: rows of equal length stay in random order.
    return sorted(_order(len(known), generator), key=known.__getitem__)
