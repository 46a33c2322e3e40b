"""What is timed is what it is called."""

from dataclasses import replace

import pytest
import torch

from experiments.lab import timing
from experiments.lab.experiment import find
from experiments.lab.record import measure
from experiments.speed.gru_speed import contestants


def kernels(name, *, onednn):
    with timing.setting(1, onednn):
        contestant = contestants((2, 3, 4), 0, train=False)[name]
        with torch.profiler.profile() as profile:
            contestant.run()
    return {event.key for event in profile.key_averages()}


# torch 2.11 warns so whenever its profiler is used with its defaults; 2.13 does not.
@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events:UserWarning")
def test_onednn_has_a_kernel_for_the_lstm_alone():
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no oneDNN")
    assert "aten::mkldnn_rnn_layer" in kernels("lstm", onednn=True)
    assert "aten::mkldnn_rnn_layer" not in kernels("lstm", onednn=False)
    assert "aten::mkldnn_rnn_layer" not in kernels("gru", onednn=True)


def test_both_layers_read_one_input_and_are_as_wide():
    runs = contestants((2, 3, 4), 0, train=True)
    (x, *gru), (same, *lstm) = runs["gru"].outside, runs["lstm"].outside
    assert x is same
    assert x.shape == (2, 3, 4)
    assert [tuple(t.shape) for t in gru] == [(12, 4), (12, 4), (12,), (12,)]
    assert [tuple(t.shape) for t in lstm] == [(16, 4), (16, 4), (16,), (16,)]


def test_where_all_takes_equally_long_the_claim_falls():
    tiny = replace(find("gru_speed").small, sizes=((2, 3, 4),), rounds=2)
    record = measure(replace(find("gru_speed"), small=tiny))
    claim = record["claims"]["C49"]
    assert not claim["holds"]
    assert claim["number"] == claim["control_number"] == 1
    rows = record["series"]["rows"]
    assert len(rows) == 2 * 2
    for row in rows:
        assert row["peak"] > 0
        for ratio in row["ratios"].values():
            assert ratio["low"] == ratio["median"] == ratio["high"] == 1
    stems = {f"{s}_{w}" for s in timing.SETTINGS for w in ("forward", "training")}
    names = {f"{stem}_{end}" for stem in stems | {"noise"} for end in ("low", "high")}
    assert set(record["numbers"]) == names
