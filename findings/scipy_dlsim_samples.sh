#!/usr/bin/env bash
# scipy 1.17.1, numpy 2.4.6: dlsim with the times of its samples given.
#
# A system with a step of 0.1 gets four inputs and their times, 0, 0.1, 0.2 and 0.3.
# `signal.dlsim` returns three outputs, at 0, 0.15 and 0.3, of inputs interpolated there.
# Without the times, the same inputs give four outputs. The number of samples is the
# floor of t[-1] / dt plus one, and 0.3 / 0.1 is 2.9999999999999996 in float64; the output
# times are then spread evenly over the interval, whatever the step. Of the lengths up to
# 100 at a step of 0.1, 33 lose a sample so.
#
# Output seen:
#   4 inputs at a step of 0.1: 3 outputs at times 0.00, 0.15, 0.30
#   last output: 1.0000 with the times, 0.2500 without
#   lengths of 2 to 100 that lose a sample: 33
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q scipy==1.17.1 numpy==2.4.6
"$work/venv/bin/python" - <<'EOF'
from scipy import signal

SYSTEM = ([[0.5]], [[1.0]], [[1.0]], [[0.0]], 0.1)
u = [1.0, 2.0, -1.0, 3.0]
times, y, _ = signal.dlsim(SYSTEM, u, t=[0.0, 0.1, 0.2, 0.3])
print(f"4 inputs at a step of 0.1: {len(y)} outputs at times {', '.join(f'{t:.2f}' for t in times)}")
assert len(y) == 3 and abs(times[1] - 0.15) < 1e-12
_, right, _ = signal.dlsim(SYSTEM, u)
print(f"last output: {y[-1, 0]:.4f} with the times, {right[-1, 0]:.4f} without")
assert len(right) == 4 and abs(y[-1, 0] - right[-1, 0]) > 0.1
lost = 0
for length in range(2, 101):
    t = [float(f"{k / 10:.1f}") for k in range(length)]
    lost += len(signal.dlsim(SYSTEM, [1.0] * length, t=t)[1]) < length
print(f"lengths of 2 to 100 that lose a sample: {lost}")
assert lost > 0
EOF
