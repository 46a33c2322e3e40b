"""Delayed recall: the task, its score, and what holds when nothing is learned."""

from dataclasses import replace

import pytest
import torch

from experiments.lab.experiment import find
from experiments.memory import delayed_recall as experiment
from experiments.memory._recall import accuracy, loss_at_the_end, recall

EXPERIMENT = find("delayed_recall")


def test_no_claim_holds_when_nothing_is_learned():
    """With a step of 0 only the statements on failure are left."""
    config = replace(EXPERIMENT.small, learning_rates=(0.0,), updates=1, seeds=(0,))
    cases = EXPERIMENT.result(config)["cases"]
    held = {c.id for c in EXPERIMENT.claims if c.check(cases[c.case]).holds}
    assert held == {"C121", "C122.far"}
    for claim in EXPERIMENT.claims:
        if claim.id in held:
            assert claim.check(cases[claim.control]).holds, claim.id


def test_the_longest_lag_is_that_of_any_run_that_solved_it():
    cases = {f"rnn_{lag}": {"good": good} for lag, good in ((20, 3), (100, 1), (50, 0))}
    cases["lstm_chrono_20"] = {"good": 0}
    longest = experiment.longest(cases)
    assert longest == {"rnn_longest": 100, "lstm_chrono_longest": 0}


def test_the_last_output_is_judged():
    outputs = torch.zeros(4, 3, 2)
    outputs[:, -1] = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0], [1.0, 0.0]])
    # Earlier steps say the opposite and must not count.
    outputs[:, 0] = -outputs[:, -1]
    symbols = torch.tensor([0, 1, 1, 0])
    assert accuracy(outputs, symbols) == 0.75
    gaps = torch.tensor([1.0, 1.0, -3.0, 1.0])
    wanted = torch.log1p(torch.exp(-gaps)).mean()
    torch.testing.assert_close(loss_at_the_end(outputs, symbols), wanted)


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_the_problem_is_the_task(noise):
    problem = recall(noise)
    x, symbols = problem.task(5).draw(64, torch.Generator().manual_seed(0))
    assert x.shape == (64, 6, problem.input_size)
    assert torch.equal(x[:, 0].argmax(-1), symbols)
    assert (x[:, 1:].std() > 0.5) == (noise > 0)
    assert 0 < problem.enough < 0.69 < problem.solved < 1
