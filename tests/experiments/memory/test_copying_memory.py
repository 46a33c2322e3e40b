"""Tables of answers, score and horizon of the copying problem."""

import math
from dataclasses import replace

import pytest
import torch

from experiments.lab.experiment import find
from experiments.lab.seeding import generator
from experiments.memory import copying_memory as experiment


def test_the_loss_of_a_table_by_hand():
    # Key 0 is answered 1, 1, 2; key 1 always 0.
    key = torch.tensor([[0, 0, 0, 1]])
    targets = torch.tensor([[1, 1, 2, 0]])
    expected = -(2 * math.log(2 / 3) + math.log(1 / 3)) / 4
    assert experiment.table_loss(key, targets, 3) == pytest.approx(expected, rel=1e-12)


def test_tables_reach_their_laws():
    tables = experiment.measure_tables(30, 4000)
    for case in tables.values():
        assert case["loss"] == pytest.approx(case["law"], rel=0.003)
    assert tables["by_input_30"]["law"] > 2 * tables["by_time_30"]["law"]
    # With no blank before the delimiter the input tells the time.
    no_wait = experiment.measure_tables(1, 2000)["by_input_1"]
    assert no_wait["law"] == pytest.approx(no_wait["blind"], rel=1e-12)


def test_the_score_counts_the_symbols_alone():
    config = find("copying_memory").small
    problem = experiment.problem(config)
    x, targets = problem.task(10).draw(400, generator(0))
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


def test_chrono_is_told_the_way_of_a_symbol_and_half_more():
    small = find("copying_memory").small
    config = replace(small, lags=(4, 9), updates=1, seeds=(0,), table_lags=(2,))
    result = find("copying_memory").result(config)
    rows = result["series"]["rows"]
    assert {row["lag"]: row["horizon"] for row in rows} == {4: 10.5, 9: 18}
    names = {f"{recipe}_{lag}" for recipe in config.recipes for lag in config.lags}
    assert set(result["cases"]) == names | {"by_input_2", "by_time_2"}
