#!/usr/bin/env bash
# torch 2.13.0 (any machine): settings of the precision of float32 products touch one another.
#
# 1. torch.backends.mkldnn.fp32_precision = "bf16" also sets the precision for everything,
#    torch.backends.fp32_precision, and from then on torch.get_float32_matmul_precision()
#    raises, although it was set by nobody.
# 2. torch.set_float32_matmul_precision("highest"), which is the default, is not without
#    effect: torch.backends.cuda.matmul.fp32_precision goes from "none" to "ieee", so it no
#    longer follows the precision for everything.
# 3. After torch.backends.cudnn.rnn.fp32_precision = "ieee" the older name
#    torch.backends.cudnn.allow_tf32 cannot be read.
#
# Output seen:
#   1. everything: none -> bf16, get_float32_matmul_precision: highest -> RuntimeError
#   2. cuda.matmul: none -> ieee, get_float32_matmul_precision: highest -> highest
#   3. cudnn.allow_tf32: True -> RuntimeError
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
cat > "$work/run.py" <<'EOF'
import sys

import torch

flags, case = torch.backends, sys.argv[1]


def read(what):
    try:
        return str(what())
    except RuntimeError:
        return "RuntimeError"


QUESTIONS = {
    "everything": lambda: flags.fp32_precision,
    "cuda.matmul": lambda: flags.cuda.matmul.fp32_precision,
    "get_float32_matmul_precision": torch.get_float32_matmul_precision,
    "cudnn.allow_tf32": lambda: flags.cudnn.allow_tf32,
}
ASKED = {
    "1": ("everything", "get_float32_matmul_precision"),
    "2": ("cuda.matmul", "get_float32_matmul_precision"),
    "3": ("cudnn.allow_tf32",),
}[case]
EXPECTED = {
    "1": "everything: none -> bf16, get_float32_matmul_precision: highest -> RuntimeError",
    "2": "cuda.matmul: none -> ieee, get_float32_matmul_precision: highest -> highest",
    "3": "cudnn.allow_tf32: True -> RuntimeError",
}[case]
before = {name: read(QUESTIONS[name]) for name in ASKED}
if case == "1":
    flags.mkldnn.fp32_precision = "bf16"
elif case == "2":
    torch.set_float32_matmul_precision("highest")
else:
    flags.cudnn.rnn.fp32_precision = "ieee"
seen = ", ".join(f"{name}: {before[name]} -> {read(QUESTIONS[name])}" for name in ASKED)
print(f"{case}. {seen}")
assert seen == EXPECTED, EXPECTED
EOF
# Each in a process of its own, since the settings are the process's.
for case in 1 2 3; do "$work/venv/bin/python" -W ignore "$work/run.py" $case; done
