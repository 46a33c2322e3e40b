r"""Small changes to layers that several experiments make."""

from torch import nn

from seqref import RNNCell


def zero_biases_(cell: RNNCell) -> None:
    """Set both bias vectors to zero."""
    for bias in (cell.bias_ih, cell.bias_hh):
        if bias is not None:
            nn.init.zeros_(bias)
