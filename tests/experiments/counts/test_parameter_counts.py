"""Counts from modules, from the formula, and by hand."""

import pytest

from experiments.counts import parameter_counts as experiment


def test_textbook_count_by_hand():
    # One map of a 2-wide state and a 3-wide input: 4 + 6 weights, 2 biases.
    assert experiment.textbook(1, 3, 2) == 12
    assert experiment.textbook(4, 3, 2) == 48


@pytest.mark.parametrize(("kind", "maps"), [("rnn", 1), ("lstm", 4)])
def test_excess_is_one_more_bias_vector(kind, maps):
    found = experiment.counts(kind, 3, 5, bias=True)
    assert found["textbook"] == maps * (25 + 15 + 5)
    assert found["torch"] == found["seqref"] == found["textbook"] + maps * 5
    bare = experiment.counts(kind, 3, 5, bias=False)
    assert bare["torch"] == bare["seqref"] == maps * (25 + 15)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_two_vectors_move_twice_as_far_as_one(optimizer):
    both = experiment.bias_step(optimizer, 0.1, 0, both=True)
    one = experiment.bias_step(optimizer, 0.1, 0, both=False)
    assert both == pytest.approx(2, rel=1e-4)
    assert one == pytest.approx(1, rel=1e-4)
