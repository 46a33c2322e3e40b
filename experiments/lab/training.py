r"""What every training here does the same way."""

import torch
from torch import Tensor


def descend(
    optimizer: torch.optim.Optimizer, loss: Tensor, max_norm: float | None = None
) -> None:
    """One update: gradients of `loss`, clipped to a norm of `max_norm`, and a step."""
    optimizer.zero_grad()
    loss.backward()
    if max_norm is not None:
        # In the order of the groups, which is that of the network.
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(trained, max_norm)
    optimizer.step()
