r"""The time of a packed batch beside that of the padded one."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from experiments.lab.seeding import generator, seeded
from experiments.speed._timing import Run, Size, ratios, setting, training
from seqref.recurrent.variable_length import pack, unpack


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


def packed_output(
    layer: nn.Module, x: Float[Tensor, "batch time input"], lengths: Tensor
) -> Float[Tensor, "batch time hidden"]:
    """What one writes with packing: pack, run, unpack to the steps of `x`."""
    y, _ = layer(pack(x, lengths))
    return unpack(y, x.shape[1])[0]


def contestants(size: Size, lengths: Tensor, seed: int, device: str) -> dict[str, Run]:
    """A training step over the padded batch, over it once more, and packed."""
    batch, time, width = size
    with seeded(seed):
        layer = nn.LSTM(width, width, batch_first=True).to(device)
    x = torch.randn(batch, time, width, generator=generator(seed))
    x = x.to(device).requires_grad_()
    inputs = [x, *layer.parameters()]
    padded = training(lambda: layer(x)[0], inputs)
    packed = training(lambda: packed_output(layer, x, lengths), inputs)
    return {"padded": padded, "again": padded, "packed": packed}


def measure(config: Any, size: Size, share: float, name: str) -> dict[str, Any]:
    """Ratios to the padded batch at one size and share, in one setting."""
    lengths = lengths_of(share, *size[:2])
    with setting(name, config.threads, config.device):
        runs = contestants(size, lengths, config.seeds[0], config.device)
        found = ratios(runs, "padded", config.rounds, config.threads, config.device)
    return {
        "size": list(size),
        "share": share,
        "real": lengths.float().mean().item() / size[1],
        "setting": name,
        "packed": found["packed"],
        "again": found["again"],
    }
