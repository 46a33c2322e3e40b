r"""Networks whose spectral radius says the opposite of what their gradients do."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from experiments import lab
from experiments.gradients._networks import (
    log10_norm,
    norm,
    products_by_lag,
    spectral_radius,
)
from seqref import RNN, RNNState

MARKS = (10, 30, 60)
# Name of a case: recurrent matrix, input at every step, state before the first step.
EXAMPLES = {
    "small_radius_driven": ([[1.5, -2.0], [1.0, -1.5]], [2.0, 20.0], [0.0, 1.0]),
    "small_radius_rest": ([[1.5, -2.0], [1.0, -1.5]], [0.0, 0.0], [0.0, 0.0]),
    "large_radius_driven": ([[2.0, 0.0], [0.0, 2.0]], [1.0, 1.0], [0.0, 0.0]),
    "large_radius_rest": ([[2.0, 0.0], [0.0, 2.0]], [0.0, 0.0], [0.0, 0.0]),
}
BLOCK_RADIUS = 5.0
# Far beyond what the other inputs of a unit add up to: its slope is then zero.
SATURATING = 100.0


@torch.no_grad()
def tanh_layer(weight_hh: Float[Tensor, "hidden hidden"]) -> RNN:
    """A tanh network with this recurrent matrix; it adds its inputs as they are."""
    width = len(weight_hh)
    layer = RNN(width, width, bias=False, dtype=torch.float64)
    layer.cell.weight_hh.copy_(weight_hh)
    layer.cell.weight_ih.copy_(torch.eye(width))
    return layer


@torch.no_grad()
def of_driven(
    layer: RNN, x: Float[Tensor, "1 time hidden"], h_0: Float[Tensor, " hidden"]
) -> dict[str, float]:
    """Radius, norm and norms of products after each number of steps."""
    h, weight_hh = layer(x, RNNState(h_0[None]))[0][0], layer.cell.weight_hh
    return {
        "spectral_radius": round(spectral_radius(weight_hh), 6),
        "largest_singular_value": round(norm(weight_hh), 9),
        **{
            f"log10_at_{mark}": log10_norm(
                products_by_lag(h[:mark], weight_hh, "tanh", (mark,))[mark]
            )
            for mark in MARKS
        },
    }


def of_example(
    weight: list[list[float]], drive: list[float], start: list[float]
) -> dict[str, float]:
    """Radius, norm and norms of products of one network of two units."""
    w_hh, x_t, h_0 = (
        torch.tensor(part, dtype=torch.float64) for part in (weight, drive, start)
    )
    return of_driven(tanh_layer(w_hh), x_t.repeat(1, max(MARKS), 1), h_0)


def random_matrix(width: int, seed: int) -> Float[Tensor, "width width"]:
    """Independent normal entries, scaled to a spectral radius of 1."""
    weight = lab.normal(seed, width, width)
    return weight / spectral_radius(weight)


def block_matrix(
    block: Float[Tensor, "size size"],
) -> Float[Tensor, "twice_size twice_size"]:
    r"""A matrix with all eigenvalues 1/2 that is far from normal.

    With $M$ the matrix of blocks $A, -A$ in both rows, $M^2 = 0$, so that all
    eigenvalues of $I/2 + M$ are 1/2.
    """
    row = torch.cat([block, -block], dim=1)
    return 0.5 * torch.eye(len(row.T), dtype=torch.float64) + torch.cat([row, row])


def noisy_blocks(
    size: int, seed: int, steps: int, *, normal: bool
) -> tuple[RNN, Float[Tensor, "1 steps twice_size"]]:
    r"""The network of blocks, and standard normal noise as input of all its units.

    `normal` leaves the eigenvalues and takes the blocks away: $I/2$ alone.
    """
    block = (0 if normal else BLOCK_RADIUS) * random_matrix(size, seed)
    return tanh_layer(block_matrix(block)), lab.normal(seed + 2000, 1, steps, 2 * size)


def of_blocks(size: int, seed: int, *, driven: bool) -> dict[str, float]:
    r"""A network of radius 0.5 whose input leaves a block with a large radius.

    The input holds the second half of the units in saturation and takes back what they
    send to the first half, which then runs under $I/2 + A$ and noise.
    """
    block = BLOCK_RADIUS * random_matrix(size, seed)
    ones = torch.ones(size, dtype=torch.float64)
    first = lab.normal(seed + 1000, 1, max(MARKS), size) + block @ ones
    x = torch.cat([first, torch.full_like(first, SATURATING)], dim=2)
    h_0 = torch.cat([0 * ones, ones])
    return of_driven(tanh_layer(block_matrix(block)), driven * x, driven * h_0)


def of_turn(modulus: float) -> dict[str, float]:
    """A linear network that turns its state by a third and scales it."""
    cosine, sine = math.cos(2 * math.pi / 3), math.sin(2 * math.pi / 3)
    turn = modulus * torch.tensor(
        [[cosine, -sine], [sine, cosine]], dtype=torch.float64
    )
    return {
        "largest_real_part": round(torch.linalg.eigvals(turn).real.max().item(), 9),
        "modulus": round(spectral_radius(turn), 9),
        "log10_at_100": log10_norm(torch.linalg.matrix_power(turn, 100)),
    }
