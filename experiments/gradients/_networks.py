r"""The networks that `gradient_by_lag` compares, and the Jacobians of their steps."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from experiments.lab.networks import zero_biases_
from experiments.lab.seeding import generator
from seqref import RNN


@dataclass(frozen=True)
class Case:
    """A network at initialisation and the standard deviation of its inputs."""

    label: str
    initialise: Callable[[RNN, int], None]
    nonlinearity: str = "tanh"
    small_inputs: bool = False


def default_(layer: RNN, seed: int) -> None:
    """Leave the layer as it comes: everything uniform in (-1/√D, 1/√D)."""


def orthogonal_(layer: RNN, seed: int) -> None:
    """A random orthogonal recurrent matrix, biases zero."""
    nn.init.orthogonal_(layer.cell.weight_hh, generator=generator(seed))
    zero_biases_(layer.cell)


def expanding_(layer: RNN, seed: int) -> None:
    """1.1 times a random orthogonal matrix, biases zero."""
    nn.init.orthogonal_(layer.cell.weight_hh, gain=1.1, generator=generator(seed))
    zero_biases_(layer.cell)


def identity_(layer: RNN, seed: int) -> None:
    """Identity recurrent matrix, input weights of std 0.001, biases zero."""
    nn.init.eye_(layer.cell.weight_hh)
    nn.init.normal_(layer.cell.weight_ih, std=0.001, generator=generator(seed))
    zero_biases_(layer.cell)


CASES = {
    "default_tanh": Case("tanh, default", default_),
    "default_tanh_small": Case("tanh, default, small x", default_, small_inputs=True),
    "orthogonal_tanh": Case("tanh, orthogonal", orthogonal_),
    "orthogonal_tanh_small": Case(
        "tanh, orthogonal, small x", orthogonal_, small_inputs=True
    ),
    "identity_relu": Case("ReLU, identity", identity_, nonlinearity="relu"),
    "orthogonal_linear": Case("linear, orthogonal", orthogonal_, nonlinearity="linear"),
    "expanding_linear": Case(
        "linear, 1.1 × orthogonal", expanding_, nonlinearity="linear"
    ),
}


def slopes(
    h: Float[Tensor, "*batch hidden"], nonlinearity: str
) -> Float[Tensor, "*batch hidden"]:
    r"""$\phi'$ at each step, from the state that the step gave."""
    if nonlinearity == "tanh":
        return 1 - h.square()
    if nonlinearity == "relu":
        return (h > 0).to(h.dtype)
    return torch.ones_like(h)


def step_jacobian(
    h_t: Float[Tensor, " hidden"], weight_hh: Float[Tensor, "hidden hidden"], phi: str
) -> Float[Tensor, "hidden hidden"]:
    r"""$\partial h_t / \partial h_{t-1} = \operatorname{diag}(\phi'_t) W_{hh}$."""
    return slopes(h_t, phi)[:, None] * weight_hh


def products_by_lag(
    h: Float[Tensor, "time hidden"],
    weight_hh: Float[Tensor, "hidden hidden"],
    phi: str,
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
    product = torch.eye(weight_hh.shape[0], dtype=weight_hh.dtype)
    found = {0: product} if 0 in lags else {}
    for lag in range(1, max(lags) + 1):
        product = product @ step_jacobian(h[-lag], weight_hh, phi)
        if lag in lags:
            found[lag] = product
    return found
