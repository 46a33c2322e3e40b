r"""Layers whose passes are timed, on padded and on packed batches."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from experiments import lab
from experiments.lab import timing
from seqref.recurrent.variable_length import pack, unpack

# Batch, time and width.
Size = tuple[int, int, int]
# Where the LSTM is compared with what is said to be faster.
SIZES: tuple[Size, ...] = (
    (1, 1024, 64),
    (8, 256, 64),
    (32, 64, 64),
    (1, 1024, 256),
    (8, 256, 256),
    (32, 128, 256),
    (8, 128, 512),
    (64, 64, 512),
)


def normal_input(size: Size, seed: int, device: str = "cpu") -> Tensor:
    """A batch of unit normal inputs that takes a gradient."""
    return torch.randn(size, generator=lab.generator(seed)).to(device).requires_grad_()


def over(layer: nn.Module, x: Tensor, *, train: bool = True) -> timing.Contestant:
    """A recurrent layer over a batch."""
    return timing.passes(lambda: layer(x)[0], [x, *layer.parameters()], train=train)


def over_packed(layer: nn.Module, x: Tensor, lengths: Tensor) -> timing.Contestant:
    """A training step of a recurrent layer over a batch that is packed first."""
    inputs = [x, *layer.parameters()]
    return timing.passes(
        lambda: packed_output(layer, x, lengths), inputs, others=[lengths]
    )


def packed_output(
    layer: nn.Module, x: Float[Tensor, "batch time input"], lengths: Tensor
) -> Float[Tensor, "batch time hidden"]:
    """What one writes with packing: pack, run, unpack to the steps of `x`."""
    y, _ = layer(pack(x, lengths))
    return unpack(y, x.shape[1])[0]


def lengths_of(share: float, batch: int, time: int) -> Int[Tensor, " batch"]:
    r"""Lengths with `share` of the steps real, the first row as long as `time`.

    So the padded batch has `time` steps. The other rows have what is left, spread
    evenly from one step upwards, or, where that is not enough, up to `time`. Every row
    has at least one step: a smaller share than that leaves is not reached.
    """
    others = batch - 1
    left = (share * batch - 1) / max(others, 1)
    low = max(1 / time, 2 * left - 1)
    high = max(low, 2 * left - low)
    rest = (torch.linspace(low, high, others) * time).round().long()
    return torch.cat([torch.tensor([time]), rest])
