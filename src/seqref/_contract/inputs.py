r"""Inputs that a model is tried on: others of the same kind, and what is refused."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from seqref.errors import check_tensor


def other(x: Tensor, seed: int = 0, without: int | float | None = None) -> Tensor:
    r"""Values of the same kind that differ from `x` everywhere.

    Floating values are drawn anew and wider than those of `x`; of whole numbers each
    becomes another that stands in `x`, so that ids stay within the vocabulary, and
    none becomes the one that is given.
    """
    if x.is_floating_point():
        generator = torch.Generator().manual_seed(seed)
        # The generator's own device, whatever the default.
        noise = torch.randn(
            x.shape, generator=generator, dtype=torch.float64, device="cpu"
        )
        spread = 2 * x.std() + 1
        return x.mean() + spread * noise.to(x)
    ids = x.unique()
    ids = ids[ids != without] if without is not None else ids
    shift = 1 + seed % max(1, len(ids) - 1)
    return ids[(torch.searchsorted(ids, x) + shift) % len(ids)]


def check_batch(where: str, name: str, x: Tensor, batch: int = 2) -> None:
    r"""Raise unless `x` is a batch of sequences that differ."""
    check_tensor(where, name, x)
    if x.dim() < 2 or x.shape[0] < batch or x.shape[1] < 2:
        raise ValueError(
            f"{where}: `{name}` must have shape (batch, time, ...) with batch at least "
            f"{batch} and time at least 2, got {tuple(x.shape)}"
        )
    if x.is_complex() or x.dtype == torch.bool:
        raise TypeError(
            f"{where}: `{name}` must hold real values or ids, got {x.dtype}"
        )
    if x.is_floating_point() and not x.isfinite().all():
        raise ValueError(f"{where}: `{name}` must be finite, got NaN or infinity in it")
    if len(x.unique()) < 2 or (batch > 1 and len(x.unique(dim=0)) < len(x)):
        raise ValueError(
            f"{where}: `{name}` must hold different values, and no row twice"
        )


def other_steps(x: Tensor, pad: int | float | None, seed: int = 0) -> Tensor:
    r"""`other`, with the steps that hold `pad` left as they are, and none put in."""
    fresh = other(x, seed, without=pad)
    return fresh if pad is None else torch.where(holds(x, pad), x, fresh)


def holds(x: Tensor, value: int | float) -> Tensor:
    r"""Which steps hold one value and nothing else; the other axes have size 1."""
    steps = _all_of_step(x == value)
    return steps.view(*x.shape[:2], *[1] * (x.dim() - 2))


def _all_of_step(same: Tensor) -> Tensor:
    return same.flatten(start_dim=2).all(dim=2) if same.dim() > 2 else same


def padding_of(x: Tensor) -> int | float | None:
    r"""The value that ends rows of different length and stands nowhere else, or None.

    Of floating values it can be zero alone, over whole steps.
    """
    candidates = [0.0] if x.is_floating_point() else x.unique().tolist()
    for value in candidates:
        here = _all_of_step(x == value)
        at_the_end = here.flip(1).long().cumprod(1).flip(1).bool()
        runs = at_the_end.sum(dim=1)
        # One id at the end of one row is chance.
        if here.equal(at_the_end) and runs.max() > 1 and len(runs.unique()) > 1:
            return value
    return None


@contextmanager
def without_padding(**given: Tensor) -> Iterator[None]:
    r"""Add to what a check finds that its inputs look padded, where they do."""
    try:
        yield
    except AssertionError as error:
        for name, x in given.items():
            value = padding_of(x)
            if value is not None:
                raise AssertionError(
                    f"{error}.\nRows of `{name}` end with {value}, which stands "
                    "nowhere else: if it is padding, the check needs rows without"
                ) from error
        raise
