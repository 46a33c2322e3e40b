r"""What the synthetic tasks share: a batch, and where its random numbers are drawn."""

from typing import NamedTuple

import torch
from torch import Tensor

from seqref.errors import check_generator, check_size


class Batch(NamedTuple):
    r"""Inputs of a task, batch first, and what a network should answer to them."""

    x: Tensor
    targets: Tensor


def check_draw(
    where: str, batch_size: int, generator: torch.Generator | None
) -> torch.device:
    r"""Check the arguments of a draw; the device on which to draw random numbers.

    Numbers are drawn where the generator lives and moved afterwards: a generator gives
    the same batch wherever that goes.

    Raises:
        TypeError: `batch_size` is no int, or `generator` no `torch.Generator`.
        ValueError: `batch_size` is below 1.
    """
    check_size(where, "batch_size", batch_size)
    check_generator(where, generator)
    return torch.device("cpu") if generator is None else generator.device


def check_dtype(where: str, dtype: torch.dtype) -> None:
    r"""Raise `TypeError` unless `dtype` is a floating dtype of torch."""
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"{where}: `dtype` must be a floating dtype, got {dtype!r}")
