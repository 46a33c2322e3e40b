#!/usr/bin/env bash
# torch 2.13.0 (CPU): `scaled_dot_product_attention` with `is_causal=True` and a scale below 0.
#
# The fused kernel for CPUs writes minus infinity to the scores of later keys and multiplies
# by the scale after that. A negative scale makes plus infinity of it, and 0 makes NaN. With
# 5 steps the output is NaN in each dtype; with 64 steps in half precision it is finite, far
# from the formula, and nothing is said. A boolean mask that says the same is right.
#
# Output seen:
#   torch.float32, scale -0.5, 5 steps: flag NaN, mask right
#   torch.float32, scale 0.0, 5 steps: flag NaN, mask right
#   torch.float32, scale -0.5, 64 steps: flag NaN, mask right
#   torch.float32, scale 0.0, 64 steps: flag NaN, mask right
#   torch.bfloat16, scale -0.5, 5 steps: flag NaN, mask right
#   torch.bfloat16, scale 0.0, 5 steps: flag NaN, mask right
#   torch.bfloat16, scale -0.5, 64 steps: flag finite and wrong, mask right
#   torch.bfloat16, scale 0.0, 64 steps: flag NaN, mask right
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0
"$work/venv/bin/python" -W ignore - <<'EOF'
import torch
from torch.nn.functional import scaled_dot_product_attention


def said(y, want):
    if y.isnan().any():
        return "NaN"
    return "right" if (y - want).abs().max() < 0.05 else "finite and wrong"


seen = []
for dtype in (torch.float32, torch.bfloat16):
    for steps in (5, 64):
        torch.manual_seed(0)
        q, k, v = torch.randn(3, 1, 2, steps, 4).to(dtype)
        mask = torch.ones(steps, steps, dtype=torch.bool).tril()
        for scale in (-0.5, 0.0):
            scores = (scale * q.double() @ k.double().mT).masked_fill(~mask, -torch.inf)
            want = scores.softmax(-1) @ v.double()
            flag, masked = (
                said(scaled_dot_product_attention(q, k, v, scale=scale, **options), want)
                for options in ({"is_causal": True}, {"attn_mask": mask})
            )
            print(f"{dtype}, scale {scale}, {steps} steps: flag {flag}, mask {masked}")
            seen.append((flag, masked))
wrong = seen.count(("finite and wrong", "right"))
assert wrong == 1 and seen.count(("NaN", "right")) == 7, seen
EOF
