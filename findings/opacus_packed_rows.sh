#!/usr/bin/env bash
# opacus 1.6.0 with torch 2.13.0: per-sample gradients of rows packed out of order.
#
# Rows of different lengths go through DPLSTM or DPGRU as a packed sequence that was made
# with enforce_sorted=False. Outputs and states are those of torch.nn, in the caller's
# order. The per-sample gradients of the recurrent weights lie in the order of the sorted
# rows, those of a Linear behind it in the caller's: entry i of the one and entry i of the
# other belong to different rows. Sums over rows are right. With rows that come sorted by
# length all entries agree.
#
# Output seen:
#   DPLSTM, lengths [3, 7, 1, 5]: recurrent gradients in sorted order, Linear's in row order
#   DPLSTM, lengths [7, 5, 3, 1]: recurrent gradients in row order, Linear's in row order
#   DPGRU, lengths [3, 7, 1, 5]: recurrent gradients in sorted order, Linear's in row order
#   DPGRU, lengths [7, 5, 3, 1]: recurrent gradients in row order, Linear's in row order
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0
"$work/venv/bin/pip" install -q opacus==1.6.0
"$work/venv/bin/python" -W ignore - <<'EOF'
import torch
from opacus import GradSampleModule
from opacus.layers import DPGRU, DPLSTM
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence


class LastState(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.recurrent, self.head = kind(3, 5, batch_first=True), nn.Linear(5, 1)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        _, state = self.recurrent(packed)
        h_n = state[0] if isinstance(state, tuple) else state
        return self.head(h_n[-1])


def order_of(found, rows, by_length):
    for order, expected in (("row", rows), ("sorted", rows[by_length])):
        if torch.allclose(found, expected, atol=1e-6):
            return order
    return "no known"


seen = []
for kind in (DPLSTM, DPGRU):
    for lengths in (torch.tensor([3, 7, 1, 5]), torch.tensor([7, 5, 3, 1])):
        torch.manual_seed(0)
        model, x = LastState(kind), torch.randn(4, 7, 3)
        alone = LastState(kind)
        alone.load_state_dict(model.state_dict())
        wrapped = GradSampleModule(model, batch_first=True, loss_reduction="sum")
        wrapped(x, lengths).sum().backward()
        rows = {name: [] for name, _ in alone.named_parameters()}
        for i in range(4):
            alone.zero_grad()
            alone(x[i : i + 1], lengths[i : i + 1]).sum().backward()
            for name, parameter in alone.named_parameters():
                rows[name].append(parameter.grad)
        by_length = lengths.argsort(descending=True)
        orders = {"recurrent": set(), "head": set()}
        for name, parameter in model.named_parameters():
            if name == "head.bias":
                continue  # 1 for each row
            one = torch.stack(rows[name])
            torch.testing.assert_close(
                parameter.grad_sample.sum(0), one.sum(0), atol=1e-6, rtol=1e-5
            )
            orders[name.split(".")[0]].add(
                order_of(parameter.grad_sample, one, by_length)
            )
        (recurrent,), (head,) = orders["recurrent"], orders["head"]
        seen.append((recurrent, head))
        print(
            f"{kind.__name__}, lengths {lengths.tolist()}: recurrent gradients in "
            f"{recurrent} order, Linear's in {head} order"
        )
assert seen == [("sorted", "row"), ("row", "row")] * 2, seen
EOF
