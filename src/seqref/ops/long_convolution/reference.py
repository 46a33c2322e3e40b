r"""The definition: a sum over the taps of the kernel."""

import torch
from jaxtyping import Float
from torch import Tensor


def run(
    x: Float[Tensor, "batch time channels"], kernel: Float[Tensor, "channels taps"]
) -> Float[Tensor, "batch time channels"]:
    r"""A loop over taps, each of which is a shift and a product.

    Shapes:
        - as `long_convolution`; no more taps than steps
    """
    y = torch.zeros_like(x)
    for s, k_s in enumerate(kernel.unbind(1)):
        shifted = torch.cat([torch.zeros_like(x[:, :s]), x[:, : x.shape[1] - s]], dim=1)
        y = y + k_s * shifted
    return y
