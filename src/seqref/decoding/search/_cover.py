r"""How much attention each source position got, beam by beam."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from seqref.decoding.search.penalties import gnmt_coverage_penalty
from seqref.errors import check_lengths, check_number, check_shape


class Cover:
    r"""Sums of the attention weights of all beams, and their penalty.

    Without a penalty it does nothing.
    """

    def __init__(
        self,
        where: str,
        beta: float,
        attention: Callable[[Any], Tensor] | None,
        source_lengths: Tensor | None,
        start: Tensor,
        width: int,
    ):
        check_number(
            where, "coverage_penalty", beta, minimum=0, finite_in=torch.float64
        )
        if beta > 0 and attention is None:
            raise ValueError(
                f"{where}: `coverage_penalty` needs `attention`, a function from a "
                "state to the weights of the last step"
            )
        self.where, self.beta, self.attention = where, beta, attention
        self.batch, self.width = len(start), width
        self.lengths = source_lengths
        self.total: Tensor | None = None

    def add(self, state: Any) -> None:
        """Add the weights of one step."""
        if self.attention is None or self.beta == 0:
            return
        weights = self.attention(state)
        rows = self.batch * self.width
        check_shape(self.where, "weights", weights, (("rows", rows), ("source", None)))
        # Half precision holds too few digits for a sum over a sequence.
        weights = weights.to(torch.promote_types(weights.dtype, torch.float32))
        weights = weights.view(self.batch, self.width, -1)
        if self.total is None:
            if self.lengths is not None:
                check_lengths(self.where, self.lengths, self.batch, weights.shape[2])
                lengths = self.lengths.to(weights.device)
                self.lengths = lengths[:, None].expand(-1, self.width)
            self.total = torch.zeros_like(weights)
        self.total = self.total + weights

    def select(self, parents: Tensor) -> None:
        """Keep the sums of these beams, (batch, width), in this order."""
        if self.total is not None:
            self.total = self._of(self.total, parents)

    def penalty(self, parents: Tensor) -> Tensor | float:
        """The penalty of hypotheses that come from these beams."""
        if self.total is None:
            return 0.0
        return gnmt_coverage_penalty(
            self._of(self.total, parents), self.beta, self.lengths
        )

    @staticmethod
    def _of(total: Tensor, parents: Tensor) -> Tensor:
        return total.gather(1, parents[..., None].expand(-1, -1, total.shape[2]))
