"""What a search costs beside its model, and that the searches are of equal beams."""

import pytest
import torch

from experiments.speed import _beam_peers as peers
from experiments.speed import beam_speed as experiment

SMALL = experiment.experiment.small
SIZE = SMALL.sizes[0]


def test_the_model_says_the_same_of_a_prefix_by_steps_and_as_a_whole():
    table, _ = experiment.model_of(SMALL, SIZE, steps=6)
    tokens = torch.randint(50, (5, 6), generator=torch.Generator().manual_seed(0))
    state = table.initial_state(5)
    for t in range(6):
        logits, state = table.step(tokens[:, t], state)
        assert torch.equal(logits, table.read(tokens[:, : t + 1]))
    # Every token of a prefix counts.
    for t in range(6):
        other = tokens.clone()
        other[:, t] = (other[:, t] + 1) % 50
        assert not torch.equal(table.read(other), logits)


def test_every_call_of_the_model_is_kept_and_can_be_made_again():
    runs = experiment.searches(SMALL, SIZE, steps=6)
    assert set(runs) == {"generate", "ours", "plain"}
    last = {}
    for name, (table, search) in runs.items():
        calls = experiment.calls_of(table, search)
        assert len(calls) == 6
        assert table.calls is None
        last[name] = calls[-1]()
    # All searches ask for the same beams, those of `generate` in an order of its own.
    assert torch.equal(last["ours"][0], last["plain"])
    theirs = last["generate"].logits[:, 0]
    assert torch.equal(theirs.sort(dim=0).values, last["plain"].sort(dim=0).values)


def test_an_overhead_is_the_time_without_that_of_the_model(monkeypatch, clock):
    """A model of 2 seconds in searches of 3 and of 5 seconds: 1 and 3 are left."""
    table, _ = experiment.model_of(SMALL, SIZE, steps=6)
    monkeypatch.setattr(experiment, "calls_of", lambda *run: [clock.taking(2.0)])
    runs = {"base": (table, clock.taking(3.0)), "slow": (table, clock.taking(5.0))}
    values = experiment.overheads(runs, "base", 3)
    assert values == {"base": [1.0] * 3, "slow": [3.0] * 3, "again": [1.0] * 3}
    ratios = experiment.ratios_to("base", values)
    assert ratios["slow"]["median"] == pytest.approx(3.0)


def test_rows_are_equal_by_tokens_order_and_scores():
    first, second = ((1, 0), -1.0), ((2, 0), -2.0)
    assert peers.equal_rows([[first, second]], [[first, second]]) == 1
    assert peers.equal_rows([[first, second]], [[second, first]]) == 0
    assert peers.equal_rows([[first]], [[((1, 0), -1.1)]]) == 0
    assert peers.equal_rows([[first], [second]], [[first], [first]]) == 0.5
