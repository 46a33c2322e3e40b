r"""Handwritten digits as sequences of their inked pixels: real rows of many lengths."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqref.errors import check_size, import_extra

N_DIGITS = 1797
"""Digits of the data set."""
LONGEST = 42
"""Inked pixels of the digit that has the most."""
CLASSES = 10


class Digits(NamedTuple):
    r"""A padded batch: `x` (rows, time, 3), `lengths` and `labels` (rows,)."""

    x: Float[Tensor, "rows time 3"]
    lengths: Int[Tensor, " rows"]
    labels: Int[Tensor, " rows"]


def inked_digits(test_rows: int = 500, *, seed: int = 0) -> tuple[Digits, Digits]:
    r"""scikit-learn's digits, each a list of its inked pixels, to train and to test on.

    An image has 8 by 8 pixels with 0 to 16 units of ink. Its sequence goes through the
    image row by row, from the top left, and has one step for each pixel with ink: the
    pixel's row / 7, its column / 7, and its ink / 16. Pixels without ink are left out,
    so a digit has 16 to 42 steps. Nothing of the image is lost.

    Args:
        test_rows: Digits of the second part; the first has the rest.
        seed: Decides which digits go where.

    Shapes:
        - returns: two `Digits`, for training and for testing, with `x` (rows, time, 3)
          in float32, zeros after a row's length, time = 42; `lengths` and `labels`
          (rows,) in int64, labels 0 to 9

    Raises:
        RuntimeError: scikit-learn is not installed.
        ValueError: `test_rows` below 1 or above 1,796.
        TypeError: `test_rows` or `seed` is no int.

    Source:
        `sklearn.datasets.load_digits`, which comes with the package and reads no
        network: the test part of the data set "Optical Recognition of Handwritten
        Digits" of the UCI repository.
        Differs: its rows are split here at random, so the same 13 writers are on both
        sides.
    """
    check_size("inked_digits", "test_rows", test_rows)
    check_size("inked_digits", "seed", seed, minimum=0)
    if test_rows >= N_DIGITS:
        raise ValueError(
            f"inked_digits: `test_rows` must be below {N_DIGITS}, the number of "
            f"digits, got {test_rows}"
        )
    source = import_extra("sklearn.datasets", "inked_digits", "data").load_digits()
    images = torch.from_numpy(source.images).float()
    labels = torch.from_numpy(source.target).long()
    x, lengths = _inked(images)
    generator = torch.Generator("cpu").manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator, device="cpu")
    parts = order[test_rows:], order[:test_rows]
    train, test = (Digits(x[rows], lengths[rows], labels[rows]) for rows in parts)
    return train, test


def _inked(images: Tensor) -> tuple[Tensor, Tensor]:
    r"""Steps (row, column, ink) of the inked pixels, and how many an image has."""
    inked = images > 0
    lengths = inked.sum((1, 2))
    which, row, column = inked.nonzero(as_tuple=True)  # in the order of reading
    # float32 on the CPU, whatever torch's default dtype and device are.
    place = torch.arange(len(which), device="cpu")
    place -= (lengths.cumsum(0) - lengths)[which]
    ink = images[inked] / 16
    steps = torch.stack([row.to(ink) / 7, column.to(ink) / 7, ink], dim=1)
    x = images.new_zeros(len(images), LONGEST, 3)
    x[which, place] = steps
    return x, lengths
