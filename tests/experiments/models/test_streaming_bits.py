"""What differs by a bit, and what by none."""

import torch

from experiments.lab.experiment import find
from experiments.models import streaming_bits


def test_a_difference_by_hand():
    ones = torch.ones(4)
    other = torch.tensor([1.0, 1.0, 1.0, 1.5])
    assert streaming_bits.difference(ones, ones) == {"share": 0, "largest": 0}
    assert streaming_bits.difference(ones, other) == {"share": 0.25, "largest": 0.5}


def test_the_rounded_row_has_exact_sums():
    """Summing in float64 and rounding once gives the float32 sum: nothing was lost."""
    weights = (256 * torch.rand(128, 160).sub(0.5).mul(0.2)).round() / 256
    x = (8 * torch.randn(3, 160)).round() / 8
    wide = x.double() @ weights.double().T
    assert torch.equal((x @ weights.T).double(), wide)
    assert torch.equal((x.flip(1) @ weights.flip(1).T).double(), wide)


def test_largest_differences_are_roundings():
    streams = find("streaming_bits")
    cases = streams.result(streams.small)["cases"]
    assert cases["float64"]["largest"] < 1e-14
    assert 0 < cases["float32"]["largest"] < 1e-6
