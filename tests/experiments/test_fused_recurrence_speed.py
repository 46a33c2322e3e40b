"""What is timed is the same work, and the ratios are of the right pairs."""

import time

import pytest
import torch

from seqref.experiments import fused_recurrence_speed as experiment
from seqref.experiments.framework.experiment import find
from seqref.experiments.framework.record import measure


def test_contestants_compute_the_same_gradients(monkeypatch):
    found = []
    grad = torch.autograd.grad

    def keep(*arguments):
        found.append(grad(*arguments))
        return found[-1]

    monkeypatch.setattr(torch.autograd, "grad", keep)
    for kind in experiment.KINDS:
        found.clear()
        runs = experiment.contestants(kind, (2, 5, 4), 0, training=True)
        for run in runs.values():
            run()
        assert len(found) == 4
        for other in found[1:]:
            for expected, got in zip(found[0], other, strict=True):
                torch.testing.assert_close(got, expected)


def test_ratio_is_time_over_that_of_torch():
    def busy(seconds):
        def run():
            end = time.process_time() + seconds
            while time.process_time() < end:
                pass

        return run

    found = experiment.ratios({"torch.nn": busy(0.01), "slow": busy(0.03)}, 5)
    assert list(found) == ["slow"]
    assert sorted(found["slow"])[2] == pytest.approx(3, rel=0.2)


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with experiment.threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_claim_holds_and_control_fails():
    record = measure(find("fused_recurrence_speed"))
    claim = record["claims"]["C81"]
    assert claim["holds"]
    assert not claim["control_holds"]
    rows = record["series"]["rows"]
    assert len(rows) == 2 * 1 * 2 * 3
    assert all(row["low"] <= row["median"] <= row["high"] for row in rows)
