r"""One layer by each backend of its op and by `torch.nn`, at equal weights."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from experiments import lab
from experiments.lab.timing import Contestant, passes
from experiments.speed._layers import Size, normal_input, over
from seqref.ops.fused_recurrence import (
    BACKENDS,
    fused_cho_gru,
    fused_gru,
    fused_lstm,
    fused_rnn,
)
from seqref.ops.fused_recurrence.reference import rnn_step


@dataclass(frozen=True)
class Kind:
    """The op of a layer, and the module of torch.nn where there is one."""

    op: Any
    blocks: int
    states: int = 1
    module: Any = None

    @property
    def base(self) -> str:
        """What the others are compared with: torch.nn, or the loop without it."""
        return "torch.nn" if self.module else "reference"


KINDS = {
    "RNN": Kind(fused_rnn, 1, module=nn.RNN),
    "GRU": Kind(fused_gru, 3, module=nn.GRU),
    "ChoGRU": Kind(fused_cho_gru, 3),
    "LSTM": Kind(fused_lstm, 4, 2, nn.LSTM),
}


def contestants(
    kind: Kind, size: Size, seed: int, *, train: bool, device: str = "cpu"
) -> dict[str, Contestant]:
    """A pass by each backend, by torch.nn, and the matrix products alone."""
    batch, _, width = size
    random, rows = lab.generator(seed + 1000), kind.blocks * width
    weights = [
        torch.empty(shape)
        .uniform_(-(width**-0.5), width**-0.5, generator=random)
        .to(device)
        .requires_grad_()
        for shape in ((rows, width), (rows, width), (rows,), (rows,))
    ]
    x = normal_input(size, seed, device)
    start = [torch.zeros(batch, width, device=device) for _ in range(kind.states)]

    def by(backend: str) -> Contestant:
        return passes(
            lambda: kind.op(x, *start, *weights, backend=backend)[0],
            [x, *weights],
            train=train,
            others=start,
        )

    runs = {
        backend: by(backend)
        for backend in BACKENDS
        if kind.module or backend != "torch"
    }
    if kind.module:
        with lab.seeded(seed):
            peer = kind.module(width, width, batch_first=True, device=device)
        peer.load_state_dict(dict(zip(peer.state_dict(), weights, strict=True)))
        runs["torch.nn"] = over(peer, x, train=train)
        runs["products"] = products(x.detach(), weights[:2], train=train)
    return runs


def products(x: Tensor, weights: list[Tensor], *, train: bool) -> Contestant:
    """The matrix products of a recurrence by `torch.mm`, and nothing else."""
    weight_ih, weight_hh = (weight.detach() for weight in weights)
    batch, steps, width = x.shape
    rows = len(weight_ih)
    flat = x.reshape(-1, width)
    h_t, pre_t = x[:, 0].contiguous(), x.new_empty(batch, rows)
    pre = x.new_empty(batch * steps, rows)

    def run() -> None:
        torch.mm(flat, weight_ih.T, out=pre)
        for _ in range(steps):
            torch.mm(h_t, weight_hh.T, out=pre_t)
        if train:
            out = torch.empty_like(h_t)
            for _ in range(steps):
                torch.mm(pre_t, weight_hh, out=out)
            torch.mm(pre, weight_ih)
            torch.mm(pre.T, flat)
            torch.mm(pre.T, flat)

    return Contestant(run, [weight_ih, weight_hh, flat, h_t, pre_t, pre])


def indexed(x: Tensor) -> list[Tensor]:
    """The steps of `x`, each by an index of its own."""
    return [x[:, t] for t in range(x.shape[1])]


def unbound(x: Tensor) -> list[Tensor]:
    """The steps of `x`, all by one operation."""
    return list(x.unbind(1))


def loops(lengths: tuple[int, ...]) -> dict[str, Contestant]:
    """Training steps of a plain RNN in a Python loop over the steps of its input."""
    batch, inputs, hidden = 8, 256, 8
    random = lab.generator(0)
    weight_ih = torch.randn(hidden, inputs, generator=random) / inputs**0.5
    weight_hh = torch.randn(hidden, hidden, generator=random) / hidden**0.5
    h_0 = torch.zeros(batch, hidden)

    def loop(cut: Any, x: Tensor) -> Contestant:
        def forward() -> Tensor:
            h_t = h_0
            for x_t in cut(x):
                h_t = rnn_step(x_t, h_t, (weight_ih, weight_hh, None, None))
            return h_t

        return passes(forward, [x], others=[weight_ih, weight_hh, h_0])

    return {
        f"{cut.__name__}_{length}": loop(cut, normal_input((batch, length, inputs), 0))
        for length in lengths
        for cut in (indexed, unbound)
    }
