r"""All steps at once: the sequence moved by one step after the other, and summed."""

import torch
from jaxtyping import Float
from torch import Tensor


def run(
    x: Float[Tensor, "batch time channels"],
    weight: Float[Tensor, "channels width"],
    bias: Float[Tensor, " channels"] | None,
    state: Float[Tensor, "batch past channels"],
) -> Float[Tensor, "batch time channels"]:
    r"""As many sums as the convolution is wide, differentiated by autograd.

    Channels stay the last axis, as the layers around have them: torch's own convolution
    wants time there, so that a sequence is turned twice in each direction.

    Shapes:
        - as `short_convolution`
    """
    time = x.shape[1]
    padded = torch.cat([state, x], dim=1)
    y = x.new_zeros(()) if bias is None else bias
    for k, weight_k in enumerate(weight.unbind(1)):
        y = torch.addcmul(y, padded[:, k : k + time], weight_k)
    return y
