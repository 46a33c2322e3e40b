"""Steps carry their state on, and a late one has all before it in its state."""

import torch

from experiments.speed import segment_growth

CONFIG = segment_growth.Config(
    width=8, heads=2, segment=4, steps=8, late=12, calls=3, rounds=1
)


class Counter:
    """A layer whose state is how many steps it has had."""

    def __init__(self):
        self.seen = []

    def step(self, x_t, state):
        self.seen.append(state)
        return x_t, state + 1


def test_each_step_goes_on_from_the_one_before():
    layer = Counter()
    run = segment_growth.steps(layer, 5, torch.zeros(1, 2), 3)
    run.run()
    run.run()
    assert layer.seen == [5, 6, 7] * 2
    assert run.units == 3


def test_a_late_step_follows_all_the_others(monkeypatch):
    """Early and late differ in what was read: every segment of it, in its order."""
    calls = []
    forward = segment_growth.TransformerXLAttention.forward

    def spy(layer, x, state=None, lengths=None):
        calls.append((x.shape[1], state is None))
        return forward(layer, x, state, lengths)

    monkeypatch.setattr(segment_growth.TransformerXLAttention, "forward", spy)
    with segment_growth.lab.seeded(0):
        runs = segment_growth.contestants(CONFIG)
    assert calls == [(4, True), (4, True), (4, False), (4, False)]
    assert runs["step_late"].units == 3
