r"""Networks whose spectral radius says the opposite of what their gradients do."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.gradients._networks import products_by_lag
from experiments.lab.seeding import generator
from seqref import RNN, RNNState

MARKS = (10, 30, 60)
# Name of a case: recurrent matrix, input at every step, state before the first step.
EXAMPLES = {
    "small_radius_driven": ([[1.5, -2.0], [1.0, -1.5]], [2.0, 20.0], [0.0, 1.0]),
    "small_radius_rest": ([[1.5, -2.0], [1.0, -1.5]], [0.0, 0.0], [0.0, 0.0]),
    "large_radius_driven": ([[2.0, 0.0], [0.0, 2.0]], [1.0, 1.0], [0.0, 0.0]),
    "large_radius_rest": ([[2.0, 0.0], [0.0, 2.0]], [0.0, 0.0], [0.0, 0.0]),
}
THIRD_OF_A_TURN = 2 * math.pi / 3
BLOCK_RADIUS = 5.0
BLOCK_NOISE = 1.0
# Far beyond what the other inputs of a unit add up to: its slope is then zero.
SATURATING = 100.0


def log10_norm(matrix: Float[Tensor, "rows columns"]) -> float:
    """Decimal logarithm of the largest singular value."""
    # Nine decimals: the rest differs between processors. + 0.0 turns -0.0 into 0.0.
    return round(math.log10(torch.linalg.matrix_norm(matrix, 2).item()), 9) + 0.0


def tanh_layer(weight_hh: Float[Tensor, "hidden hidden"]) -> RNN:
    """A tanh network with this recurrent matrix; it adds its inputs as they are."""
    width = len(weight_hh)
    layer = RNN(width, width, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.cell.weight_hh.copy_(weight_hh)
        layer.cell.weight_ih.copy_(torch.eye(width))
    return layer


def of_example(
    weight: list[list[float]], drive: list[float], start: list[float]
) -> dict[str, float]:
    """Radius, norm and norms of products of one network of two units."""
    x = torch.tensor(drive, dtype=torch.float64).repeat(1, max(MARKS), 1)
    state = RNNState(torch.tensor([start], dtype=torch.float64))
    return of_driven(tanh_layer(torch.tensor(weight, dtype=torch.float64)), x, state)


def of_driven(
    layer: RNN, x: Float[Tensor, "1 time hidden"], state: RNNState
) -> dict[str, float]:
    """Radius, norm and norms of products after each number of steps."""
    with torch.no_grad():
        h = layer(x, state)[0][0]
        weight_hh = layer.cell.weight_hh
        found = {
            f"log10_at_{mark}": log10_norm(
                products_by_lag(h[:mark], weight_hh, "tanh", (mark,))[mark]
            )
            for mark in MARKS
        }
        return {**sizes(weight_hh), **found}


def sizes(weight_hh: Float[Tensor, "hidden hidden"]) -> dict[str, float]:
    """Spectral radius and largest singular value."""
    eigenvalues = torch.linalg.eigvals(weight_hh)
    return {
        "spectral_radius": round(eigenvalues.abs().max().item(), 6),
        "largest_singular_value": round(
            torch.linalg.matrix_norm(weight_hh, 2).item(), 9
        ),
    }


def random_matrix(width: int, seed: int) -> Float[Tensor, "width width"]:
    """Independent normal entries, scaled to a spectral radius of 1."""
    size = (width, width)
    weight = torch.randn(size, generator=generator(seed), dtype=torch.float64)
    return weight / torch.linalg.eigvals(weight).abs().max()


def block_matrix(
    block: Float[Tensor, "size size"],
) -> Float[Tensor, "twice_size twice_size"]:
    r"""A matrix with all eigenvalues 1/2 that is far from normal.

    With $M$ the matrix of blocks $A, -A$ in both rows, $M^2 = 0$, so that all
    eigenvalues of $I/2 + M$ are 1/2.
    """
    row = torch.cat([block, -block], dim=1)
    eye = torch.eye(2 * len(block), dtype=torch.float64)
    return 0.5 * eye + torch.cat([row, row])


def noisy_blocks(
    size: int, seed: int, std: float, steps: int, *, normal: bool
) -> tuple[RNN, Float[Tensor, "1 steps twice_size"]]:
    r"""The network of blocks, and noise of one strength as input of all its units.

    `normal` leaves the eigenvalues and takes the blocks away: $I/2$ alone.
    """
    block = BLOCK_RADIUS * random_matrix(size, seed)
    shape = (1, steps, 2 * size)
    noise = torch.randn(shape, generator=generator(seed + 2000), dtype=torch.float64)
    return tanh_layer(block_matrix(0 * block if normal else block)), std * noise


def of_blocks(size: int, seed: int, *, driven: bool) -> dict[str, float]:
    r"""A network of radius 0.5 whose input leaves a block with a large radius.

    The input holds the second half of the units in saturation and takes back what they
    send to the first half, which then runs under $I/2 + A$ and noise.
    """
    block = BLOCK_RADIUS * random_matrix(size, seed)
    layer = tanh_layer(block_matrix(block))
    shape = (1, max(MARKS), size)
    noise = torch.randn(shape, generator=generator(seed + 1000), dtype=torch.float64)
    ones = torch.ones(size, dtype=torch.float64)
    first = BLOCK_NOISE * noise + block @ ones
    x = torch.cat([first, torch.full_like(first, SATURATING)], dim=2)
    start = torch.cat([0 * ones, ones])[None]
    if not driven:
        x, start = torch.zeros_like(x), torch.zeros_like(start)
    return of_driven(layer, x, RNNState(start))


def of_turn(modulus: float) -> dict[str, float]:
    """A linear network that turns its state by a third and scales it."""
    cosine, sine = math.cos(THIRD_OF_A_TURN), math.sin(THIRD_OF_A_TURN)
    turn = torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float64)
    eigenvalues = torch.linalg.eigvals(modulus * turn)
    product = torch.linalg.matrix_power(modulus * turn, 100)
    return {
        "largest_real_part": round(eigenvalues.real.max().item(), 9),
        "modulus": round(eigenvalues.abs().max().item(), 9),
        "log10_at_100": log10_norm(product),
    }
