r"""Specimens that are algebra on paper and something else in numbers."""

# --8<-- [start:names]
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Signal = Float[Tensor, "*batch time"]
# --8<-- [end:names]


# --8<-- [start:rewards_length]
def penalised(log_prob: float, length: int, alpha: float) -> float:
    r"""The score of an output; a larger `alpha` penalises length more."""
    return log_prob / length**alpha


# --8<-- [end:rewards_length]


# --8<-- [start:penalises_length]
def penalised_indeed(log_prob: float, length: int, alpha: float) -> float:
    r"""The score of an output; a larger `alpha` penalises length more."""
    return log_prob * length**alpha


# --8<-- [end:penalises_length]


# --8<-- [start:chosen_length]
def chosen_length(
    score: Callable[[float, int, float], float],
    candidates: Sequence[tuple[float, int]],
    alpha: float,
) -> int:
    r"""The length of the candidate with the best score."""
    return max(candidates, key=lambda one: score(*one, alpha))[1]


# --8<-- [end:chosen_length]


# --8<-- [start:closed_form]
def closed_form(a: Signal, b: Signal) -> Signal:
    r"""$h_t = a_t h_{t-1} + b_t$ from zero, for all steps at once."""
    kept = a.cumprod(dim=-1)
    return kept * (b / kept).cumsum(dim=-1)


# --8<-- [end:closed_form]


# --8<-- [start:loop]
def loop(a: Signal, b: Signal) -> Signal:
    r"""The same, one step after the other."""
    h_t = torch.zeros_like(b[..., 0])
    outputs = []
    for a_t, b_t in zip(a.unbind(-1), b.unbind(-1), strict=True):
        h_t = a_t * h_t + b_t
        outputs.append(h_t)
    return torch.stack(outputs, dim=-1)


# --8<-- [end:loop]


# --8<-- [start:pairs]
def by_pairs(a: Signal, b: Signal) -> Signal:
    r"""The same, by spans of 1, 2, 4, ... steps; nothing is divided."""
    step = 1
    while step < a.shape[-1]:
        earlier_a, earlier_b = a[..., :-step], b[..., :-step]
        later_a, later_b = a[..., step:], b[..., step:]
        b = torch.cat([b[..., :step], later_a * earlier_b + later_b], dim=-1)
        a = torch.cat([a[..., :step], later_a * earlier_a], dim=-1)
        step *= 2
    return b


# --8<-- [end:pairs]
