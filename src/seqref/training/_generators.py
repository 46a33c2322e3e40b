r"""The states of the random generators that training draws from.

NumPy's old global generator is among them because code that a user brings may draw
from it.
"""

import random
from collections.abc import Mapping
from typing import Any

import numpy
import torch

Own = Mapping[str, torch.Generator]
"""Generators that a user made, by name."""


def read(own: Own | None = None) -> dict[str, Any]:
    r"""Python's, NumPy's and torch's global generators, as a tree that `pack` takes.

    And those of `own`.
    """
    version, numbers, following = random.getstate()
    cuda = torch.cuda
    return {
        "python": [version, numpy.array(numbers, dtype=numpy.uint32), following],
        "numpy": numpy.random.get_state(legacy=False),  # noqa: NPY002
        "torch": torch.get_rng_state(),
        # Asked of CUDA only where it is in use: the question would start it.
        "cuda": cuda.get_rng_state_all() if cuda.is_initialized() else [],
        "own": {name: made.get_state() for name, made in (own or {}).items()},
    }


def restore(states: dict[str, Any], own: Own | None = None) -> None:
    r"""Put every generator back to what `read` saw, those of `own` too."""
    version, numbers, following = states["python"]
    random.setstate((version, tuple(numbers.tolist()), following))
    numpy.random.set_state(states["numpy"])  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, device)
    for name, made in (own or {}).items():
        made.set_state(states["own"][name])


def seed(number: int) -> None:
    r"""Seed every generator that `read` reads."""
    random.seed(number)
    numpy.random.seed(number)  # noqa: NPY002
    # Seeds the CPU and every CUDA device.
    torch.manual_seed(number)
