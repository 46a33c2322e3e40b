"""What differs by a bit, and what by none."""

import pytest
import torch

from experiments.lab.experiment import find
from experiments.lab.record import judgements, measure
from experiments.models import streaming_bits as experiment

CONFIG = experiment.SMALL


@pytest.fixture(scope="module")
def small():
    return measure(find("streaming_bits"))


def test_claims_hold_and_controls_fail(small):
    assert set(small["claims"]) == {"C117", "C118"}
    for identifier, claim in small["claims"].items():
        assert claim["holds"], identifier
        assert not claim["control_holds"], identifier
    assert judgements(find("streaming_bits"), small["cases"]) == small["claims"]


def test_a_run_is_a_function_of_its_config(small):
    again = measure(find("streaming_bits"))
    for part in ("numbers", "series", "cases"):
        assert again[part] == small[part], part


def test_a_difference_by_hand():
    ones = torch.ones(4)
    other = torch.tensor([1.0, 1.0, 1.0, 1.5])
    assert experiment.difference(ones, ones) == {"share": 0, "largest": 0}
    assert experiment.difference(ones, other) == {"share": 0.25, "largest": 0.5}


def test_the_rounded_row_has_exact_sums():
    """Summing in float64 and rounding once gives the float32 sum: nothing was lost."""
    weights = (256 * torch.rand(128, 160).sub(0.5).mul(0.2)).round() / 256
    x = (8 * torch.randn(3, 160)).round() / 8
    wide = x.double() @ weights.double().T
    assert torch.equal((x @ weights.T).double(), wide)
    assert torch.equal((x.flip(1) @ weights.flip(1).T).double(), wide)


def test_largest_differences_are_roundings(small):
    assert small["cases"]["float64"]["largest"] < 1e-14
    assert 0 < small["cases"]["float32"]["largest"] < 1e-6
