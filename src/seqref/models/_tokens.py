r"""The tokens that a model reads: their checks, the same for all models."""

from collections.abc import Sequence

import torch
from torch import Tensor

from seqref.errors import Axis, check_shape, check_tensor, read_bounds


def check_tokens(
    where: str,
    name: str,
    tokens: Tensor,
    axes: Sequence[Axis],
    vocab_size: int,
    device: torch.device,
) -> None:
    r"""Raise unless `tokens` are whole numbers that the embedding has rows for.

    Raises:
        TypeError: `tokens` is no tensor, or not of dtype int64 or int32.
        ValueError: another shape or device, or on a CPU a token outside the vocabulary
            (other devices are not asked: they would wait).
    """
    check_tensor(where, name, tokens)
    check_shape(where, name, tokens, axes)
    if tokens.dtype not in (torch.int64, torch.int32):
        raise TypeError(
            f"{where}: `{name}` must have dtype int64 or int32, got {tokens.dtype}"
        )
    if tokens.device != device:
        raise ValueError(
            f"{where}: `{name}` must be on the parameters' device {device}, "
            f"got {tokens.device}"
        )
    # On a GPU this question would wait for the device at every call.
    if device.type != "cpu":
        return
    bounds = read_bounds(where, name, tokens, 0, vocab_size - 1)
    if bounds is not None and not 0 <= bounds[0] <= bounds[1] < vocab_size:
        raise ValueError(
            f"{where}: `{name}` must lie in 0 to {vocab_size - 1}, "
            f"got {bounds[0]} to {bounds[1]}"
        )
