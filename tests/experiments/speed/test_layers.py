"""The passes that are timed, and the batches they go over."""

import pytest
import torch
from torch import nn

from experiments.lab import timing
from experiments.speed._layers import (
    lengths_of,
    normal_input,
    over,
    over_packed,
    packed_output,
)


@pytest.mark.parametrize("share", [1.0, 0.97, 0.75, 0.5, 0.25, 0.1])
def test_lengths_have_the_share_that_they_are_drawn_for(share):
    for batch, time in ((64, 100), (32, 64), (32, 128)):
        lengths = lengths_of(share, batch, time)
        assert len(lengths) == batch
        assert lengths.max() == lengths[0] == time
        assert lengths.min() >= 1
        assert lengths.double().mean() / time == pytest.approx(share, abs=0.004)
        assert (len(lengths.unique()) == 1) == (share == 1)


def test_packed_and_padded_runs_give_the_same_real_outputs():
    torch.manual_seed(0)
    layer = nn.LSTM(3, 5, batch_first=True, dtype=torch.float64)
    x, lengths = torch.randn(4, 9, 3, dtype=torch.float64), torch.tensor([9, 4, 1, 6])
    packed, padded = packed_output(layer, x, lengths), layer(x)[0]
    assert packed.shape == padded.shape
    real = torch.arange(9) < lengths[:, None]
    torch.testing.assert_close(packed[real], padded[real], atol=1e-12, rtol=0)
    assert packed[~real].eq(0).all()


def lstm_and_input():
    torch.manual_seed(0)
    return nn.LSTM(8, 8, batch_first=True), normal_input((4, 30, 8), 0)


def calls(contestant):
    with torch.profiler.profile() as profile:
        contestant.run()
    return {event.key: event.count for event in profile.key_averages()}


# torch 2.11 warns so whenever its profiler is used with its defaults; 2.13 does not.
@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events:UserWarning")
@pytest.mark.parametrize("name", timing.SETTINGS)
def test_only_the_padded_batch_gets_the_kernel_of_onednn(name):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no oneDNN")
    layer, x = lstm_and_input()
    with timing.setting(1, timing.SETTINGS[name]):
        padded = calls(over(layer, x))
        packed = calls(over_packed(layer, x, lengths_of(0.5, 4, 30)))
    assert ("aten::mkldnn_rnn_layer" in padded) == timing.SETTINGS[name]
    assert "aten::mkldnn_rnn_layer" not in packed
    assert packed["aten::addmm"] >= 30, "one product or more for a step"


def test_a_training_step_makes_all_gradients(monkeypatch):
    made = []
    grad = torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd, "grad", lambda *a: made.append(grad(*a)) or made[-1]
    )
    layer, x = lstm_and_input()
    over(layer, x, train=False).run()
    assert made == []
    over(layer, x).run()
    over_packed(layer, x, torch.tensor([3, 1, 30, 2])).run()
    for gradients in made:
        shapes = [tuple(gradient.shape) for gradient in gradients]
        assert shapes == [(4, 30, 8), (32, 8), (32, 8), (32,), (32,)]
