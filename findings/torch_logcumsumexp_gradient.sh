#!/usr/bin/env bash
# torch 2.13.0 on a CPU: the gradient of logcumsumexp after a leading -inf.
#
# A value of -inf is the logarithm of zero, as of an initial state of zero in log space. The
# outputs of `logcumsumexp` are right: -inf at the first place, finite after it, and the
# last equals `logsumexp` of the whole. The gradient of this last output alone is NaN at
# the leading -inf, where that of `logsumexp` is 0. The backward pass works in log space: it
# adds x to the logarithm of the sum, from the right, of grad * exp(-y). At the leading
# place x and y are both -inf, so that infinities of both signs meet. After a finite value y is
# finite, and the gradient at -inf is 0.
#
# Output seen:
#   [-inf, 0.0, 1.0]: logcumsumexp [nan, 0.269, 0.731], logsumexp [0.000, 0.269, 0.731]
#   [0.0, -inf, 1.0]: logcumsumexp [0.269, 0.000, 0.731], logsumexp [0.269, 0.000, 0.731]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
"$work/venv/bin/python" -W ignore - <<'EOF'
import torch


def shown(values):
    return "[" + ", ".join(f"{value:.3f}" for value in values.tolist()) + "]"


for values in ([-torch.inf, 0.0, 1.0], [0.0, -torch.inf, 1.0]):
    x = torch.tensor(values, requires_grad=True)
    running, whole = x.logcumsumexp(0)[-1], x.logsumexp(0)
    assert torch.equal(running, whole)
    (by_running,) = torch.autograd.grad(running, x)
    (by_whole,) = torch.autograd.grad(whole, x)
    print(f"{values}: logcumsumexp {shown(by_running)}, logsumexp {shown(by_whole)}")
    assert by_running.isnan().tolist() == [values[0] == -torch.inf, False, False]
    assert torch.allclose(by_whole, x.detach().softmax(0))
EOF
