"""What is counted is what is alive, and the three ways have the right gradients."""

import pytest
import torch

from experiments.bptt import bptt_memory
from experiments.bptt._job import KINDS, Job
from experiments.bptt.bptt_memory import kept_bytes

CONFIG = bptt_memory.Config(2, 4, (16,), 4, (0,))


def test_kept_bytes_counts_what_the_backward_pass_needs():
    x = torch.randn(10, requires_grad=True)
    # exp keeps its result; the product keeps both factors, one of them the same.
    assert kept_bytes(x.exp) == 40
    assert kept_bytes(lambda: x.exp() * x, [x]) == 40
    assert kept_bytes(lambda: x.exp() * x) == 80
    assert kept_bytes(lambda: x + 1) == 0
    with torch.no_grad():
        assert kept_bytes(x.exp) == 0


def test_what_a_step_keeps():
    peaks = {
        kind: [bptt_memory.kept(CONFIG, kind, time) for time in (8, 16)]
        for kind in KINDS
    }
    vector = 4 * CONFIG.batch_size * CONFIG.hidden_size
    per_step = {kind: (b - a) / 8 / vector for kind, (a, b) in peaks.items()}
    # One vector of each is the squared error's: y - target.
    assert per_step == {"rnn": 1 + 1, "gru": 8 + 1, "lstm": 7 + 1}


@pytest.mark.parametrize("loop", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_recomputed_gradients_are_the_true_ones(kind, loop):
    job = Job(CONFIG, kind, 16, loop=loop)
    state = job.layer.initial_state(2)
    y, _ = job.layer.layer(job.x, state)
    loss = (y - job.target).square().sum()
    expected = torch.autograd.grad(loss, list(job.layer.parameters()))
    for size in (4, 5):
        for gradients in (job.full(size), job.checkpointed(size), job.truncated(16)):
            for mine, true in zip(gradients, expected, strict=True):
                torch.testing.assert_close(mine, true, atol=1e-4, rtol=1e-4)
    cut = job.truncated(4)
    assert not torch.allclose(cut[1], expected[1], atol=1e-2, rtol=1e-2)


def test_steps_are_counted():
    steps = {
        way: bptt_memory.peak(CONFIG, "gru", way, 16)["steps"]
        for way in bptt_memory.WAYS
    }
    assert steps == {"full": 16, "truncated": 16, "checkpointed": 32}


def test_exponent_is_that_of_a_power():
    times = (4, 16, 64, 256)
    assert bptt_memory.exponent(times, [t**2 for t in times]) == pytest.approx(2)
    assert bptt_memory.exponent(times, [7] * 4) == 0
