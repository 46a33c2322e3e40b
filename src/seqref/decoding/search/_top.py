r"""The largest of each row, equal ones in the order of their index."""

import torch
from torch import Tensor


def top(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    r"""The k largest of each row with their indices; of equal ones the lower index.

    `torch.topk` leaves open which of equal values it takes, and in which order. Equal
    values among the k + 1 largest are looked for, and only then put right.

    Shapes:
        - `values`: (rows, n), no NaN among those that matter; k at most n
        - returns: both (rows, k)
    """
    n = values.shape[1]
    largest, indices = values.topk(min(k + 1, n), dim=1)
    if (largest[:, 1:] == largest[:, :-1]).any():
        # Of those equal to the k-th largest, the first: what stands before is larger.
        last = largest[:, k - 1 : k]
        position = torch.arange(n, 0, -1, device=values.device)
        equal = torch.where(values == last, position, 0).topk(k, dim=1).values
        n_larger = (largest[:, :k] > last).sum(dim=1, keepdim=True)
        place = torch.arange(k, device=values.device)
        first_equal = n - equal.gather(1, (place - n_larger).clamp_min(0))
        indices = torch.where(place < n_larger, indices[:, :k], first_equal)
        indices = indices.sort(dim=1).values
        largest = values.gather(1, indices)
        largest, order = largest.sort(dim=1, descending=True, stable=True)
        indices = indices.gather(1, order)
    return largest[:, :k], indices[:, :k]
