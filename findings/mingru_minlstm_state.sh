#!/usr/bin/env bash
# minGRU-pytorch 0.2.1 on torch 2.13.0 (CPU): minLSTM's state between two parts of a sequence.
#
# `minLSTM` takes the state that it returned as `prev_hidden`. Handed over step by step the
# outputs are those of the whole sequence. Handed over to a part of two steps or more they
# are not: the parallel form passes `prev_hidden` through `log_g`, the activation of
# candidates in log space, which adds 0.5 to a number that is not negative. A state is
# a mean of activated values already, so that the part begins from prev_hidden + 0.5;
# the outputs are those of a loop that begins there. A state of zeros, which should be no
# state, begins at 0.5 as well. `minGRU` of the same package takes the logarithm of
# the state alone, and its parts agree with the whole.
#
# Output seen:
#   minGRU: steps equal the whole: True; two parts equal it: True; zeros equal no state: True
#   minLSTM: steps equal the whole: True; two parts equal it: False; zeros equal no state: False
#   minLSTM: the second part equals a loop that begins from the state + 0.5: True
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
"$work/venv/bin/pip" install -q minGRU-pytorch==0.2.1
"$work/venv/bin/python" -W ignore - <<'EOF'
import torch
from minGRU_pytorch.minGRU import minGRU
from minGRU_pytorch.minLSTM import minLSTM

torch.manual_seed(0)
x = torch.randn(2, 12, 8, dtype=torch.float64)


def loop(layer, x, state):
    outputs = []
    for x_t in x.split(1, dim=1):
        y_t, state = layer(x_t, state, return_next_prev_hidden=True)
        outputs.append(y_t)
    return torch.cat(outputs, 1)


for cls in (minGRU, minLSTM):
    layer = cls(8).double()
    whole = layer(x)
    first, state = layer(x[:, :5], return_next_prev_hidden=True)
    second = layer(x[:, 5:], state)
    steps = torch.allclose(loop(layer, x, None), whole)
    parts = torch.allclose(torch.cat([first, second], 1), whole)
    zeros = torch.allclose(layer(x, torch.zeros_like(state)), whole)
    print(
        f"{cls.__name__}: steps equal the whole: {steps}; two parts equal it: {parts}; "
        f"zeros equal no state: {zeros}"
    )
    assert steps and parts == zeros == (cls is minGRU)
shifted = torch.allclose(second, loop(layer, x[:, 5:], state + 0.5))
print(f"minLSTM: the second part equals a loop that begins from the state + 0.5: {shifted}")
assert shifted
EOF
