"""The matrices of gradients are those of the cut that their names say."""

import pytest
import torch

from experiments.bptt import bptt_horizon
from experiments.bptt._truncated import outputs_in_chunks

SMALL = bptt_horizon.experiment.small


@pytest.mark.parametrize("size", [1, 3, 4, 12])
def test_chunks_reach_back_to_their_first_step(size):
    marks = bptt_horizon.matrix(SMALL, 12, "chunks", size)
    steps = torch.arange(12)
    same = steps[:, None] // size == steps // size
    assert torch.equal(marks, same & (steps <= steps[:, None]))


@pytest.mark.parametrize("size", [1, 3, 4, 12])
def test_a_window_reaches_back_over_its_size(size):
    marks = bptt_horizon.matrix(SMALL, 12, "window", size)
    steps = torch.arange(12)
    lag = steps[:, None] - steps
    assert torch.equal(marks, (lag >= 0) & (lag < size))


def test_both_ways_have_the_values_of_the_whole():
    layer, x = bptt_horizon.build(SMALL, 12)
    whole, _ = layer(x)
    for outputs in (outputs_in_chunks, bptt_horizon.outputs_in_window):
        torch.testing.assert_close(outputs(layer, x, 5), whole, atol=1e-12, rtol=1e-12)


def test_counts():
    row = bptt_horizon.measure(SMALL, "chunks", 5)
    assert (row["shortest"], row["longest"]) == (1, 5)
    assert row["mean"] == row["mean_after_first"] == row["expected"] == 3
    assert (row["neighbours_cut"], row["neighbours"]) == (3, 19)
    assert row["never_from_last"] == 15
    assert row["distances"][0] == 1
    assert row["distances"][1] == pytest.approx(16 / 19)
    assert row["distances"][5] == 0
