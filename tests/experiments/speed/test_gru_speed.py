"""What is timed is what it is called, and settings are put back."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from experiments.lab.experiment import find
from experiments.lab.record import measure
from experiments.speed import gru_speed as experiment


@pytest.mark.parametrize("onednn", [True, False])
def test_settings_hold_inside_and_are_put_back(onednn):
    before = torch.get_num_threads(), torch.backends.mkldnn.enabled
    with experiment.one_setting(1, onednn):
        assert torch.get_num_threads() == 1
        assert torch.backends.mkldnn.enabled is onednn
    assert (torch.get_num_threads(), torch.backends.mkldnn.enabled) == before


def kernels(kind, onednn):
    with experiment.one_setting(1, onednn):
        run = experiment.task(kind, (2, 3, 4), 0, False)
        with torch.profiler.profile() as profile:
            run()
    return {event.key for event in profile.key_averages()}


# torch 2.11 warns so whenever its profiler is used with its defaults; 2.13 does not.
@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events:UserWarning")
def test_onednn_has_a_kernel_for_the_lstm_alone():
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no oneDNN")
    assert "aten::mkldnn_rnn_layer" in kernels(nn.LSTM, True)
    assert "aten::mkldnn_rnn_layer" not in kernels(nn.LSTM, False)
    assert "aten::mkldnn_rnn_layer" not in kernels(nn.GRU, True)


def test_a_training_task_makes_gradients_and_a_forward_task_none(monkeypatch):
    made = []
    grad = torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *a: made.append(grad(*a)) or made[-1]
    )
    experiment.task(nn.GRU, (2, 3, 4), 0, False)()
    assert made == []
    experiment.task(nn.GRU, (2, 3, 4), 0, True)()
    assert [tuple(g.shape) for g in made[0]][:2] == [(2, 3, 4), (12, 4)]


def test_ratio_is_gru_over_lstm(clock):
    found = experiment.ratios(clock.taking(9, 3, 8), clock.taking(9, 1, 1, 2, 2), 2)
    assert found == {"gru": [3.0, 4.0], "noise": [1.0, 1.0]}


def test_where_all_takes_equally_long_the_claim_falls():
    tiny = replace(experiment.SMALL, sizes=((2, 3, 4),), rounds=2)
    record = measure(replace(find("gru_speed"), small=tiny))
    claim = record["claims"]["C49"]
    assert not claim["holds"]
    assert claim["number"] == claim["control_number"] == 1
    rows = record["series"]["rows"]
    assert len(rows) == 2 * 2
    assert all(row["low"] == row["median"] == row["high"] == 1 for row in rows)
