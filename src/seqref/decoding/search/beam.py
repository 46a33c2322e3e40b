r"""Beam search: the best few prefixes are extended, side by side for all rows."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Int, Integer
from torch import Tensor

from seqref.decoding.search._beams import Search
from seqref.decoding.search._checks import check_request, next_logits
from seqref.decoding.search._cover import Cover
from seqref.decoding.search.penalties import gnmt_length_penalty
from seqref.decoding.search.stepwise import Stepwise
from seqref.errors import check_number, check_shape, check_size
from seqref.recurrence import map_state, select_rows


class Hypotheses(NamedTuple):
    r"""The n best sequences of each row, best first.

    Those that ended come before those that `max_length` cut, whatever their scores: a
    cut one's probability is that of all its continuations together. Where a row has
    fewer than n, since a model forbids the rest, the missing ones have length 0 and a
    score and log-probability of minus infinity.

    Shapes:
        - `tokens`: (batch, n, time), as long as the longest hypothesis; the end token
          fills the places after an end (0 where there is no end token)
        - `lengths`: (batch, n), the end token counted
        - `finished`: (batch, n), whether the hypothesis wrote the end token
        - `scores`: (batch, n), what they are ranked by
        - `log_probabilities`: (batch, n), sums over the tokens, the end token's too
    """

    tokens: Tensor
    lengths: Tensor
    finished: Tensor
    scores: Tensor
    log_probabilities: Tensor


@torch.no_grad()
def beam_search(
    model: Stepwise,
    start: Int[Tensor, " batch"],
    *,
    width: int,
    max_length: int,
    end: int | None = None,
    state: Any = None,
    n_best: int = 1,
    length_penalty: float | Callable[[Tensor], Tensor] = 0.0,
    coverage_penalty: float = 0.0,
    attention: Callable[[Any], Tensor] | None = None,
    source_lengths: Integer[Tensor, " batch"] | None = None,
) -> Hypotheses:
    r"""The likeliest sequences that a beam of the best `width` prefixes meets.

    $$ s(Y) = \frac{\log P(Y)}{\mathrm{lp}(|Y|)} + \mathrm{cp}(Y) \qquad
       \log P(Y) = \sum_{t=1}^{|Y|} \log p(y_t \mid y_{1:t-1}) $$

    At each step every prefix of a row's beam is extended by every token, and the
    extensions are ranked by $\log P$: all are of one length. Those among the best
    `width` that end go into a pool, by their score $s$; the best `width` that do not
    end are the next beam. A row is done when the worst of its n best in the pool scores
    at least as much as any live prefix still can: $\log P$ of the best one, which can
    only fall, over the largest divisor of the lengths that are left, and no coverage
    penalty. So stopping changes no result. Equal values are ordered by beam, then by
    token. At width 1 without penalties it is `greedy`.

    The mode stays as it is: call `eval()` first where a model has noise in training.

    Args:
        model: What is decoded. `step` gets `width` rows for each row of the batch, next
            to each other, and its states are reordered by `select_rows`.
        start: The tokens to begin from, such as BOS or the last token of a prompt. They
            are no part of the result and of no length.
        width: Number of prefixes that are kept, W.
        max_length: How many tokens a hypothesis may get, the end token included.
        end: The token that ends a hypothesis; None where none does.
        state: The state before `start` is read, of `batch` rows; None for
            `model.initial_state(batch)`.
        n_best: Hypotheses to return for each row, at most `width`.
        length_penalty: GNMT's $\alpha$, of `gnmt_length_penalty`; above 0 favours long
            hypotheses. Or a function from the lengths 1 to `max_length` to positive
            divisors, such as ``lambda lengths: lengths``.
        coverage_penalty: GNMT's $\beta$, of `gnmt_coverage_penalty`.
        attention: Gives the weights of a model's last step, (rows, source), from its
            new state; the coverage penalty needs it. They are summed over all tokens,
            the end token included.
        source_lengths: Lengths of the rows' sources, where some are padded.

    Shapes:
        - `start`, `source_lengths`: (batch,)
        - returns: `Hypotheses`, its tokens (batch, n_best, time) in the dtype of
          `start`

    Cost:
        At most `max_length` calls of `step` on W times the rows, and O(W V) a row and
        step to find the best.

    Raises:
        TypeError: `model` has no `step` or `initial_state`, or an argument is of the
            wrong kind.
        ValueError: an argument is out of range; a live row's scores hold NaN or
            infinity, or nothing but minus infinity.

    Source:
        Sutskever et al. (2014), sec. 3.2; penalties: Wu et al. (2016), sec. 7.
        Differs: a beam stays `width` wide when hypotheses leave it, and no prefix is
        pruned for its distance from the best.
    """
    where = "beam_search"
    check_request(where, model, start, max_length, end)
    check_size(where, "width", width)
    check_size(where, "n_best", n_best)
    if n_best > width:
        raise ValueError(
            f"{where}: `n_best` must be at most width={width}, got {n_best}"
        )
    divisors = _divisors(where, length_penalty, max_length)
    cover = Cover(where, coverage_penalty, attention, source_lengths, start, width)
    search = Search(where, start, width, n_best, end, divisors, cover)
    if state is None:
        state = model.initial_state(len(start))
    each = torch.arange(len(start), device=start.device).repeat_interleave(width)
    state, tokens = select_rows(state, each), start.long()[each]
    for _ in range(max_length):
        logits, state = next_logits(where, model, tokens, state, end)
        cover.add(state)
        rows, tokens = search.advance(logits)
        if search.is_over():
            break
        # As `select_rows`, whose check of the rows is not needed again.
        state = map_state(lambda part, rows=rows: part.index_select(0, rows), state)
    return Hypotheses(*search.best(start.dtype))


def _divisors(
    where: str, penalty: float | Callable[[Tensor], Tensor], max_length: int
) -> list[float]:
    """What divides log P at each length from 1 to the largest."""
    lengths = torch.arange(1, max_length + 1, dtype=torch.float64)
    if callable(penalty):
        divisors = penalty(lengths)
        check_shape(where, "length_penalty(lengths)", divisors, (("time", max_length),))
    else:
        check_number(where, "length_penalty", penalty, finite_in=torch.float64)
        divisors = gnmt_length_penalty(lengths, penalty)
    if not ((divisors > 0) & divisors.isfinite()).all():
        raise ValueError(
            f"{where}: `length_penalty` must give positive finite divisors, got "
            f"{divisors.min().item()} to {divisors.max().item()}"
        )
    return divisors.tolist()
