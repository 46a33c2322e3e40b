r"""What is left of a cell state that is carried raw, and of one carried normalized."""

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.lab.seeding import generator, seeded
from seqref import LayerNormLSTM

OPEN = 40.0
"""A forget bias whose sigmoid is 1 in float64."""


def open_layer(width: int, seed: int) -> LayerNormLSTM:
    """Forget gates open; the other gates and the candidate read the input alone."""
    with seeded(seed):
        layer = LayerNormLSTM(width, width, dtype=torch.float64)
    with torch.no_grad():
        layer.cell.norm_ih.bias[width : 2 * width] = OPEN
        layer.cell.norm_hh.weight.zero_()
    return layer


def final_cell_state(
    layer: LayerNormLSTM,
    x: Float[Tensor, "time width"],
    c_0: Float[Tensor, " width"],
    normed: bool,
) -> Float[Tensor, " width"]:
    """The cell state after all steps; `normed` carries the output of its norm."""
    cell = layer.cell
    state = layer.initial_state(1)._replace(c=c_0[None])
    for x_t in x:
        _, state = layer.step(x_t[None], state)
        if normed:
            state = state._replace(c=cell.norm_c(state.c))
    return state.c[0]


def jacobian_norm(width: int, steps: int, normed: bool, seed: int) -> float:
    r"""Spectral norm of $\mathrm{d} c_T / \mathrm{d} c_0$ on random inputs."""
    layer, random = open_layer(width, seed), generator(seed + 1000)
    x = torch.randn(steps, width, generator=random, dtype=torch.float64)
    c_0 = torch.randn(width, generator=random, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(
        lambda c: final_cell_state(layer, x, c, normed), c_0
    )
    return torch.linalg.matrix_norm(jacobian, 2).item()
