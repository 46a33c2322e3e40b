r"""The definition: one step, and the loop over steps."""

import torch
from jaxtyping import Float
from torch import Tensor


def selective_step(
    x_t: Float[Tensor, "batch channels"],
    dt_t: Float[Tensor, "batch channels"],
    A: Float[Tensor, "channels state"],
    B_t: Float[Tensor, "batch state"],
    C_t: Float[Tensor, "batch state"],
    D: Float[Tensor, " channels"] | None,
    h_prev: Float[Tensor, "batch channels state"],
) -> tuple[Float[Tensor, "batch channels"], Float[Tensor, "batch channels state"]]:
    r"""One step: decay the state, write the input to it, read from it.

    $$ h_t = e^{\Delta_t A} \odot h_{t-1} + (\Delta_t \odot x_t) B_t^\top \qquad
       y_t = h_t C_t + D \odot x_t $$

    Shapes:
        - `x_t`, `dt_t`: (batch, channels); `A`: (channels, state); `B_t`, `C_t`:
          (batch, state); `D`: (channels,); `h_prev`: (batch, channels, state)
        - returns: `y_t` (batch, channels) and `h_t`, shaped as `h_prev`
    """
    A_bar = torch.exp(dt_t[..., None] * A)
    h_t = A_bar * h_prev + (dt_t * x_t)[..., None] * B_t[:, None]
    y_t = (h_t * C_t[:, None]).sum(dim=-1)
    return y_t if D is None else y_t + D * x_t, h_t


def run(
    x: Float[Tensor, "batch time channels"],
    dt: Float[Tensor, "batch time channels"],
    A: Float[Tensor, "channels state"],
    B: Float[Tensor, "batch time state"],
    C: Float[Tensor, "batch time state"],
    h_0: Float[Tensor, "batch channels state"],
) -> tuple[Float[Tensor, "batch time channels"], Float[Tensor, "batch channels state"]]:
    r"""The loop, differentiated by autograd; without $D$.

    Shapes:
        - as `selective_scan`
    """
    h, steps = h_0, []
    # Unbound once: an index inside the loop has a backward of the whole tensor's size.
    for x_t, dt_t, B_t, C_t in zip(*(v.unbind(1) for v in (x, dt, B, C)), strict=True):
        y_t, h = selective_step(x_t, dt_t, A, B_t, C_t, None, h)
        steps.append(y_t)
    if not steps:
        # Nothing, which has gradients all the same.
        y = ((dt * x)[..., None] * A * B[:, :, None] * C[:, :, None]).sum(dim=-1)
        return y, h_0.clone()
    return torch.stack(steps, dim=1), h
