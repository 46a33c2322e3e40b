"""What is timed is the same computation, and what is counted is counted right."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from experiments.lab.experiment import find
from experiments.lab.record import measure
from experiments.speed import _padding_batching as batching
from experiments.speed import _padding_order as order

SMALL = find("padding_cost").small


def test_tables_have_a_row_for_each_case():
    # The clock of the tests: what is timed may be small.
    small = replace(SMALL, sizes=((4, 8, 4),), rounds=2)
    record = measure(replace(find("padding_cost"), small=small))
    tables = find("padding_cost").rendered(record)
    assert tables["packing"].count("\n") == 2 + len(SMALL.shares)
    assert tables["batching"].count("\n") == 2 + 3 + len(SMALL.bucket_widths)
    rows = record["series"]["packing"]
    assert len(rows) == 2 * len(SMALL.shares)
    for row in rows:
        for ratio in row["ratios"].values():
            assert ratio["low"] == ratio["median"] == ratio["high"] == 1
    judged = record["claims"]["C76"]
    assert judged["number"] == judged["control_number"] == 1


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
    readings = order.readings(layers, 5)
    assert readings["packed"] < 1e-12
    assert readings["not_packed"] > 1e-3
    # One layer's first entries are its last.
    assert (readings["first_entries"] < 1e-12) == (layers == 1)


def test_ways_of_batching_by_hand():
    lengths = torch.tensor([1, 5, 6, 10, 3])
    random = torch.Generator().manual_seed(0)
    batches = batching.fixed_buckets(lengths, 5, 2, random)
    assert sorted(sorted(rows) for rows in batches if len(rows) == 2)[-1] == [2, 3]
    assert sorted(row for rows in batches for row in rows) == list(range(5))
    low = {row for rows in batches for row in rows if {row} <= {0, 1, 4}}
    assert low == {0, 1, 4}
    assert all(set(rows) <= low or not set(rows) & low for rows in batches)
    assert sorted(map(len, batches)) == [1, 2, 2]
    # All variance within one batch, or all of it between batches of one.
    assert batching.between(lengths, [[0, 1, 2, 3, 4]]) == pytest.approx(0)
    assert batching.between(lengths, [[row] for row in range(5)]) == 1
    assert batching.between(lengths, [[0, 1, 4], [2, 3]]) == pytest.approx(1 - 16 / 46)


def test_batches_hold_every_row_once_and_what_they_say():
    config = replace(SMALL, rows=200, bucket_widths=(1, 5))
    lengths = batching.skewed_lengths(200, 0)
    ways = batching.ways(config, 0)
    assert ways == batching.ways(config, 0)
    assert ways["width_1"]["padding"] == 0
    assert ways["tokens"]["most_steps"] <= config.max_tokens
    assert ways["sorted"]["batches"] == ways["random"]["batches"] == 7
    assert lengths.min() >= 1
    for way in ways.values():
        assert 0 <= way["between"] <= 1
