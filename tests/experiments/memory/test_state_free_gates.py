"""The tasks, and a gate that stays blind in training."""

import torch

from experiments import lab
from experiments.memory import state_free_gates as experiment


def test_answers_are_the_parity_and_the_last_marked_value():
    x, odd = experiment.Parity(9).draw(5, lab.generator(0))
    assert torch.equal(odd, x[..., 1].cumsum(1) % 2)
    x, held = experiment.Latch(9).draw(5, lab.generator(0))
    for row, answers in zip(x, held, strict=True):
        kept = None
        for (value, mark), answer in zip(row.tolist(), answers.tolist(), strict=True):
            kept = value if mark else kept
            assert answer == (kept > 0)


def test_a_blind_gate_stays_blind():
    layer = experiment.blind(4)
    before = layer.cell.weight_ih.detach().clone()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        layer(torch.randn(2, 5, 2))[0].square().sum().backward()
        optimizer.step()
    assert not layer.cell.weight_ih[:4].any()
    assert (layer.cell.weight_ih[4:] != before[4:]).any()
