r"""Plain networks at initialisation, and products of the Jacobians of their steps."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from experiments import lab
from experiments.lab.networks import zero_biases_
from seqref import RNN
from seqref.recurrent import identity_, orthogonal_

Initialise = Callable[[RNN, int], None]


def default_(layer: RNN, seed: int) -> None:
    """Leave the layer as it comes: everything uniform in (-1/√D, 1/√D)."""


def scaled_orthogonal_(gain: float = 1.0) -> Initialise:
    """`gain` times a random orthogonal recurrent matrix; biases zero."""

    def initialise(layer: RNN, seed: int) -> None:
        orthogonal_(layer, gain, lab.generator(seed))
        zero_biases_(layer.cell)

    return initialise


def scaled_identity_(gain: float = 1.0) -> Initialise:
    """`gain` times the identity, input weights of std 0.001, biases zero."""

    def initialise(layer: RNN, seed: int) -> None:
        identity_(layer, gain)
        nn.init.normal_(layer.cell.weight_ih, std=0.001, generator=lab.generator(seed))

    return initialise


@dataclass(frozen=True)
class Network:
    r"""A plain network at initialisation and the standard deviation of its inputs.

    The states of a "linear" one are those of a tanh network; its slopes count as 1.
    """

    label: str
    initialise: Initialise = default_
    activation: str = "tanh"
    input_std: float = 1.0

    @torch.no_grad()
    def build(self, input_size: int, hidden_size: int, seed: int) -> RNN:
        """The layer, everything in it drawn from `seed`."""
        phi = "relu" if self.activation == "relu" else "tanh"
        with lab.seeded(seed):
            layer = RNN(input_size, hidden_size, nonlinearity=phi, dtype=torch.float64)
        self.initialise(layer, seed)
        return layer


def slopes(
    h: Float[Tensor, "*batch hidden"], activation: str
) -> Float[Tensor, "*batch hidden"]:
    r"""$\phi'$ at each step, from the state that the step gave."""
    if activation == "tanh":
        return 1 - h.square()
    return (h > 0).to(h.dtype) if activation == "relu" else torch.ones_like(h)


def step_jacobian(
    h_t: Float[Tensor, " hidden"],
    weight_hh: Float[Tensor, "hidden hidden"],
    activation: str,
) -> Float[Tensor, "hidden hidden"]:
    r"""$\partial h_t / \partial h_{t-1} = \operatorname{diag}(\phi'_t) W_{hh}$."""
    return slopes(h_t, activation)[:, None] * weight_hh


def products_by_lag(
    h: Float[Tensor, "time hidden"],
    weight_hh: Float[Tensor, "hidden hidden"],
    activation: str,
    lags: tuple[int, ...],
) -> dict[int, Float[Tensor, "hidden hidden"]]:
    r"""$\partial h_T / \partial h_{T-\text{lag}}$ for each lag; `h` ends with $h_T$.

    Raises:
        ValueError: `h` has too few steps for the longest lag.
    """
    if max(lags) > len(h):
        raise ValueError(
            f"products_by_lag: `h` must have at least {max(lags)} steps, got {len(h)}"
        )
    product = torch.eye(len(weight_hh), dtype=weight_hh.dtype)
    products = {0: product}
    for lag in range(1, max(lags) + 1):
        product = product @ step_jacobian(h[-lag], weight_hh, activation)
        if lag in lags:
            products[lag] = product
    return {lag: products[lag] for lag in lags}


def norm(matrix: Float[Tensor, "rows columns"]) -> float:
    """The largest singular value."""
    return torch.linalg.matrix_norm(matrix, 2).item()


def log10_norm(matrix: Float[Tensor, "rows columns"]) -> float:
    """Decimal logarithm of the largest singular value."""
    # Nine decimals: the rest differs between processors. + 0.0 turns -0.0 into 0.0.
    return round(math.log10(norm(matrix)), 9) + 0.0


def spectral_radius(matrix: Float[Tensor, "size size"]) -> float:
    """The largest modulus of an eigenvalue."""
    return torch.linalg.eigvals(matrix).abs().max().item()
