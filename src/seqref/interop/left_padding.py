r"""Batches that are padded on the left, shifted to the right and back."""

import torch
from jaxtyping import Integer, Shaped
from torch import Tensor

from seqref.errors import check_lengths, check_shape, check_tensor


def from_left_padding(
    x: Shaped[Tensor, "batch time ..."], attention_mask: Shaped[Tensor, "batch time"]
) -> tuple[Shaped[Tensor, "batch time ..."], Integer[Tensor, " batch"]]:
    r"""Rows that are padded on the left, shifted so that the padding is on the right.

    What stood in the padding stands behind the row, unchanged.

    Args:
        x: Tokens, or anything with a step for each.
        attention_mask: 0 for padding, then 1 for what is real, in each row.

    Shapes:
        - `x`: (batch, time, ...); `attention_mask`: (batch, time), integers or bool
        - returns: as `x`, and lengths (batch,)

    Raises:
        TypeError: an argument is no tensor, or the mask is of another kind.
        ValueError: a wrong shape; a row of the mask is not zeros followed by ones.
    """
    where = "from_left_padding"
    check_tensor(where, "x", x)
    check_tensor(where, "attention_mask", attention_mask)
    if x.dim() < 2:
        raise ValueError(
            f"{where}: `x` must have shape (batch, time, ...), got {tuple(x.shape)}"
        )
    axes = ("batch", x.shape[0]), ("time", x.shape[1])
    check_shape(where, "attention_mask", attention_mask, axes)
    kind = attention_mask.dtype
    if kind.is_floating_point or kind.is_complex:
        raise TypeError(
            f"{where}: `attention_mask` must hold integers or bool, got {kind}"
        )
    lengths = attention_mask.long().sum(dim=1)
    wanted = _left_mask(lengths, x.shape[1])
    if not torch.equal(attention_mask.long(), wanted):
        row = int((attention_mask.long() != wanted).any(dim=1).nonzero()[0, 0])
        raise ValueError(
            f"{where}: each row of `attention_mask` must be zeros and then ones, got "
            f"{attention_mask[row].tolist()} in row {row}"
        )
    return _rolled(x, x.shape[1] - lengths), lengths


def to_left_padding(
    x: Shaped[Tensor, "batch time ..."], lengths: Integer[Tensor, " batch"]
) -> tuple[Shaped[Tensor, "batch time ..."], Integer[Tensor, "batch time"]]:
    r"""The way back of `from_left_padding`: padding on the left, and its mask.

    Shapes:
        - `x`: (batch, time, ...); `lengths`: (batch,)
        - returns: as `x`, and the mask (batch, time), 0 for padding and 1 for real

    Raises:
        TypeError: `x` is no tensor, `lengths` not of an integer dtype.
        ValueError: a wrong shape, or a length below 0 or above time.
    """
    where = "to_left_padding"
    check_tensor(where, "x", x)
    if x.dim() < 2:
        raise ValueError(
            f"{where}: `x` must have shape (batch, time, ...), got {tuple(x.shape)}"
        )
    check_lengths(where, lengths, *x.shape[:2])
    lengths = lengths.to(x.device, torch.int64)
    return _rolled(x, lengths), _left_mask(lengths, x.shape[1])


def _left_mask(lengths: Tensor, time: int) -> Tensor:
    steps = torch.arange(time, device=lengths.device)
    return (steps >= time - lengths[:, None]).long()


def _rolled(x: Tensor, first: Tensor) -> Tensor:
    r"""Each row begun at its own step, and what stood before it put behind."""
    batch, time = x.shape[:2]
    steps = torch.arange(time, device=x.device)
    source = (steps + first.to(x.device)[:, None]) % max(time, 1)
    return x.gather(1, source.view(batch, time, *[1] * (x.dim() - 2)).expand_as(x))
