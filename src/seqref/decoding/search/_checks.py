r"""Checks of what goes into a search, and of the scores that a model gives it."""

from typing import Any

import torch
from torch import Tensor

from seqref.decoding.search.stepwise import Stepwise
from seqref.errors import check_number, check_shape, check_size, check_tensor


def check_request(
    where: str, model: object, start: Tensor, max_length: int, end: int | None
) -> None:
    """Raise unless the arguments that all searches share are right."""
    if not isinstance(model, Stepwise):
        raise TypeError(
            f"{where}: `model` must have `initial_state` and `step`, as "
            f"seqref.models.LanguageModel does, got {type(model).__name__}"
        )
    check_tensor(where, "start", start)
    if start.dtype not in (torch.int64, torch.int32):
        raise TypeError(
            f"{where}: `start` must have dtype int64 or int32, got {start.dtype}"
        )
    check_shape(where, "start", start, (("batch", None),))
    check_size(where, "max_length", max_length)
    if end is not None:
        check_size(where, "end", end, minimum=0)


def next_logits(
    where: str, model: Stepwise, token_t: Tensor, state: Any, end: int | None
) -> tuple[Tensor, Any]:
    """One step of the model, its scores in float32 or wider."""
    logits, state = model.step(token_t, state)
    check_shape(where, "logits", logits, (("batch", token_t.shape[0]), ("vocab", None)))
    if not logits.is_floating_point():
        raise TypeError(
            f"{where}: `logits` must be floating-point numbers, got {logits.dtype}"
        )
    if logits.shape[1] == 0 or (end is not None and end >= logits.shape[1]):
        raise ValueError(
            f"{where}: `end` must be a token of the model's {logits.shape[1]}, "
            f"got {end}"
        )
    # Half precision holds too few digits for a sum over a sequence.
    wide = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(wide), state


def check_scores(where: str, total: Tensor, wanted: Tensor) -> None:
    r"""Raise where the log of the sum of a wanted row's exponentials is not finite.

    It is NaN where a score is, infinite where one is, and minus infinity where all are.
    """
    wrong = wanted & ~total.isfinite()
    if wrong.any():
        raise ValueError(
            f"{where}: the scores of each row must hold a largest finite one and no "
            f"NaN; those of row {int(wrong.nonzero()[0, 0])} do not"
        )


def check_filters(
    where: str, top_k: int | None, top_p: float | None, min_p: float | None
) -> None:
    """Raise unless each is None or in its range."""
    if top_k is not None:
        check_size(where, "top_k", top_k)
    if top_p is not None:
        check_number(where, "top_p", top_p, above=0, maximum=1)
    if min_p is not None:
        check_number(where, "min_p", min_p, minimum=0, maximum=1)
