r"""The single networks of `gradient_products` and what is measured of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from experiments.gradients._networks import (
    default_,
    expanding_,
    identity_,
    orthogonal_,
    products_by_lag,
    slopes,
)
from experiments.lab.networks import zero_biases_
from experiments.lab.seeding import generator, seeded
from seqref import RNN

Initialise = Callable[[RNN, int], None]


@dataclass(frozen=True)
class Network:
    """A recurrent network at initialisation and the deviation of its inputs."""

    label: str
    initialise: Initialise
    activation: str = "tanh"
    input_std: float = 1.0


def random_(radius: float) -> Initialise:
    """Independent normal entries scaled to a spectral radius; biases zero."""

    def initialise(layer: RNN, seed: int) -> None:
        nn.init.normal_(layer.cell.weight_hh, generator=generator(seed))
        largest = torch.linalg.eigvals(layer.cell.weight_hh).abs().max()
        layer.cell.weight_hh.mul_(radius / largest)
        zero_biases_(layer.cell)

    return initialise


def of_norm_(norm: float, *, orthogonal: bool) -> Initialise:
    """A matrix scaled to a largest singular value; biases zero."""

    def initialise(layer: RNN, seed: int) -> None:
        (orthogonal_ if orthogonal else random_(1.0))(layer, seed)
        largest = torch.linalg.matrix_norm(layer.cell.weight_hh, 2)
        layer.cell.weight_hh.mul_(norm / largest)

    return initialise


def expanding_identity_(layer: RNN, seed: int) -> None:
    """1.1 times the identity, small input weights, biases zero."""
    identity_(layer, seed)
    layer.cell.weight_hh.mul_(1.1)


NETWORKS = {
    "default_tanh": Network("default, tanh", default_),
    "default_linear": Network("default, slopes 1", default_, "linear"),
    "default_relu": Network("default, ReLU", default_, "relu"),
    "orthogonal_tanh": Network("orthogonal, tanh", orthogonal_),
    "orthogonal_linear": Network("orthogonal, slopes 1", orthogonal_, "linear"),
    "orthogonal_rest": Network("orthogonal, tanh, no input", orthogonal_, "tanh", 0.0),
    "identity_relu": Network("identity, ReLU", identity_, "relu"),
    "expanding_relu": Network("1.1 × identity, ReLU", expanding_identity_, "relu"),
    "expanding_tanh": Network("1.1 × identity, tanh", expanding_identity_),
    "random_tanh": Network("random, radius 3, tanh", random_(3.0)),
    "stretching_linear": Network("1.1 × orthogonal, slopes 1", expanding_, "linear"),
}


def log10_norm(matrix: Float[Tensor, "rows columns"]) -> float:
    """Decimal logarithm of the largest singular value."""
    # Nine decimals: the rest differs between processors. + 0.0 turns -0.0 into 0.0.
    return round(math.log10(torch.linalg.matrix_norm(matrix, 2).item()), 9) + 0.0


def measure(
    network: Network, width: int, lags: tuple[int, ...], warm_up: int, seed: int
) -> dict[str, list[float]]:
    """Norms by lag, two bounds on them, and the largest state in size."""
    layer = build(network, width, seed)
    size = (1, warm_up + max(lags), width)
    x = torch.randn(size, generator=generator(seed + 1000), dtype=torch.float64)
    weight_hh, phi = layer.cell.weight_hh, network.activation
    with torch.no_grad():
        h = layer(network.input_std * x)[0][0]
        products = products_by_lag(h, weight_hh, phi, lags)
        slope = math.log10(slopes(h[-max(lags) :], phi).max().item())
        norm = log10_norm(weight_hh)
        radius = math.log10(torch.linalg.eigvals(weight_hh).abs().max().item())
    found = [log10_norm(products[lag]) for lag in lags]
    bound = [lag * (norm + slope) for lag in lags]
    return {
        "norms": found,
        "bound": bound,
        "excess_norm": [f - b for f, b in zip(found, bound, strict=True)],
        "excess_radius": [
            f - k * (radius + slope) for f, k in zip(found, lags, strict=True)
        ],
        "singular": [10**norm],
        "largest_state": [h.abs().max().item()],
    }


def build(network: Network, width: int, seed: int) -> RNN:
    """The layer; one with slopes of 1 is a tanh layer whose slopes are not used."""
    phi = "relu" if network.activation == "relu" else "tanh"
    with seeded(seed):
        layer = RNN(width, width, nonlinearity=phi, dtype=torch.float64)
    with torch.no_grad():
        network.initialise(layer, seed)
    return layer
