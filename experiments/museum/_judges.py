r"""Tests of their own, for bugs that break no property which a check knows."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.testing import assert_close

from experiments import lab
from experiments.museum._checks import HIDDEN, INPUT, VECTORS
from experiments.museum._files import numbers

# Outputs of a beam search that stop at different lengths: log-probability and length.
CANDIDATES = ((-2.0, 3), (-2.8, 5), (-3.6, 8))
DECAY, LONG = 0.5, 200


def judge(layer: type[Any]) -> Any:
    """A layer of torch.nn whose weights the rewritten, the imported one takes."""
    with lab.seeded(7):
        return layer(INPUT, HIDDEN, batch_first=True)


@torch.no_grad()
def like(layer: type[Any], model: Any) -> None:
    """Raise unless the outputs are those of the judge."""
    assert_close(model(VECTORS)[0], judge(layer)(VECTORS)[0], atol=1e-5, rtol=1e-5)


def imported(take: Callable[[nn.LSTM, dict[str, Tensor]], nn.LSTM]) -> nn.LSTM:
    """A new layer with the judge's weights, blocks in the order of ONNX: i, o, f, g."""
    blocks = {
        name: weight.chunk(4) for name, weight in judge(nn.LSTM).state_dict().items()
    }
    exported = {name: torch.cat([i, o, f, g]) for name, (i, f, g, o) in blocks.items()}
    return take(nn.LSTM(INPUT, HIDDEN, batch_first=True), exported)


@torch.no_grad()
def keeps_its_cell_state(layer: nn.LSTM) -> None:
    """Raise unless at least nine tenths of a cell state are left after a step."""
    zeros = torch.zeros(1, 1, layer.hidden_size)
    x = torch.zeros(1, 1, layer.input_size)
    _, (_, with_ones) = layer(x, (zeros, zeros + 1))
    _, (_, with_zeros) = layer(x, (zeros, zeros))
    left = (with_ones - with_zeros).min().item()
    if left < 0.9:
        raise AssertionError(f"{left:.2f} of the cell state is left after a step")


def never_longer(score: Callable[[float, int, float], float]) -> None:
    """Raise if a larger `alpha` chooses a longer output."""
    chosen = [numbers.chosen_length(score, CANDIDATES, k / 4) for k in range(9)]
    if chosen != sorted(chosen, reverse=True):
        raise AssertionError(f"lengths chosen as alpha grows: {chosen}")


def equals_the_loop(scan: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Raise unless a scan equals the loop over many steps, in float32."""
    b = torch.randn(2, LONG, generator=lab.generator(0))
    a = torch.full_like(b, DECAY)
    assert_close(scan(a, b), numbers.loop(a, b), atol=1e-5, rtol=1e-5)
