r"""One sequence a row: the likeliest token each time, or a drawn one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from seqref.decoding.search._checks import (
    check_filters,
    check_request,
    check_scores,
    next_logits,
)
from seqref.decoding.search.filters import filter_logits
from seqref.decoding.search.stepwise import Stepwise
from seqref.errors import check_generator, check_number


class Decoded(NamedTuple):
    r"""One sequence for each row.

    Shapes:
        - `tokens`: (batch, time), as long as the longest row; the end token fills the
          places after a row's end
        - `lengths`: (batch,), the end token counted
        - `finished`: (batch,), whether the row wrote the end token
        - `log_probabilities`: (batch,), the sum over the row's tokens under the model
          as it is, whatever filters there were
    """

    tokens: Tensor
    lengths: Tensor
    finished: Tensor
    log_probabilities: Tensor


@torch.no_grad()
def greedy(
    model: Stepwise,
    start: Int[Tensor, " batch"],
    *,
    max_length: int,
    end: int | None = None,
    state: Any = None,
) -> Decoded:
    r"""The likeliest token at each step, fed back in.

    $$ y_t = \arg\max_v\, p(v \mid y_{1:t-1}) $$

    The likeliest *tokens* need not make the likeliest *sequence*: see `beam_search`.
    The mode stays as it is: call `eval()` first where a model has noise in training.

    Args:
        model: What is decoded.
        start: The tokens to begin from, such as BOS or the last token of a prompt. They
            are no part of the result.
        max_length: How many tokens a row may get, the end token included.
        end: The token that ends a row; None where none does.
        state: The state before `start` is read; None for `model.initial_state(batch)`.

    Shapes:
        - `start`: (batch,)
        - returns: `Decoded`, its tokens (batch, time) in the dtype of `start`

    Cost:
        At most `max_length` calls of `step`; none after all rows have ended.

    Raises:
        TypeError: `model` has no `step` or `initial_state`, or an argument is of the
            wrong kind.
        ValueError: an argument is out of range, or the scores of a row that has not
            ended hold NaN or infinity, or nothing but minus infinity.
    """
    check_request("greedy", model, start, max_length, end)
    return _walk("greedy", model, start, state, max_length, end, _likeliest)


@torch.no_grad()
def sample(
    model: Stepwise,
    start: Int[Tensor, " batch"],
    *,
    max_length: int,
    end: int | None = None,
    state: Any = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Decoded:
    r"""Tokens drawn one at a time from the model's distribution, or what filters leave.

    `filter_logits` says what the filters do, and in which order. The mode stays as it
    is: call `eval()` first where a model has noise in training, which `generator` does
    not control.

    Args:
        model: What is decoded.
        start: The tokens to begin from; they are no part of the result.
        max_length: How many tokens a row may get, the end token included.
        end: The token that ends a row; None where none does.
        state: The state before `start` is read; None for `model.initial_state(batch)`.
        temperature: 1 draws from the model as it is, 0 takes the likeliest token.
        top_k: Draw among the k likeliest tokens only.
        top_p: Draw among the fewest tokens that hold this much probability.
        min_p: Draw among tokens of at least this share of the likeliest one's.
        generator: Where the random numbers come from; None is torch's own.

    Shapes:
        - `start`: (batch,)
        - returns: `Decoded`, its tokens (batch, time) in the dtype of `start`

    Raises:
        TypeError: as `greedy`, or `generator` is no generator.
        ValueError: as `greedy`.
    """
    where = "sample"
    check_request(where, model, start, max_length, end)
    check_number(where, "temperature", temperature, minimum=0)
    check_filters(where, top_k, top_p, min_p)
    check_generator(where, generator)

    def draw(logits: Tensor) -> Tensor:
        kept = filter_logits(
            logits, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p
        )
        weights = torch.softmax(kept, dim=-1)
        return torch.multinomial(weights, 1, generator=generator).squeeze(-1)

    choose = _likeliest if temperature == 0 else draw
    return _walk(where, model, start, state, max_length, end, choose)


def _likeliest(logits: Tensor) -> Tensor:
    # Of equal ones torch documents the first.
    return logits.argmax(dim=-1)


def _walk(
    where: str,
    model: Stepwise,
    start: Tensor,
    state: Any,
    max_length: int,
    end: int | None,
    choose: Callable[[Tensor], Tensor],
) -> Decoded:
    token = start.long()
    if state is None:
        state = model.initial_state(len(start))
    live = torch.ones_like(start, dtype=torch.bool)
    lengths = torch.zeros_like(token)
    log_p = None
    written = []
    for _ in range(max_length):
        logits, state = next_logits(where, model, token, state, end)
        total = logits.logsumexp(dim=-1)
        check_scores(where, total, live)
        if end is not None:
            # What a model says after the end may be anything, NaN too.
            logits = logits.masked_fill(~live[:, None], 0.0)
        token = choose(logits)
        log_p_t = logits.gather(1, token[:, None]).squeeze(1) - total
        log_p = torch.where(live, log_p_t, 0.0) + (0.0 if log_p is None else log_p)
        lengths = lengths + live
        if end is not None:
            token = token.masked_fill(~live, end)
            live = live & (token != end)
        written.append(token)
        if end is not None and not live.any():
            break
    tokens = torch.stack(written, dim=1).to(start.dtype)
    return Decoded(tokens, lengths, ~live, log_p)  # pyright: ignore[reportArgumentType]
