"""Reach, the counter set by hand and the pools; then the small run."""

import pytest
import torch
from torch import nn

from experiments.lab.experiment import find
from experiments.lab.record import measure
from experiments.lab.seeding import generator
from experiments.memory import _counters as counters
from experiments.memory import counting_lengths as experiment
from experiments.memory._networks import build
from seqref.tasks.counting import counting_words


def test_reach_stops_at_the_first_wrong_word():
    _, targets, _ = counting_words(range(1, 6))
    said = torch.where(targets > 0, 1.0, -1.0)[..., None]
    assert experiment.reach(said, targets) == 5
    said[3, 7] = -1
    assert experiment.reach(said, targets) == 3
    said[0, 1] = -1
    assert experiment.reach(said, targets) == 0


@pytest.mark.parametrize("recipe", ["lstm", "gru"])
def test_reach_is_that_of_the_other_experiment_on_counting(recipe):
    network = build(recipe, 2, 6, 1, 10.0, seed=3)
    x, targets, _ = counting_words(range(1, 11))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
    for _ in range(150):
        optimizer.zero_grad()
        experiment.loss(network(x), targets).backward()
        optimizer.step()
    with torch.no_grad():
        longer, wanted = experiment.draw(30, 10, generator(0))
        found = experiment.reach(network(longer), wanted)
    layer = {"lstm": nn.LSTM, "gru": nn.GRU}[recipe](2, 6, batch_first=True)
    with torch.no_grad():
        for name, parameter in network.layer.named_parameters():
            target = name.rpartition(".")[2] + "_l0"
            dict(layer.named_parameters())[target].copy_(parameter)
        good = counters.try_layer(layer, network.head, 30)
    assert found == counters.reach(good)
    assert found > 0


def test_the_counter_set_by_hand_counts():
    assert experiment.hand_made(120) == 120


def test_a_pool_counts_those_who_know_the_words_shown_and_twice_that():
    rows = [{"scores": [4.0, 10.0]}, {"scores": [19.0, 20.0, 31.0]}]
    case = experiment.pool_reach(rows, experiment.SMALL)
    assert case["runs"] == 5
    assert case["knows"]["share"] == 0.8
    assert case["twice"]["share"] == 0.4
    assert case["reach"] == {"median": 19.0, "low": 4.0, "high": 31.0}
    assert case["mean"]["mean"] == pytest.approx(16.8)


@pytest.mark.parametrize("config", [experiment.SMALL, experiment.FULL])
def test_trained_networks_could_pass_what_the_one_set_by_hand_passes(config):
    # The trial ends at `try_to`: no mean can hold a check that asks for it.
    (claim,) = (claim for claim in experiment.CLAIMS if claim.id == "C129")
    rows = [{"scores": [config.try_to, config.train_to, config.train_to]}]
    assert claim.check(experiment.pool_reach(rows, config)).holds
    rows = [{"scores": [2.0 * config.train_to] * 3}]
    assert not claim.check(experiment.pool_reach(rows, config)).holds


@pytest.fixture(scope="module")
def record():
    return measure(find("counting_lengths"))


def test_claims_hold_and_controls_fail(record):
    assert set(record["claims"]) == {"C128", "C129"}
    for identifier, claim in record["claims"].items():
        assert claim["holds"], identifier
        assert not claim["control_holds"], identifier


def test_every_run_made_all_its_updates(record):
    updates = experiment.SMALL.updates
    for row in record["series"]["rows"]:
        assert set(row["made"]) == {updates}
