r"""Temperature, top-k, top-p and min-p: what sampling does to a distribution first."""

import torch
from jaxtyping import Float
from torch import Tensor

from seqref.decoding.search._checks import check_filters
from seqref.errors import check_number, check_tensor


def filter_logits(
    logits: Float[Tensor, "*batch vocab"],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Float[Tensor, "*batch vocab"]:
    r"""Logits of the distribution that is drawn from.

    Four filters in this order; each sees what the ones before it left, renormalised:

    1. `temperature` divides the logits.
    2. `top_k` keeps the k likeliest tokens.
    3. `top_p` keeps the fewest tokens, likeliest first, whose probabilities sum to p
       or more.
    4. `min_p` keeps the tokens with at least min_p times the probability of the
       likeliest.

    Every one keeps the likeliest token. Of equal tokens `top_k` and `top_p` keep the
    lower index.

    Args:
        logits: The model's scores; minus infinity forbids a token.
        temperature: Above 0. Below 1 odds grow, above 1 they shrink.
        top_k: None, or at least 1.
        top_p: None, or above 0 and at most 1.
        min_p: None, or from 0 to 1.

    Shapes:
        - `logits`: (..., vocab); returns: the same

    Returns:
        The logits shifted so that the likeliest token has 0, divided by the
        temperature, minus infinity for tokens that were removed.

    Cost:
        One sort of the vocabulary for `top_k` and `top_p`, none for the others.

    Raises:
        TypeError: an argument is of the wrong kind.
        ValueError: an argument is out of range.

    Source:
        Top-k: Fan et al. (2018); top-p: Holtzman et al. (2020); min-p: Nguyen et al.
        (2024).
        Differs: the order, which the papers leave open, is that of `transformers`.
    """
    where = "filter_logits"
    check_tensor(where, "logits", logits)
    check_number(where, "temperature", temperature, above=0)
    check_filters(where, top_k, top_p, min_p)
    best = logits.max(dim=-1, keepdim=True).values
    # A temperature that the dtype rounds to 0 would make 0 / 0 of the largest score.
    temperature = max(temperature, torch.finfo(logits.dtype).tiny)
    # The largest score is 0 first: a small temperature then cannot overflow. At an
    # infinite one a forbidden token would be infinity over infinity.
    scores = ((logits - best) / temperature).masked_fill(
        logits == -torch.inf, -torch.inf
    )
    if top_k is not None or top_p is not None:
        ordered, order = scores.sort(dim=-1, descending=True, stable=True)
        if top_k is not None:
            ordered[..., top_k:] = -torch.inf
        if top_p is not None:
            total = torch.softmax(ordered, dim=-1).cumsum(dim=-1)
            # A token stays where those before it do not yet reach p.
            ordered[..., 1:].masked_fill_(total[..., :-1] >= top_p, -torch.inf)
        scores = torch.empty_like(scores).scatter_(-1, order, ordered)
    if min_p is not None:
        scores = scores.masked_fill(scores.exp() < min_p, -torch.inf)
    return scores
