"""The most memory that is alive at one time."""

import torch

from seqref.testing import LiveBytes


def test_live_bytes_counts_each_memory_once_and_until_it_is_free():
    outside = torch.zeros(100)
    with LiveBytes([outside]) as live:
        a = torch.zeros(10)
        b = a[:5].view(5, 1)
        assert live.now == 40
        del a
        assert live.now == 40
        c = outside[:50] + 1
        assert live.now == 240
        del b, c
        assert live.now == 0
        outside.view(10, 10)
        assert live.now == 0
    assert live.peak == 240


def test_gradients_count_and_what_was_there_before_does_not():
    weight = torch.zeros(10, requires_grad=True)
    with LiveBytes([weight]) as live:
        y = weight * 2
        assert live.now == 40
        (gradient,) = torch.autograd.grad(y.sum(), weight)
        # y and the gradient are alive at one time.
        assert live.peak >= 80
    assert gradient.tolist() == [2.0] * 10
