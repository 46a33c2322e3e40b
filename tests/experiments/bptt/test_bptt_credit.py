"""The tasks are what their names say, and the loss of recall is cut where it says."""

import itertools

import pytest
import torch

from experiments.bptt import bptt_credit
from experiments.lab.seeding import generator

SMALL = bptt_credit.experiment.small


def test_latch_marks_are_never_further_apart_than_a_chunk():
    x, target = bptt_credit.latch_data(SMALL, generator(0))
    marks = x[..., 1] > 0.5
    assert marks[:, 0].all()
    for row, signs, wanted in zip(marks, x[..., 0], target, strict=True):
        places = row.nonzero().flatten().tolist()
        gaps = [b - a for a, b in itertools.pairwise(places)]
        assert 1 <= min(gaps) <= max(gaps) <= SMALL.latch_size
        last = None
        for t, mark in enumerate(row.tolist()):
            last = float(signs[t] > 0) if mark else last
            assert wanted[t] == last
    # All gaps occur.
    lags = {
        b - a
        for row in marks
        for a, b in zip(row.nonzero()[:-1, 0], row.nonzero()[1:, 0], strict=True)
    }
    assert {int(lag) for lag in lags} == set(range(1, 11))


def test_recall_asks_for_the_marked_sign():
    x, target = bptt_credit.recall_data(SMALL, 50, generator(0))
    assert x.shape == (50, 20, 2)
    assert x[:, 0, 1].eq(1).all()
    assert not x[:, 1:, 1].any()
    assert torch.equal(target, (x[:, 0, 0] + 1) / 2)
    assert set(x[..., 0].unique().tolist()) == {-1, 1}


@pytest.mark.parametrize("size", [20, 19, 10, 1])
def test_the_loss_of_recall_has_the_horizon_that_it_is_named_by(size):
    network = bptt_credit.Network(SMALL, 1.0, 0).double()
    x, _ = bptt_credit.recall_data(SMALL, 3, generator(0))
    x = x.double().requires_grad_()
    logits = bptt_credit.recall_logits(network, x, size)
    torch.testing.assert_close(logits, network(x)[0][:, -1])
    (gradient,) = torch.autograd.grad(logits.sum(), x)
    reached = gradient.abs().sum((0, 2)) > 0
    assert reached.tolist() == [False] * (20 - size) + [True] * size
