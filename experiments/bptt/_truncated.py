r"""A layer over a whole sequence, its graph cut between chunks."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seqref.recurrence import detach_state
from seqref.recurrent import truncated_chunks


def outputs_in_chunks(
    layer: Any, x: Float[Tensor, "batch time input"], size: int
) -> Float[Tensor, "batch time hidden"]:
    """All outputs; their gradients end at the first of the `size` steps of a chunk."""
    outputs, state = [], layer.initial_state(len(x))
    for chunk, _ in truncated_chunks(x, size):
        y, state = layer(chunk, detach_state(state))
        outputs.append(y)
    return torch.cat(outputs, dim=1)
