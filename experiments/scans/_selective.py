r"""Ways to compute a selective scan from a state of zero; all are equal on paper."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from experiments import lab
from experiments.lab import timing
from experiments.lab.timing import Contestant
from seqref.ops.linear_scan import linear_scan
from seqref.ops.selective_scan import selective_scan

# Batch, time, channels, state.
Size = tuple[int, int, int, int]
# x, dt, A, B, C to the outputs.
Form = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def of_backend(name: str) -> Form:
    """The op by one backend."""
    return lambda *inputs: selective_scan(*inputs, backend=name)[0]


def decays_and_inputs(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor
) -> tuple[Tensor, Tensor]:
    """As whole tensors, (batch, time, channels, state)."""
    decays = torch.exp(dt[..., None] * A)
    return decays, (dt * x)[..., None] * B[:, :, None]


def read(h: Tensor, C: Tensor) -> Tensor:
    """Outputs of all states."""
    return (h @ C[..., None])[..., 0]


def of_mambapy(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The scan of mamba.py, as its block calls it."""
    from mambapy.pscan import pscan

    return read(pscan(*decays_and_inputs(x, dt, A, B)), C)


def whole(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Whole tensors, and a linear scan over them."""
    return read(linear_scan(*decays_and_inputs(x, dt, A, B))[0], C)


def indexed(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """A loop that reads its steps by an index into whole tensors."""
    decays, inputs = decays_and_inputs(x, dt, A, B)
    h, outputs = torch.zeros_like(inputs[:, 0]), []
    for t in range(x.shape[1]):
        h = decays[:, t] * h + inputs[:, t]
        outputs.append(read(h, C[:, t]))
    return torch.stack(outputs, dim=1)


FORMS: dict[str, Form] = {
    "mambapy": of_mambapy,
    "parallel": of_backend("parallel"),
    "reference": of_backend("reference"),
    "whole": whole,
    "indexed": indexed,
}


def drawn(size: Size, seed: int) -> list[Tensor]:
    """Inputs as a layer has them at the start: steps below 0.1, rates from 1 on."""
    batch, time, channels, state = size
    generator = lab.generator(seed)
    x = torch.randn(batch, time, channels, generator=generator)
    dt = 0.1 * torch.rand(batch, time, channels, generator=generator)
    A = -torch.arange(1.0, state + 1).repeat(channels, 1)
    B, C = torch.randn(2, batch, time, state, generator=generator)
    return [v.requires_grad_() for v in (x, dt, A, B, C)]


def contestants(
    size: Size, seed: int, names: Sequence[str], *, train: bool
) -> dict[str, Contestant]:
    """Forms to be timed, forward or forward and backward."""
    inputs = drawn(size, seed)

    def call(form: Form) -> Callable[[], Tensor]:
        return lambda: form(*inputs)

    return {
        name: timing.passes(call(FORMS[name]), inputs, train=train) for name in names
    }
