r"""The definition: one step, and the loop over steps."""

import torch
from jaxtyping import Inexact
from torch import Tensor


def linear_step(
    a_t: Inexact[Tensor, "batch ..."],
    b_t: Inexact[Tensor, "batch ..."],
    h_prev: Inexact[Tensor, "batch ..."],
) -> Inexact[Tensor, "batch ..."]:
    r"""One step: $h_t = a_t \odot h_{t-1} + b_t$.

    Shapes:
        - all: (batch, ...), one shape
    """
    return a_t * h_prev + b_t


def run(
    a: Inexact[Tensor, "batch time features"],
    b: Inexact[Tensor, "batch time features"],
    h_0: Inexact[Tensor, "batch features"],
) -> tuple[Inexact[Tensor, "batch time features"], Inexact[Tensor, "batch features"]]:
    r"""The loop, differentiated by autograd.

    Shapes:
        - as `linear_scan`, with the features as one axis
    """
    h, steps = h_0, []
    # Unbound once: an index inside the loop has a backward of the whole tensor's size.
    for a_t, b_t in zip(a.unbind(1), b.unbind(1), strict=True):
        h = linear_step(a_t, b_t, h)
        steps.append(h)
    if not steps:
        # Nothing, which has gradients all the same.
        return a * b, h_0.clone()
    return torch.stack(steps, dim=1), h
