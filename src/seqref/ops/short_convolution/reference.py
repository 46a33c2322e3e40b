r"""The definition: one step, and the loop over steps."""

import torch
from jaxtyping import Float
from torch import Tensor


def short_convolution_step(
    x_t: Float[Tensor, "batch channels"],
    weight: Float[Tensor, "channels width"],
    bias: Float[Tensor, " channels"] | None,
    state: Float[Tensor, "batch past channels"],
) -> tuple[Float[Tensor, "batch channels"], Float[Tensor, "batch past channels"]]:
    r"""One step: a weighted sum of the input and of those in the state.

    Shapes:
        - `x_t`: (batch, channels); `weight`: (channels, width); `bias`: (channels,);
          `state`: (batch, width - 1, channels), the inputs before, the oldest first
        - returns: `y_t` (batch, channels) and the new state
    """
    window = torch.cat([state, x_t[:, None]], dim=1)
    y_t = (window * weight.t()).sum(dim=1)
    return y_t if bias is None else y_t + bias, window[:, 1:]


def run(
    x: Float[Tensor, "batch time channels"],
    weight: Float[Tensor, "channels width"],
    bias: Float[Tensor, " channels"] | None,
    state: Float[Tensor, "batch past channels"],
) -> Float[Tensor, "batch time channels"]:
    r"""The loop, differentiated by autograd.

    Shapes:
        - as `short_convolution`
    """
    steps = []
    # Unbound once: an index inside the loop has a backward of the whole tensor's size.
    for x_t in x.unbind(1):
        y_t, state = short_convolution_step(x_t, weight, bias, state)
        steps.append(y_t)
    if not steps:
        # Nothing, which has gradients all the same.
        y = x * weight[:, -1]
        return y if bias is None else y + bias
    return torch.stack(steps, dim=1)
