r"""What tasks share whose answer is a sequence too: a batch, and its special tokens."""

from typing import NamedTuple

from jaxtyping import Int
from torch import Tensor

BOS, EOS = 0, 1
"""Tokens that begin and end a target: the first input and the last answer."""
FIRST = 2
"""The first token of a target that is neither."""
IGNORED = -100
"""Stands in the padding of `target_out`; `cross_entropy` of torch passes over it."""


class Pairs(NamedTuple):
    r"""Sources, and targets as a decoder reads them and as it should answer.

    A row of `target_in` is BOS and then the target; one of `target_out` is the target
    and then EOS. So both are one longer than the target, and `target_lengths` counts
    their steps. In the padding `source` holds 0, `target_in` EOS and `target_out` -100.

    Shapes:
        - `source`: (batch, source); `source_lengths`: (batch,)
        - `target_in`, `target_out`: (batch, time); `target_lengths`: (batch,)
    """

    source: Int[Tensor, "batch source"]
    source_lengths: Int[Tensor, " batch"]
    target_in: Int[Tensor, "batch time"]
    target_out: Int[Tensor, "batch time"]
    target_lengths: Int[Tensor, " batch"]
