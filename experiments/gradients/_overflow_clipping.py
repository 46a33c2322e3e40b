r"""What clipping does to a gradient, and to the descent of one unit."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from experiments.lab.networks import zero_biases_
from experiments.lab.seeding import generator, seeded
from seqref import RNN

# The spectral radius of the exploding network; ranges and goal of the descent.
EXPLODING_RADIUS = 3.0
WEIGHTS, BIASES = (1.2, 3.0), (-0.5, 0.5)
GOAL, SOLVED = 0.3, 1e-3


def exploding_layer(width: int, dtype: torch.dtype, radius: float, seed: int) -> RNN:
    """A tanh network of a large spectral radius that adds its inputs as they are."""
    weight = torch.randn((width, width), generator=generator(seed), dtype=torch.float64)
    weight *= radius / torch.linalg.eigvals(weight).abs().max()
    layer = RNN(width, width, dtype=dtype)
    with torch.no_grad():
        layer.cell.weight_hh.copy_(weight)
        layer.cell.weight_ih.copy_(torch.eye(width))
        zero_biases_(layer.cell)
    return layer


def gradient_of(layer: RNN, steps: int, seed: int) -> Float[Tensor, " parameters"]:
    """The gradient of a random linear loss of the last state, as one vector."""
    random = generator(seed + 1000)
    size = (1, steps, layer.input_size)
    x = 0.5 * torch.randn(size, generator=random, dtype=torch.float64)
    weights = torch.randn(layer.hidden_size, generator=random, dtype=torch.float64)
    loss = layer(x)[1].h[0] @ weights
    found = torch.autograd.grad(loss, list(layer.parameters()))
    return torch.cat([part.flatten() for part in found])


def clipped(
    gradient: Float[Tensor, " parameters"], *, by_norm: bool, limit: float
) -> Float[Tensor, " parameters"]:
    """What torch leaves of a gradient."""
    parameter = nn.Parameter(torch.zeros_like(gradient))
    parameter.grad = gradient.clone()
    if by_norm:
        nn.utils.clip_grad_norm_([parameter], limit)
    else:
        nn.utils.clip_grad_value_([parameter], limit)
    return parameter.grad


def cosine(width: int, steps: int, seed: int, *, by_norm: bool) -> float:
    """Between an exploding gradient and what clipping leaves of it."""
    layer = exploding_layer(width, torch.float64, EXPLODING_RADIUS, seed)
    gradient = gradient_of(layer, steps, seed)
    found = torch.cosine_similarity(
        clipped(gradient, by_norm=by_norm, limit=1.0), gradient, dim=0
    )
    # Nine decimals: the rest differs between processors.
    return round(found.item(), 9)


def share_of_first_half(width: int, steps: int, seed: int, *, default: bool) -> float:
    r"""Norm of the gradient by the inputs of the first half, as a share of the whole.

    After clipping all of it by norm. The default network has inputs of unit variance,
    the other one an orthogonal matrix, no biases and small inputs.
    """
    with seeded(seed):
        layer = RNN(width, width, dtype=torch.float64)
    if not default:
        with torch.no_grad():
            nn.init.orthogonal_(layer.cell.weight_hh, generator=generator(seed))
            zero_biases_(layer.cell)
    random = generator(seed + 1000)
    size = (1, steps, width)
    x = torch.randn(size, generator=random, dtype=torch.float64)
    x = (x if default else 0.1 * x).requires_grad_()
    weights = torch.randn(width, generator=random, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(layer(x)[1].h[0] @ weights, x)
    flat = clipped(gradient.flatten(), by_norm=True, limit=0.01)
    return (flat[: len(flat) // 2].norm() / flat.norm()).item()


def entry_after_clipping(dtype: torch.dtype) -> float:
    """What clipping by norm leaves of four entries of 1e20: a half, or nothing."""
    return clipped(torch.full((4,), 1e20).to(dtype), by_norm=True, limit=1.0)[0].item()


def descend(
    limit: float | None, rate: float, updates: int, steps: int, runs: int, seed: int
) -> dict[str, float]:
    r"""Gradient descent of $(h_T - 0.3)^2$ for $h_t = \tanh(w h_{t-1} + b)$.

    Many runs side by side, from random $w$ and $b$; each is clipped by its own norm.
    """
    random = generator(seed)
    draws = torch.rand((2, runs), generator=random, dtype=torch.float64)
    low = torch.tensor([[WEIGHTS[0]], [BIASES[0]]], dtype=torch.float64)
    high = torch.tensor([[WEIGHTS[1]], [BIASES[1]]], dtype=torch.float64)
    parameters = low + (high - low) * draws
    largest = torch.zeros(runs, dtype=torch.float64)
    for _ in range(updates):
        parameters.requires_grad_()
        (gradient,) = torch.autograd.grad(losses(parameters, steps).sum(), parameters)
        norm = gradient.norm(dim=0)
        factor = 1.0 if limit is None else (limit / (norm + 1e-6)).clamp(max=1)
        update = rate * factor * gradient
        largest = torch.maximum(largest, update.norm(dim=0))
        parameters = parameters.detach() - update
    final = losses(parameters, steps)
    return {
        "largest_update": largest.max().item(),
        "solved": (final < SOLVED).double().mean().item(),
    }


def losses(parameters: Float[Tensor, "2 runs"], steps: int) -> Float[Tensor, " runs"]:
    """The squared error of the last state of each run."""
    w, b = parameters
    h = torch.zeros_like(w)
    for _ in range(steps):
        h = torch.tanh(w * h + b)
    return (h - GOAL) ** 2
