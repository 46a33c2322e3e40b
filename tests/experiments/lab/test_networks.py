"""Changes to layers, and their size."""

from torch import nn

from experiments import lab
from seqref import RNN


def test_every_parameter_counts_once():
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    assert lab.parameter_count(tied) == 9 + 3 + 3


def test_biases_become_zero_and_nothing_else_does():
    cell = RNN(3, 4).cell
    lab.zero_biases_(cell)
    assert not cell.bias_ih.any()
    assert not cell.bias_hh.any()
    assert cell.weight_ih.all()
