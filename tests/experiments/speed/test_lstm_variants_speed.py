"""What is timed is what it is called."""

from dataclasses import replace

from torch import nn

from experiments.lab.experiment import find
from experiments.lab.record import measure
from experiments.speed import lstm_variants_speed as experiment


def test_layers_are_what_their_names_say():
    for name, make in experiment.LAYERS.items():
        layer = make(8)
        if name.startswith("nn."):
            assert type(layer) is nn.LSTM
            assert layer.proj_size == (2 if "projected" in name else 0)
        else:
            assert type(layer).__name__ == name
        assert layer.input_size == 8


def test_where_all_takes_equally_long_the_claim_falls():
    declared = find("lstm_variants_speed")
    tiny = replace(declared.small, sizes=((2, 3, 8), (1, 2, 4)), rounds=2)
    record = measure(replace(declared, small=tiny))
    claim = record["claims"]["C142"]
    assert not claim["holds"]
    assert claim["number"] == claim["control_number"] == 1
    rows = record["series"]["rows"]
    ratios = [ratio for row in rows for ratio in row["ratios"].values()]
    assert len(ratios) == 2 * 2 * (len(experiment.LAYERS) + 2)
    assert all(r["low"] == r["median"] == r["high"] == 1 for r in ratios)
    assert record["numbers"]["parameters_plain"] == 4 * (2 * 256**2 + 2 * 256)
    narrow = 4 * (256 * 64 + 256**2 + 2 * 256) + 256 * 64
    assert record["numbers"]["parameters_projected"] == narrow
    lines = declared.rendered(record)["training"].splitlines()
    assert lines[0] == "| layer | B 2, T 3, D 8 | B 1, T 2, D 4 | peak memory |"
    assert len(lines) == 2 + len(experiment.LAYERS) + 2
    assert lines[2].startswith("| `nn.LSTM` again |")
    assert lines[2].endswith("| 1.00 to 1.00 |")
    assert lines[-1].startswith("| `nn.LSTM`, projected, no oneDNN |")
