"""What is timed is the same work."""

from dataclasses import replace

import pytest
import torch

from experiments.bptt import bptt_checkpoint_time as experiment
from experiments.bptt._job import KINDS
from experiments.lab import timing
from experiments.lab.experiment import find
from experiments.lab.record import measure


@pytest.mark.parametrize("form", experiment.FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_contestants_compute_the_same_gradients(kind, form):
    config = experiment.Config(2, (4,), 9, 3)
    runs = experiment.contestants(config, kind, form, 4)
    assert list(runs) == ["full", "checkpointed"]
    full, checkpointed = (contestant.run() for contestant in runs.values())
    for mine, true in zip(checkpointed, full, strict=True):
        torch.testing.assert_close(mine, true, atol=1e-4, rtol=1e-4)


def test_where_all_takes_equally_long_the_claim_falls():
    tiny = experiment.Config(2, (4, 256), 9, 3)
    record = measure(replace(find("bptt_checkpoint_time"), small=tiny))
    claim = record["claims"]["recompute.time"]
    assert not claim["holds"]
    assert claim["number"] == claim["control_number"] == 1
    rows = record["series"]["rows"]
    assert len(rows) == 2 * 2 * 3
    for row in rows:
        assert set(row["ratios"]) == {"checkpointed", "again"}
        assert all(r["low"] == r["high"] == 1 for r in row["ratios"].values())
    assert "full_again_call_256_low" in record["numbers"]
    tables = find("bptt_checkpoint_time").rendered(record)
    assert tables["ratios"].count("\n") == 2 + 12


def test_recomputing_takes_less_memory():
    """What the time is paid for: of 64 steps 8 at a time are kept whole."""
    runs = experiment.contestants(experiment.Config(8, (16,), 64), "lstm", "loop", 16)
    assert timing.peak_of(runs["checkpointed"]) < 0.5 * timing.peak_of(runs["full"])
