"""What is timed is what it is called, and settings are put back."""

import time

import pytest
import torch
from torch import nn

from seqref.experiments import lstm_variants_speed as experiment
from seqref.experiments.framework.experiment import find
from seqref.experiments.framework.record import measure


@pytest.mark.parametrize("onednn", [True, False])
def test_settings_hold_inside_and_are_put_back(onednn):
    before = torch.get_num_threads(), torch.backends.mkldnn.enabled
    with experiment.one_setting(1, onednn):
        assert torch.get_num_threads() == 1
        assert torch.backends.mkldnn.enabled is onednn
    assert (torch.get_num_threads(), torch.backends.mkldnn.enabled) == before


def test_layers_are_what_their_names_say():
    for name, make in experiment.LAYERS.items():
        layer = make(8)
        if name.startswith("nn."):
            assert type(layer) is nn.LSTM
            assert layer.proj_size == (2 if "projected" in name else 0)
        else:
            assert type(layer).__name__ == name
        assert layer.input_size == 8


def test_a_training_task_makes_gradients_and_a_forward_task_none(monkeypatch):
    made = []
    grad = torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *a: made.append(grad(*a)) or made[-1]
    )
    experiment.task("ProjectedLSTM", (2, 3, 8), 0, False)()
    assert made == []
    experiment.task("ProjectedLSTM", (2, 3, 8), 0, True)()
    assert [tuple(g.shape) for g in made[0]][:2] == [(2, 3, 8), (32, 8)]


def test_ratios_are_over_the_base():
    def busy(seconds):
        def run():
            end = time.process_time() + seconds
            while time.process_time() < end:
                pass

        return run

    runs = {experiment.BASE: busy(0.01), "other": busy(0.03)}
    found = experiment.ratios(runs, 5)
    assert sorted(found["other"])[2] == pytest.approx(3, rel=0.2)
    assert sorted(found[experiment.BASE])[2] == pytest.approx(1, rel=0.2)


def test_claim_holds_and_control_fails():
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no oneDNN")
    record = measure(find("lstm_variants_speed"))
    claim = record["claims"]["C142"]
    assert claim["holds"]
    assert not claim["control_holds"]
    rows = record["series"]["rows"]
    assert len(rows) == 2 * (len(experiment.LAYERS) + 2)
    assert all(row["low"] <= row["median"] <= row["high"] for row in rows)
    assert record["numbers"]["parameters_plain"] == 4 * (2 * 256**2 + 2 * 256)
    narrow = 4 * (256 * 64 + 256**2 + 2 * 256) + 256 * 64
    assert record["numbers"]["parameters_projected"] == narrow
