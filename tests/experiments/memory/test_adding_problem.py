"""Score and grid of the adding problem; then the small run."""

import pytest
import torch

from experiments.lab.experiment import find
from experiments.lab.record import measure
from experiments.lab.seeding import generator
from experiments.memory import adding_problem as experiment


def test_the_score_is_the_share_of_the_laws_variance():
    x, sums = experiment.draw(100_000, 12, generator(0))
    numbers, marks = x.unbind(-1)
    # Only the last step's output counts.
    outputs = torch.full((*numbers.shape, 1), 7.0)

    def score(answer):
        outputs[:, -1, 0] = answer
        return experiment.explained(outputs, sums)

    assert score(sums) == 1
    assert score(torch.ones(100_000)) == pytest.approx(0, abs=0.02)
    late = (numbers * marks)[:, 6:].sum(1)
    assert score(late + 0.5) == pytest.approx(0.5, abs=0.01)
    outputs[:, -1, 0] = sums + 0.1
    assert experiment.squared_error(outputs, sums).item() == pytest.approx(0.01)
    # A run stops where it would count as solved.
    assert 1 - 6 * experiment.ENOUGH > experiment.SOLVED


def test_the_grid_has_every_setting_once_and_chrono_is_told_the_length():
    config = experiment.FULL
    cells = experiment.cells_of(config)
    assert len(set(cells)) == len(cells) == 6 * 3 * 2 * 2
    assert all(cell.horizon == cell.lag for cell in cells)
    assert {cell.lag for cell in cells} == set(config.lengths)
    assert len(config.seeds) >= 5


@pytest.fixture(scope="module")
def record():
    return measure(find("adding_problem"))


def test_claims_hold_and_controls_fail(record):
    assert set(record["claims"]) == {"C126", "C127"}
    for identifier, claim in record["claims"].items():
        assert claim["holds"], identifier
        assert not claim["control_holds"], identifier


def test_cases_are_the_rows_taken_together(record):
    rows = record["series"]["rows"]
    assert len(rows) == 3
    for row in rows:
        case = record["cases"][f"{row['recipe']}_80"]
        assert case["runs"] == len(row["scores"]) == 2
        assert case["good"] == sum(score >= 0.9 for score in row["scores"])
    solved, explained = (
        experiment.tables(record)[name] for name in ("solved", "explained")
    )
    assert "length 80" in solved
    assert "LSTM, chrono" in explained
    config = experiment.SMALL
    settings = experiment.tables(record)["settings"].splitlines()
    assert settings[0].endswith("| width | learning rate | length 80 |")
    each = len(config.hidden_sizes) * len(config.learning_rates)
    assert len(settings) == 2 + each * len(config.recipes)
