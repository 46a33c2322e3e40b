"""What a token costs behind a prompt: how it is counted, and that it grows."""

import json
from pathlib import Path

import pytest

from experiments.speed import kv_cache_speed as experiment

RECORD = Path(__file__).parents[3] / "docs" / "_data" / "kv_cache_speed.json"


def test_a_token_is_what_a_long_call_costs_beyond_one_of_a_single_token(clock):
    """3 seconds for five tokens and 1 for one: half a second for each of four."""
    calls = {1: clock.taking(1.0), 5: clock.taking(3.0)}
    writers = {"generate": lambda count: calls[count]()}
    values = experiment.per_token(writers, 4, 2)
    assert values["generate"] == pytest.approx([0.5, 0.5])


def test_a_token_costs_more_behind_a_longer_prompt():
    """And not without the prompt, on the same models."""
    rows = json.loads(RECORD.read_text(encoding="utf-8"))["series"]["rows"]
    short, _, long = (row["millis"] for row in rows[:3])
    assert [row["size"][3] for row in rows[:3]] == [128, 1024, 4096]
    assert long["ours"] > 1.2 * short["ours"]
    assert long["blind"] < 1.2 * short["blind"]
