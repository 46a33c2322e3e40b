r"""What clipping does to a gradient, and to the descent of one unit."""

import math
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from experiments import lab
from seqref import RNN

F64 = torch.float64
by_norm, by_value = nn.utils.clip_grad_norm_, nn.utils.clip_grad_value_
# The spectral radius of the network whose gradient is clipped.
EXPLODING_RADIUS = 3.0
# Of the descents: limits, rate and steps, where the parameters begin, and the goal.
LIMITS = {"unclipped": math.inf, "limit_1": 1.0, "limit_0_1": 0.1}
RATE, STEPS = 0.03, 50
WEIGHTS, BIASES = (1.2, 3.0), (-0.5, 0.5)
GOAL, SOLVED = 0.3, 1e-3


@torch.no_grad()
def exploding_layer(width: int, dtype: torch.dtype, radius: float, seed: int) -> RNN:
    """A tanh network of a large spectral radius that adds its inputs as they are."""
    with lab.seeded(seed):
        layer = RNN(width, width, dtype=dtype)
    weight = torch.randn((width, width), generator=lab.generator(seed), dtype=F64)
    weight *= radius / torch.linalg.eigvals(weight).abs().max()
    layer.cell.weight_hh.copy_(weight)
    nn.init.eye_(layer.cell.weight_ih)
    lab.zero_biases_(layer.cell)
    return layer


def clipped(gradient: Tensor, clip: Callable[..., object], limit: float) -> Tensor:
    """What one of the functions of `torch.nn.utils` leaves of a gradient."""
    parameter = nn.Parameter(torch.zeros_like(gradient))
    parameter.grad = gradient.clone()
    clip([parameter], limit)
    return parameter.grad


def gradient_of(layer: RNN, steps: int, seed: int) -> Float[Tensor, " parameters"]:
    """The gradient of a random linear loss of the last state, as one vector."""
    draw = partial(torch.randn, generator=lab.generator(seed + 1000), dtype=F64)
    x = 0.5 * draw((1, steps, layer.input_size))
    loss = layer(x)[1].h[0] @ draw(layer.hidden_size)
    gradients = torch.autograd.grad(loss, list(layer.parameters()))
    return torch.cat([part.flatten() for part in gradients])


def cosine(width: int, steps: int, seed: int, clip: Callable[..., object]) -> float:
    """Between an exploding gradient and what clipping leaves of it."""
    layer = exploding_layer(width, F64, EXPLODING_RADIUS, seed)
    gradient = gradient_of(layer, steps, seed)
    cosine = torch.cosine_similarity(clipped(gradient, clip, 1.0), gradient, dim=0)
    # Nine decimals: the rest differs between processors.
    return round(cosine.item(), 9)


def share_of_first_half(width: int, steps: int, seed: int, *, default: bool) -> float:
    r"""Norm of the gradient by the inputs of the first half, as a share of the whole.

    After clipping all of it by norm. The default network has inputs of unit variance,
    the other one an orthogonal matrix, no biases and small inputs.
    """
    with lab.seeded(seed):
        layer = RNN(width, width, dtype=F64)
    if not default:
        nn.init.orthogonal_(layer.cell.weight_hh, generator=lab.generator(seed))
        lab.zero_biases_(layer.cell)
    draw = partial(torch.randn, generator=lab.generator(seed + 1000), dtype=F64)
    x = draw((1, steps, width)).mul_(1 if default else 0.1).requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x)[1].h[0] @ draw(width), x)
    flat = clipped(gradient.flatten(), by_norm, 0.01)
    return (flat[: len(flat) // 2].norm() / flat.norm()).item()


def losses(parameters: Float[Tensor, "2 runs"]) -> Float[Tensor, " runs"]:
    r"""$(h_T - 0.3)^2$ for $h_t = \tanh(w h_{t-1} + b)$, of each run."""
    w, b = parameters
    h = torch.zeros_like(w)
    for _ in range(STEPS):
        h = torch.tanh(w * h + b)
    return (h - GOAL) ** 2


def descend(limit: float, updates: int, runs: int, seed: int) -> dict[str, float]:
    r"""Gradient descent of `losses`, each run clipped by its own norm.

    Many runs side by side, from random $w$ and $b$.
    """
    low, high = torch.tensor([WEIGHTS, BIASES], dtype=F64).T[:, :, None]
    draws = torch.rand((2, runs), generator=lab.generator(seed), dtype=F64)
    parameters, largest = low + (high - low) * draws, torch.zeros(runs, dtype=F64)
    for _ in range(updates):
        parameters.requires_grad_()
        (gradient,) = torch.autograd.grad(losses(parameters).sum(), parameters)
        factor = (limit / (gradient.norm(dim=0) + 1e-6)).clamp(max=1)
        update = RATE * factor * gradient
        largest = torch.maximum(largest, update.norm(dim=0))
        parameters = parameters.detach() - update
    return {
        "largest_update": largest.max().item(),
        "solved": (losses(parameters) < SOLVED).double().mean().item(),
    }
