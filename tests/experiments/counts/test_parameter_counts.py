"""Counts from modules, from the formula, and by hand."""

import pytest

from experiments.counts.parameter_counts import bias_step, counts


def test_textbook_count_by_hand():
    # One map of a 2-wide state and a 3-wide input: 4 + 6 weights, 2 biases.
    assert counts("rnn", 3, 2)["textbook"] == 12
    assert counts("lstm", 3, 2)["textbook"] == 48


@pytest.mark.parametrize(("kind", "maps"), [("rnn", 1), ("lstm", 4)])
def test_excess_is_one_more_bias_vector(kind, maps):
    numbers = counts(kind, 3, 5)
    assert numbers["textbook"] == maps * (25 + 15 + 5)
    assert numbers["torch"] == numbers["seqref"] == numbers["textbook"] + maps * 5
    bare = counts(kind, 3, 5, bias=False)
    assert bare["torch"] == bare["seqref"] == maps * (25 + 15)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_two_vectors_move_twice_as_far_as_one(optimizer):
    assert bias_step(optimizer, 0.1, 0, both=True) == pytest.approx(2, rel=1e-4)
    assert bias_step(optimizer, 0.1, 0, both=False) == pytest.approx(1, rel=1e-4)
