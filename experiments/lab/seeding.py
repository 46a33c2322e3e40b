r"""Random numbers that depend on a seed and on nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Build modules inside this block from `seed`; the global state is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def generator(seed: int) -> torch.Generator:
    """A random generator of one's own on the CPU."""
    return torch.Generator().manual_seed(seed)


def normal(source: int | torch.Generator, *size: int) -> Tensor:
    """Standard normal numbers in float64, from a generator or one of this seed."""
    random = generator(source) if isinstance(source, int) else source
    return torch.randn(size, generator=random, dtype=torch.float64)
