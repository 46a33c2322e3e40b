r"""Products of Fourier transforms, some channels at a time, with a backward by hand.

The transforms of a few channels stay in the cache, and so do the buffers that they are
written to. Nothing but the two inputs is kept for the backward pass, which transforms
them again.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seqref.ops._by_hand import takes_operations

# Numbers that one block of channels has in all rows, padded: two megabytes of float32.
ELEMENTS = 1 << 19
# More channels than this gain nothing.
MOST = 32


def run(
    x: Float[Tensor, "batch time channels"], kernel: Float[Tensor, "channels taps"]
) -> Float[Tensor, "batch time channels"]:
    r"""The convolution, with its backward pass by hand.

    Shapes:
        - as `long_convolution`; no more taps than steps, and at least one
    """
    return _Convolution.apply(x, kernel)  # pyright: ignore[reportReturnType]


def long_convolution_forward(
    x: Float[Tensor, "batch time channels"], kernel: Float[Tensor, "channels taps"]
) -> Float[Tensor, "batch time channels"]:
    r"""$y = F^{-1}(F x \cdot F k)$, both padded so that nothing comes round.

    Shapes:
        - as `long_convolution`; no more taps than steps, and at least one
    """
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    blocks = _Blocks(x, kernel)
    for part in blocks:
        y_f = blocks.of_steps(x, part).mul_(blocks.of_taps(kernel, part))
        y[..., part] = blocks.back(y_f)[..., : x.shape[1]].transpose(1, 2)
    return y


def long_convolution_backward(
    x: Float[Tensor, "batch time channels"],
    kernel: Float[Tensor, "channels taps"],
    grad_y: Float[Tensor, "batch time channels"],
    *,
    wants_x: bool = True,
    wants_kernel: bool = True,
) -> tuple[
    Float[Tensor, "batch time channels"] | None, Float[Tensor, "channels taps"] | None
]:
    r"""Two correlations: with the kernel, and with the input.

    $$ \bar x_t = \sum_{s \ge 0} k_s \, \bar y_{t + s} \qquad
       \bar k_s = \sum_{t \ge s} x_{t - s} \, \bar y_t $$

    A correlation is a product with the conjugate of a transform.

    Shapes:
        - as `long_convolution`; no more taps than steps, and at least one
        - returns: the gradients, shaped as `x` and `kernel`; None where not wanted
    """
    grad_x = torch.empty_like(x) if wants_x else None
    grad_k = torch.empty_like(kernel) if wants_kernel else None
    blocks = _Blocks(x, kernel)
    time, taps = x.shape[1], kernel.shape[1]
    for part in blocks:
        g_f = blocks.of_steps(grad_y, part)
        if grad_k is not None:
            x_f = blocks.of_steps(x, part)
            rows = (g_f * x_f.conj()).sum(dim=0)
            grad_k[part] = torch.fft.irfft(rows, n=blocks.size)[:, :taps]
        if grad_x is not None:
            g_f.mul_(blocks.of_taps(kernel, part).conj_physical())
            grad_x[..., part] = blocks.back(g_f)[..., :time].transpose(1, 2)
    return grad_x, grad_k


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor) -> Tensor:
        ctx.save_for_backward(x, kernel)
        return long_convolution_forward(x, kernel)

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor | None, ...]:
        x, kernel = ctx.saved_tensors
        (grad_y,) = upstream
        if not takes_operations(upstream):
            wants_x, wants_kernel = ctx.needs_input_grad
            return long_convolution_backward(
                x, kernel, grad_y, wants_x=wants_x, wants_kernel=wants_kernel
            )
        # Gradients are wanted of these gradients: the same, in operations that have
        # them.
        size = fast_size(x.shape[1] + kernel.shape[1] - 1)
        x_f, g_f = (torch.fft.rfft(z, n=size, dim=1) for z in (x, grad_y))
        k_f = torch.fft.rfft(kernel, n=size).T
        grad_x = torch.fft.irfft(g_f * k_f.conj(), n=size, dim=1)[:, : x.shape[1]]
        rows = (g_f * x_f.conj()).sum(dim=0)
        grad_k = torch.fft.irfft(rows, n=size, dim=0)[: kernel.shape[1]]
        return grad_x, grad_k.T


def fast_size(least: int) -> int:
    r"""The least even number from `least` on without prime factors above 5."""
    best = 1 << max(1, (least - 1).bit_length())
    fives = 1
    while fives < best:
        threes = fives
        while threes < best:
            twos = 2 * threes
            while twos < least:
                twos *= 2
            best = min(best, twos)
            threes *= 3
        fives *= 5
    return best


class _Blocks:
    r"""Slices of channels, and buffers for the transforms of one of them."""

    def __init__(self, x: Tensor, kernel: Tensor) -> None:
        batch, time, self.channels = x.shape
        self.size = fast_size(time + kernel.shape[1] - 1)
        most = max(1, ELEMENTS // (batch * self.size))
        self.width = min(MOST, most, self.channels)
        shape = batch, self.width, self.size
        # Zero beyond the steps, and so it stays.
        self._padded = x.new_zeros(shape)
        self._out = x.new_empty(shape)

    def __iter__(self) -> Iterator[slice]:
        for start in range(0, self.channels, self.width):
            yield slice(start, min(start + self.width, self.channels))

    def of_steps(self, x: Tensor, part: slice) -> Tensor:
        count = part.stop - part.start
        padded = self._padded[:, :count]
        padded[..., : x.shape[1]] = x[..., part].transpose(1, 2)
        return torch.fft.rfft(padded)

    def of_taps(self, kernel: Tensor, part: slice) -> Tensor:
        return torch.fft.rfft(kernel[part], n=self.size)

    def back(self, transform: Tensor) -> Tensor:
        out = self._out[:, : transform.shape[1]]
        return torch.fft.irfft(transform, n=self.size, out=out)
