"""What is timed is the same computation, and what is counted is counted right."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from experiments.lab import timer
from experiments.lab.experiment import find
from experiments.lab.record import judgements, measure
from experiments.speed import _padding_batching as batching
from experiments.speed import _padding_order as order
from experiments.speed import _padding_packing as packing
from experiments.speed import _timing as timing
from experiments.speed import padding_cost as experiment

SMALL = experiment.SMALL


@pytest.fixture(scope="module")
def record():
    # The clock of the tests: what is timed may be small.
    small = replace(SMALL, sizes=((4, 8, 4),), rounds=2)
    return measure(replace(find("padding_cost"), small=small))


@pytest.mark.parametrize("claim", [c.id for c in experiment.CLAIMS if not c.timed])
def test_claim_holds_and_control_fails(record, claim):
    judged = record["claims"][claim]
    assert judged["holds"]
    assert not judged["control_holds"]
    assert judgements(find("padding_cost"), record["cases"])[claim] == judged


def test_tables_have_a_row_for_each_case(record):
    tables = experiment.tables(record)
    assert tables["packing"].count("\n") == 2 + len(SMALL.shares)
    assert tables["batching"].count("\n") == 2 + 3 + len(SMALL.bucket_widths)


@pytest.mark.parametrize("share", [1.0, 0.97, 0.75, 0.5, 0.25, 0.1])
def test_lengths_have_the_share_that_they_are_drawn_for(share):
    for batch, time in ((64, 100), (32, 64), (32, 128)):
        lengths = packing.lengths_of(share, batch, time)
        assert len(lengths) == batch
        assert lengths.max() == lengths[0] == time
        assert lengths.min() >= 1
        assert lengths.double().mean() / time == pytest.approx(share, abs=0.004)
        assert (len(lengths.unique()) == 1) == (share == 1)


def test_packed_and_padded_runs_give_the_same_real_outputs():
    torch.manual_seed(0)
    layer = nn.LSTM(3, 5, batch_first=True, dtype=torch.float64)
    x, lengths = torch.randn(4, 9, 3, dtype=torch.float64), torch.tensor([9, 4, 1, 6])
    found, padded = packing.packed_output(layer, x, lengths), layer(x)[0]
    assert found.shape == padded.shape
    real = torch.arange(9) < lengths[:, None]
    torch.testing.assert_close(found[real], padded[real], atol=1e-12, rtol=0)
    assert found[~real].eq(0).all()


def calls(run):
    with torch.profiler.profile() as profile:
        run()
    return {event.key: event.count for event in profile.key_averages()}


# torch 2.11 warns so whenever its profiler is used with its defaults; 2.13 does not.
@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events:UserWarning")
@pytest.mark.parametrize("name", timing.SETTINGS)
def test_only_the_padded_batch_gets_the_kernel_of_onednn(name):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no oneDNN")
    lengths = packing.lengths_of(0.5, 4, 30)
    with timing.setting(name, 1, "cpu"):
        runs = packing.contestants((4, 30, 8), lengths, 0, "cpu")
        padded, packed = calls(runs["padded"]), calls(runs["packed"])
    assert ("aten::mkldnn_rnn_layer" in padded) == timing.SETTINGS[name]
    assert "aten::mkldnn_rnn_layer" not in packed
    assert packed["aten::addmm"] >= 30, "one product or more for a step"


@pytest.mark.parametrize("name", timing.SETTINGS)
def test_a_setting_holds_inside_and_is_put_back(name):
    before = torch.get_num_threads(), torch.backends.mkldnn.enabled
    with timing.setting(name, 2, "cpu"):
        inside = torch.get_num_threads(), torch.backends.mkldnn.enabled
        assert inside == (2, timing.SETTINGS[name])
    assert (torch.get_num_threads(), torch.backends.mkldnn.enabled) == before


@pytest.mark.parametrize(
    ("threads", "read", "other"), [(1, "processor", "wall"), (2, "wall", "processor")]
)
def test_ratios_are_of_one_round(monkeypatch, clock, threads, read, other):
    """By a clock of our own; the second contestant is three times as slow."""
    monkeypatch.setattr(timer, read, clock)
    monkeypatch.setattr(timer, other, None)
    # The first call of each is the one that warms up.
    runs = {"base": clock.taking(9, 1, 2, 4), "slow": clock.taking(9, 3, 6, 12)}
    found = timing.ratios(runs, "base", 3, threads, "cpu")
    assert found == {"slow": {"median": 3.0, "low": 3.0, "high": 3.0}}


def test_a_training_step_makes_all_gradients(monkeypatch):
    made = []
    grad = torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *a: made.append(grad(*a)) or made[-1]
    )
    packing.contestants((2, 3, 4), torch.tensor([3, 1]), 0, "cpu")["packed"]()
    assert [tuple(g.shape) for g in made[0]] == [
        (2, 3, 4),
        (16, 4),
        (16, 4),
        (16,),
        (16,),
    ]


def test_rows_by_packer():
    assert order.places(order.by_default, 3) == {"refused": 1, "at_their_place": 0.0}
    assert order.places(order.told, 3) == {"refused": 0, "at_their_place": 1.0}
    assert order.places(order.by_hand, 3)["at_their_place"] < 0.1


def test_rows_sorted_by_hand_are_restored_by_the_inverse_order():
    x, lengths = order.batch_of(9, 7, 0)
    layer = nn.LSTM(order.INPUT, 5, batch_first=True, dtype=torch.float64)
    given = lengths.argsort(descending=True, stable=True)
    (h, _), (right, _) = (layer(f(x, lengths))[1] for f in (order.by_hand, order.told))
    torch.testing.assert_close(h[:, given.argsort()], right, atol=1e-12, rtol=0)


@pytest.mark.parametrize("layers", [1, 2])
def test_what_a_bidirectional_classifier_reads(layers):
    found = order.readings(layers, 5)
    assert found["packed"] < 1e-12
    assert found["not_packed"] > 1e-3
    # One layer's first entries are its last.
    assert (found["first_entries"] < 1e-12) == (layers == 1)


def test_ways_of_batching_by_hand():
    lengths = torch.tensor([1, 5, 6, 10, 3])
    random = torch.Generator().manual_seed(0)
    found = batching.fixed_buckets(lengths, 5, 2, random)
    assert sorted(sorted(rows) for rows in found if len(rows) == 2)[-1] == [2, 3]
    assert sorted(row for rows in found for row in rows) == list(range(5))
    low = {row for rows in found for row in rows if {row} <= {0, 1, 4}}
    assert low == {0, 1, 4}
    assert all(set(rows) <= low or not set(rows) & low for rows in found)
    assert sorted(map(len, found)) == [1, 2, 2]
    # All variance within one batch, or all of it between batches of one.
    assert batching.between(lengths, [[0, 1, 2, 3, 4]]) == pytest.approx(0)
    assert batching.between(lengths, [[row] for row in range(5)]) == 1
    assert batching.between(lengths, [[0, 1, 4], [2, 3]]) == pytest.approx(1 - 16 / 46)


def test_batches_hold_every_row_once_and_what_they_say():
    config = replace(SMALL, rows=200, bucket_widths=(1, 5))
    lengths = batching.skewed_lengths(200, 0)
    found = batching.ways(config, 0)
    assert found == batching.ways(config, 0)
    assert found["width_1"]["padding"] == 0
    assert found["tokens"]["most_steps"] <= config.max_tokens
    assert found["sorted"]["batches"] == found["random"]["batches"] == 7
    assert lengths.min() >= 1
    for way in found.values():
        assert 0 <= way["between"] <= 1
