#!/usr/bin/env bash
# scipy 1.17.1, numpy 2.4.6: dlsim of a system with a complex state matrix.
#
# `dlti` and `StateSpace` take complex matrices, as a diagonalised system has them.
# `signal.dlsim` gives an output whose real part is wrong from the third sample on. Its
# arrays of states and outputs are real, so that each new state loses its imaginary
# part before the next step uses it: the impulse response of A = 0.9 exp(i) becomes a
# power of Re A, where the real part of a power of A is right. Numpy's ComplexWarning says
# that an imaginary part was dropped, not that the real part is wrong. `lsim` of a
# continuous complex system gives the exact complex output.
#
# Output seen:
#   dlsim: 1.0000, 0.4863, 0.2365, 0.1150 (float64)
#   real part of the powers of A: 1.0000, 0.4863, -0.3371, -0.7217
#   real part of A to the same powers: 1.0000, 0.4863, 0.2365, 0.1150
#   lsim: complex128, largest error below 1e-12: True
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q scipy==1.17.1 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'EOF'
import numpy as np
from scipy import signal

A = 0.9 * np.exp(1j)


def shown(values):
    return ", ".join(f"{value:.4f}" for value in values)


u = np.array([1.0, 0, 0, 0, 0])
_, y, _ = signal.dlsim(([[A]], [[1]], [[1]], [[0]], 1.0), u)
y, powers = y[1:, 0], A ** np.arange(4)
print(f"dlsim: {shown(y)} ({y.dtype})")
print(f"real part of the powers of A: {shown(powers.real)}")
print(f"real part of A to the same powers: {shown(A.real ** np.arange(4))}")
assert np.allclose(y, A.real ** np.arange(4)) and not np.allclose(y, powers.real)

rate, t = -0.1 + 1j, np.linspace(0, 5, 51)
_, y, _ = signal.lsim(([[rate]], [[1]], [[1]], [[0]]), np.ones(51), t)
right = np.abs(y - (np.exp(rate * t) - 1) / rate).max() < 1e-12
print(f"lsim: {y.dtype}, largest error below 1e-12: {right}")
assert np.iscomplexobj(y) and right
EOF
