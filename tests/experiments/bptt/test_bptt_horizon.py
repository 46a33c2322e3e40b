"""The matrices of gradients are those of the cut that their names say."""

import pytest
import torch

from experiments.bptt import bptt_horizon as experiment
from experiments.lab.experiment import find
from experiments.lab.record import measure


@pytest.mark.parametrize("size", [1, 3, 4, 12])
def test_chunks_reach_back_to_their_first_step(size):
    marks = experiment.matrix(experiment.SMALL, 12, "chunks", size)
    steps = torch.arange(12)
    same = steps[:, None] // size == steps // size
    assert torch.equal(marks, same & (steps <= steps[:, None]))


@pytest.mark.parametrize("size", [1, 3, 4, 12])
def test_a_window_reaches_back_over_its_size(size):
    marks = experiment.matrix(experiment.SMALL, 12, "window", size)
    steps = torch.arange(12)
    lag = steps[:, None] - steps
    assert torch.equal(marks, (lag >= 0) & (lag < size))


def test_both_ways_have_the_values_of_the_whole():
    layer, x = experiment.build(experiment.SMALL, 12)
    whole = layer(x)[0].sum((0, 2))
    for make in (experiment.outputs_in_chunks, experiment.outputs_in_window):
        found = torch.stack(make(layer, x, 5))
        torch.testing.assert_close(found, whole, atol=1e-12, rtol=1e-12)


def test_counts():
    found = experiment.measure(experiment.SMALL, "chunks", 5)
    assert (found["shortest"], found["longest"]) == (1, 5)
    assert found["mean"] == found["mean_after_first"] == found["expected"] == 3
    assert (found["neighbours_cut"], found["neighbours"]) == (3, 19)
    assert found["never_from_last"] == 15
    assert found["distances"][0] == 1
    assert found["distances"][1] == pytest.approx(16 / 19)
    assert found["distances"][5] == 0


def test_claims_hold_and_controls_fail():
    record = measure(find("bptt_horizon"))
    assert set(record["claims"]) == {"horizon.mean", "horizon.neighbours"}
    for claim in record["claims"].values():
        assert claim["holds"]
        assert not claim["control_holds"]
