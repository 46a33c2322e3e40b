"""Delayed recall over widths: the grid, its pools and its table; the small run."""

import pytest

from experiments.lab.experiment import find
from experiments.lab.record import measure
from experiments.memory import delayed_recall as narrow
from experiments.memory import delayed_recall_width as experiment
from experiments.memory._sweep import select


@pytest.fixture(scope="module")
def record():
    return measure(find("delayed_recall_width"))


def test_claims_hold_and_controls_fail(record):
    assert set(record["claims"]) == {"C147.width", "C147.chrono"}
    for identifier, claim in record["claims"].items():
        assert claim["holds"], identifier
        assert not claim["control_holds"], identifier


def test_the_grid_is_wider_than_the_other_and_else_the_same():
    wide, other = experiment.FULL, narrow.FULL
    for name in ("updates", "batch_size", "tests", "seeds"):
        assert getattr(wide, name) == getattr(other, name)
    assert wide.lag in other.lags
    assert set(wide.hidden_sizes) & set(other.hidden_sizes)
    assert max(wide.hidden_sizes) > max(other.hidden_sizes)
    assert max(wide.learning_rates) > max(other.learning_rates)


def test_a_case_takes_the_rates_of_one_width_together(record):
    config, rows = experiment.SMALL, record["series"]["rows"]
    cells = len(config.recipes) * len(config.hidden_sizes)
    assert len(rows) == cells * len(config.learning_rates)
    for row in rows:
        same = select(rows, recipe=row["recipe"], hidden_size=row["hidden_size"])
        case = record["cases"][f"{row['recipe']}_{row['hidden_size']}"]
        assert case["good"] == sum(other["good"] for other in same)
        assert (row["horizon"], row["updates"]) == (config.lag, config.updates)


def test_the_table_has_each_rate_and_all_together(record):
    text = experiment.tables(record)["solved"].replace("\N{NO-BREAK SPACE}", " ")
    lines, rows = text.splitlines(), record["series"]["rows"]
    rates = len(experiment.SMALL.learning_rates)
    assert len(lines) == 2 + (rates + 1) * len(experiment.SMALL.recipes)
    assert lines[0].endswith("| width 32 | width 256 |")
    row = select(rows, recipe="lstm", hidden_size=256)[-1]
    runs = len(row["scores"])
    assert lines[1 + rates].endswith(f"| {row['good']} of {runs} |")
    together = record["cases"]["lstm_32"]
    expected = f"| LSTM, default | all | {together['good']} of {together['runs']}<br>("
    assert lines[2 + rates].startswith(expected)
