"""Delayed recall with more updates, with noise, and with a horizon that is off."""

import re
from dataclasses import replace

from experiments.lab.experiment import find
from experiments.memory import delayed_recall_conditions as experiment
from experiments.memory._recall import recall
from experiments.memory._sweep import measure_run
from experiments.memory._training import Cell

EXPERIMENT = find("delayed_recall_conditions")


def test_a_run_with_a_lower_limit_is_the_beginning_of_the_longer_one():
    cell = Cell("rnn_orthogonal", 16, 0.01, 10, 200, 10)
    long = measure_run(recall(), cell, 8, 32, 0)
    assert 20 < long[1] < 200
    at, before = (
        measure_run(recall(), replace(cell, updates=limit), 8, 32, 0)
        for limit in (long[1] + 1, long[1] - 1)
    )
    assert at == long
    assert before[1] == long[1] - 1


def test_what_had_stopped_by_an_update_is_counted():
    rows = [
        {"made": [50, 200, 300], "updates": 300},
        {"made": [250, 900, 1000], "updates": 1000},
    ]
    counts = {n: experiment.good_by(rows, n)["good"] for n in (49, 50, 300, 900, 5000)}
    # Three hundred of 300 and a thousand of 1,000 are limits, not stops.
    assert counts == {49: 0, 50: 1, 300: 3, 900: 4, 5000: 4}
    pooled = experiment.good_by(rows, 300)
    assert pooled["runs"] == 6
    assert pooled["share"]["share"] == 0.5


def test_each_part_changes_one_thing():
    config = replace(EXPERIMENT.small, updates=2, seeds=(0,), long_lag=7, early=3)
    config = replace(config, long=(("rnn", 0.01, 3), ("rnn", 0.02, 5)))
    result = EXPERIMENT.result(config)
    series = result["series"]
    for row in series["noise"]:
        assert (row["horizon"], row["updates"]) == (row["lag"], 2)
    for row in series["horizon"]:
        assert (row["recipe"], row["updates"]) == ("lstm_chrono", 2)
    for row in series["long"]:
        assert row["horizon"] == row["lag"] == 7
    assert [row["updates"] for row in series["long"]] == [3, 5]
    assert {row["horizon"] for row in series["horizon"]} == set(config.horizons)
    assert all(row["hidden_size"] == 32 for rows in series.values() for row in rows)
    # The longest limit is that of one line, the early one of both.
    assert result["cases"]["rnn_long"]["updates"] == 5
    assert result["cases"]["rnn_long"]["runs"] == 1
    assert result["cases"]["rnn_early"]["runs"] == 2


def test_noise_is_in_its_own_part_alone(monkeypatch):
    noises = []
    monkeypatch.setattr(experiment, "recall", noises.append)
    monkeypatch.setattr(experiment, "sweep", lambda *arguments: [])
    EXPERIMENT.result(EXPERIMENT.small)
    assert noises == [0.0, 1.0, 0.0]


def test_a_table_tells_which_limit_a_line_had():
    rows = [
        {"recipe": "rnn", "learning_rate": 0.01, "made": [20, 40], "updates": 40},
        {"recipe": "gru", "learning_rate": 0.01, "made": [35, 50], "updates": 60},
    ]
    series = {"long": rows, "noise": [], "horizon": []}
    config = {"updates": 30, "early": 40}
    record = {"series": series, "run": {"config": config}}
    text = EXPERIMENT.tables["long"].text(record).replace("\N{NO-BREAK SPACE}", " ")
    lines = [
        re.findall(r"\d of 2|by update \d+|\|  \|", line) for line in text.split("\n")
    ]
    assert lines[0] == ["by update 30", "by update 40", "by update 60"]
    assert lines[2] == ["1 of 2", "1 of 2", "|  |"]
    assert lines[3] == ["0 of 2", "1 of 2", "2 of 2"]
