r"""Tests of their own, for bugs that break no property which a check knows."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.testing import assert_close

from experiments.museum import _numbers as numbers
from experiments.museum._checks import HIDDEN, INPUT, Trial, vectors

# Outputs of a beam search that stop at different lengths: log-probability and length.
CANDIDATES = ((-2.0, 3), (-2.8, 5), (-3.6, 8))
DECAY, LONG = 0.5, 200


def like(judge: Callable[[Tensor], tuple[Tensor, Any]]) -> Trial:
    r"""A test of a model beside a judge that others wrote."""

    def trial(model: Any) -> None:
        x = vectors()
        with torch.no_grad():
            assert_close(model(x)[0], judge(x)[0], atol=1e-5, rtol=1e-5)

    return trial


def judge_gru() -> nn.GRU:
    """The layer whose weights the rewritten GRU takes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return nn.GRU(INPUT, HIDDEN, batch_first=True)


def judge_lstm() -> nn.LSTM:
    """The layer whose weights are exported and imported."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return nn.LSTM(INPUT, HIDDEN, batch_first=True)


def exported(layer: nn.LSTM) -> dict[str, Tensor]:
    r"""The weights with their blocks in the order i, o, f, g, as ONNX has them."""
    found = {}
    for name, weight in layer.state_dict().items():
        i, f, g, o = weight.chunk(4)
        found[name] = torch.cat([i, o, f, g])
    return found


def imported(take: Callable[[nn.LSTM, dict[str, Tensor]], nn.LSTM]) -> nn.LSTM:
    """A new layer with the weights of the judge."""
    return take(nn.LSTM(INPUT, HIDDEN, batch_first=True), exported(judge_lstm()))


def keeps_its_cell_state(layer: nn.LSTM) -> None:
    r"""Raise unless at least nine tenths of a cell state are left after a step."""
    zeros = torch.zeros(1, 1, layer.hidden_size)
    x = torch.zeros(1, 1, layer.input_size)
    with torch.no_grad():
        _, (_, with_ones) = layer(x, (zeros, zeros + 1))
        _, (_, with_zeros) = layer(x, (zeros, zeros))
    left = (with_ones - with_zeros).min().item()
    if left < 0.9:
        raise AssertionError(f"{left:.2f} of the cell state is left after a step")


def never_longer(score: Callable[[float, int, float], float]) -> None:
    r"""Raise if a larger `alpha` chooses a longer output."""
    chosen = [numbers.chosen_length(score, CANDIDATES, k / 4) for k in range(9)]
    if chosen != sorted(chosen, reverse=True):
        raise AssertionError(f"lengths chosen as alpha grows: {chosen}")


def equals_the_loop(scan: Callable[[Tensor, Tensor], Tensor]) -> None:
    r"""Raise unless a scan equals the loop over many steps, in float32."""
    b = torch.randn(2, LONG, generator=torch.Generator().manual_seed(0))
    a = torch.full_like(b, DECAY)
    assert_close(scan(a, b), numbers.loop(a, b), atol=1e-5, rtol=1e-5)
