"""The counter set by hand and the pools of reaches."""

from dataclasses import replace

import pytest

from experiments.lab.experiment import find
from experiments.memory import counting_lengths as experiment

EXPERIMENT = find("counting_lengths")


def test_the_counter_set_by_hand_counts():
    assert experiment.hand_made(120) == 120


def test_a_pool_counts_those_who_know_the_words_shown_and_twice_that():
    rows = [{"scores": [4.0, 10.0]}, {"scores": [19.0, 20.0, 31.0]}]
    case = experiment.pool_reach(rows, shown=10)
    assert case["runs"] == 5
    assert case["knows"]["share"] == 0.8
    assert case["twice"]["share"] == 0.4
    assert case["reach"] == {"median": 19.0, "low": 4.0, "high": 31.0}
    assert case["mean"]["mean"] == pytest.approx(16.8)


@pytest.mark.parametrize("config", [EXPERIMENT.small, EXPERIMENT.full])
def test_trained_networks_could_pass_what_the_one_set_by_hand_passes(config):
    # The trial ends at `try_to`: no mean can hold a check that asks for it.
    (claim,) = (claim for claim in EXPERIMENT.claims if claim.id == "C129")
    rows = [{"scores": [config.try_to, config.train_to, config.train_to]}]
    assert claim.check(experiment.pool_reach(rows, config.train_to)).holds
    rows = [{"scores": [2.0 * config.train_to] * 3}]
    assert not claim.check(experiment.pool_reach(rows, config.train_to)).holds


def test_every_run_makes_all_its_updates_on_the_words_of_training():
    config = replace(EXPERIMENT.small, updates=3, seeds=(0, 1), train_to=4, try_to=6)
    for row in EXPERIMENT.result(config)["series"]["rows"]:
        assert row["made"] == [3, 3]
        assert row["lag"] == row["horizon"] == 4
        assert all(0 <= score <= 6 for score in row["scores"])
