"""What is timed is the same work, and the ratios are of the right pairs."""

from dataclasses import replace

import pytest
import torch

from experiments.bptt import bptt_checkpoint_time as experiment
from experiments.lab.experiment import find
from experiments.lab.record import measure


@pytest.mark.parametrize("form", experiment.FORMS)
@pytest.mark.parametrize("kind", experiment.KINDS)
def test_contestants_compute_the_same_gradients(kind, form):
    config = experiment.Config(2, (4,), 9, 3, (0,))
    runs = experiment.contestants(config, kind, form, 4)
    assert list(runs) == ["full", "full_again", "checkpointed"]
    expected = runs["full"]()
    for run in runs.values():
        for mine, true in zip(run(), expected, strict=True):
            torch.testing.assert_close(mine, true, atol=1e-4, rtol=1e-4)


def test_ratio_is_time_over_that_of_one_graph(clock):
    # The first call of each is the one that warms up.
    runs = {"full": clock.taking(9, 1, 2), "slow": clock.taking(9, 3, 8)}
    assert experiment.ratios(runs, 2) == {"slow": [3.0, 4.0]}


def test_where_all_takes_equally_long_the_claim_falls():
    tiny = experiment.Config(2, (4, 256), 9, 3, (0,))
    record = measure(replace(find("bptt_checkpoint_time"), small=tiny))
    claim = record["claims"]["recompute.time"]
    assert not claim["holds"]
    assert claim["number"] == claim["control_number"] == 1
    rows = record["series"]["rows"]
    assert len(rows) == 2 * 2 * 3 * 2
    assert all(row["low"] == row["median"] == row["high"] == 1 for row in rows)
    assert experiment.tables(record)["ratios"].count("\n") == 2 + 12
