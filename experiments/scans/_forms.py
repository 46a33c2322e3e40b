r"""Ways to compute a linear recurrence from a state of zero; all are equal on paper."""

from collections.abc import Callable

import torch
from torch import Tensor

from seqref.ops.linear_scan import linear_scan, reference

# Decays and inputs, (batch, time, width), to the states.
Form = Callable[[Tensor, Tensor], Tensor]


def loop(a: Tensor, b: Tensor) -> Tensor:
    """The definition."""
    return reference.run(a, b, torch.zeros_like(b[:, 0]))[0]


def chunks(a: Tensor, b: Tensor) -> Tensor:
    """The op."""
    return linear_scan(a, b, backend="parallel")[0]


def tree(a: Tensor, b: Tensor) -> Tensor:
    """Each map takes in the one that ends where it begins, of twice the span."""
    span = 1
    while span < a.shape[1]:
        b = torch.cat([b[:, :span], b[:, span:] + a[:, span:] * b[:, :-span]], dim=1)
        a = torch.cat([a[:, :span], a[:, span:] * a[:, :-span]], dim=1)
        span *= 2
    return b


def closed(a: Tensor, b: Tensor) -> Tensor:
    r"""$h_t = P_t \sum_{s \le t} b_s / P_s$, with $P_t$ the product up to $a_t$."""
    products = a.cumprod(dim=1)
    return products * (b / products).cumsum(dim=1)


def logarithms(a: Tensor, b: Tensor) -> Tensor:
    """The closed form with logarithms of complex numbers, since inputs have signs."""
    sums = a.to(torch.complex64).log().cumsum(dim=1)
    return (sums + (b.to(torch.complex64).log() - sums).logcumsumexp(dim=1)).exp().real


def of_mambapy(a: Tensor, b: Tensor) -> Tensor:
    """The scan of mamba.py, whose tensors have an axis more."""
    from mambapy.pscan import pscan

    return pscan(a[..., None], b[..., None])[..., 0]
