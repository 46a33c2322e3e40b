"""What is timed is what it is called, and settings are put back."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from experiments.lab.experiment import find
from experiments.lab.record import measure
from experiments.speed import lstm_variants_speed as experiment


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


def test_ratios_are_over_the_base(clock):
    # Before each call that counts is one that warms the caches.
    runs = {experiment.BASE: clock.taking(*(9, 1) * 3, *(9, 2) * 3)}
    runs["other"] = clock.taking(9, 3, 9, 8)
    found = experiment.ratios(runs, 2)
    assert found == {experiment.BASE: [1.0, 1.0], "other": [3.0, 4.0]}


def test_where_all_takes_equally_long_the_claim_falls():
    tiny = replace(experiment.SMALL, sizes=((2, 3, 8),), rounds=2)
    record = measure(replace(find("lstm_variants_speed"), small=tiny))
    claim = record["claims"]["C142"]
    assert not claim["holds"]
    assert claim["number"] == claim["control_number"] == 1
    rows = record["series"]["rows"]
    assert len(rows) == 2 * (len(experiment.LAYERS) + 2)
    assert all(row["low"] == row["median"] == row["high"] == 1 for row in rows)
    assert record["numbers"]["parameters_plain"] == 4 * (2 * 256**2 + 2 * 256)
    narrow = 4 * (256 * 64 + 256**2 + 2 * 256) + 256 * 64
    assert record["numbers"]["parameters_projected"] == narrow
