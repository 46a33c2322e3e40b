"""Tables of answers and the grid of the copying problem; then the small run."""

import math

import pytest
import torch

from experiments.lab.experiment import find
from experiments.lab.record import measure
from experiments.lab.seeding import generator
from experiments.memory import copying_memory as experiment


def test_the_loss_of_a_table_by_hand():
    # Key 0 is answered 1, 1, 2; key 1 always 0.
    key = torch.tensor([[0, 0, 0, 1]])
    targets = torch.tensor([[1, 1, 2, 0]])
    expected = -(2 * math.log(2 / 3) + math.log(1 / 3)) / 4
    assert experiment.table_loss(key, targets, 3) == pytest.approx(expected, rel=1e-12)


def test_tables_reach_their_laws():
    found = experiment.measure_tables(30, 4000)
    for case in found.values():
        assert case["loss"] == pytest.approx(case["law"], rel=0.003)
    assert found["by_input"]["law"] > 2 * found["by_time"]["law"]
    # With no blank before the delimiter the input tells the time.
    nothing_to_wait = experiment.measure_tables(1, 2000)
    ratio = nothing_to_wait["by_input"]["law"] / nothing_to_wait["by_input"]["blind"]
    assert ratio == pytest.approx(1, rel=1e-12)


def test_the_score_counts_the_symbols_alone():
    config = experiment.SMALL
    problem = experiment.problem(config)
    x, targets = problem.draw(400, 10, generator(0))
    assert x.shape == (400, 16, problem.input_size)
    right = torch.nn.functional.one_hot(targets, problem.output_size).float()
    assert problem.score(right, targets) == 1
    assert problem.loss(50 * right, targets).item() < 1e-6
    half = right.clone()
    half[:, -1] = 0
    half[:, -1, config.symbols] = 1
    assert problem.score(half, targets) == pytest.approx(2 / 3)
    # What is written before the delimiter changes the loss and not the score.
    early = right.clone()
    early[:, 0] = early[:, 0].roll(1, dims=-1)
    assert problem.score(early, targets) == 1
    assert problem.loss(50 * early, targets) > 1


def test_the_grid_has_every_setting_once():
    config = experiment.FULL
    cells = experiment.cells_of(config)
    assert len(set(cells)) == len(cells) == 5 * 3 * 2 * 2
    assert {cell.horizon / (cell.lag + 3) for cell in cells} == {1.5}
    assert len(config.seeds) >= 5


@pytest.fixture(scope="module")
def record():
    return measure(find("copying_memory"))


def test_claims_hold_and_controls_fail(record):
    assert set(record["claims"]) == {"C132", "C133"}
    for identifier, claim in record["claims"].items():
        assert claim["holds"], identifier
        assert not claim["control_holds"], identifier


def test_tables_name_both_losses(record):
    found = experiment.tables(record)["baselines"]
    assert "blind" in found
    assert "memoryless" in found
    assert "0.4517" in found
