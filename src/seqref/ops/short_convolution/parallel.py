r"""All steps at once: the sequence moved by one step after the other, and summed.

Channels stay the last axis, as the layers around have them: torch's own convolution
wants time there, so that a sequence is turned twice in each direction.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from seqref.ops._by_hand import takes_operations, why_not_differentiated


def run(
    x: Float[Tensor, "batch time channels"],
    weight: Float[Tensor, "channels width"],
    bias: Float[Tensor, " channels"] | None,
    state: Float[Tensor, "batch past channels"],
) -> Float[Tensor, "batch time channels"]:
    r"""As many sums as the convolution is wide.

    Shapes:
        - as `short_convolution`
    """
    padded = torch.cat([state, x], dim=1)
    tensors = (padded, weight) if bias is None else (padded, weight, bias)
    # A compiler makes one pass of the sums.
    if why_not_differentiated(tensors) or torch.compiler.is_compiling():
        return moved_sums(padded, weight, bias)
    return _Convolution.apply(padded, weight, bias)


def moved_sums(
    padded: Float[Tensor, "batch padded channels"],
    weight: Float[Tensor, "channels width"],
    bias: Float[Tensor, " channels"] | None,
) -> Float[Tensor, "batch time channels"]:
    r"""$y_t = b + \sum_k w_k \odot p_{t+k}$, for all windows that fit.

    Shapes:
        - `padded`: (batch, time + width - 1, channels)
        - returns: (batch, time, channels)
    """
    time = padded.shape[1] - weight.shape[1] + 1
    # Contiguous: along channels that lie apart the sums take several times as long.
    first, *others = weight.mT.contiguous().unbind(0)
    y = padded[:, :time]
    y = y * first if bias is None else torch.addcmul(bias, y, first)
    # vmap has no rule for adding a product in place.
    transformed = torch._C._are_functorch_transforms_active()
    add = torch.addcmul if transformed else Tensor.addcmul_
    for k, weight_k in enumerate(others, 1):
        y = add(y, padded[:, k : k + time], weight_k)
    return y


class _Convolution(torch.autograd.Function):
    r"""The sums; autograd would write a tensor of the whole length for each slice."""

    @staticmethod
    def forward(
        ctx: Any, padded: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(padded, weight)
        return moved_sums(padded, weight, bias)

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Tensor | None, ...]:
        padded, weight = ctx.saved_tensors
        (grad_y,) = upstream
        past, time = weight.shape[1] - 1, grad_y.shape[1]
        needs_padded, needs_weight, needs_bias = ctx.needs_input_grad
        grad_padded = grad_weight = grad_bias = None
        if needs_padded:
            # The same sums, with the weights from the last to the first.
            around = F.pad(grad_y, (0, 0, past, past))
            grad_padded = moved_sums(around, weight.flip(1), None)
        if needs_weight:
            pieces = [padded[:, k : k + time] for k in range(past + 1)]
            grad_weight = _inner_products(grad_y, pieces)
        if needs_bias:
            grad_bias = grad_y.sum(dim=(0, 1))
        return grad_padded, grad_weight, grad_bias


def _inner_products(grad_y: Tensor, pieces: list[Tensor]) -> Tensor:
    r"""Sums over rows and steps, (channels, pieces)."""
    # One for all: to take new memory costs more than the product.
    memory = None if takes_operations([grad_y]) else torch.empty_like(grad_y)
    sums = [torch.mul(grad_y, x, out=memory).sum(dim=(0, 1)) for x in pieces]
    return torch.stack(sums, dim=1)
