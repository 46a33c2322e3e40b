"""What the kinds of models read: with and without a memory the same segments."""

from itertools import islice, pairwise

import pytest
import torch

from experiments.attention import _context_models as models
from experiments.attention import effective_context
from experiments.lab.seeding import generator

CONFIG = effective_context.Config(segment=4, length=8, runs=2, characters=12)


def drawn(name, count):
    tokens = torch.arange(1000)
    found = models.chunks(CONFIG, models.KINDS[name], tokens, generator(0))
    return list(islice(found, count))


def test_both_kinds_with_segments_learn_from_the_same_rows():
    carried, dropped = drawn("segment", 9), drawn("vanilla", 9)
    for (one, _), (other, _) in zip(carried, dropped, strict=True):
        assert torch.equal(one, other)
    assert [goes_on for _, goes_on in carried] == [False, True, True, True] * 2 + [
        False
    ]
    assert not any(goes_on for _, goes_on in dropped)


def test_segments_follow_each_other_and_streams_start_anew():
    rows = [row for row, _ in drawn("segment", 5)]
    assert rows[0].shape == (3, 5)
    for before, after in pairwise(rows[:4]):
        assert torch.equal(after, before + 4)
    assert not torch.equal(rows[4], rows[3] + 4)


@pytest.mark.parametrize("name", ["full", "window"])
def test_whole_rows_are_drawn_anew(name):
    (one, first), (other, second) = drawn(name, 2)
    assert one.shape == (1, 9)
    assert not first
    assert not second
    assert not torch.equal(other, one + 8)


def test_keys_of_a_query_as_a_mask_has_them():
    seen = effective_context.keys_seen(effective_context.Config())
    assert seen == {
        "full": None,
        "window": (16, 16),
        "segment": (17, 32),
        "vanilla": (1, 16),
        "long": (65, 80),
    }
    assert effective_context.keys_cell({"keys": None}) == "all before it"
    assert effective_context.keys_cell({"keys": [16, 16]}) == "16"
    assert effective_context.keys_cell({"keys": [17, 32]}) == "17 to 32"
