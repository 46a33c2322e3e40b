"""The score of the adding problem by hand."""

import pytest
import torch

from experiments import lab
from experiments.memory import adding_problem as experiment
from seqref.tasks import Adding


def test_the_score_is_the_share_of_the_laws_variance():
    x, sums = experiment.PROBLEM.task(12).draw(100_000, lab.generator(0))
    assert x.shape == (100_000, 12, experiment.PROBLEM.input_size)
    assert experiment.PROBLEM.task is Adding
    numbers, marks = x.unbind(-1)
    # Only the last step's output counts.
    outputs = torch.full((*numbers.shape, 1), 7.0)

    def score(answer):
        outputs[:, -1, 0] = answer
        return experiment.PROBLEM.score(outputs, sums)

    assert score(sums) == 1
    assert score(torch.ones(100_000)) == pytest.approx(0, abs=0.02)
    late = (numbers * marks)[:, 6:].sum(1)
    assert score(late + 0.5) == pytest.approx(0.5, abs=0.01)
    outputs[:, -1, 0] = sums + 0.1
    assert experiment.PROBLEM.loss(outputs, sums).item() == pytest.approx(0.01)
    # A run stops where it would count as solved.
    assert 1 - 6 * experiment.PROBLEM.enough > experiment.PROBLEM.solved
