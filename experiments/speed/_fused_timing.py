"""What is timed, and the clock that times it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from experiments.lab import timer
from experiments.lab.seeding import generator
from seqref.ops.fused_recurrence import (
    BACKENDS,
    fused_cho_gru,
    fused_gru,
    fused_lstm,
    fused_rnn,
)

Run = Callable[[], None]
Size = tuple[int, int, int]
# The module of torch.nn, the op, blocks in a weight, number of states.
KINDS = {
    "RNN": (nn.RNN, fused_rnn, 1, 1),
    "GRU": (nn.GRU, fused_gru, 3, 1),
    "ChoGRU": (None, fused_cho_gru, 3, 1),
    "LSTM": (nn.LSTM, fused_lstm, 4, 2),
}


def base_of(kind: str) -> str:
    """What the others are compared with: torch.nn, or the loop where it has nothing."""
    return "torch.nn" if KINDS[kind][0] else "reference"


@contextmanager
def threads(number: int) -> Iterator[None]:
    """This number of threads inside, the former number after."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def contestants(
    kind: str, size: Size, seed: int, training: bool, device: str = "cpu"
) -> dict[str, Run]:
    """A function to time for each backend, for torch.nn, and for the base once more."""
    peer_class, op, n_blocks, n_states = KINDS[kind]
    width = size[2]
    x, start, weights = _arguments(size, n_blocks, n_states, seed, device)
    for tensor in (x, *weights):
        tensor.requires_grad_(training)

    def timed(forward: Callable[[], Tensor], inputs: list[Tensor]) -> Run:
        def run() -> None:
            if not training:
                with torch.no_grad():
                    forward()
                return
            torch.autograd.grad(forward().square().sum(), inputs)

        return run

    found: dict[str, Run] = {}
    if peer_class:
        peer = peer_class(width, width, batch_first=True, device=device)
        with torch.no_grad():
            for parameter, weight in zip(peer.parameters(), weights, strict=True):
                parameter.copy_(weight)
        found["torch.nn"] = timed(lambda: peer(x)[0], [x, *peer.parameters()])
    for backend in BACKENDS:
        if backend == "torch" and not peer_class:
            continue
        forward = lambda backend=backend: op(x, *start, *weights, backend=backend)[0]  # noqa: E731
        found[backend] = timed(forward, [x, *weights])
    found["again"] = found[base_of(kind)]
    if peer_class:
        found["products"] = products(x.detach(), weights[:2], training)
    return found


def _arguments(
    size: Size, n_blocks: int, n_states: int, seed: int, device: str
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    batch, steps, width = size
    random = generator(seed)
    rows = n_blocks * width
    weights = [
        torch.empty(shape).uniform_(-(width**-0.5), width**-0.5, generator=random)
        for shape in ((rows, width), (rows, width), (rows,), (rows,))
    ]
    x = torch.randn(batch, steps, width, generator=random)
    start = [torch.zeros(batch, width, device=device) for _ in range(n_states)]
    return x.to(device), start, [weight.to(device) for weight in weights]


def products(x: Tensor, weights: list[Tensor], training: bool) -> Run:
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
        if training:
            out = torch.empty_like(h_t)
            for _ in range(steps):
                torch.mm(pre_t, weight_hh, out=out)
            torch.mm(pre, weight_ih)
            torch.mm(pre.T, flat)
            torch.mm(pre.T, flat)

    return run


def seconds(run: Run, device: str) -> float:
    """Processor time on a CPU; on a GPU the time until it has nothing left to do."""
    if device == "cpu":
        began = timer.processor()
        run()
        return timer.processor() - began
    torch.cuda.synchronize()
    began = timer.wall()
    run()
    torch.cuda.synchronize()
    return timer.wall() - began


def ratios(
    runs: Mapping[str, Run], rounds: int, base: str = "torch.nn", device: str = "cpu"
) -> dict[str, list[float]]:
    """Time over that of `base` in the same round, for each other contestant."""
    found: dict[str, list[float]] = {name: [] for name in runs if name != base}
    for run in runs.values():
        run()
    for _ in range(rounds):
        took = {name: seconds(run, device) for name, run in runs.items()}
        for name, values in found.items():
            values.append(took[name] / took[base])
    return found
