"""Delayed recall: the grid, the counts, and the claims of the small run."""

import dataclasses

import pytest
import torch

from experiments.lab.experiment import find
from experiments.lab.record import judgements, measure
from experiments.memory import delayed_recall as experiment
from experiments.memory._recall import accuracy, loss_at_the_end, recall
from experiments.memory._sweep import pool, select

IDS = {"C15", "C33", "C120", "C121", "C122.near", "C122.far"}


@pytest.fixture(scope="module")
def record():
    return measure(find("delayed_recall"))


def test_claims_hold_and_controls_fail(record):
    assert set(record["claims"]) == IDS
    for identifier, claim in record["claims"].items():
        assert claim["holds"], identifier
        assert not claim["control_holds"], identifier


def test_claims_can_be_judged_again_from_the_record(record):
    found = find("delayed_recall")
    assert judgements(found, record["cases"]) == record["claims"]


def test_no_claim_holds_when_nothing_is_learned():
    """With a step of 0 only the statements on failure are left."""
    config = dataclasses.replace(
        experiment.SMALL, learning_rates=(0.0,), updates=1, seeds=(0,)
    )
    cases = experiment.run(config)["cases"]
    held = {c.id for c in experiment.CLAIMS if c.check(cases[c.case]).holds}
    assert held == {"C121", "C122.far"}
    for claim in experiment.CLAIMS:
        if claim.id in held:
            assert claim.check(cases[claim.control]).holds, claim.id


def test_the_grid_has_each_setting_once():
    cells = experiment.cells_of(experiment.FULL)
    assert len(set(cells)) == len(cells) == 8 * 4 * 2 * 2
    for cell in cells:
        assert cell.horizon == cell.lag
        assert cell.updates == 300


def test_numbers_are_those_of_the_rows(record):
    numbers, rows = record["numbers"], record["series"]["rows"]
    assert numbers["runs"] == sum(len(row["scores"]) for row in rows)
    found = pool(select(rows, recipe="lstm_chrono", lag=100))
    assert numbers["lstm_chrono_100_good"] == found["good"]
    assert numbers["lstm_chrono_100_low"] == f"{100 * found['share']['low']:.0f}"
    for recipe in experiment.SMALL.recipes:
        reached = [r["lag"] for r in select(rows, recipe=recipe) if r["good"]]
        assert numbers[f"{recipe}_longest"] == max([0, *reached])


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
    x, symbols = problem.draw(64, 5, torch.Generator().manual_seed(0))
    assert x.shape == (64, 6, problem.input_size)
    assert torch.equal(x[:, 0].argmax(-1), symbols)
    assert (x[:, 1:].std() > 0.5) == (noise > 0)
    assert 0 < problem.enough < 0.69 < problem.solved < 1


def test_tables_have_a_line_for_each_of_their_recipes(record):
    tables = find("delayed_recall").tables(record)
    lines = {name: len(text.splitlines()) - 2 for name, text in tables.items()}
    assert lines == {"plain": 3, "gated": 3, "accuracy": 5, "settings": 5}
    assert "LSTM, default" in tables["plain"]
    assert "LSTM, forget bias 1" in tables["gated"]
