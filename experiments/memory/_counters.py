r"""The words $a^n b^n$, counters with weights set by hand, and how far each counts."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from seqref.tasks.counting import A, B, counting_words

Layer = nn.LSTM | nn.GRU
Cell = nn.LSTMCell | nn.GRUCell


def words(
    longest: int,
) -> tuple[Float[Tensor, "batch time 2"], Float[Tensor, "batch time"]]:
    r"""All $a^n b^n$ up to `longest`, and the answers: 1 at the last $b$, 0 before it.

    NaN where nothing is asked: at every $a$, and after the word.
    """
    x, answers, _ = counting_words(range(1, longest + 1))
    return x, answers


@torch.no_grad()
def right(
    step: Callable[[Tensor, Any], Any], says_yes: Callable[[Any], Tensor], limit: int
) -> Bool[Tensor, " limit"]:
    r"""For each $n$ up to `limit`: is every answer on $a^n b^n$ right?

    All $n$ go down together: row $n$ starts from the state after $n$ times $a$.
    """
    state, after_a = None, []
    for _ in range(limit):
        state = step(torch.tensor([A]), state)
        after_a.append(state)
    if isinstance(state, tuple):
        state = tuple(torch.cat(parts) for parts in zip(*after_a, strict=True))
    else:
        state = torch.cat(after_a)
    n = torch.arange(1, limit + 1)
    good = torch.ones(limit, dtype=torch.bool)
    for k in range(1, limit + 1):
        state = step(torch.tensor([B]).expand(limit, 2), state)
        yes = says_yes(state)
        good &= ~((yes & (k < n)) | (~yes & (k == n)))
    return good


def reach(good: Bool[Tensor, " limit"]) -> int:
    """The largest number up to which every n is right."""
    wrong = (~good).nonzero()
    return len(good) if len(wrong) == 0 else int(wrong[0])


def try_layer(layer: Layer, head: nn.Linear, limit: int) -> Bool[Tensor, " limit"]:
    """`right` for a layer with a read-out."""
    is_lstm = isinstance(layer, nn.LSTM)

    def step(x_t: Tensor, state: Any) -> Any:
        if state is not None:
            state = tuple(s[None] for s in state) if is_lstm else state[None]
        _, end = layer(x_t[:, None], state)
        return tuple(s[0] for s in end) if is_lstm else end[0]

    def says_yes(state: Any) -> Tensor:
        return head(state[0] if is_lstm else state)[:, 0] > 0

    return right(step, says_yes, limit)


def hand_lstm() -> nn.LSTMCell:
    r"""$c$ goes up by 1 on $a$ and down by 1 on $b$: all gates open, candidate ±1."""
    cell = nn.LSTMCell(2, 1, dtype=torch.float64)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.bias_ih.copy_(torch.tensor([200.0, 200.0, 0.0, 200.0]))
        cell.weight_ih[2].copy_(torch.tensor([30.0, -30.0]))
    return cell


def hand_gru(delta: float) -> nn.GRUCell:
    r"""$h$ goes a share `delta` of the way to 1 on $a$ and to -1 on $b$."""
    cell = nn.GRUCell(2, 1, dtype=torch.float64)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.bias_ih[1] = math.log((1 - delta) / delta)
        cell.weight_ih[2].copy_(torch.tensor([30.0, -30.0]))
    return cell


def try_hand(cell: Cell, dtype: torch.dtype, threshold: float, limit: int) -> int:
    """How far a counter by hand is right that says yes below `threshold`."""
    cell = cell.to(dtype)

    def says_yes(state: Any) -> Tensor:
        value = state[1] if isinstance(state, tuple) else state
        return value[:, 0].double() < threshold

    return reach(right(lambda x_t, s: cell(x_t.to(dtype), s), says_yes, limit))
