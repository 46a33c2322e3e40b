r"""Chains of one hundred random matrices: one matrix throughout, or a new one each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from experiments.gradients._networks import step_jacobian
from experiments.gradients._products_networks import log10_norm
from experiments.lab.seeding import generator

NOISE = 0.5
# The deviation of an entry is the gain over the root of the width; 1/√3 is that of a
# uniform draw from (-1, 1) over the root of the width.
SMALL_GAIN, LARGE_GAIN = 1 / math.sqrt(3), 1.5


@dataclass(frozen=True)
class Chain:
    """Whether all layers share one matrix, the activation, and the gain."""

    label: str
    tied: bool
    activation: str
    gain: float


CHAINS = {
    "tied_linear": Chain("one matrix, linear", True, "linear", 1.0),
    "untied_linear": Chain("new matrices, linear", False, "linear", 1.0),
    "tied_tanh": Chain("one matrix, tanh", True, "tanh", 1.0),
    "untied_tanh": Chain("new matrices, tanh", False, "tanh", 1.0),
    "tied_small": Chain("one small matrix, linear", True, "linear", SMALL_GAIN),
    "untied_small": Chain("new small matrices, linear", False, "linear", SMALL_GAIN),
    "tied_large": Chain("one large matrix, linear", True, "linear", LARGE_GAIN),
    "untied_large": Chain("new large matrices, linear", False, "linear", LARGE_GAIN),
}


def norms_by_depth(
    chain: Chain, width: int, depths: Sequence[int], seed: int
) -> list[float]:
    """Decimal logarithms of the norm of the Jacobian from the start to each depth."""
    random = generator(seed)

    def draw() -> torch.Tensor:
        entries = torch.randn((width, width), generator=random, dtype=torch.float64)
        return chain.gain / math.sqrt(width) * entries

    weight = draw()
    h = torch.zeros(width, dtype=torch.float64)
    product = torch.eye(width, dtype=torch.float64)
    found = []
    for depth in range(1, max(depths) + 1):
        if not chain.tied and depth > 1:
            weight = draw()
        noise = torch.randn(width, generator=random, dtype=torch.float64)
        h = weight @ h + NOISE * noise
        if chain.activation == "tanh":
            h = torch.tanh(h)
        product = step_jacobian(h, weight, chain.activation) @ product
        if depth in depths:
            found.append(log10_norm(product))
    return found
