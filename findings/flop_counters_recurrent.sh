#!/usr/bin/env bash
# Counting the multiply-adds of torch.nn's recurrent layers on a CPU (torch 2.13.0).
#
# One layer of LSTM, GRU and RNN, 2 rows of 7 steps, 3 inputs, width 5. By hand: steps times
# rows times blocks * width * (inputs + width). Without a warning:
# - torch's own FlopCounterMode counts 0 for the LSTM, whose oneDNN kernel it does not know,
#   and the right number for GRU and RNN;
# - fvcore 0.1.5 counts 0 for all three;
# - torchprofile 0.1.0 is right for the LSTM and counts 0 for GRU and RNN;
# - ptflops 0.7.5 (backend "aten") counts 0 for the LSTM.
# With oneDNN switched off FlopCounterMode counts the LSTM right.
#
# Output seen:
#   LSTM by hand 2240, FlopCounterMode 0, without oneDNN 2240, fvcore 0, torchprofile 2240, ptflops 0
#   GRU by hand 1680, FlopCounterMode 1680, without oneDNN 1680, fvcore 0, torchprofile 0, ptflops 1890
#   RNN by hand 560, FlopCounterMode 560, without oneDNN 560, fvcore 0, torchprofile 0, ptflops 630
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0
"$work/venv/bin/pip" install -q numpy==2.4.6 fvcore==0.1.5.post20221221 \
  torchprofile==0.1.0 ptflops==0.7.5
"$work/venv/bin/python" -W ignore - <<'EOF'
import logging

import torch
from fvcore.nn import FlopCountAnalysis
from ptflops import get_model_complexity_info
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchprofile import profile_macs

logging.disable(logging.WARNING)
ROWS, STEPS, INPUTS, WIDTH = 2, 7, 3, 5
BLOCKS = {"LSTM": 4, "GRU": 3, "RNN": 1}
x = torch.randn(ROWS, STEPS, INPUTS)


def by_torch(layer, onednn=True):
    with torch.backends.mkldnn.flags(enabled=onednn), torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            layer(x)
    return counter.get_total_flops() // 2  # two operations for a multiply-add


def by_ptflops(layer):
    found, _ = get_model_complexity_info(
        layer, (1,), as_strings=False, print_per_layer_stat=False, verbose=False,
        backend="aten", input_constructor=lambda shape: {"input": x},
    )
    return int(found)


for kind, blocks in BLOCKS.items():
    layer = getattr(nn, kind)(INPUTS, WIDTH, batch_first=True)
    right = ROWS * STEPS * blocks * WIDTH * (INPUTS + WIDTH)
    seen = {
        "by hand": right,
        "FlopCounterMode": by_torch(layer),
        "without oneDNN": by_torch(layer, onednn=False),
        "fvcore": int(FlopCountAnalysis(layer, x).total()),
        "torchprofile": profile_macs(layer, x),
        "ptflops": by_ptflops(layer),
    }
    print(kind, ", ".join(f"{name} {count}" for name, count in seen.items()))
    is_lstm = kind == "LSTM"
    assert seen["FlopCounterMode"] == (0 if is_lstm else right)
    assert seen["without oneDNN"] == right
    assert seen["fvcore"] == 0
    assert seen["torchprofile"] == (right if is_lstm else 0)
    assert (seen["ptflops"] == 0) == is_lstm
EOF
