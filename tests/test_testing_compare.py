"""When two results of a model count as different, and what the message says."""

import pytest
import torch

from seqref._contract.compare import changed, differ, same_or_nan, scale, sentence
from seqref._contract.places import at

NAN = float("nan")


def words(want, got):
    return sentence(at("`output`", steps=True), "later", want, got, "a cause")


def test_the_place_is_that_of_the_largest_difference():
    want = torch.zeros(2, 3, dtype=torch.float64)
    got = want.clone()
    got[0, 2], got[1, 1] = 0.5, -2.0
    message = words(want, got)
    assert message.startswith(
        "`output` at row 1, step 1 changes by 2 later (from 0 to -2"
    )
    assert "2 of 6 values differ" in message
    assert message.endswith("a cause")


def test_a_difference_to_nan_is_the_largest():
    want = torch.zeros(1, 3, dtype=torch.float64)
    assert "step 1 changes by inf" in words(want, torch.tensor([[7.0, NAN, 9.0]]))


def test_rounding_is_no_place():
    want = torch.tensor([[1e6, 1.0, 1.0]], dtype=torch.float64)
    got = torch.tensor([[1e6, 1.0, 1.0 + 1e-6]], dtype=torch.float64)
    assert "step 2" in words(want, got)


@pytest.mark.parametrize(
    ("dtype", "by", "hint"),
    [
        (torch.float64, 1e-6, True),
        (torch.float64, 1e-3, False),
        (torch.float32, 1e-2, False),
    ],
)
def test_a_small_difference_in_float64_may_be_rounding_in_float32(dtype, by, hint):
    want = torch.ones(1, 2, dtype=dtype)
    message = words(want, want + torch.tensor([0, by], dtype=dtype))
    assert ("needs dtype=torch.float32" in message) == hint


def test_what_is_small_is_relative_to_the_largest_value():
    want = torch.tensor([[1e4, 2e4]], dtype=torch.float64)
    assert "needs dtype=torch.float32" in words(want, want * (1 + 1e-6))


def test_the_scale_is_of_values_that_differ():
    lowest = torch.finfo(torch.float64).min
    want = torch.tensor([lowest, 3.0, 0.5], dtype=torch.float64)
    got = torch.tensor([lowest, 3.5, 0.5], dtype=torch.float64)
    assert scale(want, got) == 3
    assert scale(want, want) == 1
    assert scale(want / 8, got / 8) == 1


@pytest.mark.parametrize(
    ("want", "got", "same"),
    [
        ([1.0, NAN], [1.0, NAN], True),
        ([1.0, NAN], [NAN, 1.0], False),
        ([1.0, 2.0], [1.0, NAN], False),
        ([NAN, 2.0], [1.0, 2.0], False),
        ([1.0, 2.0], [1.0, 2.5], False),
        ([1.0, 2.0], [1.0], False),
    ],
)
def test_nan_is_the_same_only_in_the_same_place(want, got, same):
    assert same_or_nan(torch.tensor(want), torch.tensor(got)) == same


def test_nan_and_infinities_in_a_difference():
    want = torch.tensor([torch.inf, -torch.inf, NAN, 1.0])
    got = torch.tensor([torch.inf, torch.inf, NAN, 1.0])
    assert differ(want, got).tolist() == [False, True, True, False]


def test_a_reaction_is_more_than_the_rounding_of_a_sum():
    eps = torch.finfo(torch.float64).eps
    one = torch.tensor([1.0, 1.0, 100.0, 100.0, 0.01], dtype=torch.float64)
    by = torch.tensor([32, 128, 3200, 12800, 32], dtype=torch.float64) * eps
    assert changed(one, one + by).tolist() == [False, True, False, True, False]
    assert changed(torch.tensor([1, 2]), torch.tensor([1, 3])).tolist() == [False, True]
