#!/usr/bin/env bash
# torch 2.13.0, float32, CPU with oneDNN (x86): an LSTM that overflows gives zeros, not NaN.
#
# Finite inputs of the largest size make a gate's sum inf - inf, which is NaN. torch's own
# loop returns NaN from that step on, and so do nn.RNN and nn.GRU. oneDNN's LSTM returns
# exactly 0 for output and cell state at that step and after it. An inf or a NaN in the input
# itself gives NaN with both. So it is under no_grad with oneDNN's kernels for AVX-512, and
# for AVX2 by ONEDNN_MAX_CPU_ISA=AVX2 on the same processor; those for AVX and SSE4.1 return
# NaN. torch 2.14.1 does the same.
#
# Output seen, on a processor with AVX-512:
#   LSTM, oneDNN: finite input [-0.0, -0.0], infinite input [nan, nan]
#   LSTM, torch's loop: finite input [nan, nan], infinite input [nan, nan]
#   GRU: finite input [nan, nan], infinite input [nan, nan]
#   RNN: finite input [nan, nan], infinite input [nan, nan]
#   LSTM, oneDNN at most AVX2: finite input [-0.0, -0.0]
#   LSTM, oneDNN at most AVX: finite input [nan, nan]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
cat > "$work/run.py" <<'EOF'
import math
import sys

import torch
from torch import nn

if not torch.backends.mkldnn.is_available():
    sys.exit("this torch has no oneDNN: nothing to compare")
if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
    sys.exit("this processor has no AVX2: nothing to compare")


def last_steps(kind, fill, onednn=True):
    torch.manual_seed(0)
    layer = kind(2, 1, batch_first=True)
    x = torch.zeros(1, 4, 2)
    x[0, 2:] = fill
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=onednn):
        layer.weight_ih_l0.copy_(torch.tensor([2.0, -2.0]).expand_as(layer.weight_ih_l0))
        y, state = layer(x)
    assert y[0, :2].isfinite().all()
    if kind is nn.LSTM and not y.isnan().any():
        assert state[1].item() == 0
    return y[0, 2:, 0].tolist()


if sys.argv[1:]:
    finite = last_steps(nn.LSTM, torch.finfo(torch.float32).min)
    print(f"LSTM, oneDNN at most {sys.argv[1]}: finite input {finite}")
    if sys.argv[1] == "AVX2":
        assert finite == [0.0, 0.0], finite
    else:
        assert all(map(math.isnan, finite)), finite
    sys.exit()
for name, kind, onednn in (
    ("LSTM, oneDNN", nn.LSTM, True),
    ("LSTM, torch's loop", nn.LSTM, False),
    ("GRU", nn.GRU, True),
    ("RNN", nn.RNN, True),
):
    finite = last_steps(kind, torch.finfo(torch.float32).min, onednn)
    infinite = last_steps(kind, math.inf, onednn)
    print(f"{name}: finite input {finite}, infinite input {infinite}")
    assert all(map(math.isnan, infinite)), infinite
    if name == "LSTM, oneDNN":
        assert finite == [0.0, 0.0], finite
    else:
        assert all(map(math.isnan, finite)), finite
EOF
"$work/venv/bin/python" -W ignore "$work/run.py"
for most in AVX2 AVX; do
  ONEDNN_MAX_CPU_ISA=$most "$work/venv/bin/python" -W ignore "$work/run.py" $most
done
