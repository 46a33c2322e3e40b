r"""Small changes to layers that several experiments make, and their size."""

from torch import nn

from seqref import RNNCell


def zero_biases_(cell: RNNCell) -> None:
    """Set both bias vectors to zero."""
    for bias in (cell.bias_ih, cell.bias_hh):
        if bias is not None:
            nn.init.zeros_(bias)


def parameter_count(module: nn.Module) -> int:
    """Number of parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())
