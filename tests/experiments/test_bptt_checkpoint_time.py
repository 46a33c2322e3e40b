"""What is timed is the same work, and the ratios are of the right pairs."""

import time

import pytest
import torch

from seqref.experiments import bptt_checkpoint_time as experiment
from seqref.experiments.framework.experiment import find
from seqref.experiments.framework.record import measure


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


def test_ratio_is_time_over_that_of_one_graph():
    def busy(seconds):
        def run():
            end = time.process_time() + seconds
            while time.process_time() < end:
                pass

        return run

    found = experiment.ratios({"full": busy(0.01), "slow": busy(0.03)}, 5)
    assert list(found) == ["slow"]
    assert sorted(found["slow"])[2] == pytest.approx(3, rel=0.2)


def test_claim_holds_and_control_fails():
    record = measure(find("bptt_checkpoint_time"))
    claim = record["claims"]["recompute.time"]
    assert claim["holds"]
    assert not claim["control_holds"]
    rows = record["series"]["rows"]
    assert len(rows) == 2 * 1 * 3 * 2
    assert all(row["low"] <= row["median"] <= row["high"] for row in rows)
