"""Delayed recall with more updates, with noise, and with a horizon that is off."""

import dataclasses

import pytest

from experiments.lab.experiment import find
from experiments.lab.record import judgements, measure
from experiments.memory import delayed_recall_conditions as experiment
from experiments.memory._recall import recall
from experiments.memory._sweep import Cell, measure_run
from experiments.memory._training import Schedule


@pytest.fixture(scope="module")
def record():
    return measure(find("delayed_recall_conditions"))


def test_claims_hold_and_controls_fail(record):
    assert set(record["claims"]) == {"C123", "C124", "C125"}
    for identifier, claim in record["claims"].items():
        assert claim["holds"], identifier
        assert not claim["control_holds"], identifier


def test_claims_can_be_judged_again_from_the_record(record):
    found = find("delayed_recall_conditions")
    assert judgements(found, record["cases"]) == record["claims"]


def test_a_run_with_a_lower_limit_is_the_beginning_of_the_longer_one():
    problem, schedule = recall(), Schedule(batch_size=8, tests=32)
    cell = Cell("rnn_orthogonal", 16, 0.01, 10, 200, 10)
    long = measure_run(problem, cell, schedule, 0)
    assert 20 < long.updates < 200
    at, before = (
        measure_run(problem, dataclasses.replace(cell, updates=limit), schedule, 0)
        for limit in (long.updates + 1, long.updates - 1)
    )
    assert at == long
    assert before.updates == long.updates - 1


def test_what_had_stopped_by_an_update_is_counted():
    rows = [
        {"made": [50, 200, 300], "updates": 300},
        {"made": [250, 900, 1000], "updates": 1000},
    ]
    counts = {n: experiment.good_by(rows, n)["good"] for n in (49, 50, 300, 900, 5000)}
    # Three hundred of 300 and a thousand of 1,000 are limits, not stops.
    assert counts == {49: 0, 50: 1, 300: 3, 900: 4, 5000: 4}
    found = experiment.good_by(rows, 300)
    assert found["runs"] == 6
    assert found["share"]["share"] == 0.5


def test_each_part_changes_one_thing(record):
    config = experiment.SMALL
    for row in record["series"]["noise"]:
        assert (row["horizon"], row["updates"]) == (row["lag"], config.updates)
    for row in record["series"]["horizon"]:
        assert (row["recipe"], row["updates"]) == ("lstm_chrono", config.updates)
    for row in record["series"]["long"]:
        assert row["horizon"] == row["lag"] == config.long_lag
    horizons = {row["horizon"] for row in record["series"]["horizon"]}
    assert horizons == set(config.horizons)


def test_tables_tell_which_limit_a_line_had(record):
    tables = find("delayed_recall_conditions").tables(record)
    assert set(tables) == {"long", "noise", "horizon"}
    assert f"by update {experiment.SMALL.early}" in tables["long"]
    assert tables["noise"].count("\n") == 2 + len(experiment.SMALL.noise_recipes)
    assert tables["horizon"].count("\n") == 2 + len(experiment.SMALL.horizons)
