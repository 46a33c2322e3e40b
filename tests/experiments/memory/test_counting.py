"""What the experiments on counting share: words, reach, and a module of zeros."""

import pytest
import torch
from torch import nn

from experiments.lab.seeding import generator
from experiments.memory._counting import Words, counting, reach, zeroed
from experiments.memory._networks import build

NAN = float("nan")


def test_words_and_answers():
    x, answers = Words().draw(2, generator(0))
    assert x[0].tolist() == [[1, 0], [0, 1], [0, 0], [0, 0]]
    assert x[1].tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    expected = torch.tensor([[NAN, 1, NAN, NAN], [NAN, NAN, 0, 1]])
    assert torch.equal(answers.isnan(), expected.isnan())
    assert answers.nan_to_num().tolist() == expected.nan_to_num().tolist()


def test_reach_stops_at_the_first_wrong_word():
    assert reach(torch.tensor([True, True, False, True])) == 2
    assert reach(torch.tensor([False, True])) == 0
    assert reach(torch.tensor([True, True])) == 2
    problem = counting(5)
    _, targets = problem.task(9).draw(5, generator(0))
    said = torch.where(targets > 0, 1.0, -1.0)[..., None]
    assert problem.score(said, targets) == problem.solved == 5
    said[3, 7] = -1
    assert problem.score(said, targets) == 3
    said[0, 1] = -1
    assert problem.score(said, targets) == 0


def test_the_loss_asks_at_every_b_and_nowhere_else():
    problem = counting(2)
    _, targets = problem.task(2).draw(2, generator(0))
    outputs = torch.full((2, 4, 1), 7.0)
    outputs[0, 1, 0], outputs[1, 2, 0], outputs[1, 3, 0] = 1.0, 2.0, -3.0
    wanted = torch.tensor([-1.0, 2.0, 3.0]).exp().log1p().mean()
    torch.testing.assert_close(problem.loss(outputs, targets), wanted)


@pytest.mark.parametrize("recipe", ["lstm", "gru"])
def test_a_score_is_that_of_reading_each_word_alone(recipe):
    problem = counting(10)
    network = build(recipe, (2, 6, 1), 10.0, seed=3)
    x, targets = problem.task(10).draw(10, generator(0))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
    for _ in range(150):
        optimizer.zero_grad()
        problem.loss(network(x), targets).backward()
        optimizer.step()
    far = 0
    with torch.no_grad():
        for n in range(1, 31):
            word = torch.tensor([[[1.0, 0.0]] * n + [[0.0, 1.0]] * n])
            yes = (network(word)[0, n:, 0] > 0).tolist()
            if yes != [False] * (n - 1) + [True]:
                break
            far = n
        longer, wanted = problem.task(10).draw(30, generator(0))
        assert problem.score(network(longer), wanted) == far
    assert 0 < far < 30


def test_a_module_of_zeros_leaves_the_generator():
    torch.manual_seed(1)
    wanted = torch.rand(1)
    torch.manual_seed(1)
    cell = zeroed(lambda: nn.GRUCell(2, 3))
    assert torch.equal(torch.rand(1), wanted)
    assert len(list(cell.parameters())) == 4
    assert not any(parameter.any() for parameter in cell.parameters())
