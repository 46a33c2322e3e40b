#!/usr/bin/env bash
# minGRU-pytorch 0.2.1 on torch 2.13.0 (CPU): how the hybrid layer averages its branches.
#
# `minGRUAttnHybrid` runs a minGRU and attention side by side, normalises both and, by its
# comments, averages them, with a weight for each token and head where `learned_mix` is
# set. The line is `mix * (rnn + (1 - mix) * attention)`, with the bracket about the whole
# sum: attention has the weight mix * (1 - mix), which is 0.25 where the mix is 0.5 and is
# no more than that at any mix. The weights do not sum to one. A mix near zero,
# which should leave attention alone, leaves neither.
#
# Output seen:
#   learned_mix=False: 0.50 of the recurrence and 0.25 of attention
#   learned mix at 0.0001: 0.0001 of the recurrence and 0.0001 of attention
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
"$work/venv/bin/pip" install -q minGRU-pytorch==0.2.1
"$work/venv/bin/python" -W ignore - <<'EOF'
import torch
from minGRU_pytorch.hybrid import minGRUAttnHybrid
from torch import nn


class Mix(nn.Module):
    """Logits that are the same at every token and head."""

    def __init__(self, logit, heads):
        super().__init__()
        self.logit, self.heads = logit, heads

    def forward(self, x):
        return torch.full((*x.shape[:2], self.heads), self.logit)


def weights(mix=None):
    """The two numbers by which the layer's output is a sum of its normalised branches."""
    torch.manual_seed(0)
    layer = minGRUAttnHybrid(8, dim_head=4, heads=2, learned_mix=mix is not None)
    if mix is not None:
        layer.to_mix = Mix(torch.logit(torch.tensor(mix)).item(), 2)
    seen = []
    for norm in (layer.rnn_out_norm, layer.attn_out_norm):
        norm.register_forward_hook(lambda module, args, output: seen.append(output))
    layer.to_out = nn.Identity()
    with torch.no_grad():
        y = layer(torch.randn(2, 6, 8))
    branches = [branch.transpose(1, 2).reshape(-1) for branch in seen]
    return torch.linalg.lstsq(torch.stack(branches, 1), y.reshape(-1, 1)).solution[:, 0].tolist()


rnn, attention = weights()
print(f"learned_mix=False: {rnn:.2f} of the recurrence and {attention:.2f} of attention")
assert abs(rnn - 0.5) < 1e-4 and abs(attention - 0.25) < 1e-4
rnn, attention = weights(1e-4)
print(f"learned mix at 0.0001: {rnn:.4f} of the recurrence and {attention:.4f} of attention")
assert rnn < 2e-4 and attention < 2e-4
EOF
